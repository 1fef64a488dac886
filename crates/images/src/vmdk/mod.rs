//! A streamOptimized VMDK that is read as its bytes come.
//!
//! Two layouts are in the wild. VMware and VirtualBox write grains, each table behind its grains, the directory, a footer and an
//! end marker. qemu-img writes directory and tables in front, then the grains, and no end. In both, grains stand in ascending
//! order. What tables and directory say is compared with what was seen, in memory that does not grow with the disk.

mod flaw;
mod front;
mod grain;
mod header;
mod ledger;
mod tables;

use crate::check::Check;
use crate::fields::{le_u32, le_u64};
use crate::look::looks_like;
pub(crate) use flaw::Flaw;
use front::Front;
use grain::Grain;
use header::Header;
pub(crate) use header::SECTOR;
use tables::Tables;

/// What the next sector is.
enum State {
    Header,
    /// Up to the first grain: the text, and in qemu's layout directory and tables.
    Front(Box<Front>),
    Marker,
    Grain,
    Table {
        left: u64,
    },
    Directory {
        left: u64,
    },
    Footer,
    /// Behind the end marker.
    End,
    Flawed,
}

/// The disk.
pub(crate) struct Vmdk {
    /// What the descriptor of the appliance says.
    capacity_bytes: u64,
    /// Of the next sector.
    at: u64,
    /// The start of a sector whose end is still to come.
    partial: Vec<u8>,
    state: State,
    header: Header,
    grain: Grain,
    tables: Tables,
    /// Bytes behind the end, and whether all are zeros.
    trailing: u64,
    pads: bool,
    flaw: Option<Flaw>,
}

impl Vmdk {
    /// A disk that shall have a capacity; none when nobody says which.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            at: 0,
            partial: Vec::new(),
            state: State::Header,
            header: Header::default(),
            grain: Grain::default(),
            tables: Tables::default(),
            trailing: 0,
            pads: true,
            flaw: None,
        }
    }

    /// Whether more would tell nothing new.
    pub(crate) fn is_flawed(&self) -> bool {
        self.flaw.is_some()
    }

    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        if !self.partial.is_empty() {
            let missing = (SECTOR - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.partial.len() < SECTOR {
                return;
            }
            let sector = std::mem::take(&mut self.partial);
            self.sectors(&sector);
            // Its memory serves the next one.
            self.partial = sector;
            self.partial.clear();
        }
        let whole = bytes.len() / SECTOR * SECTOR;
        let (mut whole, rest) = bytes.split_at(whole);
        while !whole.is_empty() && !self.is_flawed() {
            let taken = self.sectors(whole);
            whole = &whole[taken..];
        }
        if !self.is_flawed() {
            self.partial.extend_from_slice(rest);
        }
    }

    /// The first thing that is wrong, now that there is nothing more.
    pub(crate) fn finish(mut self) -> Option<Flaw> {
        if self.flaw.is_none() {
            self.flaw = self.end().err();
        }
        self.flaw
    }

    fn end(&self) -> Result<(), Flaw> {
        let end = self.at + self.partial.len() as u64;
        match &self.state {
            State::Header => {
                let found = looks_like(&self.partial);
                let check = if self.partial.starts_with(b"KDMV") { Check::VmdkTruncated } else { Check::DiskFormat };
                return Err(Flaw::new(check, 0, "a streamOptimized VMDK", found));
            }
            // Bytes behind the end marker came in whole sectors, and perhaps a part of one.
            State::End => {
                let trailing = self.trailing + self.partial.len() as u64;
                // qemu-img fills the last grain up.
                let pads = self.pads && is_zeros(&self.partial) && trailing <= self.header.grain_bytes() as u64;
                if trailing > 0 && !pads {
                    let at = self.at - self.trailing;
                    return Err(Flaw::new(
                        Check::VmdkTrailingData,
                        at,
                        "the end of the file",
                        format!("{trailing} bytes"),
                    ));
                }
            }
            State::Marker if self.header.is_in_front() && self.partial.is_empty() => {}
            _ => {
                return Err(Flaw::new(
                    Check::VmdkTruncated,
                    end,
                    "the footer and the end marker",
                    "the end of the file",
                ));
            }
        }
        self.tables.finish(&self.header)
    }

    /// Reads sectors off the front of `bytes`, at least one; how many bytes that were.
    fn sectors(&mut self, bytes: &[u8]) -> usize {
        let taken = match &self.state {
            // In one piece, for the speed of it.
            State::Grain => bytes.len().min(self.grain.left_padded()),
            State::End => bytes.len(),
            _ => SECTOR,
        };
        if let Err(flaw) = self.read(&bytes[..taken]) {
            self.flaw = Some(flaw);
            self.state = State::Flawed;
        }
        self.at += taken as u64;
        taken
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        let at = self.at;
        match &mut self.state {
            State::Header => {
                self.header = Header::read(bytes, self.capacity_bytes)?;
                self.tables = Tables::new(&self.header);
                self.state = State::Front(Box::default());
            }
            State::Front(front) => {
                front.read(at, bytes, &self.header, &mut self.tables)?;
                if at / SECTOR as u64 + 1 == self.header.overhead {
                    front.finish(&self.header)?;
                    self.state = State::Marker;
                }
            }
            State::Marker => return self.marker(bytes),
            State::Grain => {
                if self.grain.read(at, bytes)? {
                    self.state = State::Marker;
                }
            }
            State::Table { left } => {
                self.tables.table(at, 4 - *left, bytes, &self.header)?;
                *left -= 1;
                if *left == 0 {
                    self.tables.end_table(at, &self.header)?;
                    self.state = State::Marker;
                }
            }
            State::Directory { left } => {
                *left -= 1;
                let left = *left;
                self.tables.directory(at, bytes, &self.header);
                if left == 0 {
                    self.state = State::Marker;
                }
            }
            State::Footer => {
                self.header.same(at, bytes, self.tables.directory_sector())?;
                self.tables.has_footer = true;
                self.state = State::Marker;
            }
            State::End => {
                self.trailing += bytes.len() as u64;
                self.pads &= is_zeros(bytes);
            }
            State::Flawed => {}
        }
        Ok(())
    }

    /// A grain begins with its place and length; anything else with a length of 0 and what it is.
    fn marker(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        let at = self.at;
        let (value, size, kind) = (le_u64(bytes, 0), le_u32(bytes, 8), le_u32(bytes, 12));
        let closed = self.tables.has_directory();
        if size > 0 {
            if closed {
                return Err(Flaw::new(Check::VmdkMarker, at, "a footer behind the grain directory", "a grain"));
            }
            self.tables.grain(at, value, &self.header)?;
            self.grain.begin(at, value, size, &self.header)?;
            if !self.grain.read(at, bytes)? {
                self.state = State::Grain;
            }
            return Ok(());
        }
        let front = self.header.is_in_front();
        let sectors = |expected: u64, what: &str| match value == expected {
            true => Ok(()),
            false => Err(Flaw::new(Check::VmdkMarker, at, format!("{what} of {expected} sectors"), value.to_string())),
        };
        match kind {
            0 if front || self.tables.has_footer => self.state = State::End,
            0 => return Err(Flaw::new(Check::VmdkFooter, at, "a footer before the end marker", "none")),
            1 if !front && !closed => {
                sectors(4, "a grain table")?;
                self.state = State::Table { left: 4 };
            }
            2 if !front && !closed => {
                sectors(self.header.directory_sectors(), "a grain directory")?;
                self.tables.begin_directory(at)?;
                self.state = State::Directory { left: value };
            }
            3 if closed && !self.tables.has_footer => {
                sectors(1, "a footer")?;
                self.state = State::Footer;
            }
            1..=3 => {
                let found = ["a grain table", "a grain directory", "a footer"][kind as usize - 1];
                return Err(Flaw::new(
                    Check::VmdkMarker,
                    at,
                    "the next part of the disk",
                    format!("{found} out of order"),
                ));
            }
            _ => return Err(Flaw::new(Check::VmdkMarker, at, "a marker of kind 0 to 3", kind.to_string())),
        }
        Ok(())
    }
}

fn is_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
