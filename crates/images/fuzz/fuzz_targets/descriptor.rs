//! Descriptors, each in an archive of its own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virtualstack_images::make::{Member, pack};
use virtualstack_images::{Format, Inspection, Limits};

fuzz_target!(|text: &[u8]| {
    let bytes = pack(&[Member::new("a.ovf", text)]);
    let mut inspection = Inspection::new(Format::Ova, bytes.len() as u64, Limits::default());
    inspection.feed(&bytes);
    let _ = inspection.finish();
});
