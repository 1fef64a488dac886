//! Broken archives.

use super::row::{Row, good, members};
use crate::check::Check;
use crate::make::SparseDisk;
use crate::make::members::gzip;
use crate::make::ova::Ova;
use crate::make::put::put;
use crate::make::tar::{Member, pack, seal};

pub(super) fn all() -> Vec<Row> {
    let mut rows = vec![
        ("an empty file", Check::EmptyFile, Vec::new()),
        ("a QCOW2 disk", Check::NotAnOva, [b"QFI\xfb".to_vec(), vec![0; 4096]].concat()),
        ("a zip archive", Check::NotAnOva, [b"PK\x03\x04".to_vec(), vec![1; 4096]].concat()),
        ("a gzipped OVA", Check::NotAnOva, gzip(&good().bytes())),
        ("a page of the web", Check::NotAnOva, b"<!doctype html><title>404</title>".to_vec()),
    ];
    rows.extend(names());
    rows.extend(kinds());
    rows.extend(orders());
    rows.extend(blocks());
    rows.extend(chunks());
    rows
}

/// One more member, behind the manifest.
fn with(member: Member) -> Vec<u8> {
    members(|members| members.insert(2, member))
}

fn names() -> [Row; 4] {
    let name = |name: &str| with(Member::new(name, "x"));
    [
        ("a name that leads out", Check::MemberName, name("../evil.vmdk")),
        ("an absolute name", Check::MemberName, name("/etc/passwd")),
        ("a name with backslashes", Check::MemberName, name("..\\evil.vmdk")),
        ("a long name that leads out", Check::MemberName, name(&format!("{}../evil.vmdk", "a/".repeat(60)))),
    ]
}

fn kinds() -> [Row; 6] {
    let kind = |kind| with(Member { name: "evil".to_owned(), kind, bytes: Vec::new() });
    [
        ("a hard link", Check::MemberKind, kind(b'1')),
        ("a symbolic link", Check::MemberKind, kind(b'2')),
        ("a device", Check::MemberKind, kind(b'3')),
        ("a directory", Check::MemberKind, kind(b'5')),
        ("a fifo", Check::MemberKind, kind(b'6')),
        ("a sparse member", Check::MemberKind, kind(b'S')),
    ]
}

fn orders() -> [Row; 8] {
    let many = Ova { disks: vec![SparseDisk::new(1 << 20); 17], manifest: None, ..good() };
    let twice = |members: &mut Vec<Member>| {
        let disk = members[2].clone();
        members.push(disk);
    };
    let second = |members: &mut Vec<Member>| members.push(Member::new("other.mf", "SHA1(a)= b"));
    let no_certificate = |members: &mut Vec<Member>| members.insert(2, Member::new("small.cert", "not one"));
    let early = |members: &mut Vec<Member>| members.insert(1, Member::new("small.cert", "-----BEGIN CERTIFICATE-----"));
    [
        ("a member twice", Check::DuplicateMember, members(twice)),
        ("a member that is missing", Check::MissingMember, members(|members| members.truncate(2))),
        ("a disk before the descriptor", Check::MemberOrder, members(|members| members.swap(0, 2))),
        ("two manifests", Check::MemberOrder, members(second)),
        ("a member that nothing names", Check::UnreferencedMember, with(Member::new("readme.txt", "x"))),
        ("a certificate that is none", Check::Certificate, members(no_certificate)),
        ("a certificate without manifest", Check::Certificate, members(early)),
        ("too many disks", Check::TooManyDisks, many.bytes()),
    ]
}

fn blocks() -> [Row; 7] {
    let good = good().bytes();
    let edited = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let size = |bytes: &mut Vec<u8>| {
        put(bytes, 124, b"99999999999\0");
        seal(&mut bytes[..512]);
    };
    [
        ("a checksum of a header", Check::TarChecksum, edited(|bytes| bytes[0] ^= 1)),
        ("a member whose size is no number", Check::TarHeader, edited(size)),
        ("an archive cut within a disk", Check::TarTruncated, edited(|bytes| bytes.truncate(bytes.len() - 4096))),
        ("an archive cut within a header", Check::TarTruncated, edited(|bytes| bytes.truncate(100 + 512 * 4))),
        ("something behind the end", Check::TarTrailingData, edited(|bytes| bytes.extend_from_slice(b"more"))),
        ("an archive behind the end", Check::TarTrailingData, [good.clone(), good.clone()].concat()),
        ("too many members", Check::TooManyMembers, many_members()),
    ]
}

fn many_members() -> Vec<u8> {
    let files: String = (0..63).map(|n| format!("<File ovf:id=\"x{n}\" ovf:href=\"x{n}\"/>")).collect();
    let descriptor = good().descriptor().replace("</References>", &format!("{files}</References>"));
    let mut members = Ova { manifest: None, ..good() }.members_of(descriptor, good().files());
    members.extend((0..63).map(|n| Member::new(format!("x{n}"), "x")));
    pack(&members)
}

fn chunks() -> [Row; 4] {
    let chunked = |change: fn(&mut Vec<Member>)| {
        let mut members = Ova { chunk_size: Some(5_000), manifest: None, ..good() }.members();
        change(&mut members);
        pack(&members)
    };
    let drop_last = |members: &mut Vec<Member>| members.truncate(members.len() - 1);
    let cut = |members: &mut Vec<Member>| members[1].bytes.truncate(4_000);
    [
        ("a chunk that is missing", Check::ChunkMissing, chunked(|members| drop(members.remove(2)))),
        ("chunks in the wrong order", Check::ChunkMissing, chunked(|members| members.swap(1, 2))),
        ("the last chunk missing", Check::ChunkMissing, chunked(drop_last)),
        ("a chunk too short", Check::ChunkSize, chunked(cut)),
    ]
}
