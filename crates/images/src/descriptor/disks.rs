//! DiskSection: which files are disks, and of which capacity.

use std::collections::HashMap;

use super::files::File;
use super::tree::{Element, Tree, decimal, is_property};
use super::units::bytes_of;
use crate::check::Check;
use crate::image::Disk;
use crate::limits::Limits;

/// The disks by `ovf:diskId`; one without file has an empty `file_id`. What is wrong with one is told, and it stays, so that items
/// of the hardware find it.
pub(super) fn read(tree: &mut Tree<'_, '_>, files: &[File], limits: &Limits) -> HashMap<String, Disk> {
    let by_id: HashMap<_, _> = files.iter().map(|file| (file.id.as_str(), file)).collect();
    let mut disks = HashMap::new();
    for element in tree.listed("DiskSection", "Disk") {
        let Some(id) = tree.attribute(element, "diskId") else {
            tree.fault(element, Check::DiskReference, "ovf:diskId", "none");
            continue;
        };
        if let Some(parent) = tree.attribute(element, "parentRef") {
            tree.fault(element, Check::DeltaDisk, "no ovf:parentRef", parent);
        }
        let capacity = capacity(tree, element, limits);
        let reference = tree.attribute(element, "fileRef");
        let file = reference.and_then(|reference| by_id.get(reference));
        if let Some(reference) = reference.filter(|_| file.is_none()) {
            tree.fault(element, Check::DiskReference, "ovf:fileRef with the ovf:id of a File", reference);
        }
        let disk = Disk {
            file_id: file.map(|file| file.id.clone()).unwrap_or_default(),
            href: file.map(|file| file.href.clone()).unwrap_or_default(),
            capacity_bytes: capacity.unwrap_or_default(),
            compression: file.map(|file| file.compression).unwrap_or_default(),
            parts: Vec::new(),
        };
        if disks.insert(id.to_owned(), disk).is_some() {
            tree.fault(element, Check::DiskReference, "each ovf:diskId once", id);
        }
    }
    disks
}

/// Tells the files which capacity the disks in them have.
pub(super) fn tell_files(disks: &[Disk], files: &mut [File]) {
    let capacities: HashMap<_, _> = disks.iter().map(|disk| (disk.file_id.as_str(), disk.capacity_bytes)).collect();
    for file in files {
        // Without a capacity, something was told of the disk already.
        file.capacity_bytes = capacities.get(file.id.as_str()).copied().filter(|capacity| *capacity > 0);
    }
}

/// The capacity in bytes, unless something is wrong with it.
fn capacity<'a>(tree: &mut Tree<'a, '_>, element: Element<'a>, limits: &Limits) -> Option<u64> {
    let text = tree.attribute(element, "capacity").unwrap_or_default();
    if is_property(text) {
        tree.fault(element, Check::DiskProperty, "ovf:capacity as a number", text);
        return None;
    }
    let unit = tree.attribute(element, "capacityAllocationUnits").filter(|unit| !unit.is_empty());
    let Some(factor) = bytes_of(unit.unwrap_or("byte")) else {
        let expected = "ovf:capacityAllocationUnits such as \"byte * 2^30\"";
        tree.fault(element, Check::DiskCapacity, expected, unit.unwrap_or_default());
        return None;
    };
    let Some(number) = decimal(text).filter(|number| *number > 0) else {
        tree.fault(element, Check::DiskCapacity, "ovf:capacity of 1 or more in decimal digits", text);
        return None;
    };
    let bytes = number.checked_mul(factor).filter(|bytes| *bytes <= limits.max_capacity_bytes);
    if bytes.is_none() {
        let expected = format!("at most {} bytes", limits.max_capacity_bytes);
        tree.fault(element, Check::CapacityLimit, expected, format!("{text} of {}", unit.unwrap_or("byte")));
    }
    bytes
}
