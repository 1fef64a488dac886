//! Identity and access: mails with a token, and what is forgotten.

mod cleanup;
pub(crate) mod invitation_mail;
pub(crate) mod password_reset_mail;
mod token_mail;

use virtualstack_model::iam::jobs::{
    InvitationMail, PasswordResetCleanup, PasswordResetMail, RateLimitCleanup, SessionCleanup,
};

use crate::config::Config;
use crate::engine::registry::Registry;

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    let every = config.housekeeping();
    registry
        .task::<InvitationMail>()
        .task::<PasswordResetMail>()
        .scheduled::<PasswordResetCleanup>(every)
        .scheduled::<SessionCleanup>(every)
        .scheduled::<RateLimitCleanup>(every);
}
