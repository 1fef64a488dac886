//! Credentials: who a caller is, the keys that tokens are signed with, passwords, and limits on guesses.

mod hashing;
pub(crate) mod journal;
pub(crate) mod key_format;
pub(crate) mod last_use;
pub(crate) mod limits;
pub(crate) mod passwords;
pub(crate) mod principals;
pub(crate) mod signing_keys;
pub(crate) mod tokens;
