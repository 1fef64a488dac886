//! ISO 9660 images.

use super::put::put;

const SECTOR: usize = 2048;
/// Where things stand, in sectors.
pub(super) const PRIMARY: usize = 16;
pub(super) const ROOT: usize = 24;
pub(super) const CATALOG: usize = 25;
pub(super) const BOOT_IMAGE: usize = 26;
const PAYLOAD: usize = 27;

/// An ISO to be made. Its fields may be set as one likes.
#[derive(Clone, Debug, Default)]
pub struct Iso {
    /// Up to 32 characters.
    pub label: String,
    pub bootable: bool,
    /// Says beside ISO 9660 that there is UDF too.
    pub udf: bool,
    /// Behind all that is needed.
    pub payload: Vec<u8>,
}

impl Iso {
    /// An image with nothing in it.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self { label: label.to_owned(), ..Self::default() }
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let sectors = PAYLOAD + self.payload.len().div_ceil(SECTOR);
        let mut iso = vec![0; sectors * SECTOR];
        primary(&mut iso, &self.label, sectors);
        let mut next = PRIMARY + 1;
        if self.bootable {
            let catalog = u32::try_from(CATALOG).unwrap_or_default().to_le_bytes();
            put(&mut iso, next * SECTOR, b"\0CD001\x01EL TORITO SPECIFICATION");
            put(&mut iso, next * SECTOR + 71, &catalog);
            boot(&mut iso);
            next += 1;
        }
        put(&mut iso, next * SECTOR, b"\xffCD001\x01");
        if self.udf {
            for (index, name) in [b"\0BEA01\x01", b"\0NSR02\x01", b"\0TEA01\x01"].into_iter().enumerate() {
                put(&mut iso, (next + 1 + index) * SECTOR, name);
            }
        }
        put(&mut iso, ROOT * SECTOR, &record());
        put(&mut iso, PAYLOAD * SECTOR, &self.payload);
        iso
    }
}

fn primary(iso: &mut [u8], label: &str, sectors: usize) {
    let at = PRIMARY * SECTOR;
    put(iso, at, b"\x01CD001\x01");
    put(iso, at + 40, format!("{label:<32.32}").as_bytes());
    put(iso, at + 80, &both_32(sectors));
    for (field, number) in [(120, 1_u16), (124, 1), (128, 2048)] {
        put(iso, at + field, &number.to_le_bytes());
        put(iso, at + field + 2, &number.to_be_bytes());
    }
    put(iso, at + 156, &record());
}

/// Of the root directory.
fn record() -> [u8; 34] {
    let mut record = [0; 34];
    record[0] = 34;
    put(&mut record, 2, &both_32(ROOT));
    put(&mut record, 10, &both_32(SECTOR));
    record[25] = 2;
    put(&mut record, 28, &[1, 0, 0, 1, 1]);
    record
}

fn boot(iso: &mut [u8]) {
    let at = CATALOG * SECTOR;
    // The words 0001, 55AA and the one that makes the sum 0.
    put(iso, at, &[1]);
    put(iso, at + 28, &0_u16.wrapping_sub(0xaa55).wrapping_sub(1).to_le_bytes());
    put(iso, at + 30, &[0x55, 0xaa]);
    put(iso, at + 32, &[0x88, 0, 0, 0, 0, 0, 4, 0]);
    put(iso, at + 40, &u32::try_from(BOOT_IMAGE).unwrap_or_default().to_le_bytes());
}

/// A number with its lowest byte first, and last.
pub(super) fn both_32(number: usize) -> [u8; 8] {
    let number = u32::try_from(number).unwrap_or_default();
    let mut both = [0; 8];
    put(&mut both, 0, &number.to_le_bytes());
    put(&mut both, 4, &number.to_be_bytes());
    both
}
