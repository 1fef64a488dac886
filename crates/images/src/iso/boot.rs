//! The catalog of El Torito: what can be booted, and where it is.

use super::volume::{FIRST, SECTOR};
use crate::check::Check;
use crate::fault::{Findings, Place};
use crate::fields::{le_u16, le_u32};

const ENTRY: usize = 32;
const BOOTABLE: u8 = 0x88;

/// Checks the first sector of the catalog, which holds all that is usual. True: something can be booted.
pub(super) fn catalog(at: u64, bytes: &[u8], size: u64, findings: &mut Findings) -> bool {
    let mut wrong = |field: usize, expected: &str, found: String| {
        findings.fault(Check::BootCatalog, "", Place::Offset(at + field as u64), expected, found);
        false
    };
    if bytes[0] != 1 || le_u16(bytes, 30) != 0xaa55 {
        return wrong(0, "a validation entry (01, and 55 AA at its end)", bytes[..ENTRY].escape_ascii().to_string());
    }
    let sum = (0..ENTRY).step_by(2).fold(0_u16, |sum, field| sum.wrapping_add(le_u16(bytes, field)));
    if sum != 0 {
        return wrong(28, "a checksum that makes the sum 0", sum.to_string());
    }
    if !matches!(bytes[ENTRY], BOOTABLE | 0) {
        return wrong(ENTRY, "an initial entry (88 or 00)", format!("{:#04x}", bytes[ENTRY]));
    }
    let mut is_bootable = image(at, ENTRY, bytes, size, findings);
    let mut field = 2 * ENTRY;
    while field < SECTOR && matches!(bytes[field], 0x90 | 0x91) {
        let count = usize::from(le_u16(bytes, field + 2));
        let entries = (field + ENTRY..SECTOR).step_by(ENTRY).take(count);
        for entry in entries.clone() {
            is_bootable |= image(at, entry, bytes, size, findings);
        }
        field += ENTRY * (1 + entries.count());
    }
    is_bootable
}

/// Checks where the image of an entry is. True: it can be booted.
fn image(at: u64, field: usize, bytes: &[u8], size: u64, findings: &mut Findings) -> bool {
    if bytes[field] != BOOTABLE {
        return false;
    }
    let sector = u64::from(le_u32(bytes, field + 8));
    // Virtual sectors of 512 bytes; 0 or 1 mean that whoever boots finds the size out.
    let length = u64::from(le_u16(bytes, field + 6)).max(1) * 512;
    if sector <= FIRST || sector * SECTOR as u64 + length > size {
        let place = Place::Offset(at + field as u64 + 8);
        let found = format!("{length} bytes at sector {sector}");
        findings.fault(Check::BootImage, "", place, format!("an image within the {size} bytes of the file"), found);
    }
    true
}
