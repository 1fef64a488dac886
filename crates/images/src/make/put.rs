//! Bytes at places of others.

/// Writes bytes over others. What would reach past the end is left out, and its test fails then.
pub(super) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + new.len()) {
        place.copy_from_slice(new);
    }
}
