//! Files of tenants, as imports are given them.

use std::io::Write as _;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Notify;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::id::{OperationId, TenantId};
use virtualstack_worker::adapters::hypervisor::import::{Appliance, Content, DiskFile, ImageSource, ImportSpec};
use virtualstack_worker::adapters::hypervisor::{Fault, FaultClass};

/// How much comes at once.
const PIECE: usize = 64 << 10;
const GIB: u64 = 1 << 30;

/// A file in memory.
#[derive(Default)]
pub(super) struct Image {
    bytes: Vec<u8>,
    /// After so many bytes no more come.
    hangs_after: Option<usize>,
    /// After so many bytes reading fails.
    fails_after: Option<usize>,
    given: AtomicUsize,
    hangs_now: Notify,
}

/// Where files hang or fail: in the middle of the first disk.
const HALF: Option<usize> = Some(200_000);

impl Image {
    /// The same, of which no more comes after the half.
    pub(super) fn hanging(self) -> Self {
        Self { bytes: self.bytes, hangs_after: HALF, ..Self::default() }
    }

    /// The same, of which reading fails after the half.
    pub(super) fn failing(self) -> Self {
        Self { bytes: self.bytes, fails_after: HALF, ..Self::default() }
    }

    /// The same, of which all comes.
    pub(super) fn whole(self) -> Self {
        Self { bytes: self.bytes, ..Self::default() }
    }

    /// Ends when no more come.
    pub(super) async fn hangs(&self) {
        self.hangs_now.notified().await;
    }

    fn piece(&self, range: Range<usize>) -> Result<Bytes, Fault> {
        let given = self.given.fetch_add(range.len(), Ordering::Relaxed) + range.len();
        match self.fails_after {
            Some(most) if given > most => Err(Fault::new(
                FaultClass::Retry,
                "STORE_DOWN",
                "the file cannot be read just now",
                "planned by the test",
            )),
            _ => Ok(Bytes::copy_from_slice(&self.bytes[range])),
        }
    }
}

#[async_trait]
impl ImageSource for Image {
    async fn read(&self, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        let range = usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small");
        let before = self.given.load(Ordering::Relaxed);
        let mut pieces = Vec::new();
        let mut hangs = false;
        for start in range.clone().step_by(PIECE) {
            if self.hangs_after.is_some_and(|most| before + (start - range.start) >= most) {
                hangs = true;
                break;
            }
            pieces.push(self.piece(start..range.end.min(start + PIECE)));
        }
        if hangs {
            self.hangs_now.notify_one();
            return Ok(stream::iter(pieces).chain(stream::pending()).boxed());
        }
        Ok(stream::iter(pieces).into_stream().boxed())
    }
}

/// How disks lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    /// In two pieces, with something between.
    Chunks,
}

/// A machine with 2 CPUs, 1 GiB of memory and disks of so many GiB, and its file.
pub(super) fn appliance(disks: &[u64], packing: Packing) -> (ImportSpec, Image) {
    let (mut bytes, mut files) = (b"what stands before".to_vec(), Vec::new());
    for (number, gib) in disks.iter().enumerate() {
        let disk = disk(number);
        let packed = if packing == Packing::Gzip { gzip(&disk) } else { disk };
        let (one, other) = packed.split_at(if packing == Packing::Chunks { packed.len() / 3 } else { packed.len() });
        let mut parts = Vec::new();
        for part in [one, other].into_iter().filter(|part| !part.is_empty()) {
            let start = bytes.len() as u64;
            bytes.extend_from_slice(part);
            parts.push(start..bytes.len() as u64);
            bytes.extend_from_slice(b"what stands between");
        }
        let href = format!("disk{number}.vmdk");
        files.push(DiskFile { href, capacity_bytes: gib * GIB, gzip: packing == Packing::Gzip, parts });
    }
    let appliance = Appliance {
        descriptor: descriptor(disks, ""),
        disks: files,
        networks: vec!["their network".to_owned()],
        guest_os: "Debian".to_owned(),
    };
    (spec(Content::Ova(appliance)), Image { bytes, ..Image::default() })
}

/// A medium and its file.
pub(super) fn medium() -> (ImportSpec, Image) {
    let bytes = disk(9);
    (spec(Content::Iso { size: bytes.len() as u64 }), Image { bytes, ..Image::default() })
}

fn spec(content: Content) -> ImportSpec {
    ImportSpec {
        id: TemplateId::new(),
        tenant: TenantId::new(),
        operation: OperationId::new(),
        display_name: "our debian".to_owned(),
        content,
    }
}

/// Bytes that are not alike, enough for some pieces: nobody here looks into them.
fn disk(seed: usize) -> Vec<u8> {
    (0..700_001_usize).map(|at| u8::try_from((at * 31 + at / 251 + seed) % 256).expect("a byte")).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

/// An OVF, with more items in its hardware.
pub(super) fn descriptor(disks: &[u64], more: &str) -> String {
    let each = |text: &dyn Fn(usize, u64) -> String| -> String {
        disks.iter().enumerate().map(|(number, gib)| text(number, *gib)).collect()
    };
    let files =
        each(&|number, _| format!("<File ovf:id=\"file{number}\" ovf:href=\"disk{number}.vmdk\" ovf:size=\"1\"/>"));
    let sizes = each(&|number, gib| {
        format!(
            "<Disk ovf:diskId=\"vmdisk{number}\" ovf:fileRef=\"file{number}\" ovf:capacity=\"{gib}\" \
             ovf:capacityAllocationUnits=\"byte * 2^30\" \
             ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\"/>"
        )
    });
    let devices = each(&|number, _| {
        item(
            20 + number,
            17,
            &format!(
                "<rasd:AddressOnParent>{number}</rasd:AddressOnParent>\
                 <rasd:HostResource>ovf:/disk/vmdisk{number}</rasd:HostResource><rasd:Parent>3</rasd:Parent>"
            ),
        )
    });
    let hardware = [
        item(1, 3, "<rasd:VirtualQuantity>2</rasd:VirtualQuantity>"),
        item(2, 4, "<rasd:VirtualQuantity>1024</rasd:VirtualQuantity>"),
        item(3, 6, "<rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>"),
        item(
            4,
            10,
            "<rasd:Connection>their network</rasd:Connection><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>",
        ),
    ];
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\" \
         xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\">\
         <References>{files}</References><DiskSection><Info>disks</Info>{sizes}</DiskSection>\
         <NetworkSection><Info>networks</Info><Network ovf:name=\"their network\"/></NetworkSection>\
         <VirtualSystem ovf:id=\"debian\"><Info>a machine</Info><Name>debian</Name>\
         <VirtualHardwareSection><Info>hardware</Info><System><vssd:ElementName>hardware</vssd:ElementName>\
         <vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>\
         {}{devices}{more}</VirtualHardwareSection></VirtualSystem></Envelope>",
        hardware.concat()
    )
}

/// A part of the hardware of a descriptor.
pub(super) fn item(id: usize, kind: u32, inner: &str) -> String {
    format!(
        "<Item><rasd:ElementName>item {id}</rasd:ElementName><rasd:InstanceID>{id}</rasd:InstanceID>\
         <rasd:ResourceType>{kind}</rasd:ResourceType>{inner}</Item>"
    )
}
