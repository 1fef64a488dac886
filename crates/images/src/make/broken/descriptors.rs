//! Broken descriptors.

use super::row::{Row, good};
use crate::check::Check;
use crate::make::tar::pack;

/// One text of a good descriptor, and what stands in its place.
const EDITS: &[(&str, Check, &str, &str)] = &[
    ("a document type", Check::DescriptorDtd, "<Envelope", "<!DOCTYPE Envelope>\n<Envelope"),
    ("a bomb of entities", Check::DescriptorDtd, "<Envelope", BOMB),
    ("an encoding that is not UTF-8", Check::DescriptorEncoding, "UTF-8", "ISO-8859-1"),
    ("an element that is not closed", Check::DescriptorXml, "</References>", ""),
    ("an entity that is unknown", Check::DescriptorXml, "<Info>A VM</Info>", "<Info>&x;</Info>"),
    (
        "a wrong namespace",
        Check::OvfNamespace,
        "http://schemas.dmtf.org/ovf/envelope/1",
        "http://www.vmware.com/schema/ovf/1/envelope",
    ),
    ("two VMs", Check::SystemCount, "</Envelope>", "<VirtualSystem ovf:id=\"b\"/></Envelope>"),
    ("no VM", Check::SystemCount, "VirtualSystem", "Content"),
    ("a collection", Check::SystemCollection, "</Envelope>", "<VirtualSystemCollection ovf:id=\"b\"/></Envelope>"),
    ("a collection within another", Check::SystemCollection, "</Envelope>", NESTED),
    ("no hardware", Check::NoHardwareSection, "VirtualHardwareSection", "AnnotationSection"),
    ("an unknown section of another", Check::UnknownSection, "<NetworkSection>", "<vbox:Needed/><NetworkSection>"),
    ("an unknown section of OVF", Check::UnknownSection, "<NetworkSection>", "<EncryptionSection/><NetworkSection>"),
    ("a File without name", Check::FileReference, " ovf:href=\"small-disk1.vmdk\"", ""),
    ("a File in a folder", Check::FileReference, "\"small-disk1.vmdk\"", "\"disks/small-disk1.vmdk\""),
    ("a File elsewhere", Check::FileReference, "\"small-disk1.vmdk\"", "\"http://127.0.0.1/disk1.vmdk\""),
    ("a size that is no number", Check::FileReference, "ovf:size=\"", "ovf:size=\"-"),
    ("an unknown compression", Check::FileCompression, "ovf:size", "ovf:compression=\"bzip2\" ovf:size"),
    ("a size that lies", Check::MemberSize, "ovf:size=\"", "ovf:size=\"1"),
    ("a Disk of an unknown file", Check::DiskReference, "ovf:fileRef=\"file1\"", "ovf:fileRef=\"file2\""),
    ("a capacity of nothing", Check::DiskCapacity, "ovf:capacity=\"64\"", "ovf:capacity=\"0\""),
    ("a capacity that is no number", Check::DiskCapacity, "ovf:capacity=\"64\"", "ovf:capacity=\"6.4e1\""),
    ("a capacity in an unknown unit", Check::DiskCapacity, "byte * 2^20", "acre * 2^20"),
    ("a capacity that somebody chooses", Check::DiskProperty, "ovf:capacity=\"64\"", "ovf:capacity=\"${disk.size}\""),
    ("a capacity beyond the limit", Check::CapacityLimit, "ovf:capacity=\"64\"", "ovf:capacity=\"65011713\""),
    (
        "a capacity beyond all numbers",
        Check::CapacityLimit,
        "ovf:capacity=\"64\"",
        "ovf:capacity=\"18446744073709551615\"",
    ),
    ("a capacity that lies", Check::VmdkCapacity, "ovf:capacity=\"64\"", "ovf:capacity=\"65\""),
    (
        "a disk of a snapshot",
        Check::DeltaDisk,
        "ovf:diskId=\"vmdisk1\"",
        "ovf:diskId=\"vmdisk1\" ovf:parentRef=\"vmdisk0\"",
    ),
    ("no CPU", Check::CpuCount, "<rasd:VirtualQuantity>2<", "<rasd:VirtualQuantity>0<"),
    ("too many CPUs", Check::CpuCount, "<rasd:VirtualQuantity>2<", "<rasd:VirtualQuantity>769<"),
    ("CPUs that somebody chooses", Check::CpuCount, "<rasd:VirtualQuantity>2<", "<rasd:VirtualQuantity>${cpus}<"),
    ("CPUs that are not there", Check::CpuCount, "ResourceType>3<", "ResourceType>1<"),
    ("no memory", Check::MemorySize, "<rasd:VirtualQuantity>1024<", "<rasd:VirtualQuantity>0<"),
    ("memory in an unknown unit", Check::MemorySize, ">byte * 2^20<", ">page<"),
    ("memory beyond all numbers", Check::MemorySize, "Quantity>1024<", "Quantity>18446744073709551615<"),
    ("an Item without number", Check::HardwareItem, "<rasd:InstanceID>5</rasd:InstanceID>", ""),
    ("two Items with one number", Check::HardwareItem, "<rasd:InstanceID>5<", "<rasd:InstanceID>3<"),
    ("an unknown network", Check::HardwareItem, "<rasd:Connection>NAT<", "<rasd:Connection>LAN<"),
    ("a disk on nothing", Check::HardwareParent, "<rasd:Parent>3</rasd:Parent>", ""),
    ("a disk on a CPU", Check::HardwareParent, "<rasd:Parent>3<", "<rasd:Parent>1<"),
    ("a Disk without name", Check::DiskReference, " ovf:diskId=\"vmdisk1\"", ""),
    ("a disk of something else", Check::HardwareItem, "ovf:/disk/vmdisk1", "ovf:/file/file1"),
    ("a disk that is unknown", Check::DiskReference, "ovf:/disk/vmdisk1", "ovf:/disk/vmdisk2"),
    ("an unknown guest", Check::GuestId, "ubuntu64Guest", "plan9Guest"),
];

const NESTED: &str = "<VirtualSystemCollection ovf:id=\"b\"><VirtualSystemCollection ovf:id=\"c\">\
     </VirtualSystemCollection></VirtualSystemCollection></Envelope>";

/// Ten times ten times ten of it would be built by who believes it.
const BOMB: &str = "<!DOCTYPE Envelope [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">\
     <!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;\">]>\n<Envelope";

pub(super) fn all() -> Vec<Row> {
    let text = good().descriptor();
    let with = |descriptor: Vec<u8>| pack(&good().members_of(descriptor, good().files()));
    let mut rows: Vec<Row> = EDITS
        .iter()
        .map(|(name, check, from, to)| (*name, *check, with(text.replace(from, to).into_bytes())))
        .collect();
    let utf_16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let deep = format!("<Info>{}{}</Info>", "<a>".repeat(100), "</a>".repeat(100));
    let wide = format!("<Info>{}</Info>", "<a/>".repeat(50_000));
    let info = "<Info>A VM</Info>";
    let files: String = (0..64).map(|n| format!("<File ovf:id=\"x{n}\" ovf:href=\"x{n}\"/>")).collect();
    let files = text.replace("</References>", &format!("{files}</References>"));
    rows.extend([
        ("a descriptor in UTF-16", Check::DescriptorEncoding, with(utf_16)),
        ("a descriptor with other bytes", Check::DescriptorEncoding, with([text.as_bytes(), b"\xff"].concat())),
        ("a descriptor too long", Check::DescriptorSize, with(format!("{text}{}", " ".repeat(2 << 20)).into_bytes())),
        ("a descriptor too deep", Check::DescriptorBounds, with(text.replace(info, &deep).into_bytes())),
        ("too many files", Check::DescriptorBounds, with(files.into_bytes())),
        ("a descriptor too wide", Check::DescriptorBounds, with(text.replace(info, &wide).into_bytes())),
    ]);
    rows
}
