//! Passwords: Argon2id, off the async threads, and as many at once as memory allows.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use virtualstack_model::iam::password;
use virtualstack_model::{Error, Result};

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

    fn hasher(self) -> Result<Argon2<'static>> {
        let params =
            Params::new(self.memory_kib, self.passes, 1, None).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// Hashes and checks passwords.
#[derive(Clone)]
pub(crate) struct Passwords {
    cost: HashCost,
    slots: Arc<Semaphore>,
    /// What an unknown account is checked against, so that it takes as long as a known one.
    nobody: Arc<str>,
}

/// What a check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// It is not the password.
    Wrong,
    Right,
    /// It is, and the hash cost less than a new one does: make a new one.
    RightButWeak,
}

impl Passwords {
    pub(crate) async fn new(concurrent: usize, cost: HashCost) -> Result<Self> {
        let mut passwords = Self { cost, slots: Arc::new(Semaphore::new(concurrent.max(1))), nobody: "".into() };
        passwords.nobody = passwords.hash("the password of nobody".to_owned()).await?.into();
        Ok(passwords)
    }

    /// The hash of a password, as a PHC string.
    pub(crate) async fn hash(&self, password: String) -> Result<String> {
        let cost = self.cost;
        self.work(move || {
            let hash: PasswordHash = cost
                .hasher()?
                .hash_password(password.as_bytes())
                .map_err(|error| Error::internal(error.to_string()))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Checks a password. Without a hash it does the same work, and the answer is no.
    pub(crate) async fn check(&self, password: String, hash: Option<String>) -> Result<Checked> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.to_string());
        let cost = self.cost;
        self.work(move || {
            let hash = PasswordHash::new(&hash).map_err(|error| Error::internal(error.to_string()))?;
            let right = cost.hasher()?.verify_password(password.as_bytes(), &hash).is_ok() && known;
            let weak = Params::try_from(&hash)
                .is_ok_and(|params| params.m_cost() < cost.memory_kib || params.t_cost() < cost.passes);
            Ok(match (right, weak) {
                (false, _) => Checked::Wrong,
                (true, false) => Checked::Right,
                (true, true) => Checked::RightButWeak,
            })
        })
        .await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(Error::internal)?;
        // The slot goes along: the work goes on when its caller has gone, and so must its share of the bound.
        let work = move || {
            let _slot = slot;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

/// Refuses a password that is too easy to guess; `about` is what its owner is known by.
pub(crate) fn check_policy(password: &str, field: &str, about: &[&str]) -> Result<()> {
    password::check(password, about).map_err(|what| Error::invalid(field, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_keeps_its_slot_when_its_caller_has_gone() {
        let passwords = Passwords::new(1, HashCost::default()).await.expect("hasher");
        tokio::select! {
            biased;
            _ = passwords.hash("correct horse".to_owned()) => panic!("a hash takes longer than that"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(passwords.slots.available_permits(), 0);
        passwords.hash("battery staple".to_owned()).await.expect("the slot comes back");
    }

    #[tokio::test]
    async fn a_password_is_right_wrong_or_nobodys() {
        let passwords = Passwords::new(1, HashCost::default()).await.expect("hasher");
        let hash = passwords.hash("correct horse".to_owned()).await.expect("hash");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let check = async |password: &str, hash: Option<&str>| {
            passwords.check(password.to_owned(), hash.map(str::to_owned)).await.expect("checked")
        };
        assert_eq!(check("correct horse", Some(&hash)).await, Checked::Right);
        assert_eq!(check("battery staple", Some(&hash)).await, Checked::Wrong);
        assert_eq!(check("the password of nobody", None).await, Checked::Wrong);
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8192, 1, 1, None).expect("params"));
        let weak: PasswordHash = weak.hash_password(b"correct horse").expect("hash");
        assert_eq!(check("correct horse", Some(&weak.to_string())).await, Checked::RightButWeak);
    }
}
