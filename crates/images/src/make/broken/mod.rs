//! Files that are broken in one way each.

mod archives;
mod descriptors;
mod disks;
mod manifests;
mod media;
mod row;

use crate::check::Check;
use crate::inspection::Format;

/// A file, and what must be found wrong with it first.
#[derive(Clone, Debug)]
pub struct Broken {
    pub name: &'static str,
    pub format: Format,
    pub bytes: Vec<u8>,
    pub check: Check,
}

/// All there are: at least one of each check that the bytes of a file alone can fail.
#[must_use]
pub fn broken() -> Vec<Broken> {
    let ovas = [archives::all(), manifests::all(), descriptors::all(), disks::all()].into_iter().flatten();
    let ovas = ovas.map(|(name, check, bytes)| Broken { name, format: Format::Ova, bytes, check });
    let isos = media::all().into_iter();
    let isos = isos.map(|(name, check, bytes)| Broken { name, format: Format::Iso, bytes, check });
    ovas.chain(isos).collect()
}
