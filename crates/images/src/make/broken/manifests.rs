//! Broken manifests.

use super::row::{Row, good};
use crate::check::Check;
use crate::make::ova::{Ova, Sum};
use crate::make::tar::pack;

pub(super) fn all() -> Vec<Row> {
    let edited = |ova: Ova, change: &dyn Fn(String) -> String| {
        let mut members = ova.members();
        if let Some(manifest) = members.iter_mut().find(|member| member.name.ends_with(".mf")) {
            let text = String::from_utf8_lossy(&manifest.bytes).into_owned();
            manifest.bytes = change(text).into_bytes();
        }
        pack(&members)
    };
    // The last digit of the sum of the disk.
    let wrong_sum = |text: String| {
        let wrong = if text.ends_with("0\n") { "1\n" } else { "0\n" };
        format!("{}{wrong}", &text[..text.len() - 2])
    };
    let sum = |sum| edited(Ova { manifest: Some(sum), ..good() }, &wrong_sum);
    let last = edited(Ova { manifest_last: true, ..good() }, &wrong_sum);
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    vec![
        ("a wrong SHA-1", Check::DigestMismatch, sum(Sum::Sha1)),
        ("a wrong SHA-256", Check::DigestMismatch, sum(Sum::Sha256)),
        ("a wrong SHA-512", Check::DigestMismatch, sum(Sum::Sha512)),
        ("a wrong sum in a manifest that comes last", Check::DigestMismatch, last),
        ("a file not in the manifest", Check::ManifestUncovered, edited(good(), &|text| first_line(&text))),
        (
            "the descriptor not in the manifest",
            Check::ManifestUncovered,
            edited(good(), &|text| text.lines().skip(1).map(|line| format!("{line}\n")).collect()),
        ),
        (
            "a file only in the manifest",
            Check::ManifestUnknownFile,
            edited(good(), &|text| format!("{text}{}\n", first_line(&text).replace("small.ovf", "gone.ovf"))),
        ),
        (
            "a file in the manifest twice",
            Check::ManifestDuplicate,
            edited(good(), &|text| format!("{text}{}\n", first_line(&text))),
        ),
        ("a manifest of MD5", Check::ManifestAlgorithm, edited(good(), &|text| text.replace("SHA256", "MD5"))),
        ("a manifest that is none", Check::ManifestSyntax, edited(good(), &|_| "sums, somewhere else\n".to_owned())),
    ]
}
