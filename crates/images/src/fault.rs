//! What is wrong with an image, told so that somebody can mend it.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::check::Check;

/// More than anybody reads; what is beyond is counted.
const MAX_FAULTS: usize = 20;
const MAX_WARNINGS: usize = 20;
/// Of names and values that come out of the image.
const MAX_TEXT: usize = 160;

/// Where a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// A byte of the uploaded file.
    Offset(u64),
    /// A line of the text file (descriptor or manifest) that the fault names, counted from 1.
    Line { line: u32, column: u32 },
    /// The file as a whole.
    Nowhere,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFault {
    pub check: Check,
    /// The member of the OVA, bounded and printable; empty for the file itself.
    pub file: String,
    pub place: Place,
    pub expected: String,
    pub found: String,
    /// What to do.
    pub advice: String,
}

impl Display for ImageFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.file.is_empty() { "the file" } else { &self.file })?;
        match self.place {
            Place::Offset(at) => write!(f, " at byte {at}")?,
            Place::Line { line, column } => write!(f, " at line {line}, column {column}")?,
            Place::Nowhere => {}
        }
        let Self { expected, found, advice, .. } = self;
        write!(f, ": {} (expected {expected}, found {found}); {advice}", self.check.what())
    }
}

/// Why a file is refused: at least one fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Faults {
    /// In the order in which they were found, at most 20.
    pub faults: Vec<ImageFault>,
    /// How many there are beyond these.
    pub more: usize,
}

impl Display for Faults {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

/// Faults and warnings as they are found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    faults: Vec<ImageFault>,
    more: usize,
    warnings: Vec<String>,
    more_warnings: usize,
}

impl Findings {
    /// Something is wrong.
    pub(crate) fn fault(
        &mut self,
        check: Check,
        file: &str,
        place: Place,
        expected: impl AsRef<str>,
        found: impl AsRef<str>,
    ) {
        if self.faults.len() == MAX_FAULTS {
            self.more += 1;
            return;
        }
        self.faults.push(ImageFault {
            check,
            file: printable(file),
            place,
            expected: printable(expected.as_ref()),
            found: printable(found.as_ref()),
            advice: check.advice().to_owned(),
        });
    }

    /// Something is odd.
    pub(crate) fn warn(&mut self, text: impl AsRef<str>) {
        if self.warnings.len() == MAX_WARNINGS {
            self.more_warnings += 1;
        } else {
            self.warnings.push(printable(text.as_ref()));
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.faults.is_empty()
    }

    /// Whether more faults are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.faults.len() == MAX_FAULTS
    }

    /// The warnings of a good image, or the faults of another.
    pub(crate) fn settle(mut self) -> Result<Vec<String>, Faults> {
        if !self.is_good() {
            return Err(Faults { faults: self.faults, more: self.more });
        }
        if self.more_warnings > 0 {
            self.warnings.push(format!("{} more warnings", self.more_warnings));
        }
        Ok(self.warnings)
    }
}

/// Text of a stranger, cut and made safe to show: no control characters, nothing that turns the direction of writing.
pub(crate) fn printable(text: &str) -> String {
    let unsafe_to_show = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown: String =
        text.chars().take(MAX_TEXT).map(|c| if unsafe_to_show(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_sentence() {
        let mut findings = Findings::default();
        findings.fault(Check::GrainTable, "disk1.vmdk", Place::Offset(65536), "at most 127", "4711");
        let Faults { faults, .. } = findings.settle().expect_err("a fault");
        assert_eq!(
            faults[0].to_string(),
            "disk1.vmdk at byte 65536: a grain table does not point to the grains of the disk (expected at most 127, \
             found 4711); export the appliance again"
        );
    }

    #[test]
    fn faults_are_bounded_and_printable() {
        let mut findings = Findings::default();
        let nasty = format!("\u{1b}[2J\u{202e}{}", "é".repeat(10_000));
        for _ in 0..1000 {
            findings.fault(Check::MemberName, &nasty, Place::Nowhere, &nasty, &nasty);
        }
        let faults = findings.settle().expect_err("faults");
        assert_eq!((faults.faults.len(), faults.more), (20, 980));
        assert!(faults.to_string().len() < 30_000);
        assert!(!faults.to_string().contains(['\u{1b}', '\u{202e}']));
    }
}
