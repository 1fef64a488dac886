//! Descriptors as different programs write them.

use std::fmt::Write;

use super::ova::{Flavour, Ova};

const RASD: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData";
const VSSD: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData";
const STREAM: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
const MIB: u64 = 1 << 20;

/// The descriptor of an OVA whose disks have these files.
pub(super) fn descriptor(ova: &Ova, files: &[Vec<u8>]) -> String {
    let version = if ova.flavour == Flavour::Oracle { 2 } else { 1 };
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/{version}\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/{version}\" xmlns:rasd=\"{RASD}\" xmlns:vssd=\"{VSSD}\" \
         xmlns:sasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_StorageAllocationSettingData.xsd\" \
         xmlns:epasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_EthernetPortAllocationSettingData.xsd\" \
         xmlns:vmw=\"http://www.vmware.com/schema/ovf\" xmlns:vbox=\"http://www.virtualbox.org/ovf/machine\">"
    );
    references(&mut text, ova, files);
    disks(&mut text, ova);
    text.push_str(
        "  <NetworkSection>\n    <Info>Networks</Info>\n    <Network ovf:name=\"NAT\"/>\n  </NetworkSection>\n",
    );
    system(&mut text, ova);
    text.push_str("</Envelope>\n");
    text
}

fn references(text: &mut String, ova: &Ova, files: &[Vec<u8>]) {
    text.push_str("  <References>\n");
    for (index, file) in files.iter().enumerate() {
        let _ = write!(text, "    <File ovf:id=\"file{}\" ovf:href=\"{}\"", index + 1, ova.href(index));
        // VirtualBox leaves it out.
        if ova.flavour != Flavour::VirtualBox {
            let _ = write!(text, " ovf:size=\"{}\"", file.len());
        }
        if let Some(size) = ova.chunk_size {
            let _ = write!(text, " ovf:chunkSize=\"{size}\"");
        }
        text.push_str(if ova.gzip { " ovf:compression=\"gzip\"/>\n" } else { "/>\n" });
    }
    if ova.nvram {
        let _ = writeln!(text, "    <File ovf:id=\"nvram\" ovf:href=\"{}.nvram\" ovf:size=\"4\"/>", ova.name);
    }
    text.push_str("  </References>\n");
}

fn disks(text: &mut String, ova: &Ova) {
    text.push_str("  <DiskSection>\n    <Info>Disks</Info>\n");
    for (index, disk) in ova.disks.iter().enumerate() {
        let bytes = disk.capacity_bytes;
        let capacity = match ova.flavour {
            Flavour::VMware if bytes.is_multiple_of(MIB) => {
                format!("ovf:capacity=\"{}\" ovf:capacityAllocationUnits=\"byte * 2^20\"", bytes / MIB)
            }
            Flavour::Qemu => format!("ovf:capacity=\"{bytes}\" ovf:capacityAllocationUnits=\"byte\""),
            _ => format!("ovf:capacity=\"{bytes}\""),
        };
        let number = index + 1;
        let _ = writeln!(
            text,
            "    <Disk {capacity} ovf:diskId=\"vmdisk{number}\" ovf:fileRef=\"file{number}\" ovf:format=\"{STREAM}\"/>"
        );
    }
    text.push_str("  </DiskSection>\n");
}

fn system(text: &mut String, ova: &Ova) {
    let _ = writeln!(text, "  <VirtualSystem ovf:id=\"{}\">\n    <Info>A VM</Info>\n    <Name>{0}</Name>", ova.name);
    let (family, guest) = match ova.flavour {
        Flavour::VMware => ("vmx-19", "ovf:id=\"94\" vmw:osType=\"ubuntu64Guest\""),
        Flavour::VirtualBox | Flavour::Oracle => ("virtualbox-2.2", "ovf:id=\"94\""),
        Flavour::Qemu => ("vmx-13", "ovf:id=\"102\" vmw:osType=\"otherGuest64\""),
    };
    let _ = writeln!(text, "    <OperatingSystemSection {guest}>\n      <Info>The guest</Info>");
    text.push_str("      <Description>Ubuntu Linux (64-bit)</Description>\n");
    if is_virtualbox(ova) {
        text.push_str("      <vbox:OSType ovf:required=\"false\">Ubuntu_64</vbox:OSType>\n");
    }
    text.push_str("    </OperatingSystemSection>\n    <VirtualHardwareSection>\n      <Info>Hardware</Info>\n");
    let _ = writeln!(
        text,
        "      <System>\n        <vssd:ElementName>Hardware</vssd:ElementName>\n        \
         <vssd:InstanceID>0</vssd:InstanceID>\n        <vssd:VirtualSystemType>{family}</vssd:VirtualSystemType>\n      </System>"
    );
    hardware(text, ova);
    text.push_str("    </VirtualHardwareSection>\n");
    if is_virtualbox(ova) {
        text.push_str("    <vbox:Machine ovf:required=\"false\" version=\"1.19-linux\" name=\"small\"/>\n");
    }
    text.push_str("  </VirtualSystem>\n");
}

fn is_virtualbox(ova: &Ova) -> bool {
    matches!(ova.flavour, Flavour::VirtualBox | Flavour::Oracle)
}

fn hardware(text: &mut String, ova: &Ova) {
    let unit = if is_virtualbox(ova) { "MegaBytes" } else { "byte * 2^20" };
    item(text, "Item", "rasd", 1, 3, &[("VirtualQuantity", "2")]);
    item(text, "Item", "rasd", 2, 4, &[("AllocationUnits", unit), ("VirtualQuantity", "1024")]);
    let controller = if is_virtualbox(ova) { 20 } else { 6 };
    item(text, "Item", "rasd", 3, controller, &[("Address", "0"), ("ResourceSubType", "lsilogic")]);
    let is_2 = ova.flavour == Flavour::Oracle;
    let (storage, sasd) = if is_2 { ("StorageItem", "sasd") } else { ("Item", "rasd") };
    for index in 0..ova.disks.len() {
        let host = if is_virtualbox(ova) { "/disk/vmdisk" } else { "ovf:/disk/vmdisk" };
        let (host, address) = (format!("{host}{}", index + 1), index.to_string());
        let fields = [("AddressOnParent", address.as_str()), ("HostResource", &host), ("Parent", "3")];
        item(text, storage, sasd, 10 + index, 17, &fields);
    }
    let (ethernet, epasd) = if is_2 { ("EthernetPortItem", "epasd") } else { ("Item", "rasd") };
    item(text, ethernet, epasd, 5, 10, &[("Connection", "NAT"), ("ResourceSubType", "E1000")]);
    if ova.flavour == Flavour::VMware {
        text.push_str("      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"efi\"/>\n");
        text.push_str("      <vmw:ExtraConfig vmw:key=\"nvram\" vmw:value=\"small.nvram\"/>\n");
    }
}

fn item(text: &mut String, element: &str, prefix: &str, id: usize, kind: u16, fields: &[(&str, &str)]) {
    let (id, kind) = (id.to_string(), kind.to_string());
    let always = [("ElementName", id.as_str()), ("InstanceID", id.as_str()), ("ResourceType", kind.as_str())];
    let _ = writeln!(text, "      <{element}>");
    for (name, value) in fields.iter().chain(&always) {
        let _ = writeln!(text, "        <{prefix}:{name}>{value}</{prefix}:{name}>");
    }
    let _ = writeln!(text, "      </{element}>");
}
