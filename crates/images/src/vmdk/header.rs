//! The header of a sparse extent, and its copy in the footer.

use super::flaw::Flaw;
use crate::check::Check;
use crate::fields::{le_u16, le_u32, le_u64};
use crate::look::looks_like;

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;
/// The directory stands in the footer's.
const AT_END: u64 = u64::MAX;
/// Entries of a grain table. The format has a field for it, and programs one number.
pub(super) const ENTRIES: u64 = 512;
const TABLE_SECTORS: u64 = ENTRIES * 4 / SECTOR as u64;

const NEW_LINES: u32 = 1;
const REDUNDANT: u32 = 2;
pub(super) const ZEROED: u32 = 4;
const STREAM: u32 = 0x3_0000;

/// What tools round a capacity up by, in bytes.
const ROUNDING: u64 = 1 << 20;
/// Of the text in the disk, in sectors; 20 are usual.
const MAX_TEXT: u64 = 128;
/// What stands before the first grain besides tables, in sectors; 128 are usual.
const MAX_FRONT: u64 = 4096;

/// The header. All but `flags` counts sectors.
#[derive(Clone, Debug, Default)]
pub(super) struct Header {
    pub(super) flags: u32,
    pub(super) capacity: u64,
    pub(super) grain: u64,
    pub(super) text_at: u64,
    pub(super) text_size: u64,
    /// [`AT_END`] unless it stands in front.
    pub(super) directory_at: u64,
    /// Where grains begin.
    pub(super) overhead: u64,
}

impl Header {
    /// Reads the first sector of a disk that shall have a capacity.
    pub(super) fn read(bytes: &[u8], capacity_bytes: u64) -> Result<Self, Flaw> {
        let flags = le_u32(bytes, 8);
        if !bytes.starts_with(b"KDMV") || flags & STREAM != STREAM {
            return Err(Flaw::new(Check::DiskFormat, 0, "a streamOptimized VMDK", looks_like(bytes)));
        }
        let header = Self::fields(bytes);
        header.check_kind(bytes)?;
        header.check_capacity(capacity_bytes)?;
        header.check_places()?;
        Ok(header)
    }

    fn fields(bytes: &[u8]) -> Self {
        Self {
            flags: le_u32(bytes, 8),
            capacity: le_u64(bytes, 12),
            grain: le_u64(bytes, 20),
            text_at: le_u64(bytes, 28),
            text_size: le_u64(bytes, 36),
            directory_at: le_u64(bytes, 56),
            overhead: le_u64(bytes, 64),
        }
    }

    fn check_kind(&self, bytes: &[u8]) -> Result<(), Flaw> {
        let wrong = |at, expected: &str, found: String| Err(Flaw::new(Check::VmdkHeader, at, expected, found));
        let version = le_u32(bytes, 4);
        if !(1..=3).contains(&version) {
            return wrong(4, "version 1 to 3", version.to_string());
        }
        if self.flags & !(NEW_LINES | REDUNDANT | ZEROED | STREAM) != 0 {
            return wrong(8, "flags 0x30001", format!("{:#x}", self.flags));
        }
        if !(8..=128).contains(&self.grain) || !self.grain.is_power_of_two() {
            return wrong(20, "grains of 8, 16, 32, 64 or 128 sectors", self.grain.to_string());
        }
        if u64::from(le_u32(bytes, 44)) != ENTRIES {
            return wrong(44, "512 entries a grain table", le_u32(bytes, 44).to_string());
        }
        let lines = &bytes[73..77];
        if self.flags & NEW_LINES != 0 && lines != b"\n \r\n" {
            return wrong(
                73,
                "the bytes \\n, space, \\r, \\n, which a transfer as text would spoil",
                lines.escape_ascii().to_string(),
            );
        }
        if le_u16(bytes, 77) != 1 {
            return wrong(77, "compression 1 (deflate)", le_u16(bytes, 77).to_string());
        }
        Ok(())
    }

    fn check_capacity(&self, expected: u64) -> Result<(), Flaw> {
        let found = self.capacity.saturating_mul(SECTOR as u64);
        if found == 0 || found > expected || expected - found >= ROUNDING {
            return Err(Flaw::new(Check::VmdkCapacity, 12, format!("{expected} bytes"), format!("{found} bytes")));
        }
        Ok(())
    }

    fn check_places(&self) -> Result<(), Flaw> {
        let wrong =
            |at, expected: String, found: u64| Err(Flaw::new(Check::VmdkHeader, at, expected, found.to_string()));
        if self.text_at == 0 || self.text_at > MAX_FRONT {
            return wrong(28, format!("the text of the disk at sector 1 to {MAX_FRONT}"), self.text_at);
        }
        if self.text_size == 0 || self.text_size > MAX_TEXT {
            return wrong(36, format!("a text of 1 to {MAX_TEXT} sectors in the disk"), self.text_size);
        }
        let mut least = self.text_at + self.text_size;
        // A second copy of directory and tables may stand before the first.
        let mut most = MAX_FRONT;
        if self.is_in_front() {
            let size = self.directory_sectors() + self.tables() * TABLE_SECTORS;
            most += 2 * size;
            if self.directory_at < least || self.directory_at > most {
                return wrong(56, format!("the grain directory at sector {least} to {most}"), self.directory_at);
            }
            least = self.directory_at + size;
        }
        if self.overhead < least || self.overhead > most.max(least) {
            return wrong(64, format!("the first grain at sector {least} to {most}"), self.overhead);
        }
        Ok(())
    }

    /// Whether directory and tables stand before the grains.
    pub(super) fn is_in_front(&self) -> bool {
        self.directory_at != AT_END
    }

    pub(super) fn grain_bytes(&self) -> usize {
        // Checked above: 128 sectors at most.
        usize::try_from(self.grain).unwrap_or_default() * SECTOR
    }

    /// How many grain tables the disk has.
    pub(super) fn tables(&self) -> u64 {
        self.capacity.div_ceil(self.grain * ENTRIES)
    }

    pub(super) fn directory_sectors(&self) -> u64 {
        (self.tables() * 4).div_ceil(SECTOR as u64)
    }

    pub(super) fn table_sectors() -> u64 {
        TABLE_SECTORS
    }

    /// Compares the footer with it.
    pub(super) fn same(&self, at: u64, bytes: &[u8], directory: u64) -> Result<(), Flaw> {
        if !bytes.starts_with(b"KDMV") {
            return Err(Flaw::new(Check::VmdkFooter, at, "a copy of the header", "something else"));
        }
        let footer = Self::fields(bytes);
        let pairs = [
            (12, "a capacity", self.capacity, footer.capacity),
            (20, "a grain", self.grain, footer.grain),
            (56, "the grain directory at sector", directory, footer.directory_at),
        ];
        match pairs.into_iter().find(|(_, _, expected, found)| expected != found) {
            None => Ok(()),
            Some((field, what, expected, found)) => {
                Err(Flaw::new(Check::VmdkFooter, at + field, format!("{what} {expected}"), found.to_string()))
            }
        }
    }
}
