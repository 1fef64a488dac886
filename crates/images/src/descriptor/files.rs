//! References: the files beside the descriptor.

use std::collections::HashSet;

use super::tree::Tree;
use crate::check::Check;
use crate::fault::Place;
use crate::image::{Appliance, Compression};
use crate::limits::Limits;
use crate::tar::name_fault;

/// A file beside the descriptor.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) id: String,
    pub(crate) href: String,
    pub(crate) size: Option<u64>,
    /// It is cut into chunks of this many bytes.
    pub(crate) chunk_size: Option<u64>,
    pub(crate) compression: Compression,
    /// Of the disk in it, when it is a disk whose capacity could be read.
    pub(crate) capacity_bytes: Option<u64>,
    pub(crate) place: Place,
}

/// The files, in their order, as many as an archive may have members.
pub(super) fn read(tree: &mut Tree<'_, '_>, limits: &Limits) -> Vec<File> {
    let (mut files, mut ids, mut hrefs) = (Vec::new(), HashSet::new(), HashSet::new());
    for element in tree.listed("References", "File") {
        if files.len() == limits.max_members {
            tree.fault(element, Check::DescriptorBounds, format!("at most {} files", limits.max_members), "one more");
            break;
        }
        let Some((id, href)) = tree.attribute(element, "id").zip(tree.attribute(element, "href")) else {
            tree.fault(element, Check::FileReference, "ovf:id and ovf:href", "only one of them, or none");
            continue;
        };
        if let Some((expected, found)) = name_fault(href.as_bytes()) {
            tree.fault(element, Check::FileReference, format!("ovf:href with {expected}"), found);
            continue;
        }
        if !ids.insert(id) || !hrefs.insert(href) {
            tree.fault(
                element,
                Check::FileReference,
                "each ovf:id and each ovf:href once",
                format!("{id}, {href} again"),
            );
            continue;
        }
        let compression = match tree.attribute(element, "compression").unwrap_or_default() {
            "" | "identity" => Compression::None,
            "gzip" => Compression::Gzip,
            other => {
                tree.fault(element, Check::FileCompression, "gzip, or nothing", other);
                Compression::None
            }
        };
        let size = tree.number(element, "size", Check::FileReference);
        let chunk_size = tree.number(element, "chunkSize", Check::FileReference);
        if chunk_size == Some(0) {
            tree.fault(element, Check::FileReference, "ovf:chunkSize of 1 byte or more", "0");
        }
        let place = tree.place(element);
        let (id, href, capacity_bytes) = (id.to_owned(), href.to_owned(), None);
        files.push(File { id, href, size, chunk_size, compression, capacity_bytes, place });
    }
    files
}

/// Tells which files no disk of the VM is in.
pub(super) fn tell_unused(tree: &mut Tree<'_, '_>, files: &[File], appliance: &Appliance) {
    let used: HashSet<_> = appliance.disks.iter().map(|disk| disk.file_id.as_str()).collect();
    for file in files.iter().filter(|file| !used.contains(file.id.as_str())) {
        tree.findings.warn(format!("{} is no disk of the VM and is not imported", file.href));
    }
}
