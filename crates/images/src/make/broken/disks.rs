//! Broken disks.

use super::row::{Row, good};
use crate::check::Check;
use crate::make::descriptor::descriptor;
use crate::make::members::gzip;
use crate::make::ova::Ova;
use crate::make::put::put;
use crate::make::tar::pack;
use crate::make::vmdk::{Written, deflate};
use crate::make::{GRAIN, SparseDisk};

/// A good OVA around a disk that is none.
fn around(ova: &Ova, file: Vec<u8>) -> Vec<u8> {
    let files = vec![file];
    pack(&ova.members_of(descriptor(ova, &files), files))
}

/// A good OVA whose disk is changed.
fn changed(change: fn(&mut Written)) -> Vec<u8> {
    let ova = good();
    let mut disk = ova.disks.iter().map(SparseDisk::stream).next().unwrap_or_default();
    change(&mut disk);
    around(&ova, disk.bytes)
}

pub(super) fn all() -> Vec<Row> {
    let mut rows = kinds();
    rows.extend(grains());
    rows.extend(tables());
    rows.extend(packed());
    rows
}

fn kinds() -> Vec<Row> {
    let other_text = |disk: &mut Written| {
        let word = b"streamOptimized";
        let at = disk.bytes.windows(word.len()).position(|window| window == word);
        put(&mut disk.bytes, at.unwrap_or_default(), b"monolithicSpars");
    };
    vec![
        ("a QCOW2 disk inside", Check::DiskFormat, around(&good(), [&b"QFI\xfb"[..], &[0; 4096]].concat())),
        ("a raw disk inside", Check::DiskFormat, around(&good(), vec![0; 8192])),
        ("nothing inside", Check::DiskFormat, around(&good(), Vec::new())),
        ("a disk that is no stream", Check::DiskFormat, changed(|disk| put(&mut disk.bytes, 8, &[3, 0, 0, 0]))),
        ("a disk that says to be no stream", Check::VmdkDescriptor, changed(other_text)),
        ("a disk of a later version", Check::VmdkHeader, changed(|disk| put(&mut disk.bytes, 4, &[9]))),
        ("a disk that was sent as text", Check::VmdkHeader, changed(|disk| put(&mut disk.bytes, 73, b"\n \n\n"))),
        ("a disk with another capacity", Check::VmdkCapacity, changed(|disk| put(&mut disk.bytes, 12, &[0, 0, 1]))),
    ]
}

fn grains() -> Vec<Row> {
    let place = |disk: &mut Written| put(&mut disk.bytes, disk.grains[1], &0_u64.to_le_bytes());
    let beyond = |disk: &mut Written| put(&mut disk.bytes, disk.grains[1], &u32::MAX.to_le_bytes());
    let data = |disk: &mut Written| put(&mut disk.bytes, disk.grains[1] + 12, b"\0\0\0\0");
    let long = |disk: &mut Written| put(&mut disk.bytes, disk.grains[1] + 8, &u32::MAX.to_le_bytes());
    let grain = |data: Vec<u8>| {
        let mut disk = good().disks.iter().map(SparseDisk::stream).next().unwrap_or_default();
        let end = disk.grains[0];
        disk.bytes.truncate(end);
        disk.grain(0, &data);
        around(&good(), disk.bytes)
    };
    vec![
        ("a grain twice", Check::GrainPosition, changed(place)),
        ("a grain beyond the disk", Check::GrainPosition, changed(beyond)),
        ("a grain of other bytes", Check::GrainData, changed(data)),
        ("a grain that is endless", Check::GrainData, changed(long)),
        ("a grain that is short", Check::GrainData, grain(deflate(&[1; 1000]))),
        ("a bomb in a grain", Check::GrainBomb, grain(deflate(&vec![0; 100 * GRAIN]))),
        ("a grain of one byte too many", Check::GrainBomb, grain(deflate(&vec![0; GRAIN + 1]))),
    ]
}

fn tables() -> Vec<Row> {
    let table = |disk: &mut Written| disk.bytes[disk.tables[0]] ^= 1;
    let extra = |disk: &mut Written| disk.bytes[disk.tables[1] + 2044] = 128;
    let directory = |disk: &mut Written| disk.bytes[disk.directory] ^= 1;
    let missing = |disk: &mut Written| put(&mut disk.bytes, disk.directory + 4, &[0; 4]);
    let footer = |disk: &mut Written| disk.bytes[disk.footer + 12] ^= 1;
    let no_footer = |disk: &mut Written| {
        let at = disk.footer - 512;
        drop(disk.bytes.drain(at..at + 1024));
    };
    let marker = |disk: &mut Written| disk.bytes[disk.footer - 512 + 12] = 9;
    let order = |disk: &mut Written| disk.bytes[disk.directory - 512 + 12] = 3;
    vec![
        ("an entry of a grain table", Check::GrainTable, changed(table)),
        ("an entry without grain", Check::GrainTable, changed(extra)),
        ("an entry of the grain directory", Check::GrainDirectory, changed(directory)),
        ("a table that is not in the directory", Check::GrainDirectory, changed(missing)),
        ("a footer of another disk", Check::VmdkFooter, changed(footer)),
        ("no footer", Check::VmdkFooter, changed(no_footer)),
        ("an unknown marker", Check::VmdkMarker, changed(marker)),
        ("a footer before the directory", Check::VmdkMarker, changed(order)),
        ("a disk cut within a grain", Check::VmdkTruncated, changed(|disk| disk.bytes.truncate(disk.grains[1] + 20))),
        ("a disk cut before its end", Check::VmdkTruncated, changed(|disk| disk.bytes.truncate(disk.footer))),
        ("a disk of only a header", Check::VmdkTruncated, changed(|disk| disk.bytes.truncate(512))),
        ("something behind a disk", Check::VmdkTrailingData, changed(|disk| disk.bytes.extend_from_slice(b"more"))),
        (
            "many zeros behind a disk",
            Check::VmdkTrailingData,
            changed(|disk| disk.bytes.extend_from_slice(&[0; GRAIN + 1])),
        ),
    ]
}

fn packed() -> Vec<Row> {
    let ova = Ova { gzip: true, ..good() };
    let disk = good().files().remove(0);
    // What the disk itself may have is far less.
    let bomb = gzip(&[disk.clone(), vec![0; 100 << 20]].concat());
    let packed = gzip(&disk);
    let mut spoiled = packed.clone();
    let middle = spoiled.len() / 2;
    put(&mut spoiled, middle, &[0xff; 64]);
    let cut = packed[..packed.len() - 20].to_vec();
    vec![
        ("a bomb in a packed disk", Check::GzipBomb, around(&ova, bomb)),
        ("a packed disk that is not packed", Check::GzipData, around(&ova, disk)),
        ("a packed disk of other bytes", Check::GzipData, around(&ova, spoiled)),
        ("a packed disk that is cut", Check::GzipData, around(&ova, cut)),
        ("something behind a packed disk", Check::GzipData, around(&ova, [packed, b"more".to_vec()].concat())),
    ]
}
