//! The one VM of a descriptor.

use std::collections::HashMap;

use super::guest::is_known;
use super::hardware;
use super::tree::{Element, Tree, text_of};
use crate::check::Check;
use crate::fault::printable;
use crate::image::{Appliance, Disk, Guest};
use crate::limits::Limits;

const VMWARE: &str = "http://www.vmware.com/schema/ovf";

/// The one VirtualSystem; none when there is not exactly one, which was told.
pub(super) fn only<'a>(tree: &mut Tree<'a, '_>) -> Option<Element<'a>> {
    let root = tree.document.root_element();
    let collection = root.descendants().find(|element| tree.is(*element, "VirtualSystemCollection"));
    if let Some(collection) = collection {
        let found = tree.attribute(collection, "id").unwrap_or("VirtualSystemCollection");
        tree.fault(collection, Check::SystemCollection, "one VirtualSystem", found);
        return None;
    }
    let systems: Vec<_> = root.descendants().filter(|element| tree.is(*element, "VirtualSystem")).collect();
    match systems.as_slice() {
        [system] => Some(*system),
        [] => {
            tree.fault(root, Check::SystemCount, "one VirtualSystem", "none");
            None
        }
        [_, second, ..] => {
            tree.fault(*second, Check::SystemCount, "one VirtualSystem", format!("{}", systems.len()));
            None
        }
    }
}

/// Reads the VM into `appliance`.
pub(super) fn read<'a>(
    tree: &mut Tree<'a, '_>,
    system: Element<'a>,
    disks: HashMap<String, Disk>,
    appliance: &mut Appliance,
    limits: &Limits,
) {
    appliance.name = text_of(system, "Name").or_else(|| tree.attribute(system, "id")).map(printable);
    appliance.guest = guest(tree, system);
    match tree.children(system, "VirtualHardwareSection").first() {
        Some(section) => hardware::read(tree, *section, disks, appliance, limits),
        None => tree.fault(system, Check::NoHardwareSection, "VirtualHardwareSection", "none"),
    }
}

fn guest<'a>(tree: &mut Tree<'a, '_>, system: Element<'a>) -> Guest {
    let Some(section) = tree.children(system, "OperatingSystemSection").first().copied() else {
        tree.findings.warn("the VM does not say which operating system it was made for");
        return Guest::default();
    };
    let vmware_id = section.attribute((VMWARE, "osType")).map(str::trim).filter(|id| !id.is_empty());
    if let Some(id) = vmware_id.filter(|id| !is_known(id)) {
        tree.fault(section, Check::GuestId, "a guest of vSphere, such as otherGuest64", id);
    }
    let cim_id = tree.attribute(section, "id").and_then(|id| id.parse().ok());
    if cim_id.is_none() {
        tree.fault(
            section,
            Check::GuestId,
            "ovf:id with a number of CIM",
            tree.attribute(section, "id").unwrap_or("none"),
        );
    }
    let description = printable(text_of(section, "Description").unwrap_or_default());
    Guest { vmware_id: vmware_id.map(str::to_owned), cim_id, description }
}
