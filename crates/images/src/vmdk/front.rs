//! What stands between the header and the first grain.

use super::flaw::Flaw;
use super::header::{Header, SECTOR};
use super::tables::Tables;
use crate::check::Check;

/// The text of the disk as it comes.
#[derive(Default)]
pub(super) struct Front {
    text: Vec<u8>,
}

impl Front {
    /// Takes one sector.
    pub(super) fn read(&mut self, at: u64, bytes: &[u8], header: &Header, tables: &mut Tables) -> Result<(), Flaw> {
        let sector = at / SECTOR as u64;
        if (header.text_at..header.text_at + header.text_size).contains(&sector) {
            self.text.extend_from_slice(bytes);
        }
        if header.is_in_front() {
            tables.front(at, bytes, header)?;
        }
        Ok(())
    }

    /// All before the first grain is read.
    pub(super) fn finish(&self, header: &Header) -> Result<(), Flaw> {
        let text = String::from_utf8_lossy(self.text.split(|byte| *byte == 0).next().unwrap_or_default());
        let kind = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            key.trim().eq_ignore_ascii_case("createType").then(|| value.trim().trim_matches('"').to_owned())
        });
        if kind.as_deref() == Some("streamOptimized") {
            return Ok(());
        }
        let found = kind.unwrap_or_else(|| "no createType".to_owned());
        let at = header.text_at * SECTOR as u64;
        Err(Flaw::new(Check::VmdkDescriptor, at, "createType=\"streamOptimized\"", found))
    }
}
