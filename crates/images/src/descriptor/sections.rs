//! Sections beside those that describe the VM, and networks.

use super::tree::{Element, Tree};
use crate::check::Check;

/// Of OVF 1 and 2. What they ask for, vSphere does or may leave out.
const KNOWN: &[&str] = &[
    "References",
    "DiskSection",
    "SharedDiskSection",
    "NetworkSection",
    "DeploymentOptionSection",
    "ResourceAllocationSection",
    "AnnotationSection",
    "ProductSection",
    "EulaSection",
    "StartupSection",
    "OperatingSystemSection",
    "InstallSection",
    "EnvironmentFilesSection",
    "BootDeviceSection",
    "ScaleOutSection",
    "PlacementGroupSection",
    "PlacementSection",
    "VirtualHardwareSection",
    "VirtualSystem",
    "Strings",
    "Info",
    "Name",
    "Description",
    // Of the hardware.
    "System",
    "Item",
    "StorageItem",
    "EthernetPortItem",
    "Transport",
];

const VMWARE: &str = "http://www.vmware.com/schema/ovf";
/// What vSphere itself writes.
const VMWARE_KNOWN: &[&str] = &[
    "BootOrderSection",
    "Config",
    "CpuCompatibilitySection",
    "ExtraConfig",
    "IpAssignmentSection",
    "PropertyGroup",
    "StorageGroupSection",
    "StorageSection",
    "TagBasedPlacementGroupSection",
    "TagBasedPlacementSection",
    "VirtualDeviceGroupSection",
];

/// Tells which sections are required and unknown.
pub(super) fn check<'a>(tree: &mut Tree<'a, '_>, system: Element<'a>) {
    let hardware = tree.children(system, "VirtualHardwareSection");
    let parents = [tree.document.root_element(), system].into_iter().chain(hardware);
    for section in parents.flat_map(|parent| parent.children()).filter(|child| child.is_element()) {
        let name = section.tag_name().name();
        let known = match section.tag_name().namespace() {
            Some(namespace) if namespace == tree.ovf => KNOWN,
            Some(VMWARE) => VMWARE_KNOWN,
            _ => &[],
        };
        let required = tree.attribute(section, "required");
        if known.contains(&name) || required.is_some_and(|required| matches!(required, "false" | "0")) {
            continue;
        }
        let namespace = section.tag_name().namespace().unwrap_or("no namespace");
        tree.fault(section, Check::UnknownSection, "a section of OVF", format!("{name} of {namespace}"));
    }
}

/// The names of the networks.
pub(super) fn networks(tree: &mut Tree<'_, '_>) -> Vec<String> {
    let networks = tree.listed("NetworkSection", "Network");
    networks.into_iter().filter_map(|network| tree.attribute(network, "name")).map(str::to_owned).collect()
}
