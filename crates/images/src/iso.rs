//! An ISO 9660 image that is read as its bytes come, up to where nothing more is checked.
//!
//! What says whether it is one stands at its front: volume descriptors from sector 16 on, then the root directory and, when it
//! boots, the catalog of El Torito. Files are not looked at: a VM gets the medium as it is.

mod boot;
mod volume;

use std::collections::BTreeMap;

use crate::check::Check;
use crate::fault::{Faults, Findings, Place};
use crate::fields::le_u32;
use crate::image::Medium;
use crate::look::{HEAD, looks_like};
use volume::{FIRST, SECTOR, Volume};

const SECTOR_U64: u64 = SECTOR as u64;
/// Volume descriptors, and then those of UDF; a handful is usual.
const MAX_DESCRIPTORS: u64 = 64;

/// What has to be looked at when its sector comes.
#[derive(Clone, Copy)]
enum Wanted {
    Root,
    Catalog,
}

enum Stage {
    /// Up to the terminator.
    Descriptors,
    /// Behind it, where those of UDF stand.
    Recognition,
    /// Only wanted sectors are looked at.
    Extents,
    /// Nothing more tells anything.
    Done,
}

/// An image that is being read.
pub(crate) struct Iso {
    size: u64,
    sector: u64,
    partial: Vec<u8>,
    /// The start of the file, to tell what it is when it is no ISO.
    head: Vec<u8>,
    stage: Stage,
    volume: Option<Volume>,
    wanted: BTreeMap<u64, Vec<Wanted>>,
    catalog: Option<u64>,
    medium: Medium,
}

impl Iso {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            sector: 0,
            partial: Vec::new(),
            head: Vec::new(),
            stage: Stage::Descriptors,
            volume: None,
            wanted: BTreeMap::new(),
            catalog: None,
            medium: Medium::default(),
        }
    }

    /// Takes the next bytes. False: more would tell nothing new.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], findings: &mut Findings) -> bool {
        while !bytes.is_empty() && !matches!(self.stage, Stage::Done) {
            let (taken, rest) = bytes.split_at((SECTOR - self.partial.len()).min(bytes.len()));
            bytes = rest;
            self.partial.extend_from_slice(taken);
            if self.partial.len() == SECTOR {
                let sector = std::mem::take(&mut self.partial);
                self.read(&sector, findings);
                self.sector += 1;
                // Its memory serves the next one.
                self.partial = sector;
                self.partial.clear();
            }
        }
        !matches!(self.stage, Stage::Done)
    }

    fn read(&mut self, bytes: &[u8], findings: &mut Findings) {
        if self.sector <= FIRST && self.head.len() < HEAD {
            self.head.extend_from_slice(bytes);
        }
        if self.sector < FIRST {
            return;
        }
        if self.sector == FIRST && !self.is_iso(bytes, findings) {
            self.stage = Stage::Done;
            return;
        }
        self.head = Vec::new();
        match self.stage {
            Stage::Descriptors => self.descriptor(bytes, findings),
            Stage::Recognition => self.recognition(bytes),
            Stage::Extents | Stage::Done => {}
        }
        if let Some(wanted) = self.wanted.remove(&self.sector) {
            for wanted in wanted {
                self.extent(wanted, bytes, findings);
            }
        }
        if matches!(self.stage, Stage::Extents) && self.wanted.is_empty() {
            self.stage = Stage::Done;
        }
    }

    fn is_iso(&self, bytes: &[u8], findings: &mut Findings) -> bool {
        let at = Place::Offset(self.at());
        match &bytes[1..6] {
            b"CD001" => {}
            b"BEA01" => {
                findings.fault(Check::UdfOnly, "", at, "CD001", "BEA01");
                return false;
            }
            _ => {
                findings.fault(Check::NotAnIso, "", at, "a volume descriptor (CD001)", looks_like(&self.head));
                return false;
            }
        }
        if !self.size.is_multiple_of(SECTOR_U64) {
            let expected = format!("a multiple of {SECTOR} bytes");
            findings.fault(Check::IsoSize, "", Place::Offset(self.size), expected, format!("{} bytes", self.size));
        }
        true
    }

    /// Of the sector that is read, in bytes.
    fn at(&self) -> u64 {
        self.sector * SECTOR_U64
    }

    fn descriptor(&mut self, bytes: &[u8], findings: &mut Findings) {
        let at = self.at();
        if &bytes[1..6] != b"CD001" || self.sector >= FIRST + MAX_DESCRIPTORS {
            let expected = "a volume descriptor (CD001), and the terminator (255) at the end";
            let found = looks_like_descriptor(bytes);
            findings.fault(Check::IsoDescriptor, "", Place::Offset(at), expected, found);
            self.stage = Stage::Done;
            return;
        }
        match bytes[0] {
            0 if bytes[7..].starts_with(b"EL TORITO SPECIFICATION") && self.catalog.is_none() => {
                self.catalog = Some(u64::from(le_u32(bytes, 71)));
            }
            1 if self.volume.is_none() => {
                self.volume = Volume::read(at, bytes, self.size, findings);
                // What is wrong with it was told; the rest would be told of a volume that is none.
                if self.volume.is_none() {
                    self.stage = Stage::Done;
                }
            }
            255 => self.terminator(findings),
            _ => {}
        }
    }

    fn terminator(&mut self, findings: &mut Findings) {
        self.stage = Stage::Recognition;
        let Some(volume) = &self.volume else {
            let place = Place::Offset(self.at());
            findings.fault(
                Check::IsoDescriptor,
                "",
                place,
                "a primary volume descriptor before the terminator",
                "none",
            );
            self.stage = Stage::Done;
            return;
        };
        self.medium.label.clone_from(&volume.label);
        self.medium.volume_size = volume.size;
        let extents =
            [(Wanted::Root, Some(volume.root), Check::IsoRoot), (Wanted::Catalog, self.catalog, Check::BootCatalog)];
        for (wanted, sector, check) in extents {
            let Some(sector) = sector else { continue };
            let last = (self.size / SECTOR_U64).saturating_sub(1);
            if sector <= self.sector || sector > last {
                let expected = format!("sector {} to {last}", self.sector + 1);
                findings.fault(check, "", Place::Offset(self.at()), expected, format!("sector {sector}"));
            } else {
                self.wanted.entry(sector).or_default().push(wanted);
            }
        }
    }

    /// Descriptors of UDF stand behind the terminator without a gap.
    fn recognition(&mut self, bytes: &[u8]) {
        match &bytes[1..6] {
            b"NSR02" | b"NSR03" => self.medium.udf = true,
            b"BEA01" | b"TEA01" | b"BOOT2" | b"CD001" | b"CDW02" if self.sector < FIRST + 2 * MAX_DESCRIPTORS => {}
            _ => self.stage = Stage::Extents,
        }
    }

    fn extent(&mut self, wanted: Wanted, bytes: &[u8], findings: &mut Findings) {
        let at = self.at();
        match wanted {
            Wanted::Root => volume::root(at, bytes, findings),
            Wanted::Catalog => self.medium.bootable = boot::catalog(at, bytes, self.size, findings),
        }
    }

    /// What the image says, or what is wrong with it.
    pub(crate) fn finish(self, mut findings: Findings) -> Result<Medium, Faults> {
        if findings.is_good() && !matches!(self.stage, Stage::Done) {
            let end = self.at() + self.partial.len() as u64;
            if self.sector <= FIRST {
                let head = [self.head, self.partial].concat();
                findings.fault(
                    Check::NotAnIso,
                    "",
                    Place::Offset(end),
                    "a volume descriptor (CD001)",
                    looks_like(&head),
                );
            } else if !self.wanted.is_empty() || matches!(self.stage, Stage::Descriptors) {
                let expected = "the rest of what the volume descriptors name";
                findings.fault(Check::IsoTruncated, "", Place::Offset(end), expected, "the end of the file");
            }
        }
        let warnings = findings.settle()?;
        Ok(Medium { warnings, ..self.medium })
    }
}

fn looks_like_descriptor(bytes: &[u8]) -> String {
    bytes[1..6].escape_ascii().to_string()
}
