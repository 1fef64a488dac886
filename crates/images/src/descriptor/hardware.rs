//! The hardware of the VM: processors, memory, disks and networks.

use std::collections::{HashMap, HashSet};

use super::items::{self, Item};
use super::tree::{Element, Tree, decimal, text_of};
use super::units::bytes_of;
use crate::check::Check;
use crate::fault::printable;
use crate::image::{Appliance, Disk};
use crate::limits::Limits;

const MIB: u64 = 1 << 20;
/// vSphere takes memory in steps of this many MiB.
const MEMORY_STEP: u64 = 4;

const PROCESSOR: u16 = 3;
const MEMORY: u16 = 4;
const ETHERNET: u16 = 10;
const DRIVES: [u16; 3] = [14, 15, 16];
const DISK: u16 = 17;

/// Reads the hardware into `appliance`.
pub(super) fn read<'a>(
    tree: &mut Tree<'a, '_>,
    section: Element<'a>,
    disks: HashMap<String, Disk>,
    appliance: &mut Appliance,
    limits: &Limits,
) {
    appliance.hardware_version = version(tree, section);
    let items = items::read(tree, section);
    appliance.cpu_count = cpus(tree, section, &items, limits);
    appliance.memory_mib = memory(tree, section, &items, limits);
    networks(tree, &items, &appliance.networks);
    drives(tree, &items);
    let (blank, filled): (Vec<_>, Vec<_>) =
        attached(tree, &items, disks).into_iter().partition(|disk| disk.file_id.is_empty());
    let count = blank.len() + filled.len();
    if count > limits.max_disks {
        let expected = format!("at most {} disks", limits.max_disks);
        tree.fault(section, Check::TooManyDisks, expected, count.to_string());
    }
    appliance.blank_disks = blank.into_iter().map(|disk| disk.capacity_bytes).collect();
    appliance.disks = filled;
}

fn version<'a>(tree: &mut Tree<'a, '_>, section: Element<'a>) -> Option<String> {
    let system = tree.children(section, "System").first().copied()?;
    let version = text_of(system, "VirtualSystemType")?;
    if !version.split([',', ' ']).any(|family| family.starts_with("vmx-")) {
        tree.findings.warn(format!("the hardware family {version} is none of vSphere"));
    }
    Some(printable(version))
}

/// The one item of a kind.
fn only<'a>(
    tree: &mut Tree<'a, '_>,
    section: Element<'a>,
    items: &[Item<'a>],
    kind: u16,
    check: Check,
) -> Option<Item<'a>> {
    let found: Vec<_> = items.iter().filter(|item| item.kind == kind).collect();
    match found.as_slice() {
        [item] => Some(**item),
        [] => {
            tree.fault(section, check, format!("one Item with ResourceType {kind}"), "none");
            None
        }
        [_, second, ..] => {
            tree.fault(second.element, check, format!("one Item with ResourceType {kind}"), format!("{}", found.len()));
            None
        }
    }
}

fn cpus<'a>(tree: &mut Tree<'a, '_>, section: Element<'a>, items: &[Item<'a>], limits: &Limits) -> i32 {
    let Some(item) = only(tree, section, items, PROCESSOR, Check::CpuCount) else { return 0 };
    let text = item.text("VirtualQuantity").unwrap_or_default();
    let count = text.parse().ok().filter(|count| (1..=limits.max_cpu_count).contains(count));
    if count.is_none() {
        tree.fault(item.element, Check::CpuCount, format!("1 to {}", limits.max_cpu_count), text);
    }
    count.unwrap_or_default()
}

fn memory<'a>(tree: &mut Tree<'a, '_>, section: Element<'a>, items: &[Item<'a>], limits: &Limits) -> i32 {
    let Some(item) = only(tree, section, items, MEMORY, Check::MemorySize) else { return 0 };
    let text = item.text("VirtualQuantity").unwrap_or_default();
    let unit = item.text("AllocationUnits");
    if unit.is_none() {
        tree.findings.warn("the size of memory has no unit and is taken as MiB");
    }
    let Some(factor) = bytes_of(unit.unwrap_or("MegaBytes")) else {
        let expected = "AllocationUnits such as \"byte * 2^20\"";
        tree.fault(item.element, Check::MemorySize, expected, unit.unwrap_or_default());
        return 0;
    };
    let bytes = decimal(text).and_then(|number| number.checked_mul(factor));
    let whole = bytes.filter(|bytes| bytes.is_multiple_of(MIB)).map(|bytes| bytes / MIB);
    let fitting = whole.and_then(|mib| i32::try_from(mib).ok()).filter(|mib| (1..=limits.max_memory_mib).contains(mib));
    if fitting.is_none() {
        let expected = format!("1 to {} MiB", limits.max_memory_mib);
        tree.fault(item.element, Check::MemorySize, expected, format!("{text} of {}", unit.unwrap_or("MegaBytes")));
    } else if whole.is_some_and(|mib| !mib.is_multiple_of(MEMORY_STEP)) {
        tree.findings.warn(format!("the size of memory is no multiple of {MEMORY_STEP} MiB"));
    }
    fitting.unwrap_or_default()
}

fn networks<'a>(tree: &mut Tree<'a, '_>, items: &[Item<'a>], networks: &[String]) {
    let known: HashSet<_> = networks.iter().map(String::as_str).collect();
    for item in items.iter().filter(|item| item.kind == ETHERNET) {
        if let Some(name) = item.text("Connection").filter(|name| !known.contains(name)) {
            tree.fault(item.element, Check::HardwareItem, "Connection with a Network of NetworkSection", name);
        }
    }
}

/// CDs and floppies may name a file.
fn drives<'a>(tree: &mut Tree<'a, '_>, items: &[Item<'a>]) {
    let files = tree.listed("References", "File");
    let files: HashSet<_> = files.into_iter().filter_map(|file| tree.attribute(file, "id")).collect();
    for item in items.iter().filter(|item| DRIVES.contains(&item.kind)) {
        let Some(resource) = item.text("HostResource") else { continue };
        if named(resource, "file").is_some_and(|id| !files.contains(id)) {
            tree.fault(item.element, Check::FileReference, "HostResource with the ovf:id of a File", resource);
        }
    }
}

/// The disks that hang on the VM, in the order of their items.
fn attached<'a>(tree: &mut Tree<'a, '_>, items: &[Item<'a>], mut disks: HashMap<String, Disk>) -> Vec<Disk> {
    let by_id: HashMap<_, _> = items.iter().map(|item| (item.id, item)).collect();
    let (mut attached, mut taken, mut gone) = (Vec::<Disk>::new(), HashSet::new(), HashSet::new());
    let mut files = HashSet::new();
    for item in items.iter().filter(|item| item.kind == DISK) {
        let parent = item.text("Parent");
        if !parent.and_then(|parent| by_id.get(parent)).is_some_and(|parent| parent.is_controller()) {
            let expected = "Parent with the InstanceID of a controller (ResourceType 5, 6 or 20)";
            tree.fault(item.element, Check::HardwareParent, expected, parent.unwrap_or("none"));
        } else if let Some(address) = item.text("AddressOnParent").filter(|address| !taken.insert((parent, *address))) {
            tree.fault(item.element, Check::HardwareItem, "an AddressOnParent of its own", address);
        }
        let resource = item.text("HostResource").unwrap_or("none");
        let Some(id) = named(resource, "disk") else {
            tree.fault(item.element, Check::HardwareItem, "HostResource ovf:/disk/ID", resource);
            continue;
        };
        match disks.remove(id) {
            Some(disk) => {
                gone.insert(id);
                if !disk.file_id.is_empty() && !files.insert(disk.file_id.clone()) {
                    tree.fault(item.element, Check::DiskReference, "a disk with a file of its own", &disk.href);
                }
                attached.push(disk);
            }
            None if gone.contains(id) => {
                tree.fault(item.element, Check::HardwareItem, "a disk of its own", format!("disk {id} again"));
            }
            None => {
                tree.fault(item.element, Check::DiskReference, "HostResource with the ovf:diskId of a Disk", resource)
            }
        }
    }
    attached
}

/// The id in `ovf:/disk/ID`, which some programs write as `/disk/ID` or `ovf://disk/ID`.
fn named<'a>(resource: &'a str, what: &str) -> Option<&'a str> {
    let path = resource.strip_prefix("ovf:").unwrap_or(resource).trim_start_matches('/');
    path.strip_prefix(what)?.strip_prefix('/').filter(|id| !id.is_empty())
}
