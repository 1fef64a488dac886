//! Grain tables and the grain directory, against the grains and tables that were really seen.

use super::flaw::Flaw;
use super::header::{ENTRIES, Header, SECTOR, ZEROED};
use super::ledger::Ledger;
use crate::check::Check;
use crate::fields::le_u32;

/// Entries of four bytes in a sector.
const PER_SECTOR: u64 = 128;
/// An entry of a grain that reads as zeros.
const ZERO_GRAIN: u32 = 1;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Tables {
    /// The tables against the directory, or the grains against the tables that stand in front.
    ledger: Ledger,
    /// The place behind the latest grain.
    next_grain: u64,
    /// The table that the grains since the latest table belong to, and the sectors of these.
    open: Option<u64>,
    entries: Vec<u32>,
    /// The table that an empty one would be.
    next_table: u64,
    /// Where the table that is read begins, in sectors.
    table_sector: u64,
    /// Of the directory, in sectors.
    directory: Option<u64>,
    /// The first table, when tables stand in front.
    first: u64,
    pub(super) has_footer: bool,
}

impl Tables {
    pub(super) fn new(header: &Header) -> Self {
        let entries = if header.is_in_front() { 0 } else { ENTRIES };
        let entries = vec![0; usize::try_from(entries).unwrap_or_default()];
        Self { ledger: Ledger::new(header.tables()), entries, ..Self::default() }
    }

    pub(super) fn has_directory(&self) -> bool {
        self.directory.is_some()
    }

    pub(super) fn directory_sector(&self) -> u64 {
        self.directory.unwrap_or_default()
    }

    /// A grain of `place` (in sectors of the disk) stands at byte `at`.
    pub(super) fn grain(&mut self, at: u64, place: u64, header: &Header) -> Result<(), Flaw> {
        let wrong =
            |expected: String, found: u64| Err(Flaw::new(Check::GrainPosition, at, expected, found.to_string()));
        if place >= header.capacity {
            return wrong(format!("a sector below {}", header.capacity), place);
        }
        if !place.is_multiple_of(header.grain) {
            return wrong(format!("a multiple of {} sectors", header.grain), place);
        }
        if place < self.next_grain {
            return wrong(format!("sector {} or a later one", self.next_grain), place);
        }
        self.next_grain = place + header.grain;
        let Ok(sector) = u32::try_from(at / SECTOR as u64) else {
            return wrong("all grains within 2 TiB of the file".to_owned(), at);
        };
        let number = place / header.grain;
        let table = number / ENTRIES;
        if header.is_in_front() {
            self.ledger.seen(table, number, u64::from(sector));
            return Ok(());
        }
        if self.open.is_some_and(|open| open != table) || table < self.next_table {
            let found = "a grain of another table";
            return Err(Flaw::new(Check::GrainTable, at, "the grain table of the grains before", found));
        }
        self.open = Some(table);
        if let Some(entry) = usize::try_from(number % ENTRIES).ok().and_then(|index| self.entries.get_mut(index)) {
            *entry = sector;
        }
        Ok(())
    }

    /// Sector `index` of a table behind its grains.
    pub(super) fn table(&mut self, at: u64, index: u64, bytes: &[u8], header: &Header) -> Result<(), Flaw> {
        if index == 0 {
            self.table_sector = at / SECTOR as u64;
        }
        for entry in 0..PER_SECTOR {
            let (found, field) = entry_at(bytes, entry);
            let number = usize::try_from(index * PER_SECTOR + entry).unwrap_or_default();
            let expected = self.entries.get(number).copied().unwrap_or_default();
            let is_zeroed = expected == 0 && found == ZERO_GRAIN && header.flags & ZEROED != 0;
            if found != expected && !is_zeroed {
                let expected = format!("sector {expected} for grain {number}");
                return Err(Flaw::new(Check::GrainTable, at + field, expected, found.to_string()));
            }
        }
        Ok(())
    }

    /// The table is complete.
    pub(super) fn end_table(&mut self, at: u64, header: &Header) -> Result<(), Flaw> {
        // Who writes empty tables writes all of them.
        let table = self.open.take().unwrap_or(self.next_table);
        if table >= header.tables() {
            let expected = format!("{} grain tables", header.tables());
            return Err(Flaw::new(Check::GrainTable, at, expected, "one more"));
        }
        self.next_table = table + 1;
        self.ledger.seen(table, table, self.table_sector);
        self.entries.fill(0);
        Ok(())
    }

    /// A marker of the directory stands at byte `at`.
    pub(super) fn begin_directory(&mut self, at: u64) -> Result<(), Flaw> {
        if self.open.is_some() {
            let expected = "the grain table of the grains before";
            return Err(Flaw::new(Check::GrainTable, at, expected, "the grain directory"));
        }
        self.directory = Some(at / SECTOR as u64 + 1);
        Ok(())
    }

    /// A sector of the directory.
    pub(super) fn directory(&mut self, at: u64, bytes: &[u8], header: &Header) {
        let first = (at / SECTOR as u64 - self.directory_sector()) * PER_SECTOR;
        for entry in 0..PER_SECTOR.min(header.tables().saturating_sub(first)) {
            let (sector, _) = entry_at(bytes, entry);
            if sector != 0 {
                self.ledger.said(first + entry, first + entry, u64::from(sector));
            }
        }
    }

    /// A sector before the grains, of a disk whose directory and tables stand there.
    pub(super) fn front(&mut self, at: u64, bytes: &[u8], header: &Header) -> Result<(), Flaw> {
        let sector = at / SECTOR as u64;
        let directory_end = header.directory_at + header.directory_sectors();
        if (header.directory_at..directory_end).contains(&sector) {
            return self.front_directory(at, bytes, header);
        }
        let tables = self.first..self.first + header.tables() * Header::table_sectors();
        if self.first == 0 || !tables.contains(&sector) {
            return Ok(());
        }
        let first = (sector - self.first) * PER_SECTOR;
        for entry in 0..PER_SECTOR {
            let (found, _) = entry_at(bytes, entry);
            if found != 0 && !(found == ZERO_GRAIN && header.flags & ZEROED != 0) {
                self.ledger.said((first + entry) / ENTRIES, first + entry, u64::from(found));
            }
        }
        Ok(())
    }

    /// Tables in front stand one behind the other, so that they are found without keeping where each is.
    fn front_directory(&mut self, at: u64, bytes: &[u8], header: &Header) -> Result<(), Flaw> {
        let first = (at / SECTOR as u64 - header.directory_at) * PER_SECTOR;
        for entry in 0..PER_SECTOR.min(header.tables().saturating_sub(first)) {
            let (found, field) = entry_at(bytes, entry);
            let found = u64::from(found);
            let wrong =
                |expected: String| Err(Flaw::new(Check::GrainDirectory, at + field, expected, found.to_string()));
            if first + entry == 0 {
                let least = header.directory_at + header.directory_sectors();
                let size = header.tables() * Header::table_sectors();
                if found < least || found + size > header.overhead {
                    return wrong(format!("a table at sector {least} to {}", header.overhead.saturating_sub(size)));
                }
                self.first = found;
            }
            let expected = self.first + (first + entry) * Header::table_sectors();
            if found != expected {
                return wrong(format!("a table at sector {expected}"));
            }
        }
        Ok(())
    }

    /// Whether all that was seen was said, and nothing else.
    pub(super) fn finish(&self, header: &Header) -> Result<(), Flaw> {
        let Some(table) = self.ledger.difference() else { return Ok(()) };
        if header.is_in_front() {
            let at = (self.first + table * Header::table_sectors()) * SECTOR as u64;
            return Err(Flaw::new(Check::GrainTable, at, "the sectors of the grains", "others"));
        }
        let at = self.directory_sector() * SECTOR as u64 + table * 4;
        Err(Flaw::new(Check::GrainDirectory, at, format!("the sector of grain table {table}"), "another"))
    }
}

/// An entry of a sector, and where it stands in it.
fn entry_at(bytes: &[u8], entry: u64) -> (u32, u64) {
    let field = entry * 4;
    (le_u32(bytes, usize::try_from(field).unwrap_or(usize::MAX)), field)
}
