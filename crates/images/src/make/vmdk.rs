//! Disks of the streamOptimized kind.

use std::collections::BTreeMap;
use std::io::Write;

use fastrand::Rng;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::put::put;

/// Bytes of a grain.
pub const GRAIN: usize = 64 * 1024;
const SECTOR: usize = 512;
const GRAIN_SECTORS: u64 = (GRAIN / SECTOR) as u64;
const ENTRIES: u64 = 512;
/// Sectors of the text, and those before the first grain; programs leave more room, and tests need less.
const TEXT: usize = 20;
const FRONT: usize = 32;

/// A disk of which only some grains are written.
#[derive(Clone, Debug)]
pub struct SparseDisk {
    pub capacity_bytes: u64,
    /// By the number of the grain.
    pub grains: BTreeMap<u64, Vec<u8>>,
}

/// A disk, and where its parts are, in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// Their markers.
    pub(super) grains: Vec<usize>,
    pub(super) tables: Vec<usize>,
    pub(super) directory: usize,
    pub(super) footer: usize,
}

impl SparseDisk {
    /// A disk of zeros.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, grains: BTreeMap::new() }
    }

    /// With a grain that begins with some bytes.
    #[must_use]
    pub fn with(mut self, grain: u64, bytes: &[u8]) -> Self {
        let mut bytes = bytes.to_vec();
        bytes.resize(GRAIN, 0);
        self.grains.insert(grain, bytes);
        self
    }

    /// A disk whose file has some more than `bytes`, because nothing in it can be compressed.
    #[must_use]
    pub fn incompressible(bytes: u64, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let count = bytes.div_ceil(GRAIN as u64);
        let grain = |number| {
            let mut bytes = vec![0; GRAIN];
            random.fill(&mut bytes);
            (number, bytes)
        };
        Self { capacity_bytes: count.max(16) * GRAIN as u64, grains: (0..count).map(grain).collect() }
    }

    /// As VMware writes it: each table behind its grains, and the directory at the end.
    #[must_use]
    pub fn vmdk(&self) -> Vec<u8> {
        self.stream().bytes
    }

    /// As qemu-img writes it: directory and tables in front, no end, and zeros in its place.
    #[must_use]
    pub fn vmdk_of_qemu(&self) -> Vec<u8> {
        let tables = self.tables();
        let directory = 1 + TEXT;
        let first = directory + sectors(tables * 4);
        let overhead = (first + tables * sectors(ENTRIES_BYTES)).next_multiple_of(FRONT);
        let mut disk = Written { bytes: self.front(directory as u64, overhead), ..Written::default() };
        for table in 0..tables {
            let at = first + table * sectors(ENTRIES_BYTES);
            put(&mut disk.bytes, directory * SECTOR + table * 4, &le_32(at));
        }
        for (number, bytes) in &self.grains {
            let sector = disk.bytes.len() / SECTOR;
            let number = usize::try_from(*number).unwrap_or_default();
            put(&mut disk.bytes, first * SECTOR + number * 4, &le_32(sector));
            disk.grain(number as u64 * GRAIN_SECTORS, &deflate(bytes));
        }
        if let Some(last) = disk.grains.last() {
            disk.bytes.resize(disk.bytes.len().max(last + GRAIN), 0);
        }
        disk.bytes
    }

    pub(super) fn stream(&self) -> Written {
        let mut disk = Written { bytes: self.front(u64::MAX, FRONT), ..Written::default() };
        let mut directory = vec![0; sectors(self.tables() * 4) * SECTOR];
        let mut grains = self.grains.iter().peekable();
        while let Some(table) = grains.peek().map(|(number, _)| **number / ENTRIES) {
            let mut entries = vec![0; ENTRIES_BYTES];
            while let Some((number, bytes)) = grains.next_if(|(number, _)| **number / ENTRIES == table) {
                let entry = usize::try_from(number % ENTRIES).unwrap_or_default();
                put(&mut entries, entry * 4, &le_32(disk.bytes.len() / SECTOR));
                disk.grain(number * GRAIN_SECTORS, &deflate(bytes));
            }
            disk.marker(sectors(ENTRIES_BYTES), 1);
            put(&mut directory, usize::try_from(table).unwrap_or_default() * 4, &le_32(disk.bytes.len() / SECTOR));
            disk.tables.push(disk.bytes.len());
            disk.bytes.extend_from_slice(&entries);
        }
        disk.marker(directory.len() / SECTOR, 2);
        disk.directory = disk.bytes.len();
        disk.bytes.extend_from_slice(&directory);
        disk.marker(1, 3);
        disk.footer = disk.bytes.len();
        disk.bytes.extend_from_slice(&self.header((disk.directory / SECTOR) as u64, FRONT));
        disk.marker(0, 0);
        disk
    }

    fn tables(&self) -> usize {
        usize::try_from(self.capacity_bytes.div_ceil(GRAIN as u64 * ENTRIES)).unwrap_or_default()
    }

    /// Header and text, and zeros up to the first grain.
    fn front(&self, directory: u64, overhead: usize) -> Vec<u8> {
        let mut front = self.header(directory, overhead);
        let extent = format!("RW {} SPARSE \"disk.vmdk\"", self.capacity_bytes / SECTOR as u64);
        let text =
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n";
        front.extend_from_slice(format!("{text}\n{extent}\n\nddb.adapterType = \"lsilogic\"\n").as_bytes());
        front.resize(overhead * SECTOR, 0);
        front
    }

    fn header(&self, directory: u64, overhead: usize) -> Vec<u8> {
        let mut header = vec![0; SECTOR];
        put(&mut header, 0, b"KDMV");
        put(&mut header, 4, &3_u32.to_le_bytes());
        put(&mut header, 8, &0x3_0001_u32.to_le_bytes());
        put(&mut header, 12, &(self.capacity_bytes / SECTOR as u64).to_le_bytes());
        put(&mut header, 20, &GRAIN_SECTORS.to_le_bytes());
        put(&mut header, 28, &1_u64.to_le_bytes());
        put(&mut header, 36, &(TEXT as u64).to_le_bytes());
        put(&mut header, 44, &512_u32.to_le_bytes());
        put(&mut header, 56, &directory.to_le_bytes());
        put(&mut header, 64, &(overhead as u64).to_le_bytes());
        put(&mut header, 73, b"\n \r\n\x01\0");
        header
    }
}

const ENTRIES_BYTES: usize = 2048;

impl Written {
    /// Appends a grain of data that is compressed already.
    pub(super) fn grain(&mut self, place: u64, data: &[u8]) {
        self.grains.push(self.bytes.len());
        self.bytes.extend_from_slice(&place.to_le_bytes());
        self.bytes.extend_from_slice(&le_32(data.len()));
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTOR), 0);
    }

    fn marker(&mut self, sectors: usize, kind: u32) {
        let mut marker = [0; SECTOR];
        put(&mut marker, 0, &(sectors as u64).to_le_bytes());
        put(&mut marker, 12, &kind.to_le_bytes());
        self.bytes.extend_from_slice(&marker);
    }
}

/// Compresses as a grain is.
pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    // A Vec takes everything.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn sectors(bytes: usize) -> usize {
    bytes.div_ceil(SECTOR)
}

fn le_32(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}
