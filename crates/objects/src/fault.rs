//! Why the storage did not do what it was asked for.

/// What to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It can work later: no answer, or the store says so.
    Retry,
    /// There is no such object.
    Missing,
    /// There is no room.
    Full,
    /// Until somebody changes the settings or the store, it cannot work.
    Permanent,
}

/// A fault of the storage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub class: Class,
    /// For tenants.
    pub message: &'static str,
    /// For the operator: what the store said, and which setting to look at.
    pub detail: String,
}

/// Bytes of a detail. A store may answer with a page.
const MAX_DETAIL: usize = 1024;

impl Fault {
    pub(crate) fn new(class: Class, detail: impl Into<String>) -> Self {
        let message = match class {
            Class::Retry => "the storage of files does not answer; it can work later",
            Class::Missing => "the file is not in the storage",
            Class::Full => "the storage of files is full",
            Class::Permanent => "the storage of files cannot be used",
        };
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
        Self { class, message, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_has_an_end() {
        assert_eq!(Fault::new(Class::Retry, "ä".repeat(5000)).detail.len(), MAX_DETAIL);
        assert_eq!(Fault::new(Class::Retry, "short").detail, "short");
    }
}
