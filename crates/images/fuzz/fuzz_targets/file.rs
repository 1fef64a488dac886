//! Whole files; the first byte says of which format and in which pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virtualstack_images::{Format, Inspection, Limits};

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else { return };
    let format = if first & 1 == 0 { Format::Ova } else { Format::Iso };
    let mut inspection = Inspection::new(format, bytes.len() as u64, Limits::default());
    for piece in bytes.chunks(1 + usize::from(first >> 1) * 37) {
        if !inspection.feed(piece) {
            break;
        }
    }
    let _ = inspection.finish();
});
