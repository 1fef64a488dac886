//! The primary volume descriptor and the root directory.

use crate::check::Check;
use crate::fault::{Findings, Place};
use crate::fields::{be_u16, be_u32, le_u16, le_u32};

/// Bytes of a sector.
pub(super) const SECTOR: usize = 2048;
/// The sector of the first volume descriptor.
pub(super) const FIRST: u64 = 16;
/// Where the record of the root directory stands in the descriptor, and how long it is.
const ROOT: usize = 156;
const ROOT_LENGTH: u8 = 34;
const DIRECTORY: u8 = 2;

/// What the descriptor says.
pub(super) struct Volume {
    pub(super) label: String,
    /// In bytes.
    pub(super) size: u64,
    /// The sector of the root directory.
    pub(super) root: u64,
}

impl Volume {
    /// Reads the descriptor at byte `at` of a file of `size` bytes; none when something is wrong with it.
    pub(super) fn read(at: u64, bytes: &[u8], size: u64, findings: &mut Findings) -> Option<Self> {
        if !is_both_endian(at, bytes, findings) {
            return None;
        }
        let mut wrong = |check, field: usize, expected: &str, found: String| {
            findings.fault(check, "", Place::Offset(at + field as u64), expected, found);
            None
        };
        if bytes[6] != 1 {
            return wrong(Check::IsoDescriptor, 6, "version 1", bytes[6].to_string());
        }
        let block = le_u16(bytes, 128);
        if usize::from(block) != SECTOR {
            return wrong(Check::IsoDescriptor, 128, "blocks of 2048 bytes", block.to_string());
        }
        let blocks = u64::from(le_u32(bytes, 80));
        let volume = blocks * SECTOR as u64;
        if volume == 0 || volume > size {
            return wrong(Check::IsoVolumeSize, 80, &format!("1 to {size} bytes"), format!("{volume} bytes"));
        }
        let root = u64::from(le_u32(bytes, ROOT + 2));
        if bytes[ROOT] < ROOT_LENGTH || bytes[ROOT + 25] & DIRECTORY == 0 {
            return wrong(Check::IsoRoot, ROOT, "the record of a directory", "another".to_owned());
        }
        let length = u64::from(le_u32(bytes, ROOT + 10));
        if length == 0 || (root * SECTOR as u64).saturating_add(length) > volume {
            let found = format!("{length} bytes at sector {root}");
            return wrong(Check::IsoRoot, ROOT + 2, "a root directory within the volume", found);
        }
        let label = String::from_utf8_lossy(&bytes[40..72]).trim_end_matches([' ', '\0']).to_owned();
        Some(Self { label: crate::fault::printable(&label), size: volume, root })
    }
}

/// Numbers stand there twice: with the lowest byte first, and last.
fn is_both_endian(at: u64, bytes: &[u8], findings: &mut Findings) -> bool {
    let long = [80, 132, ROOT + 2, ROOT + 10].map(|field| (field, le_u32(bytes, field), be_u32(bytes, field + 4)));
    let short =
        [120, 124, 128].map(|field| (field, u32::from(le_u16(bytes, field)), u32::from(be_u16(bytes, field + 2))));
    let mut is_equal = true;
    for (field, little, big) in long.into_iter().chain(short).filter(|(_, little, big)| little != big) {
        let place = Place::Offset(at + field as u64);
        findings.fault(Check::IsoBothEndian, "", place, format!("{little} twice"), format!("{little} and {big}"));
        is_equal = false;
    }
    is_equal
}

/// Checks the first record of the root directory, which is of the directory itself.
pub(super) fn root(at: u64, bytes: &[u8], findings: &mut Findings) {
    let sector = u64::from(le_u32(bytes, 2));
    let is_own = bytes[0] >= ROOT_LENGTH && bytes[25] & DIRECTORY != 0 && bytes[32] == 1 && bytes[33] == 0;
    if !is_own || sector * SECTOR as u64 != at {
        let expected = format!("a record of the directory itself, at sector {}", at / SECTOR as u64);
        let found = if is_own { format!("sector {sector}") } else { "something else".to_owned() };
        findings.fault(Check::IsoRoot, "", Place::Offset(at), expected, found);
    }
}
