//! Mails of identity and access.

mod invitation_mail;
mod password_reset_mail;
pub(crate) mod token_mail;
