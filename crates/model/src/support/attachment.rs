//! Files of tickets: what they are called, and what they are, whatever is said of them.

use unicode_normalization::UnicodeNormalization as _;

use crate::compute::template::PIECE_BYTES;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::name;
use crate::support::id::TicketAttachmentId;

/// Bytes of a file, at most.
pub const MAX_BYTES: i64 = 15 << 20;

/// Files of a ticket, at most; those of the tenant and the internal ones each by themselves.
pub const MAX_FILES: i64 = 10;

/// Bytes of a file's name, at most.
const MAX_NAME: usize = 255;

/// Bytes of a file that tell what it is.
pub const HEAD: usize = 8 * 1024;

/// What is not known to be anything else.
pub const UNKNOWN: &str = "application/octet-stream";

/// Types that no program runs: they are handed out as what they are, and all others as unknown.
const INERT: [&str; 13] = [
    "text/plain",
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/bmp",
    "image/tiff",
    "application/zip",
    "application/gzip",
    "application/x-xz",
    "application/zstd",
    "application/x-7z-compressed",
    "application/x-tar",
];

/// The objects of a file in the object store, and how many bytes of it each has.
pub fn objects(tenant: TenantId, id: TicketAttachmentId, size_bytes: i64) -> impl Iterator<Item = (String, u64)> {
    let size = usize::try_from(size_bytes).unwrap_or_default();
    let of = move |first: usize| (object(tenant, id, first), (size - first).min(PIECE_BYTES) as u64);
    (0..size).step_by(PIECE_BYTES).map(of)
}

/// The object that begins at a byte of a file.
#[must_use]
pub fn object(tenant: TenantId, id: TicketAttachmentId, first_byte: usize) -> String {
    format!("attachments/{tenant}/{id}/{first_byte}")
}

/// The name that a file is kept under: without folders, NFKC, and without what cannot be seen or turns the direction of the rest.
pub fn file_name(said: &str) -> Result<String> {
    let normal: String = said.nfkc().collect();
    // Those of any system: a name comes from where its client runs.
    let base = normal.rsplit(['/', '\\']).next().unwrap_or_default();
    let seen: String = base.chars().filter(|c| !c.is_control() && !name::is_unseen(*c)).collect();
    let shown = seen.trim().trim_matches('.');
    if shown.is_empty() {
        return Err(Error::invalid("file_name", "is required, and must show something"));
    }
    if seen.trim().len() > MAX_NAME {
        return Err(Error::invalid("file_name", format!("must not be longer than {MAX_NAME} bytes")));
    }
    Ok(seen.trim().to_owned())
}

/// The media type of a file, by its first [`HEAD`] bytes.
#[must_use]
pub fn sniff(head: &[u8]) -> &'static str {
    if let Some(found) = infer::get(head) {
        return found.mime_type();
    }
    match text(head) {
        Some(text) if text.trim_start().starts_with("<svg") => "image/svg+xml",
        Some(_) => "text/plain",
        None => UNKNOWN,
    }
}

/// What it is called when it is handed out.
#[must_use]
pub fn served_as(content_type: &str) -> &'static str {
    INERT.into_iter().find(|inert| *inert == content_type).unwrap_or(UNKNOWN)
}

/// The head as text, if it is one: its last character may be cut.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_text = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{c}' | '\u{1b}');
    text.chars().all(is_text).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_a_file_and_shows_all_of_itself() {
        for (said, kept) in [
            ("log.txt", "log.txt"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("C:\\Users\\me\\photo.png", "photo.png"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("a\r\nSet-Cookie: x", "aSet-Cookie: x"),
            ("\u{ff0f}etc\u{ff0f}shadow", "shadow"),
            (".htaccess", ".htaccess"),
            ("photo.png.exe", "photo.png.exe"),
            ("  blanks .txt ", "blanks .txt"),
            ("\u{fb01}le.txt", "file.txt"),
        ] {
            assert_eq!(file_name(said).expect("a name"), kept, "{said:?}");
        }
        for wrong in ["", "..", ".", "/", "folder/", "\u{200b}", " \t", &"x".repeat(256), &"ä".repeat(128)] {
            assert_eq!(file_name(wrong).expect_err("refused").reason(), "INVALID_FIELDS", "{wrong:?}");
        }
    }

    #[test]
    fn a_file_is_what_its_bytes_are() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        for (bytes, sniffed, served) in [
            (&b"hello\n"[..], "text/plain", "text/plain"),
            (&b"caf\xc3"[..], "text/plain", "text/plain"),
            (&b"\x1b[31mred\x1b[0m"[..], "text/plain", "text/plain"),
            (&png[..], "image/png", "image/png"),
            (&b"\xff\xd8\xff\xe0\0\x10JFIF"[..], "image/jpeg", "image/jpeg"),
            (&b"<!DOCTYPE html><script>"[..], "text/html", UNKNOWN),
            (&b"  <html><script>"[..], "text/html", UNKNOWN),
            (&b"<svg onload=alert(1)>"[..], "image/svg+xml", UNKNOWN),
            (&b"<?xml version=\"1.0\"?><svg>"[..], "text/xml", UNKNOWN),
            (&b"%PDF-1.7 /JS"[..], "application/pdf", UNKNOWN),
            (&b"MZ\x90\0\x03\0\0\0"[..], "application/vnd.microsoft.portable-executable", UNKNOWN),
            (&b"#!/bin/sh\nrm -rf"[..], "text/x-shellscript", UNKNOWN),
            (&b"PK\x03\x04\x14\0"[..], "application/zip", "application/zip"),
            (&b"\0\x01\x02"[..], UNKNOWN, UNKNOWN),
        ] {
            let found = sniff(bytes);
            assert_eq!((found, served_as(found)), (sniffed, served), "{bytes:?}");
        }
    }
}
