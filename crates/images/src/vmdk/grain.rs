//! One grain: where it belongs, and whether it inflates to what it may.

use flate2::{Decompress, FlushDecompress, Status};

use super::flaw::Flaw;
use super::header::{Header, SECTOR};
use crate::check::Check;

/// Place and length, before the data.
const MARKER: usize = 12;

/// The grain that is being read.
#[derive(Default)]
pub(super) struct Grain {
    at: u64,
    /// Compressed bytes that are to come, without and with padding to whole sectors.
    left: usize,
    padded: usize,
    marker: usize,
    /// What it must inflate to.
    expected: usize,
    inflated: usize,
    complete: bool,
    /// What is inflated is looked at by nobody; one byte more than a grain has tells a bomb.
    out: Vec<u8>,
    inflate: Option<Decompress>,
}

impl Grain {
    /// A marker of a grain was read.
    pub(super) fn begin(&mut self, at: u64, sector: u64, size: u32, header: &Header) -> Result<(), Flaw> {
        let grain = header.grain_bytes();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        // What cannot be compressed grows by some bytes.
        if size > 2 * grain {
            return Err(Flaw::new(Check::GrainData, at + 8, format!("at most {} bytes", 2 * grain), size.to_string()));
        }
        let inflate = self.inflate.get_or_insert_with(|| Decompress::new(true));
        inflate.reset(true);
        self.at = at;
        self.left = size;
        self.padded = (MARKER + size).next_multiple_of(SECTOR);
        self.marker = MARKER;
        let rest = usize::try_from((header.capacity - sector).saturating_mul(SECTOR as u64)).unwrap_or(usize::MAX);
        self.expected = grain.min(rest);
        self.inflated = 0;
        self.complete = false;
        self.out.resize(grain + 1, 0);
        Ok(())
    }

    /// How many bytes there are up to the next marker.
    pub(super) fn left_padded(&self) -> usize {
        self.padded
    }

    /// Takes bytes, the marker's among them. True: it is complete.
    pub(super) fn read(&mut self, at: u64, bytes: &[u8]) -> Result<bool, Flaw> {
        self.padded = self.padded.saturating_sub(bytes.len());
        let data = &bytes[std::mem::take(&mut self.marker).min(bytes.len())..];
        let data = &data[..self.left.min(data.len())];
        self.left -= data.len();
        self.inflate(at, data)?;
        if self.padded > 0 {
            return Ok(false);
        }
        if !self.complete || self.inflated < self.expected {
            let found = format!("{} bytes{}", self.inflated, if self.complete { "" } else { " and no end" });
            return Err(Flaw::new(Check::GrainData, self.at, format!("{} bytes inflated", self.expected), found));
        }
        Ok(true)
    }

    fn inflate(&mut self, at: u64, mut data: &[u8]) -> Result<(), Flaw> {
        let Some(inflate) = &mut self.inflate else { return Ok(()) };
        let limit = self.out.len().saturating_sub(1);
        while !data.is_empty() && !self.complete {
            let (read, written) = (inflate.total_in(), inflate.total_out());
            let result = inflate.decompress(data, &mut self.out[self.inflated..], FlushDecompress::None);
            let read = usize::try_from(inflate.total_in() - read).unwrap_or(data.len());
            let written = usize::try_from(inflate.total_out() - written).unwrap_or(limit);
            data = &data[read.min(data.len())..];
            self.inflated += written;
            if self.inflated > limit {
                return Err(Flaw::new(Check::GrainBomb, self.at, format!("at most {limit} bytes inflated"), "more"));
            }
            match result {
                Ok(Status::StreamEnd) => self.complete = true,
                Ok(_) if read > 0 || written > 0 => {}
                _ => {
                    let found = format!("other bytes after {} inflated ones", self.inflated);
                    return Err(Flaw::new(Check::GrainData, at, "a zlib stream", found));
                }
            }
        }
        Ok(())
    }
}
