//! Digests that stand in tables or go out to clients: keyed, so that nobody who reads them can try what they are of.
//!
//! Each purpose has a key of its own, made of the master key by HKDF. While the master key is being changed, what was made
//! with the one before is known too.

use std::fmt;
use std::sync::Arc;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use virtualstack_model::{Error, Result};

/// What a digest is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whose bucket of a rate limit it is.
    RateLimit,
    /// What a request said that may be repeated.
    Request,
    /// Which question a page token is for.
    PageToken,
}

/// In the order of [`Purpose`]. They are part of the keys.
const LABELS: [&str; 3] = ["virtualstack rate limit", "virtualstack request", "virtualstack page token"];

/// A digest.
pub type Digest = [u8; 32];

/// One for each purpose, as long as a block of SHA-256.
type Keys = [[u8; 64]; LABELS.len()];

/// The keys of all purposes.
#[derive(Clone)]
pub struct DigestKeys(Arc<Pair>);

struct Pair {
    current: Keys,
    previous: Option<Keys>,
}

impl DigestKeys {
    pub(crate) fn new(current: &[u8; 32], previous: Option<&[u8; 32]>) -> Result<Self> {
        let previous = previous.map(derive).transpose()?;
        Ok(Self(Arc::new(Pair { current: derive(current)?, previous })))
    }

    /// The digest of these parts, each told from its neighbours.
    #[must_use]
    pub fn digest(&self, purpose: Purpose, parts: &[&[u8]]) -> Digest {
        mac(&self.0.current, purpose, parts)
    }

    /// Whether it is the digest of these parts, or the first 16 bytes or more of it, by either key.
    #[must_use]
    pub fn is(&self, digest: &[u8], purpose: Purpose, parts: &[&[u8]]) -> bool {
        let by = |keys: &Keys| {
            let whole = mac(keys, purpose, parts);
            digest.len() >= 16 && whole.get(..digest.len()).is_some_and(|part| part.ct_eq(digest).into())
        };
        by(&self.0.current) || self.0.previous.as_ref().is_some_and(by)
    }
}

impl fmt::Debug for DigestKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKeys(…)")
    }
}

fn derive(master: &[u8; 32]) -> Result<Keys> {
    let hkdf = Hkdf::<Sha256>::new(None, master);
    let mut keys: Keys = [[0; 64]; LABELS.len()];
    for (key, label) in keys.iter_mut().zip(LABELS) {
        hkdf.expand(label.as_bytes(), key).map_err(|error| Error::internal(error.to_string()))?;
    }
    Ok(keys)
}

fn mac(keys: &Keys, purpose: Purpose, parts: &[&[u8]]) -> Digest {
    let mut mac = Hmac::<Sha256>::new(&keys[purpose as usize].into());
    for part in parts {
        mac.update(&part.len().to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_its_purpose_parts_and_key() {
        let keys = |byte, previous: Option<u8>| {
            DigestKeys::new(&[byte; 32], previous.map(|byte| [byte; 32]).as_ref()).expect("keys")
        };
        let parts: &[&[u8]] = &[b"a", b"bc"];
        let digest = keys(1, None).digest(Purpose::Request, parts);
        assert!(keys(1, None).is(&digest, Purpose::Request, parts));
        assert!(keys(1, None).is(&digest[..16], Purpose::Request, parts));
        for (wrong, purpose, parts) in [
            (&digest[..], Purpose::PageToken, parts),
            (&digest[..], Purpose::Request, &[b"ab".as_slice(), b"c"]),
            (&digest[..15], Purpose::Request, parts),
            (&[], Purpose::Request, parts),
        ] {
            assert!(!keys(1, None).is(wrong, purpose, parts), "{purpose:?}");
        }
        assert!(!keys(2, None).is(&digest, Purpose::Request, parts));
        // While the master key is changed, both are known, and the new one makes digests.
        assert!(keys(2, Some(1)).is(&digest, Purpose::Request, parts));
        assert_eq!(keys(2, Some(1)).digest(Purpose::Request, parts), keys(2, None).digest(Purpose::Request, parts));
        // None is what anybody could make by trying.
        use sha2::Digest as _;
        assert_ne!(digest[..], Sha256::digest(b"abc")[..]);
    }
}
