//! What a file looks like by its first bytes, for whoever uploaded the wrong one.

use crate::fields::le_u32;

/// How many bytes of the start are worth looking at: an ISO names itself at 32769.
pub(crate) const HEAD: usize = 34 * 1024;

const MAGICS: &[(usize, &[u8], &str)] = &[
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a rar archive"),
    (0, b"QFI\xfb", "a QCOW2 disk"),
    (0, b"COWD", "a VMDK of an ESX server (vmfsSparse)"),
    (0, b"conectix", "a VHD disk"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"# Disk Desc", "the text file of a VMDK whose data is elsewhere (flat, or split)"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a Windows program"),
    (257, b"ustar", "a tar archive (an OVA?)"),
    (32769, b"CD001", "an ISO"),
    (32769, b"BEA01", "a UDF image"),
];

/// What `head` looks like.
pub(crate) fn looks_like(head: &[u8]) -> &'static str {
    if head.is_empty() {
        return "nothing";
    }
    if head.starts_with(b"KDMV") {
        return sparse(head);
    }
    let known = MAGICS.iter().find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, name)) = known {
        return name;
    }
    let text = head.trim_ascii_start();
    if [&b"\xef\xbb\xbf<"[..], b"<?xml", b"<Envelope", b"<ovf:"].iter().any(|start| text.starts_with(start)) {
        return "XML (a descriptor without its archive?)";
    }
    if text.starts_with(b"<") {
        return "a page of the web, such as an error of a download";
    }
    match head.get(510..512) {
        Some(b"\x55\xaa") => "a raw disk with a boot record",
        _ if head.iter().all(|byte| *byte == 0) => "zeros",
        _ => "something unknown",
    }
}

/// The kinds of VMDK that share a magic. A stream has flags for compression and markers.
fn sparse(head: &[u8]) -> &'static str {
    match le_u32(head, 8) & 0x3_0000 {
        0x3_0000 => "a streamOptimized VMDK",
        _ => "a sparse VMDK that is not streamOptimized (monolithicSparse)",
    }
}
