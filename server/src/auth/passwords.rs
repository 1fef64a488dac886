//! Passwords: Argon2id, on threads of its own.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use virtualstack_model::iam::password;
use virtualstack_model::{Error, Result};

use crate::auth::hashing::{Errand, Hashers, Memory};
use crate::shares::Holder;

/// What a hash costs whoever makes one. No setting: a provider could only choose a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashCost {
    memory_kib: u32,
    passes: u32,
}

impl Default for HashCost {
    /// OWASP's first choice for Argon2id: 19 MiB, two passes.
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2 }
    }
}

impl HashCost {
    /// The least that the algorithm allows, for tests, which sign in all the time. It protects nobody's password.
    #[must_use]
    pub const fn least() -> Self {
        Self { memory_kib: Params::MIN_M_COST, passes: Params::MIN_T_COST }
    }

    fn params(self) -> Result<Params> {
        Params::new(self.memory_kib, self.passes, 1, None).map_err(wrong)
    }
}

/// Hashes and checks passwords.
#[derive(Clone)]
pub(crate) struct Passwords {
    cost: HashCost,
    hashers: Arc<Hashers>,
    /// What an unknown account is checked against, so that it takes as long as a known one.
    nobody: Arc<str>,
}

/// What a check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// It is not the password.
    Wrong,
    Right,
    /// It is, and the hash costs less than a new one does, or is of the password as it was typed: make a new one.
    RightButWeak,
}

impl Passwords {
    pub(crate) async fn new(threads: usize, cost: HashCost) -> Result<Self> {
        let mut passwords = Self { cost, hashers: Arc::new(Hashers::new(threads)?), nobody: "".into() };
        passwords.nobody = passwords.hash("the password of nobody".to_owned(), Holder::All).await?.into();
        Ok(passwords)
    }

    /// The hash of a password, as a PHC string. Holders take turns.
    pub(crate) async fn hash(&self, password: String, holder: Holder) -> Result<String> {
        let (params, password) = (self.cost.params()?, password::normalize(&password));
        let hash = move |memory: &mut Memory| {
            let salt = Salt::generate();
            let hash = PasswordHash {
                algorithm: Algorithm::Argon2id.ident(),
                version: Some(Version::V0x13.into()),
                params: ParamsString::try_from(&params).map_err(wrong)?,
                hash: Some(output(&password, &salt, &params, Version::V0x13, memory)?),
                salt: Some(salt),
            };
            Ok(hash.to_string())
        };
        self.hashers.run(Errand::Set, holder, hash).await
    }

    /// Checks a password: normalised, and where that makes a difference as it was typed too, for so it was hashed once. Without
    /// a hash it does the same work, and the answer is no.
    pub(crate) async fn check(&self, password: String, hash: Option<String>, holder: Holder) -> Result<Checked> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.to_string());
        let (cost, normalized) = (self.cost, password::normalize(&password));
        let check = move |memory: &mut Memory| {
            let hash = PasswordHash::new(&hash).map_err(wrong)?;
            let params = Params::try_from(&hash).map_err(wrong)?;
            let version = hash.version.map(Version::try_from).transpose().map_err(wrong)?.unwrap_or_default();
            let (Some(salt), Some(kept)) = (&hash.salt, &hash.hash) else {
                return Err(Error::internal("a hash without salt or output"));
            };
            // Outputs compare in constant time.
            let mut is =
                |password: &str| Ok::<_, Error>(output(password, salt, &params, version, memory)? == *kept && known);
            let right = is(&normalized)?;
            let as_typed = password != normalized && is(&password)?;
            let weak = params.m_cost() < cost.memory_kib || params.t_cost() < cost.passes;
            Ok(match (right || as_typed, weak || !right) {
                (false, _) => Checked::Wrong,
                (true, false) => Checked::Right,
                (true, true) => Checked::RightButWeak,
            })
        };
        self.hashers.run(Errand::Check, holder, check).await
    }
}

/// Argon2id of a password, in memory that is kept for the next one.
fn output(password: &str, salt: &Salt, params: &Params, version: Version, memory: &mut Memory) -> Result<Output> {
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::default());
    }
    let mut output = [0; Output::MAX_LENGTH];
    let output = output
        .get_mut(..params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN))
        .ok_or_else(|| Error::internal("the output of a hash is too long"))?;
    Argon2::new(Algorithm::Argon2id, version, params.clone())
        .hash_password_into_with_memory(password.as_bytes(), salt, output, &mut memory[..blocks])
        .map_err(wrong)?;
    Output::new(output).map_err(wrong)
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::internal(error.to_string())
}

/// Refuses a password that is too easy to guess; `about` is what its owner is known by.
pub(crate) fn check_policy(password: &str, field: &str, about: &[&str]) -> Result<()> {
    password::check(password, about).map_err(|what| Error::invalid(field, what))
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher as _;

    use super::*;

    #[tokio::test]
    async fn a_password_is_right_wrong_or_nobodys() {
        let passwords = Passwords::new(1, HashCost::default()).await.expect("hasher");
        let hash = passwords.hash("correct horse".to_owned(), Holder::All).await.expect("hash");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let check = async |password: &str, hash: Option<&str>| {
            passwords.check(password.to_owned(), hash.map(str::to_owned), Holder::All).await.expect("checked")
        };
        assert_eq!(check("correct horse", Some(&hash)).await, Checked::Right);
        assert_eq!(check("battery staple", Some(&hash)).await, Checked::Wrong);
        assert_eq!(check("the password of nobody", None).await, Checked::Wrong);
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8192, 1, 1, None).expect("params"));
        let weak: PasswordHash = weak.hash_password(b"correct horse").expect("hash");
        assert_eq!(check("correct horse", Some(&weak.to_string())).await, Checked::RightButWeak);
    }

    #[tokio::test]
    async fn a_password_is_the_same_on_every_keyboard() {
        let passwords = Passwords::new(1, HashCost::default()).await.expect("hasher");
        let (composed, apart) = ("caf\u{e9} horse", "cafe\u{301} horse");
        let check = async |password: &str, hash: &str| {
            passwords.check(password.to_owned(), Some(hash.to_owned()), Holder::All).await.expect("checked")
        };
        for password in [composed, apart] {
            let hash = passwords.hash(password.to_owned(), Holder::All).await.expect("hash");
            assert_eq!((check(composed, &hash).await, check(apart, &hash).await), (Checked::Right, Checked::Right));
            assert_eq!(check("cafe horse", &hash).await, Checked::Wrong);
        }
        // A hash of before is of what was typed: it still opens, and is made anew.
        let old = Argon2::new(Algorithm::Argon2id, Version::V0x13, HashCost::default().params().expect("params"));
        let old: PasswordHash = old.hash_password(apart.as_bytes()).expect("hash");
        assert_eq!(check(apart, &old.to_string()).await, Checked::RightButWeak);
        assert_eq!(check(composed, &old.to_string()).await, Checked::Wrong);
    }
}
