//! The sums of a member that a manifest may ask for.

use std::fmt::Write;

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// What manifests are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// As a manifest spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    /// How many characters a sum has in hexadecimal.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

/// Sums under way.
pub(crate) struct Sums(Vec<(Algorithm, Hasher)>);

impl Sums {
    pub(crate) fn new(algorithms: &[Algorithm]) -> Self {
        let start = |algorithm: &Algorithm| {
            let hasher = match algorithm {
                Algorithm::Sha1 => Hasher::Sha1(Sha1::new()),
                Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
                Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
            };
            (*algorithm, hasher)
        };
        Self(algorithms.iter().map(start).collect())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for (_, hasher) in &mut self.0 {
            match hasher {
                Hasher::Sha1(hasher) => hasher.update(bytes),
                Hasher::Sha256(hasher) => hasher.update(bytes),
                Hasher::Sha512(hasher) => hasher.update(bytes),
            }
        }
    }

    /// Each sum in lower-case hexadecimal.
    pub(crate) fn finish(self) -> Vec<(Algorithm, String)> {
        let end = |(algorithm, hasher)| {
            let hex = match hasher {
                Hasher::Sha1(hasher) => hex(&hasher.finalize()),
                Hasher::Sha256(hasher) => hex(&hasher.finalize()),
                Hasher::Sha512(hasher) => hex(&hasher.finalize()),
            };
            (algorithm, hex)
        };
        self.0.into_iter().map(end).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
