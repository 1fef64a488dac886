//! From the bytes of a descriptor to its text.

use crate::check::Check;
use crate::fault::{Findings, Place};

/// The text without a byte order mark; none when it is not UTF-8, which was told then.
pub(super) fn decode(file: &str, mut bytes: Vec<u8>, findings: &mut Findings) -> Option<String> {
    if let Some(found) = utf_16(&bytes) {
        findings.fault(Check::DescriptorEncoding, file, Place::Line { line: 1, column: 1 }, "UTF-8", found);
        return None;
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let place = place_at(error.as_bytes(), at);
            let found = error.as_bytes().get(at).map_or_else(String::new, |byte| format!("byte {byte:#04x}"));
            findings.fault(Check::DescriptorEncoding, file, place, "UTF-8", found);
            return None;
        }
    };
    if let Some(encoding) = declared(&text).filter(|encoding| !is_utf_8(encoding)) {
        let place = Place::Line { line: 1, column: 1 };
        findings.fault(Check::DescriptorEncoding, file, place, "UTF-8", format!("encoding {encoding}"));
        return None;
    }
    Some(text)
}

fn utf_16(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, ..] => Some("UTF-16 (little-endian)"),
        [0xfe, 0xff, ..] => Some("UTF-16 (big-endian)"),
        [b'<', 0, ..] => Some("UTF-16 (little-endian, without a mark)"),
        [0, b'<', ..] => Some("UTF-16 (big-endian, without a mark)"),
        _ => None,
    }
}

/// The encoding that the first line names.
fn declared(text: &str) -> Option<&str> {
    let (declaration, _) = text.strip_prefix("<?xml")?.split_once("?>")?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next()?;
    value.get(1..)?.split(quote).next()
}

/// ASCII is UTF-8 as well.
fn is_utf_8(encoding: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| encoding.eq_ignore_ascii_case(known))
}

/// The line and column of a byte.
pub(super) fn place_at(bytes: &[u8], at: usize) -> Place {
    let before = &bytes[..at.min(bytes.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    // Bytes that only continue a character are none of their own.
    let column = before[start..].iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1;
    let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
    Place::Line { line: number(line), column: number(column) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> Result<String, (Check, Place, String)> {
        let mut findings = Findings::default();
        let text = decode("a.ovf", bytes.to_vec(), &mut findings);
        text.ok_or_else(|| {
            let fault = findings.settle().expect_err("a fault").faults.remove(0);
            (fault.check, fault.place, fault.found)
        })
    }

    #[test]
    fn only_utf_8_is_read() {
        let at = |line, column| Place::Line { line, column };
        assert_eq!(found(b"\xef\xbb\xbf<a/>"), Ok("<a/>".to_owned()));
        assert!(found(b"<?xml version='1.0' encoding='us-ascii'?><a/>").is_ok());
        let wrong: &[(&[u8], Place, &str)] = &[
            (b"\xff\xfe<\0", at(1, 1), "UTF-16 (little-endian)"),
            (b"\0<\0a", at(1, 1), "UTF-16 (big-endian, without a mark)"),
            (b"<a>\n\xc3\xa4\xe4</a>", at(2, 2), "byte 0xe4"),
            (b"<?xml version=\"1.0\" encoding = \"latin1\"?><a/>", at(1, 1), "encoding latin1"),
        ];
        for (bytes, place, what) in wrong {
            assert_eq!(found(bytes), Err((Check::DescriptorEncoding, *place, (*what).to_owned())));
        }
    }
}
