//! Paging: how many rows a list gives.

/// Rows of a page when the caller names no number.
pub const DEFAULT_SIZE: i32 = 50;

/// Rows of a page at most; a larger wish is taken as this.
pub const MAX_SIZE: i32 = 1000;

/// The number of rows for a wish. Negative wishes are refused before this.
#[must_use]
pub fn size(wish: i32) -> i64 {
    i64::from(if wish <= 0 { DEFAULT_SIZE } else { wish.min(MAX_SIZE) })
}
