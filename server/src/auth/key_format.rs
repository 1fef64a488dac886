//! The form of API keys: `vsk_<16 of base62>_<43 of base62><6 of base62>`. The first part finds the key, the second is
//! its secret, and the last is the CRC32 of all before it, so that scanners, and we, know a mistyped key without asking.

use sha2::{Digest as _, Sha256};
use virtualstack_model::{Error, Result};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// What every key begins with.
pub(crate) const PREFIX: &str = "vsk_";
const ID: usize = 16;
const SECRET: usize = 43;
const CHECK: usize = 6;

/// A new key: all of it is shown once, and only what [`Presented`] keeps is kept.
pub(crate) struct Minted {
    pub(crate) text: String,
    /// What it is known by.
    pub(crate) presented: Presented,
}

/// What is known of a key that was presented.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Presented {
    /// By which it is found.
    pub(crate) public_id: String,
    pub(crate) digest: [u8; 32],
}

/// Makes a key, or with a public part a new secret for it.
pub(crate) fn mint(public_id: Option<&str>) -> Result<Minted> {
    let public_id = match public_id {
        Some(id) => id.to_owned(),
        None => random::<ID>()?,
    };
    let secret = random::<SECRET>()?;
    let body = format!("{PREFIX}{public_id}_{secret}");
    let text = format!("{body}{}", check(&body));
    Ok(Minted { text, presented: Presented { public_id, digest: Sha256::digest(secret).into() } })
}

/// Reads a key; none if it is not one.
pub(crate) fn parse(text: &str) -> Option<Presented> {
    let body = text.get(..text.len().checked_sub(CHECK)?)?;
    let (public_id, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
    let base62 = |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| ALPHABET.contains(&byte));
    let whole = base62(public_id, ID) && base62(secret, SECRET) && text[body.len()..] == check(body);
    whole.then(|| Presented { public_id: public_id.to_owned(), digest: Sha256::digest(secret).into() })
}

/// CRC32 (IEEE) in base62, of six digits.
fn check(body: &str) -> String {
    let mut rest = usize::try_from(crc32fast::hash(body.as_bytes())).unwrap_or_default();
    let mut digits = [ALPHABET[0]; CHECK];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % 62];
        rest /= 62;
    }
    digits.map(char::from).iter().collect()
}

/// `N` characters, each as likely as any other.
fn random<const N: usize>() -> Result<String> {
    let mut text = String::with_capacity(N);
    let mut bytes = [0; 64];
    while text.len() < N {
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        // 248 is the largest multiple of 62 in a byte.
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        text.extend(fair.take(N - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let key = mint(None).expect("a key");
        assert_eq!(key.text.len(), 4 + 16 + 1 + 43 + 6, "{}", key.text);
        assert_eq!(parse(&key.text), Some(key.presented.clone()));
        let rotated = mint(Some(&key.presented.public_id)).expect("a key");
        assert_eq!(rotated.presented.public_id, key.presented.public_id);
        assert_ne!(rotated.presented.digest, key.presented.digest);
    }

    #[test]
    fn no_two_keys_have_the_same_id() {
        let keys: Vec<_> = (0..10_000).map(|_| mint(None).expect("a key")).collect();
        let count = |part: fn(&Minted) -> &str| keys.iter().map(part).collect::<std::collections::HashSet<_>>().len();
        assert_eq!(count(|key| &key.presented.public_id), keys.len());
        assert_eq!(count(|key| &key.text), keys.len());
        let is_base62 = |id: &str| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(keys.iter().all(|key| is_base62(&key.presented.public_id)));
    }

    #[test]
    fn the_check_is_crc32_in_base62() {
        // CRC32 (IEEE) of "123456789" is 0xCBF43926.
        assert_eq!(check("123456789"), "3jZRME");
        assert_eq!(check(""), "000000");
    }

    #[test]
    fn what_is_not_a_key_is_not_read() {
        let good = mint(None).expect("a key").text;
        let last = if good.ends_with('0') { '1' } else { '0' };
        for bad in [
            "".to_owned(),
            "vsk_".to_owned(),
            good[..good.len() - 1].to_owned(),
            format!("{}{last}", &good[..good.len() - 1]),
            good.replace("vsk_", "vsx_"),
            format!("{good} "),
            "é".repeat(40),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }
}
