//! The files of References, as they stand in the archive.

use std::collections::HashMap;

use crate::check::Check;
use crate::descriptor::File;
use crate::disk::DiskReader;
use crate::fault::{Findings, Place};
use crate::image::Part;
use crate::tar::Entry;

/// Digits behind the name of a chunk.
const CHUNK_DIGITS: usize = 9;

struct Content {
    file: File,
    parts: Vec<Part>,
    reader: Option<DiskReader>,
    /// No further chunk may come.
    closed: bool,
}

/// The files that a descriptor names.
pub(crate) struct Contents {
    descriptor: String,
    contents: Vec<Content>,
    by_href: HashMap<String, usize>,
    by_id: HashMap<String, usize>,
    /// The one whose bytes come, or whose next chunk may.
    open: Option<usize>,
}

impl Contents {
    /// The files that `descriptor` names.
    pub(crate) fn new(descriptor: &str, files: Vec<File>) -> Self {
        let index = |of: fn(&File) -> &String| {
            files.iter().enumerate().map(|(index, file)| (of(file).clone(), index)).collect()
        };
        let (by_href, by_id) = (index(|file| &file.href), index(|file| &file.id));
        let content = |file| Content { file, parts: Vec::new(), reader: None, closed: false };
        let contents = files.into_iter().map(content).collect();
        Self { descriptor: descriptor.to_owned(), contents, by_href, by_id, open: None }
    }

    /// A member begins. False: the descriptor does not name it.
    pub(crate) fn begin(&mut self, entry: &Entry, findings: &mut Findings) -> bool {
        let found = self.find(&entry.name);
        if self.open.is_some() && self.open != found.map(|(index, _)| index) {
            self.close(findings);
        }
        let Some((index, chunk)) = found else { return false };
        self.open = Some(index);
        if let Some(content) = self.contents.get_mut(index) {
            content.begin(entry, chunk, findings);
        }
        true
    }

    /// A file by its name, or by that of one of its chunks.
    fn find(&self, name: &str) -> Option<(usize, Option<usize>)> {
        if let Some(index) = self.by_href.get(name) {
            return Some((*index, None));
        }
        let (href, digits) = name.rsplit_once('.')?;
        if digits.len() != CHUNK_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let index = *self.by_href.get(href)?;
        self.contents.get(index)?.file.chunk_size?;
        Some((index, Some(digits.parse().ok()?)))
    }

    /// Takes bytes of the latest member.
    pub(crate) fn feed(&mut self, at: u64, bytes: &[u8], findings: &mut Findings) {
        let content = self.open.and_then(|index| self.contents.get_mut(index));
        if let Some(reader) = content.and_then(|content| content.reader.as_mut()) {
            reader.feed(at, bytes, findings);
        }
    }

    /// No more of the latest file comes.
    pub(crate) fn close(&mut self, findings: &mut Findings) {
        let content = self.open.take().and_then(|index| self.contents.get_mut(index));
        if let Some(content) = content {
            content.close(findings);
        }
    }

    /// Tells of files that did not come.
    pub(crate) fn finish(&mut self, findings: &mut Findings) {
        self.close(findings);
        for Content { file, .. } in self.contents.iter().filter(|content| content.parts.is_empty() && !content.closed) {
            let expected = format!("{} in the archive", file.href);
            findings.fault(Check::MissingMember, &self.descriptor, file.place, expected, "no such member");
        }
    }

    /// Where the bytes of a file are.
    pub(crate) fn parts(&self, file_id: &str) -> Vec<Part> {
        let content = self.by_id.get(file_id).and_then(|index| self.contents.get(*index));
        content.map(|content| content.parts.clone()).unwrap_or_default()
    }
}

impl Content {
    fn begin(&mut self, entry: &Entry, chunk: Option<usize>, findings: &mut Findings) {
        let next = self.parts.len();
        let is_next = !self.closed && chunk.unwrap_or_default() == next;
        if !is_next {
            let expected =
                if self.closed { "all chunks one behind the other".to_owned() } else { self.chunk_name(next) };
            findings.fault(Check::ChunkMissing, &entry.name, Place::Offset(entry.header_at), expected, &entry.name);
            // What follows would be told of a disk with a hole.
            self.reader = None;
            self.closed = true;
            return;
        }
        self.check_size(entry, chunk, findings);
        if next == 0 {
            let capacity = self.file.capacity_bytes;
            self.reader = capacity.map(|capacity| DiskReader::new(&self.file.href, self.file.compression, capacity));
        }
        let part = Part { offset: entry.at, size: entry.size };
        self.parts.push(part);
        if let Some(reader) = &mut self.reader {
            reader.part(part);
        }
    }

    fn check_size(&self, entry: &Entry, chunk: Option<usize>, findings: &mut Findings) {
        let place = Place::Offset(entry.header_at);
        let Some((number, chunk_size)) = chunk.zip(self.file.chunk_size) else {
            if let Some(size) = self.file.size.filter(|size| *size != entry.size) {
                let found = format!("{} bytes", entry.size);
                findings.fault(Check::MemberSize, &entry.name, place, format!("{size} bytes"), found);
            }
            return;
        };
        let expected = match self.file.size {
            Some(size) => size.saturating_sub(chunk_size.saturating_mul(number as u64)).min(chunk_size),
            // Only the last one may be shorter, and no more comes after it.
            None if self.parts.iter().all(|part| part.size == chunk_size) => entry.size.clamp(1, chunk_size),
            None => 0,
        };
        if entry.size != expected || expected == 0 {
            let expected = if expected == 0 { "no more chunks".to_owned() } else { format!("{expected} bytes") };
            findings.fault(Check::ChunkSize, &entry.name, place, expected, format!("{} bytes", entry.size));
        }
    }

    fn chunk_name(&self, number: usize) -> String {
        format!("{}.{number:09}", self.file.href)
    }

    fn close(&mut self, findings: &mut Findings) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let read: u64 = self.parts.iter().map(|part| part.size).sum();
        let is_chunked = self.file.chunk_size.is_some();
        if is_chunked && self.file.size.is_some_and(|size| read < size) {
            let name = self.chunk_name(self.parts.len());
            let at = self.parts.last().map_or(0, |part| part.offset + part.size);
            return findings.fault(Check::ChunkMissing, &self.file.href, Place::Offset(at), name, "another member");
        }
        if let Some(mut reader) = self.reader.take() {
            reader.finish(findings);
        }
    }
}
