//! Extended headers: names that are too long for a header, and sizes that are too large.

use super::header::Kind;

/// What extended headers say of the next member.
#[derive(Default)]
pub(super) struct Extension {
    pub(super) headers: usize,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: bool,
}

impl Extension {
    pub(super) fn is_empty(&self) -> bool {
        self.headers == 0
    }

    /// Takes the text of an extended header. The error says what was expected.
    pub(super) fn read(&mut self, kind: Kind, text: &[u8]) -> Result<(), &'static str> {
        match kind {
            Kind::LongName => {
                let name = text.split(|byte| *byte == 0).next().unwrap_or_default();
                self.name = Some(name.to_vec());
                Ok(())
            }
            Kind::Pax => self.records(text, false),
            Kind::PaxGlobal => {
                // It is not of the next member alone.
                self.headers -= 1;
                self.records(text, true)
            }
            _ => Ok(()),
        }
    }

    /// Lines of `LENGTH KEYWORD=VALUE`, where the length counts all of the line.
    fn records(&mut self, mut text: &[u8], global: bool) -> Result<(), &'static str> {
        const RECORD: &str = "records of LENGTH KEYWORD=VALUE in an extended header";
        while !text.is_empty() {
            let digits = text.iter().take(6).position(|byte| *byte == b' ').ok_or(RECORD)?;
            let length: usize = std::str::from_utf8(&text[..digits]).ok().and_then(|t| t.parse().ok()).ok_or(RECORD)?;
            let record = text.get(digits + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(RECORD)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(RECORD)?;
            self.record(&record[..equals], &record[equals + 1..], global)?;
            text = &text[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8], global: bool) -> Result<(), &'static str> {
        match key {
            b"path" | b"size" if global => return Err("names and sizes in the headers of members only"),
            b"path" => self.name = Some(value.to_vec()),
            b"size" => {
                let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let size = digits.and_then(|text| text.parse::<i64>().ok()).and_then(|size| u64::try_from(size).ok());
                self.size = Some(size.ok_or("a size in decimal digits in an extended header")?);
            }
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            // Times and owners.
            _ => {}
        }
        Ok(())
    }
}
