//! One block of a tar header, and what a member may be called.

use std::fmt::{self, Display, Formatter};

use crate::check::Check;

/// Of a name, in bytes; file systems have no longer ones.
const MAX_NAME: usize = 255;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    SymbolicLink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
    Sparse,
    LongName,
    LongLink,
    Pax,
    PaxGlobal,
    Other(u8),
}

impl Kind {
    fn of(flag: u8) -> Self {
        match flag {
            0 | b'0' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::SymbolicLink,
            b'3' => Self::CharacterDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            b'S' => Self::Sparse,
            b'L' => Self::LongName,
            b'K' => Self::LongLink,
            b'x' => Self::Pax,
            b'g' => Self::PaxGlobal,
            other => Self::Other(other),
        }
    }

    /// Whether it says something of the next member.
    pub(super) fn is_extension(self) -> bool {
        matches!(self, Self::LongName | Self::LongLink | Self::Pax | Self::PaxGlobal)
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::File => "a regular file",
            Self::HardLink => "a hard link",
            Self::SymbolicLink => "a symbolic link",
            Self::CharacterDevice | Self::BlockDevice => "a device",
            Self::Directory => "a directory",
            Self::Fifo => "a fifo",
            Self::Sparse => "a sparse file",
            Self::LongName | Self::LongLink | Self::Pax | Self::PaxGlobal => "an extended header",
            Self::Other(flag) => return write!(f, "a member of kind {}", flag.escape_ascii()),
        };
        f.write_str(name)
    }
}

/// What a header says.
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
    pub(super) kind: Kind,
}

/// What is wrong: the check, what was expected, what was found.
type Wrong = (Check, String, String);

impl Header {
    /// Reads a block of 512 bytes.
    pub(super) fn read(block: &[u8]) -> Result<Self, Wrong> {
        let (unsigned, signed) = sums(block);
        let stored = number(field(block, 148, 8));
        if stored != Some(unsigned) && stored.and_then(|sum| i64::try_from(sum).ok()) != Some(signed) {
            let found = stored.map_or_else(|| "no number".to_owned(), |sum| sum.to_string());
            return Err((Check::TarChecksum, format!("a checksum of {unsigned}"), found));
        }
        let size = number(field(block, 124, 12)).filter(|size| i64::try_from(*size).is_ok());
        let Some(size) = size else {
            let found = field(block, 124, 12).escape_ascii().to_string();
            return Err((Check::TarHeader, "the size of a member in octal digits".to_owned(), found));
        };
        let kind = Kind::of(block[156]);
        let mut name = text(field(block, 0, 100)).to_vec();
        // GNU has other things where ustar has the prefix.
        let prefix = text(field(block, 345, 155));
        if block[257..263] == *b"ustar\0" && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        Ok(Self { name, size, kind })
    }
}

/// Whether it says to be a header.
pub(super) fn is_ustar(block: &[u8]) -> bool {
    field(block, 257, 5) == b"ustar"
}

fn field(block: &[u8], at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The sum of all bytes, with spaces for the checksum itself. Very old programs took bytes as signed.
fn sums(block: &[u8]) -> (u64, i64) {
    let shown = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    shown.fold((0, 0), |(unsigned, signed), byte| {
        (unsigned + u64::from(byte), signed + i64::from(i8::from_ne_bytes([byte])))
    })
}

/// Octal digits with spaces or NULs around them, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let start = Some(u64::from(first & 0x7f));
        return rest.iter().fold(start, |sum, byte| sum?.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    // A sign would pass otherwise.
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

/// Why a member may not be called so: what was expected, and what was found.
pub(crate) fn name_fault(name: &[u8]) -> Option<(&'static str, String)> {
    let Ok(text) = std::str::from_utf8(name) else {
        return Some(("a name in UTF-8", "other bytes".to_owned()));
    };
    if text.is_empty() || text.len() > MAX_NAME {
        return Some(("a name of 1 to 255 bytes", format!("{} bytes", text.len())));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Some(("a name without control characters", format!("U+{:04X}", u32::from(c))));
    }
    if text.contains(['/', '\\']) || text == "." || text == ".." {
        return Some(("a name without folders", text.to_owned()));
    }
    if text.trim() != text {
        return Some(("a name without spaces around it", format!("{text:?}")));
    }
    None
}
