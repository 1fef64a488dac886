//! What is wrong with a disk.

use crate::check::Check;

/// What is wrong, and where in the disk's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) check: Check,
    pub(crate) at: u64,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Flaw {
    pub(super) fn new(check: Check, at: u64, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check, at, expected: expected.into(), found: found.into() }
    }
}
