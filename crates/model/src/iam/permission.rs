//! The catalogue of permissions. The contract declares it; the store keeps it, so that SQL and lists can read it.

/// A permission of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    pub code: &'static str,
    /// A few words for people.
    pub title: &'static str,
    /// What the holder can do.
    pub description: &'static str,
    /// The module it belongs to.
    pub module: &'static str,
    /// Keys of the system roles that hold it.
    pub roles: &'static [&'static str],
}
