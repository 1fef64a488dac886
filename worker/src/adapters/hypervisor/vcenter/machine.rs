//! Virtual machines and templates as the inventory shows them.

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::{PowerState, Size};

use super::super::{Observation, TemplateInfo, TemplateRef};
use super::escapes::unescaped;
use super::faults::Error;
use super::marks::{MARKER, is_imported};
use super::properties::Object;
use super::session::Session;
use super::soap::Call;
use super::tasks::recent_tasks;
use super::xml::{Element, ManagedRef, Xml};

/// What [`Machine::from_object`] reads.
pub(super) const MACHINE: [&str; 15] = [
    "name",
    "config.extraConfig",
    "config.hardware",
    "config.createDate",
    "config.cpuHotAddEnabled",
    "config.memoryHotAddEnabled",
    "config.hotPlugMemoryLimit",
    "config.hotPlugMemoryIncrementSize",
    "runtime.powerState",
    "runtime.connectionState",
    "guest.ipAddress",
    "guest.net",
    "guest.guestState",
    "snapshot",
    "recentTask",
];

const TEMPLATE: [&str; 7] = [
    "name",
    "config.template",
    "config.instanceUuid",
    "config.guestId",
    "config.guestFullName",
    "config.hardware",
    "config.extraConfig",
];

/// A virtual machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) reference: ManagedRef,
    pub(super) name: String,
    /// Our id, if it carries one.
    pub(super) marker: Option<String>,
    pub(super) created: Option<DateTime<Utc>>,
    /// None while it is being made.
    pub(super) hardware: Option<Hardware>,
    /// As far as its host can be asked.
    pub(super) connected: bool,
    pub(super) power: PowerState,
    /// What may be added while it runs.
    pub(super) hot: HotAdd,
    /// Its guest was asked to shut down, and does.
    pub(super) shuts_down: bool,
    pub(super) snapshots: Vec<Snapshot>,
    /// Its last tasks, as a vCenter remembers them for some minutes.
    pub(super) recent_tasks: Vec<ManagedRef>,
    addresses: Vec<String>,
}

/// What may be added to a running VM.
#[derive(Debug, Default)]
pub(super) struct HotAdd {
    cpus: bool,
    memory: bool,
    /// In MiB, where there is a limit.
    memory_limit: Option<i64>,
    /// In MiB, where there is a least step.
    memory_step: Option<i64>,
}

/// A snapshot somewhere in a VM's tree of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) reference: ManagedRef,
    pub(super) name: String,
}

impl Machine {
    pub(super) fn from_object(object: &Object) -> Self {
        let marker = object.get("config.extraConfig").and_then(|extra| {
            let entry = extra.children.iter().find(|entry| entry.text_at("key") == Some(MARKER));
            entry?.text_at("value").map(str::to_owned)
        });
        let power = match object.text("runtime.powerState") {
            Some("poweredOn") => PowerState::On,
            Some("suspended") => PowerState::Paused,
            _ => PowerState::Off,
        };
        Self {
            reference: object.reference.clone(),
            name: object.text("name").unwrap_or_default().to_owned(),
            marker,
            created: object.get("config.createDate").and_then(|date| date.text.parse().ok()),
            hardware: object.get("config.hardware").map(Hardware::from_element),
            connected: object.text("runtime.connectionState").is_none_or(|state| state == "connected"),
            power,
            hot: HotAdd {
                cpus: object.text("config.cpuHotAddEnabled") == Some("true"),
                memory: object.text("config.memoryHotAddEnabled") == Some("true"),
                memory_limit: number(object, "config.hotPlugMemoryLimit"),
                memory_step: number(object, "config.hotPlugMemoryIncrementSize"),
            },
            shuts_down: power == PowerState::On && object.text("guest.guestState") == Some("shuttingDown"),
            snapshots: object.get("snapshot").map(snapshots).unwrap_or_default(),
            recent_tasks: recent_tasks(object),
            // A guest that is off may still show what it last reported.
            addresses: if power == PowerState::On { addresses(object) } else { Vec::new() },
        }
    }

    pub(super) fn observation(self) -> Observation {
        Observation {
            power: self.power,
            size: self.hardware.as_ref().map(Hardware::size),
            ip_addresses: self.addresses,
        }
    }
}

/// A positive number; both limits of memory are 0 where they do not apply.
fn number(object: &Object, name: &str) -> Option<i64> {
    object.text(name)?.trim().parse().ok().filter(|number| *number > 0)
}

/// All snapshots of a `VirtualMachineSnapshotInfo`, parents first.
fn snapshots(info: &Element) -> Vec<Snapshot> {
    let mut found = Vec::new();
    let mut trees: Vec<&Element> = info.all("rootSnapshotList").collect();
    while let Some(tree) = trees.pop() {
        if let Some(reference) = tree.at("snapshot").and_then(Element::managed) {
            found.push(Snapshot { reference, name: unescaped(tree.text_at("name").unwrap_or_default()) });
        }
        trees.extend(tree.all("childSnapshotList"));
    }
    found
}

/// The first address is the one that the guest prefers.
fn addresses(object: &Object) -> Vec<String> {
    let preferred = object.text("guest.ipAddress");
    let cards = object.get("guest.net").map_or(&[][..], |net| &net.children);
    let of_cards = cards.iter().flat_map(|card| card.all("ipAddress")).map(|address| address.text.as_str());
    let mut found: Vec<String> = Vec::new();
    for address in preferred.into_iter().chain(of_cards).filter_map(|text| text.trim().parse::<IpAddr>().ok()) {
        let local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let address_text = address.to_string();
        if !local && !address.is_loopback() && !address.is_unspecified() && !found.contains(&address_text) {
            found.push(address_text);
        }
    }
    found
}

/// Size of a VM or template.
#[derive(Clone, Debug, Default)]
pub(super) struct Hardware {
    cpus: i32,
    cores_per_socket: i32,
    memory_mib: i32,
    /// The first disk, whole, as it has to be sent back to change its size.
    disk: Option<Element>,
    /// All further disks together.
    further_kib: i64,
    cards: usize,
}

impl Hardware {
    fn from_element(hardware: &Element) -> Self {
        let disks = || hardware.all("device").filter(|device| device.is_kind("VirtualDisk"));
        Self {
            cpus: hardware.value_at("numCPU").unwrap_or_default(),
            cores_per_socket: hardware.value_at("numCoresPerSocket").unwrap_or(1),
            memory_mib: hardware.value_at("memoryMB").unwrap_or_default(),
            disk: disks().next().cloned(),
            further_kib: disks().skip(1).filter_map(|disk| disk.value_at::<i64>("capacityInKB")).sum(),
            // Only cards have addresses, whatever their kind.
            cards: hardware.all("device").filter(|device| device.at("addressType").is_some()).count(),
        }
    }

    /// How many network cards there are.
    pub(super) fn cards(&self) -> usize {
        self.cards
    }

    fn disk_kib(&self) -> i64 {
        self.disk.as_ref().and_then(|disk| disk.value_at("capacityInKB")).unwrap_or_default()
    }

    fn size(&self) -> Size {
        let disk_gib = i32::try_from(self.disk_kib() >> 20).unwrap_or(i32::MAX);
        Size { cpu_count: self.cpus, memory_mib: self.memory_mib, disk_gib }
    }

    pub(super) fn disk_suits(&self, size: &Size) -> bool {
        self.disk.is_none() || self.disk_kib() >= i64::from(size.disk_gib) << 20
    }

    pub(super) fn suits(&self, size: &Size) -> bool {
        self.cpus == size.cpu_count && self.memory_mib == size.memory_mib && self.disk_suits(size)
    }

    /// Whether a running VM can be made to suit. Nothing is taken away from one, and its sockets stay as they are.
    pub(super) fn can_grow_to(&self, size: &Size, hot: &HotAdd) -> bool {
        let more_memory = i64::from(size.memory_mib) - i64::from(self.memory_mib);
        let cpus = self.cpus == size.cpu_count
            || hot.cpus && self.cpus < size.cpu_count && size.cpu_count % self.cores_per_socket.max(1) == 0;
        let memory = more_memory == 0
            || hot.memory
                && more_memory > 0
                && hot.memory_limit.is_none_or(|limit| i64::from(size.memory_mib) <= limit)
                && hot.memory_step.is_none_or(|step| more_memory % step == 0);
        cpus && memory
    }

    /// The part of a `VirtualMachineConfigSpec` that makes it suit; disks only grow.
    pub(super) fn change_to(&self, size: &Size) -> Xml {
        let mut xml = Xml::new().text("numCPUs", size.cpu_count);
        // A vCenter refuses sockets that are not full; some guests are licensed for few sockets.
        if self.cores_per_socket > 1 && size.cpu_count % self.cores_per_socket != 0 {
            xml = xml.text("numCoresPerSocket", size.cpu_count);
        }
        xml = xml.text("memoryMB", size.memory_mib);
        match self.disk.clone().filter(|_| !self.disk_suits(size)) {
            None => xml,
            Some(mut disk) => {
                for child in &mut disk.children {
                    match child.name.as_str() {
                        "capacityInKB" => child.text = (i64::from(size.disk_gib) << 20).to_string(),
                        // It outranks the other where it is given.
                        "capacityInBytes" => child.text = (i64::from(size.disk_gib) << 30).to_string(),
                        _ => {}
                    }
                }
                let edit = Xml::new().text("operation", "edit").element("device", &disk);
                xml.typed("deviceChange", "VirtualDeviceConfigSpec", edit)
            }
        }
    }
}

impl Session {
    /// The VM or template of an instance UUID.
    pub(super) async fn by_instance_uuid(
        self: &Arc<Self>,
        datacenter: &ManagedRef,
        uuid: &str,
    ) -> Result<Option<ManagedRef>, Error> {
        let index = self.login().await?.service("searchIndex")?;
        let arguments = Xml::new()
            .reference("datacenter", datacenter)
            .text("uuid", uuid)
            .text("vmSearch", true)
            .text("instanceUuid", true);
        let found = self.call(&Call::read("FindByUuid", &index, arguments)).await?;
        Ok(found.at("returnval").and_then(Element::managed))
    }

    /// The hardware of a template and what kind of guest it has; none if it is no template any more.
    pub(super) async fn template_hardware(
        self: &Arc<Self>,
        template: &ManagedRef,
    ) -> Result<Option<(Hardware, String)>, Error> {
        let template = self.read(template, &TEMPLATE).await?.filter(is_template);
        Ok(template.and_then(|template| {
            let guest_id = template.text("config.guestId").unwrap_or_default().to_owned();
            Some((Hardware::from_element(template.get("config.hardware")?), guest_id))
        }))
    }

    /// The templates below a folder.
    pub(super) async fn templates(self: &Arc<Self>, folder: &ManagedRef) -> Result<Vec<TemplateInfo>, Error> {
        let machines = self.list(folder, "VirtualMachine", &TEMPLATE).await?;
        let templates = machines.iter().filter(|machine| is_template(machine)).filter_map(|template| {
            let hardware = Hardware::from_element(template.get("config.hardware")?);
            Some(TemplateInfo {
                // A managed reference changes when a template is registered anew, its instance UUID does not.
                reference: TemplateRef(template.text("config.instanceUuid")?.to_owned()),
                display_name: template.text("name")?.to_owned(),
                kind: TemplateKind::Ova,
                guest_os: template.text("config.guestFullName").unwrap_or_default().to_owned(),
                cpu_count: hardware.cpus,
                memory_mib: hardware.memory_mib,
                disk_gib: gib(hardware.disk_kib()),
                further_disk_gib: gib(hardware.further_kib),
                is_imported: is_imported(template),
            })
        });
        let mut templates: Vec<_> = templates.collect();
        templates.sort_by(|a, b| a.display_name.cmp(&b.display_name));
        Ok(templates)
    }
}

/// Rounded up.
fn gib(kib: i64) -> i32 {
    i32::try_from((kib + (1 << 20) - 1) >> 20).unwrap_or(i32::MAX)
}

fn is_template(machine: &Object) -> bool {
    machine.text("config.template") == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(power: &str) -> Machine {
        let property = |name: &str, value: &str| format!("<propSet><name>{name}</name><val>{value}</val></propSet>");
        let text = format!(
            "<objects><obj type=\"VirtualMachine\">vm-7</obj>{}{}{}{}{}{}</objects>",
            property("config.extraConfig", "<OptionValue><key>virtualstack.vmId</key><value>id</value></OptionValue>"),
            property("config.createDate", "2026-03-04T05:06:07.089Z"),
            property("runtime.powerState", power),
            property("runtime.connectionState", "connected"),
            property("guest.ipAddress", "10.0.0.5"),
            property(
                "guest.net",
                "<GuestNicInfo><ipAddress>fe80::1</ipAddress><ipAddress>10.0.0.5</ipAddress></GuestNicInfo>\
                 <GuestNicInfo><ipAddress>169.254.1.1</ipAddress><ipAddress>2001:db8::5</ipAddress>\
                 <ipAddress>junk</ipAddress></GuestNicInfo>"
            ),
        );
        Machine::from_object(&Object::from_element(&Element::parse(&text).expect("well-formed")).expect("an object"))
    }

    #[test]
    fn addresses_are_those_that_others_can_reach() {
        assert_eq!(machine("poweredOn").observation().ip_addresses, ["10.0.0.5", "2001:db8::5"]);
        assert!(machine("poweredOff").observation().ip_addresses.is_empty());
    }

    #[test]
    fn a_running_machine_grows_where_it_may() {
        let hardware = Hardware { cpus: 4, cores_per_socket: 2, memory_mib: 4096, ..Hardware::default() };
        let size = |cpu_count, memory_mib| Size { cpu_count, memory_mib, disk_gib: 10 };
        let all = HotAdd { cpus: true, memory: true, memory_limit: Some(16_384), memory_step: Some(1024) };
        for (to, hot, expected) in [
            (size(4, 4096), &HotAdd::default(), true),
            (size(6, 4096), &HotAdd::default(), false),
            (size(4, 5120), &HotAdd::default(), false),
            (size(6, 5120), &all, true),
            (size(5, 4096), &all, false),
            (size(2, 4096), &all, false),
            (size(4, 2048), &all, false),
            (size(4, 4608), &all, false),
            (size(4, 32_768), &all, false),
        ] {
            assert_eq!(hardware.can_grow_to(&to, hot), expected, "{to:?} {hot:?}");
        }
    }

    #[test]
    fn further_disks_are_counted_together_and_the_first_alone_grows() {
        let disk = |kib: i64| format!("<device i:type=\"VirtualDisk\"><capacityInKB>{kib}</capacityInKB></device>");
        let text = format!(
            "<h xmlns:i=\"http://www.w3.org/2001/XMLSchema-instance\"><numCPU>1</numCPU><memoryMB>1024</memoryMB>{}\
             <device i:type=\"VirtualE1000\"><addressType>assigned</addressType></device>{}{}</h>",
            disk(10 << 20),
            disk((1 << 20) + 1),
            disk(1 << 19),
        );
        let hardware = Hardware::from_element(&Element::parse(&text).expect("well-formed"));
        assert_eq!((gib(hardware.disk_kib()), gib(hardware.further_kib), hardware.cards()), (10, 2, 1));
        assert!(!hardware.disk_suits(&Size { cpu_count: 1, memory_mib: 1024, disk_gib: 11 }));
    }

    #[test]
    fn snapshots_are_found_in_the_whole_tree() {
        let text = r#"<val><currentSnapshot type="VirtualMachineSnapshot">s-3</currentSnapshot><rootSnapshotList>
            <snapshot type="VirtualMachineSnapshot">s-1</snapshot><vm type="VirtualMachine">vm-1</vm><name>a</name>
            <childSnapshotList><snapshot type="VirtualMachineSnapshot">s-2</snapshot><name>b</name></childSnapshotList>
            <childSnapshotList><snapshot type="VirtualMachineSnapshot">s-3</snapshot><name>c</name></childSnapshotList>
            </rootSnapshotList></val>"#;
        let mut names: Vec<_> =
            snapshots(&Element::parse(text).expect("well-formed")).into_iter().map(|found| found.name).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn a_machine_without_a_configuration_is_still_being_made() {
        let machine = machine("suspended");
        assert!(machine.hardware.is_none() && machine.created.is_some());
        assert_eq!((machine.marker.as_deref(), machine.power), (Some("id"), PowerState::Paused));
    }
}
