//! The manifest: which sum each file has.

use std::collections::HashMap;

use crate::check::Check;
use crate::digest::Algorithm;
use crate::fault::{Findings, Place};
use crate::members::Member;

/// In bytes. Sixty-four lines with the longest names are a tenth of it.
pub(crate) const MAX_MANIFEST: u64 = 256 * 1024;

struct Line {
    file: String,
    algorithm: Algorithm,
    sum: String,
    place: Place,
}

/// The sums by file.
pub(crate) struct Manifest {
    name: String,
    lines: Vec<Line>,
    by_file: HashMap<String, usize>,
}

impl Manifest {
    /// Reads lines of `SHA256(file)= sum`.
    pub(crate) fn read(name: &str, bytes: &[u8], findings: &mut Findings) -> Self {
        let mut manifest = Self { name: name.to_owned(), lines: Vec::new(), by_file: HashMap::new() };
        let text = String::from_utf8_lossy(bytes);
        for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
            if !line.trim().is_empty() {
                manifest.line(line.trim(), Place::Line { line: number, column: 1 }, findings);
            }
        }
        manifest
    }

    fn line(&mut self, line: &str, place: Place, findings: &mut Findings) {
        // A file's name may have parentheses and an equals sign itself; a sum has neither.
        let split = line.split_once('(').and_then(|(algorithm, rest)| {
            let (rest, sum) = rest.rsplit_once('=')?;
            Some((algorithm.trim(), rest.trim_end().strip_suffix(')')?, sum.trim()))
        });
        let Some((algorithm, file, sum)) = split else {
            return findings.fault(Check::ManifestSyntax, &self.name, place, "SHA256(file)= sum", line);
        };
        let spelled = algorithm.to_ascii_uppercase().replace('-', "");
        let Some(algorithm) = Algorithm::ALL.into_iter().find(|known| known.as_str() == spelled) else {
            return findings.fault(Check::ManifestAlgorithm, &self.name, place, "SHA1, SHA256 or SHA512", algorithm);
        };
        if sum.len() != algorithm.width() || !sum.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            let expected = format!("{} hexadecimal digits", algorithm.width());
            return findings.fault(Check::ManifestSyntax, &self.name, place, expected, sum);
        }
        if self.by_file.contains_key(file) {
            return findings.fault(Check::ManifestDuplicate, &self.name, place, "each file once", file);
        }
        self.by_file.insert(file.to_owned(), self.lines.len());
        self.lines.push(Line { file: file.to_owned(), algorithm, sum: sum.to_ascii_lowercase(), place });
    }

    /// What is needed to check a file; nothing for one that the manifest does not name.
    pub(crate) fn algorithm(&self, file: &str) -> Option<Algorithm> {
        self.find(file).map(|line| line.algorithm)
    }

    fn find(&self, file: &str) -> Option<&Line> {
        self.by_file.get(file).and_then(|index| self.lines.get(*index))
    }

    /// Holds all members against it.
    pub(crate) fn compare(&self, members: &[Member], findings: &mut Findings) {
        for member in members.iter().filter(|member| !member.is_exempt()) {
            let place = Place::Offset(member.entry.at);
            let Some(line) = self.find(&member.entry.name) else {
                findings.fault(Check::ManifestUncovered, &member.entry.name, place, "a line of the manifest", "none");
                continue;
            };
            let found = member.sums.iter().find(|(algorithm, _)| *algorithm == line.algorithm);
            if let Some((algorithm, found)) = found.filter(|(_, found)| *found != line.sum) {
                let expected = format!("{} {}", algorithm.as_str(), line.sum);
                findings.fault(Check::DigestMismatch, &member.entry.name, place, expected, found);
            }
        }
        for line in &self.lines {
            if !members.iter().any(|member| member.entry.name == line.file && !member.is_exempt()) {
                let expected = "only files of the archive, but itself and its certificate";
                findings.fault(Check::ManifestUnknownFile, &self.name, line.place, expected, &line.file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_and_case_vary() {
        let sum = "AB".repeat(20);
        let text = format!("SHA1(a.ovf)= {sum}\r\nsha1 (b(1).vmdk) ={sum}\n\n  SHA-1(c=d.vmdk)={sum}  \n");
        let mut findings = Findings::default();
        let manifest = Manifest::read("a.mf", text.as_bytes(), &mut findings);
        assert_eq!(findings.settle().expect("good"), Vec::<String>::new());
        for file in ["a.ovf", "b(1).vmdk", "c=d.vmdk"] {
            assert_eq!(manifest.algorithm(file), Some(Algorithm::Sha1), "{file}");
        }
    }

    #[test]
    fn wrong_lines_are_named() {
        let sum = "ab".repeat(20);
        let text = format!("nonsense\nMD5(a)= {sum}\nSHA256(a)= {sum}\nSHA1(a)= {sum}\nSHA1(a)= {sum}\n");
        let mut findings = Findings::default();
        Manifest::read("a.mf", text.as_bytes(), &mut findings);
        let faults = findings.settle().expect_err("faults").faults;
        let found: Vec<_> = faults.iter().map(|fault| (fault.check, fault.place)).collect();
        let at = |line| Place::Line { line, column: 1 };
        assert_eq!(
            found,
            [
                (Check::ManifestSyntax, at(1)),
                (Check::ManifestAlgorithm, at(2)),
                (Check::ManifestSyntax, at(3)),
                (Check::ManifestDuplicate, at(5)),
            ]
        );
    }
}
