//! A tar archive that is read as its bytes come.
//!
//! The `tar` crate pulls from a reader that blocks, and unpacks; here bytes are pushed, nothing is unpacked, and everything but
//! plain files of one folder is a fault. Headers of v7, ustar, GNU (long names) and pax (path and size) are read.

mod header;
mod pax;

pub(crate) use header::name_fault;
use header::{Header, Kind};
use pax::Extension;

use crate::check::Check;
use crate::fault::{Findings, Place};
use crate::look::{HEAD, looks_like};

const BLOCK: usize = 512;
/// Of extended headers. They hold a name, a size, and times.
const MAX_EXTENSION: u64 = 16 * 1024;
/// One long name, one long link and one pax header stand before a member at most.
const MAX_EXTENSIONS: usize = 3;

/// A regular file in the archive.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Of the header.
    pub(crate) header_at: u64,
    /// Of the data.
    pub(crate) at: u64,
    pub(crate) size: u64,
}

/// What comes next.
pub(crate) enum Event<'a> {
    Entry(Entry),
    /// Bytes of the latest entry, and where they stand.
    Data(u64, &'a [u8]),
    /// The latest entry is complete.
    End,
}

enum State {
    Header,
    /// Data of an extended header: how much of it is missing, and the padding behind it.
    Extension {
        kind: Kind,
        at: u64,
        left: u64,
        padding: u64,
        text: Vec<u8>,
    },
    Data {
        left: u64,
        padding: u64,
    },
    Skip {
        left: u64,
    },
    /// Behind the end of the archive, where only zeros may stand.
    Zeros,
    /// It is no archive; what it looks like may stand further on.
    Look,
    Stopped,
}

/// The archive.
pub(crate) struct Tar {
    size: u64,
    at: u64,
    block: Vec<u8>,
    state: State,
    /// Of the extended headers before the next member.
    extension: Extension,
}

impl Tar {
    pub(crate) fn new(size: u64) -> Self {
        Self { size, at: 0, block: Vec::with_capacity(BLOCK), state: State::Header, extension: Extension::default() }
    }

    /// Whether the rest cannot be read.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Reads nothing more.
    pub(crate) fn stop(&mut self) {
        self.state = State::Stopped;
    }

    /// The next event that `input` holds. It is moved on; None when it is empty.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8], findings: &mut Findings) -> Option<Event<'a>> {
        loop {
            match &mut self.state {
                State::Data { left: 0, padding } => {
                    self.state = State::Skip { left: *padding };
                    return Some(Event::End);
                }
                State::Extension { left: 0, .. } => {
                    self.end_extension(findings);
                    continue;
                }
                State::Skip { left: 0 } => {
                    self.state = State::Header;
                    continue;
                }
                _ if input.is_empty() => return None,
                State::Data { left, .. } => {
                    let (at, data) = (self.at, take(input, *left));
                    *left -= data.len() as u64;
                    self.at += data.len() as u64;
                    return Some(Event::Data(at, data));
                }
                State::Extension { left, text, .. } => {
                    let data = take(input, *left);
                    *left -= data.len() as u64;
                    self.at += data.len() as u64;
                    text.extend_from_slice(data);
                }
                State::Skip { left } => {
                    let skipped = take(input, *left).len() as u64;
                    *left -= skipped;
                    self.at += skipped;
                }
                State::Header => {
                    let missing = (BLOCK - self.block.len()) as u64;
                    let data = take(input, missing);
                    self.at += data.len() as u64;
                    self.block.extend_from_slice(data);
                    if self.block.len() == BLOCK {
                        let entry = self.header(findings);
                        self.block.truncate(if matches!(self.state, State::Look) { BLOCK } else { 0 });
                        if let Some(entry) = entry {
                            return Some(Event::Entry(entry));
                        }
                    }
                }
                State::Zeros => {
                    if let Some(index) = input.iter().position(|byte| *byte != 0) {
                        let at = Place::Offset(self.at + index as u64);
                        findings.fault(Check::TarTrailingData, "", at, "only zeros", "other bytes");
                        self.state = State::Stopped;
                    }
                    self.at += input.len() as u64;
                    *input = &[];
                }
                State::Look => {
                    let data = take(input, (HEAD - self.block.len()) as u64);
                    self.block.extend_from_slice(data);
                    self.at += data.len() as u64;
                    if self.block.len() == HEAD || self.at == self.size {
                        self.not_an_archive(findings);
                    }
                }
                State::Stopped => *input = &[],
            }
        }
    }

    /// Tells of an archive that ends within something.
    pub(crate) fn finish(&mut self, findings: &mut Findings) {
        match self.state {
            State::Look => self.not_an_archive(findings),
            State::Header if self.block.is_empty() => findings.warn("the archive has no blocks of zeros at its end"),
            State::Zeros | State::Stopped => {}
            State::Header if self.size < BLOCK as u64 => {
                self.not_an_archive(findings);
            }
            _ => self.truncated(self.at, "the rest of the archive", "its end", findings),
        }
    }

    fn not_an_archive(&mut self, findings: &mut Findings) {
        let found = looks_like(&self.block);
        findings.fault(Check::NotAnOva, "", Place::Offset(0), "a tar header", found);
        self.block = Vec::new();
        self.state = State::Stopped;
    }

    fn truncated(&mut self, at: u64, expected: &str, found: &str, findings: &mut Findings) {
        findings.fault(Check::TarTruncated, "", Place::Offset(at), expected, found);
        self.state = State::Stopped;
    }

    /// Reads a whole header block.
    fn header(&mut self, findings: &mut Findings) -> Option<Entry> {
        let at = self.at - BLOCK as u64;
        if self.block.iter().all(|byte| *byte == 0) {
            self.state = if at == 0 { State::Look } else { State::Zeros };
            if !self.extension.is_empty() {
                self.stopped_at(at, "a member behind its extended header", "the end", findings);
            }
            return None;
        }
        let header = match Header::read(&self.block) {
            Ok(header) => header,
            Err(_) if at == 0 && !header::is_ustar(&self.block) => {
                self.state = State::Look;
                if self.size == BLOCK as u64 {
                    self.not_an_archive(findings);
                }
                return None;
            }
            Err((check, expected, found)) => {
                findings.fault(check, "", Place::Offset(at), expected, found);
                self.state = State::Stopped;
                return None;
            }
        };
        let size = self.extension.size.filter(|_| !header.kind.is_extension()).unwrap_or(header.size);
        let padded = size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX);
        if padded > self.size - self.at {
            let expected = format!("{} bytes, of which a member says to have {size}", self.size - self.at);
            self.truncated(at, &expected, "a member that reaches past the end", findings);
            return None;
        }
        if header.kind.is_extension() {
            self.begin_extension(header.kind, at, size, padded - size, findings);
            return None;
        }
        let extension = std::mem::take(&mut self.extension);
        self.state = State::Skip { left: padded };
        let name = extension.name.unwrap_or(header.name);
        let shown = String::from_utf8_lossy(&name).into_owned();
        if header.kind != Kind::File || extension.sparse {
            let found = if extension.sparse { Kind::Sparse } else { header.kind };
            findings.fault(Check::MemberKind, &shown, Place::Offset(at), "a regular file", found.to_string());
            return None;
        }
        if let Some((expected, found)) = name_fault(&name) {
            findings.fault(Check::MemberName, &shown, Place::Offset(at), expected, found);
            return None;
        }
        self.state = State::Data { left: size, padding: padded - size };
        Some(Entry { name: shown, header_at: at, at: self.at, size })
    }

    fn begin_extension(&mut self, kind: Kind, at: u64, size: u64, padding: u64, findings: &mut Findings) {
        self.extension.headers += 1;
        if size > MAX_EXTENSION {
            let expected = format!("an extended header of at most {MAX_EXTENSION} bytes");
            return self.stopped_at(at, &expected, &format!("{size}"), findings);
        }
        if self.extension.headers > MAX_EXTENSIONS {
            let expected = format!("at most {MAX_EXTENSIONS} extended headers before a member");
            return self.stopped_at(at, &expected, "more", findings);
        }
        self.state = State::Extension { kind, at, left: size, padding, text: Vec::new() };
    }

    fn end_extension(&mut self, findings: &mut Findings) {
        let State::Extension { kind, at, padding, text, .. } = std::mem::replace(&mut self.state, State::Stopped)
        else {
            return;
        };
        match self.extension.read(kind, &text) {
            Ok(()) => self.state = State::Skip { left: padding },
            Err(expected) => self.stopped_at(at, expected, "another", findings),
        }
    }

    fn stopped_at(&mut self, at: u64, expected: &str, found: &str, findings: &mut Findings) {
        findings.fault(Check::TarHeader, "", Place::Offset(at), expected, found);
        self.state = State::Stopped;
    }
}

/// Takes at most `most` bytes off the front.
fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(count);
    *input = rest;
    taken
}
