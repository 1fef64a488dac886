//! The members of an OVA.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::descriptor::descriptor;
use super::ova::{Flavour, Ova, Sum};
use super::tar::{Member, pack};
use super::vmdk::SparseDisk;
use crate::digest::{Algorithm, Sums};

impl Ova {
    /// The text of the descriptor.
    #[must_use]
    pub fn descriptor(&self) -> String {
        descriptor(self, &self.files())
    }

    /// The members, in their order.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let files = self.files();
        self.members_of(descriptor(self, &files), files)
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        pack(&self.members())
    }

    /// The files of the disks.
    pub(super) fn files(&self) -> Vec<Vec<u8>> {
        let write = |disk: &SparseDisk| match self.flavour {
            Flavour::Qemu => disk.vmdk_of_qemu(),
            _ => disk.vmdk(),
        };
        let files = self.disks.iter().map(write);
        if self.gzip { files.map(|file| gzip(&file)).collect() } else { files.collect() }
    }

    /// The members around a descriptor and files of disks.
    pub(super) fn members_of(&self, descriptor: impl Into<Vec<u8>>, files: Vec<Vec<u8>>) -> Vec<Member> {
        let mut members = vec![Member::new(format!("{}.ovf", self.name), descriptor)];
        for (index, file) in files.into_iter().enumerate() {
            let href = self.href(index);
            match self.chunk_size {
                None => members.push(Member::new(href, file)),
                Some(size) => {
                    let chunks = file.chunks(size).enumerate();
                    members.extend(chunks.map(|(number, chunk)| Member::new(format!("{href}.{number:09}"), chunk)));
                }
            }
        }
        if self.nvram {
            members.push(Member::new(format!("{}.nvram", self.name), *b"MRVN"));
        }
        let mut seals = Vec::new();
        if let Some(sum) = self.manifest {
            seals.push(Member::new(format!("{}.mf", self.name), manifest(&members, sum)));
        }
        if self.certificate {
            let text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
            seals.push(Member::new(format!("{}.cert", self.name), text));
        }
        let at = if self.manifest_last { members.len() } else { 1 };
        members.splice(at..at, seals);
        members
    }
}

/// The text of a manifest of some members.
fn manifest(members: &[Member], sum: Sum) -> String {
    let algorithm = match sum {
        Sum::Sha1 => Algorithm::Sha1,
        Sum::Sha256 => Algorithm::Sha256,
        Sum::Sha512 => Algorithm::Sha512,
    };
    let line = |member: &Member| {
        let mut sums = Sums::new(&[algorithm]);
        sums.update(&member.bytes);
        let sums = sums.finish().into_iter();
        sums.map(|(_, sum)| format!("{}({})= {sum}\n", algorithm.as_str(), member.name)).collect::<String>()
    };
    members.iter().map(line).collect()
}

/// Packs bytes.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // A Vec takes everything.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}
