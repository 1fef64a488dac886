//! Checks a password so often: `argon2id-bench COUNT`, with the crate, the profile and the parameters of server/passwords.rs,
//! one after the other. Whoever starts it measures it.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).ok_or("usage: argon2id-bench COUNT")?.parse()?;
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(19 * 1024, 2, 1, None)?);
    let password = b"correct-horse-battery-staple";
    let hash: PasswordHash = hasher.hash_password(password)?;
    for _ in 0..count {
        hasher.verify_password(password, &hash)?;
    }
    Ok(())
}
