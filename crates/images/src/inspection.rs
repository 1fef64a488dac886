//! One file under inspection.

use crate::check::Check;
use crate::fault::{Faults, Findings, Place};
use crate::image::Image;
use crate::iso::Iso;
use crate::limits::Limits;
use crate::ova::Ova;

/// What a file is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ova,
    Iso,
}

/// A file that is read as its bytes come.
pub struct Inspection {
    size: u64,
    fed: u64,
    findings: Findings,
    reader: Reader,
    /// Nothing that follows would tell more.
    done: bool,
}

enum Reader {
    Ova(Box<Ova>),
    Iso(Box<Iso>),
}

impl Inspection {
    /// An inspection of a file of exactly `size` bytes.
    #[must_use]
    pub fn new(format: Format, size: u64, limits: Limits) -> Self {
        let mut findings = Findings::default();
        if size == 0 {
            findings.fault(Check::EmptyFile, "", Place::Nowhere, "some bytes", "none");
        } else if size > limits.max_bytes {
            let most = format!("at most {} bytes", limits.max_bytes);
            findings.fault(Check::TooLarge, "", Place::Nowhere, most, format!("{size}"));
        }
        let reader = match format {
            Format::Ova => Reader::Ova(Box::new(Ova::new(size, limits))),
            Format::Iso => Reader::Iso(Box::new(Iso::new(size))),
        };
        Self { size, fed: 0, done: !findings.is_good(), findings, reader }
    }

    /// Takes the next bytes, in order. False: more would tell nothing new, and [`Self::finish`] may be called. That is not only
    /// with faults: of a good ISO, the front tells all.
    pub fn feed(&mut self, chunk: &[u8]) -> bool {
        if self.done {
            return false;
        }
        self.fed = self.fed.saturating_add(chunk.len() as u64);
        if self.fed > self.size {
            let found = format!("{} or more", self.fed);
            self.findings.fault(
                Check::SizeMismatch,
                "",
                Place::Offset(self.size),
                format!("{} bytes", self.size),
                found,
            );
            self.done = true;
            return false;
        }
        self.done = !match &mut self.reader {
            Reader::Ova(ova) => ova.feed(chunk, &mut self.findings),
            Reader::Iso(iso) => iso.feed(chunk, &mut self.findings),
        };
        !self.done
    }

    /// What the file holds.
    ///
    /// # Errors
    ///
    /// Everything that was found wrong with it.
    pub fn finish(mut self) -> Result<Image, Faults> {
        if !self.done && self.fed < self.size {
            let expected = format!("{} bytes", self.size);
            self.findings.fault(Check::SizeMismatch, "", Place::Offset(self.fed), expected, format!("{}", self.fed));
            self.done = true;
        }
        match self.reader {
            Reader::Ova(ova) => ova.finish(self.done, self.findings).map(Image::Ova),
            Reader::Iso(iso) => iso.finish(self.findings).map(Image::Iso),
        }
    }
}
