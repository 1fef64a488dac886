//! Archives of the ustar kind.

use super::put::put;

const BLOCK: usize = 512;

/// A member of an archive.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    /// The type flag of its header; b'0' is a regular file.
    pub kind: u8,
    pub bytes: Vec<u8>,
}

impl Member {
    /// A regular file.
    #[must_use]
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), kind: b'0', bytes: bytes.into() }
    }
}

/// The archive of some members. A name of more than 100 bytes gets a header of GNU before its own.
#[must_use]
pub fn pack(members: &[Member]) -> Vec<u8> {
    let mut archive = Vec::new();
    for member in members {
        if member.name.len() > 100 {
            append(&mut archive, "././@LongLink", b'L', format!("{}\0", member.name).as_bytes());
        }
        append(&mut archive, &member.name, member.kind, &member.bytes);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn append(archive: &mut Vec<u8>, name: &str, kind: u8, bytes: &[u8]) {
    archive.extend_from_slice(&header(name, kind, bytes.len()));
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

fn header(name: &str, kind: u8, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    put(&mut header, 0, &name.as_bytes()[..name.len().min(100)]);
    put(&mut header, 100, b"0000644\0");
    put(&mut header, 108, b"0000000\0");
    put(&mut header, 116, b"0000000\0");
    put(&mut header, 124, format!("{size:011o}\0").as_bytes());
    put(&mut header, 136, b"00000000000\0");
    header[156] = kind;
    put(&mut header, 257, b"ustar\x0000");
    seal(&mut header);
    header
}

/// Makes the checksum of a header right.
pub(super) fn seal(header: &mut [u8]) {
    put(header, 148, b"        ");
    let sum: u32 = header.iter().take(BLOCK).map(|byte| u32::from(*byte)).sum();
    put(header, 148, format!("{sum:06o}\0 ").as_bytes());
}
