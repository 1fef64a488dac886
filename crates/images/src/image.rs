//! What a good image says.

use serde::{Deserialize, Serialize};

/// What was inspected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    Ova(Appliance),
    Iso(Medium),
}

/// A VM in an OVA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appliance {
    /// The OVF text, without a byte order mark.
    pub descriptor: String,
    pub name: Option<String>,
    pub guest: Guest,
    pub cpu_count: i32,
    pub memory_mib: i32,
    /// `vssd:VirtualSystemType`, e.g. "vmx-19".
    pub hardware_version: Option<String>,
    /// In the order of the hardware section.
    pub disks: Vec<Disk>,
    /// The capacities in bytes of further disks, which have no file: nothing is on them yet.
    pub blank_disks: Vec<u64>,
    pub networks: Vec<String>,
    /// What does not stand in the way, but somebody may want to know.
    pub warnings: Vec<String>,
}

/// The operating system that a VM was made for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// `vmw:osType`, e.g. "ubuntu64Guest".
    pub vmware_id: Option<String>,
    /// A value of `CIM_OperatingSystem.OSType`.
    pub cim_id: Option<u16>,
    pub description: String,
}

/// A disk of an appliance, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub file_id: String,
    pub href: String,
    pub capacity_bytes: u64,
    pub compression: Compression,
    /// Several when the file was cut into chunks.
    pub parts: Vec<Part>,
}

/// How a file is packed inside the OVA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    #[default]
    None,
    Gzip,
}

/// Bytes of the uploaded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub offset: u64,
    pub size: u64,
}

/// An ISO.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    pub label: String,
    /// In bytes. The file may be longer.
    pub volume_size: u64,
    /// Whether El Torito names something to boot.
    pub bootable: bool,
    pub udf: bool,
    /// As of an appliance.
    pub warnings: Vec<String>,
}
