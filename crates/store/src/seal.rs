//! Secrets at rest: sealed with the master key, which never enters the database.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use virtualstack_model::{Error, Result};

use crate::digest::DigestKeys;

const NONCE: usize = 24;

/// The key that secrets are sealed with, and while it is being changed the one before, by which they are opened too.
#[derive(Clone)]
pub struct MasterKey {
    current: [u8; 32],
    previous: Option<[u8; 32]>,
}

impl MasterKey {
    /// A new key.
    pub fn generate() -> Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(Error::internal)?;
        Ok(Self { current: key, previous: None })
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let wrong = || {
            Error::precondition("WRONG_SETTING", "master_key", "master_key: must be 64 hexadecimal digits (32 bytes)")
        };
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut key = [0; 32];
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self { current: key, previous: None })
    }

    /// Opens what was sealed with `previous`, too.
    #[must_use]
    pub fn with_previous(self, previous: &Self) -> Self {
        Self { previous: Some(previous.current), ..self }
    }

    /// The keys of digests, made of it.
    pub fn digests(&self) -> Result<DigestKeys> {
        DigestKeys::new(&self.current, self.previous.as_ref())
    }

    /// The key as [`Self::parse`] reads it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.current.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Seals a secret; `purpose` must be said again to open it.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(Error::internal)?;
        let payload = Payload { msg: secret, aad: purpose.as_bytes() };
        let sealed = cipher(&self.current)
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::internal("a secret could not be sealed"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what was sealed with this key, or the one before, for this purpose.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let wrong =
            || Error::internal("a sealed secret could not be opened: is this the master key it was sealed with?");
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or_else(wrong)?;
        let open = |key| {
            let payload = Payload { msg: sealed, aad: purpose.as_bytes() };
            cipher(key).decrypt(&XNonce::from(*nonce), payload)
        };
        open(&self.current).or_else(|error| self.previous.as_ref().map_or(Err(error), open)).map_err(|_| wrong())
    }
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&(*key).into())
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_with_its_key_and_purpose_only() {
        let key = MasterKey::generate().expect("randomness");
        let sealed = key.seal("signing", b"secret").expect("sealed");
        assert_eq!(key.open("signing", &sealed).expect("opened"), b"secret");
        assert!(key.open("other", &sealed).is_err());
        assert!(MasterKey::generate().expect("randomness").open("signing", &sealed).is_err());
        let again = MasterKey::parse(&key.to_hex()).expect("a key");
        assert_eq!(again.open("signing", &sealed).expect("opened"), b"secret");
        // While the key is changed, what was sealed with the one before opens too, and what is sealed needs the new one.
        let next = MasterKey::generate().expect("randomness").with_previous(&key);
        assert_eq!(next.open("signing", &sealed).expect("opened"), b"secret");
        assert!(key.open("signing", &next.seal("signing", b"secret").expect("sealed")).is_err());
    }
}
