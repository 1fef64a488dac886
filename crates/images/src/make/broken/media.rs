//! Broken ISOs.

use super::row::Row;
use crate::check::Check;
use crate::make::iso::{BOOT_IMAGE, CATALOG, Iso, PRIMARY, ROOT, both_32};
use crate::make::put::put;

const SECTOR: usize = 2048;

fn good() -> Vec<u8> {
    Iso { bootable: true, ..Iso::new("GOOD") }.bytes()
}

/// A good ISO with other bytes at a place of a sector.
fn with(sector: usize, at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    put(&mut bytes, sector * SECTOR + at, new);
    bytes
}

pub(super) fn all() -> Vec<Row> {
    let cut = |length: usize| good()[..length].to_vec();
    let udf = |sector, bytes: Vec<u8>| {
        let mut bytes = bytes;
        put(&mut bytes, sector * SECTOR, b"\0BEA01");
        bytes
    };
    // A volume as short as the file, so that only its descriptors are missing.
    let mut short = cut((PRIMARY + 1) * SECTOR);
    put(&mut short, PRIMARY * SECTOR + 80, &both_32(PRIMARY + 1));
    put(&mut short, PRIMARY * SECTOR + 158, &both_32(2));
    vec![
        ("no ISO", Check::NotAnIso, vec![0; 64 * 1024]),
        ("a disk instead of an ISO", Check::NotAnIso, [&b"QFI\xfb"[..], &[0; 4096]].concat()),
        ("an ISO without its mark", Check::NotAnIso, with(PRIMARY, 1, b"CD002")),
        ("an ISO cut before its descriptors", Check::NotAnIso, cut(20_000)),
        ("UDF only", Check::UdfOnly, udf(PRIMARY, good())),
        ("an ISO with an odd size", Check::IsoSize, [good(), b"more".to_vec()].concat()),
        ("an ISO that is cut", Check::IsoVolumeSize, cut(CATALOG * SECTOR)),
        ("an ISO cut within its descriptors", Check::IsoTruncated, short),
        ("a volume larger than the file", Check::IsoVolumeSize, with(PRIMARY, 80, &both_32(1_000_000))),
        ("an empty volume", Check::IsoVolumeSize, with(PRIMARY, 80, &both_32(0))),
        ("two sizes of one volume", Check::IsoBothEndian, with(PRIMARY, 84, &[1])),
        ("two places of one root", Check::IsoBothEndian, with(PRIMARY, 158, &[1])),
        ("blocks of another size", Check::IsoDescriptor, with(PRIMARY, 128, &[0, 2, 2, 0])),
        ("a volume of another version", Check::IsoDescriptor, with(PRIMARY, 6, &[2])),
        ("no primary descriptor", Check::IsoDescriptor, with(PRIMARY, 0, &[2])),
        ("no terminator", Check::IsoDescriptor, with(PRIMARY + 2, 0, &[0; 16])),
        ("a root that is no directory", Check::IsoRoot, with(PRIMARY, 156 + 25, &[0])),
        ("a root outside of the volume", Check::IsoRoot, with(PRIMARY, 158, &both_32(1_000_000))),
        ("a root of something else", Check::IsoRoot, with(ROOT, 0, &[0; 34])),
        ("a boot catalog outside of the file", Check::BootCatalog, with(PRIMARY + 1, 71, &[0xff; 4])),
        ("a boot catalog before its record", Check::BootCatalog, with(PRIMARY + 1, 71, &[1, 0, 0, 0])),
        ("a boot catalog of other bytes", Check::BootCatalog, with(CATALOG, 0, &[9; 32])),
        ("a checksum of the boot catalog", Check::BootCatalog, with(CATALOG, 28, &[0, 0])),
        ("a boot image outside of the file", Check::BootImage, with(CATALOG, 40, &both_32(BOOT_IMAGE * 9)[..4])),
        ("a boot image that is too long", Check::BootImage, with(CATALOG, 38, &[0xff, 0xff])),
    ]
}
