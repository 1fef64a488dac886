//! Whole files, good and broken.

mod broken;
mod good;
mod limits;
mod mutations;

use crate::{Faults, Format, Image, Inspection, Limits};

/// Inspects a file that comes in pieces.
fn inspect(format: Format, bytes: &[u8], mut piece: impl FnMut() -> usize) -> Result<Image, Faults> {
    let mut inspection = Inspection::new(format, bytes.len() as u64, Limits::default());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(piece().clamp(1, rest.len()));
        if !inspection.feed(chunk) {
            break;
        }
        rest = after;
    }
    inspection.finish()
}

/// Inspects a file that comes at once.
fn at_once(format: Format, bytes: &[u8]) -> Result<Image, Faults> {
    inspect(format, bytes, || bytes.len())
}
