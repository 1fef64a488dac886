//! The file of a disk in an OVA: its parts, perhaps packed by gzip, and the VMDK in them.

use std::io::{self, Write};

use flate2::write::GzDecoder;

use crate::check::Check;
use crate::fault::{Findings, Place};
use crate::image::{Compression, Part};
use crate::vmdk::{Flaw, Vmdk};

/// What a disk has beside its data at most: tables, padding of grains, and what cannot be compressed.
const OVERHEAD: u64 = 4 << 20;

/// The VMDK, and how many bytes of it there may be.
struct Bounded {
    vmdk: Vmdk,
    left: u64,
    is_bomb: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.vmdk.is_flawed() {
            return Err(io::ErrorKind::Other.into());
        }
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            self.is_bomb = true;
            return Err(io::ErrorKind::Other.into());
        };
        self.left = left;
        self.vmdk.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Content {
    Plain(Box<Vmdk>),
    /// What it may unpack to at most, in bytes.
    Gzip(Box<GzDecoder<Bounded>>, u64),
    /// It was told what is wrong.
    Done,
}

/// A disk that is being read.
pub(crate) struct DiskReader {
    name: String,
    content: Content,
    parts: Vec<Part>,
    /// Bytes of the uploaded file that the latest piece begins at.
    at: u64,
    /// Why no more was unpacked.
    spoiled: Option<String>,
}

impl DiskReader {
    /// The disk in the file `name`.
    pub(crate) fn new(name: &str, compression: Compression, capacity_bytes: u64) -> Self {
        let vmdk = Vmdk::new(capacity_bytes);
        let content = match compression {
            Compression::None => Content::Plain(Box::new(vmdk)),
            Compression::Gzip => {
                // A grain of 4 KiB that cannot be compressed takes 4608 bytes, and its entry in a table four.
                let limit = capacity_bytes.saturating_add(capacity_bytes / 4).saturating_add(OVERHEAD);
                Content::Gzip(Box::new(GzDecoder::new(Bounded { vmdk, left: limit, is_bomb: false })), limit)
            }
        };
        Self { name: name.to_owned(), content, parts: Vec::new(), at: 0, spoiled: None }
    }

    /// The next part begins.
    pub(crate) fn part(&mut self, part: Part) {
        self.parts.push(part);
        self.at = part.offset;
    }

    /// Takes bytes that stand at `at` in the uploaded file.
    pub(crate) fn feed(&mut self, at: u64, bytes: &[u8], findings: &mut Findings) {
        self.at = at;
        let is_done = match &mut self.content {
            Content::Plain(vmdk) => {
                vmdk.feed(bytes);
                vmdk.is_flawed()
            }
            Content::Gzip(gzip, _) => {
                self.spoiled = unpack(gzip, bytes).err();
                self.spoiled.is_some()
            }
            Content::Done => false,
        };
        if is_done {
            self.finish(findings);
        }
    }

    /// Tells what is wrong with it, unless that was done.
    pub(crate) fn finish(&mut self, findings: &mut Findings) {
        match std::mem::replace(&mut self.content, Content::Done) {
            Content::Plain(vmdk) => {
                if let Some(flaw) = vmdk.finish() {
                    let place = self.place(flaw.at);
                    self.tell(&flaw, place, findings);
                }
            }
            Content::Gzip(mut gzip, limit) => {
                let place = Place::Offset(self.at);
                let spoiled = self.spoiled.take().or_else(|| gzip.try_finish().err().map(|error| error.to_string()));
                let bounded = gzip.get_mut();
                if bounded.is_bomb {
                    let expected = format!("at most {limit} bytes unpacked");
                    return findings.fault(Check::GzipBomb, &self.name, place, expected, "more");
                }
                if let Some(found) = spoiled.filter(|_| !bounded.vmdk.is_flawed()) {
                    return findings.fault(Check::GzipData, &self.name, place, "one gzip file", found);
                }
                if let Some(flaw) = std::mem::replace(&mut bounded.vmdk, Vmdk::new(0)).finish() {
                    self.tell(&flaw, place, findings);
                }
            }
            Content::Done => {}
        }
    }

    fn tell(&self, flaw: &Flaw, place: Place, findings: &mut Findings) {
        findings.fault(flaw.check, &self.name, place, &flaw.expected, &flaw.found);
    }

    /// Where a byte of the disk stands in the uploaded file.
    fn place(&self, mut at: u64) -> Place {
        for part in &self.parts {
            if at < part.size {
                return Place::Offset(part.offset + at);
            }
            at -= part.size;
        }
        Place::Offset(self.parts.last().map_or(0, |part| part.offset + part.size))
    }
}

/// The error says why it cannot be unpacked further, or need not be.
fn unpack(gzip: &mut GzDecoder<Bounded>, mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        match gzip.write(bytes) {
            Ok(0) => return Err("more bytes behind its end".to_owned()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}
