//! OVAs as different programs export them.

use super::vmdk::SparseDisk;

const MIB: u64 = 1 << 20;

/// Whose export it is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    VMware,
    VirtualBox,
    /// A disk of qemu-img, in a descriptor that somebody wrote by hand.
    Qemu,
    /// OVF 2, as VirtualBox writes it for Oracle's cloud.
    Oracle,
}

impl Flavour {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::VMware, Self::VirtualBox, Self::Qemu, Self::Oracle];
}

/// What a manifest is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    Sha1,
    Sha256,
    Sha512,
}

/// An OVA to be made. Its fields may be set as one likes.
#[derive(Clone, Debug)]
pub struct Ova {
    pub name: String,
    pub flavour: Flavour,
    pub disks: Vec<SparseDisk>,
    /// Cuts the files of disks into chunks of this many bytes.
    pub chunk_size: Option<usize>,
    /// Packs the files of disks.
    pub gzip: bool,
    pub manifest: Option<Sum>,
    /// Instead of behind the descriptor.
    pub manifest_last: bool,
    pub certificate: bool,
    /// A file that is no disk.
    pub nvram: bool,
}

impl Ova {
    /// A small VM with one disk of 64 MiB and a manifest.
    #[must_use]
    pub fn new(flavour: Flavour) -> Self {
        // Two grain tables, one with a gap.
        let disk = SparseDisk::new(64 * MIB).with(0, b"boot").with(3, &[7; 4000]).with(600, b"data");
        Self {
            name: "small".to_owned(),
            flavour,
            disks: vec![disk],
            chunk_size: None,
            gzip: false,
            manifest: Some(if flavour == Flavour::VirtualBox { Sum::Sha1 } else { Sum::Sha256 }),
            manifest_last: false,
            certificate: false,
            nvram: false,
        }
    }

    /// What a disk's file is called.
    #[must_use]
    pub fn href(&self, disk: usize) -> String {
        format!("{}-disk{}.vmdk{}", self.name, disk + 1, if self.gzip { ".gz" } else { "" })
    }
}
