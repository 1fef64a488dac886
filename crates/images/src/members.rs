//! What an archive has in it, by what each member is for.

use crate::digest::Algorithm;
use crate::tar::Entry;

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Descriptor,
    Manifest,
    Certificate,
    /// A file of References, or a chunk of one.
    Content,
    /// It was told that it should not be there.
    Stray,
}

/// A member that was read.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) entry: Entry,
    pub(crate) role: Role,
    pub(crate) sums: Vec<(Algorithm, String)>,
}

impl Member {
    /// Whether a manifest need not name it: the manifest cannot, and a certificate is of the manifest.
    pub(crate) fn is_exempt(&self) -> bool {
        matches!(self.role, Role::Manifest | Role::Certificate)
    }
}
