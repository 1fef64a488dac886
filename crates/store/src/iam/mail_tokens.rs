//! Tokens that go out by mail: whoever has one may use it, once. Only what they hash to is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use virtualstack_model::{Error, Result};

/// A new token. It has no Debug: it goes into one mail, and nowhere else.
pub struct MailToken {
    text: String,
    digest: Vec<u8>,
}

impl MailToken {
    /// 256 random bits behind a prefix, by which people and scanners know what it is.
    pub fn mint(prefix: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        let text = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
        Ok(Self { digest: digest(&text), text })
    }

    /// One that was minted before.
    #[must_use]
    pub(crate) fn of(text: String) -> Self {
        Self { digest: digest(&text), text }
    }

    /// The token itself.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
}

/// What is kept of a token.
#[must_use]
pub fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_are_equal_and_each_is_found_by_its_digest() {
        let (one, other) = (MailToken::mint("vsi_").expect("a token"), MailToken::mint("vsi_").expect("a token"));
        assert_ne!(one.text(), other.text());
        assert_eq!(one.text().len(), "vsi_".len() + 43, "256 bits in base64url");
        assert_eq!(digest(one.text()), one.digest());
    }
}
