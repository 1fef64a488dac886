//! Media: ISO images on datastores, and the empty machines that they are put into.
//!
//! A medium is a file in the folder of a datastore that has the name of the template folder, and its path is what it is
//! known by: `[datastore] templates/debian-12.iso`.

use std::sync::Arc;

use virtualstack_model::compute::template::TemplateKind;

use super::super::{Fault, FaultClass, TemplateInfo, TemplateRef, VmSpec};
use super::customization::guest_info;
use super::faults::Error;
use super::marks::marks;
use super::placement::Placement;
use super::session::Session;
use super::soap::Call;
use super::tasks::started;
use super::xml::{Element, ManagedRef, Xml};

/// Nobody tells us what is on a medium. Every version knows this one, with drivers for the devices below.
pub(super) const GUEST: (&str, &str) = ("otherLinux64Guest", "Other Linux (64-bit)");
/// What is proposed for a VM from a medium: CPUs, MiB of memory, GiB of disk.
const SIZE: (i32, i32, i32) = (1, 1024, 10);

/// Keys of new devices, by which they refer to one another until they have been made.
const SCSI: i32 = -1;
const DISK: i32 = -2;
const SATA: i32 = -3;
const DRIVE: i32 = -4;
const CARD: i32 = -5;

/// The folder of all tenants' media, below that of the media on offer.
pub(super) const IMPORTED: &str = "tenants";

/// Whether a template is a medium, by its reference alone.
pub(super) fn is_medium(template: &TemplateRef) -> bool {
    template.0.starts_with('[')
}

/// A path of a datastore: its name, the folder in it, and the file.
pub(super) fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let (datastore, path) = path.strip_prefix('[')?.split_once(']')?;
    let (folder, file) = path.trim_start().rsplit_once('/').unwrap_or(("", path.trim_start()));
    Some((datastore, folder, file))
}

/// A file on a datastore.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: String,
    /// In bytes, where the vCenter says so.
    pub(super) size: Option<u64>,
}

impl Session {
    /// The media on the datastores that the pool's owner can reach.
    pub(super) async fn media(self: &Arc<Self>, placement: &Placement) -> Result<Vec<TemplateInfo>, Error> {
        let folder = placement.media_folder(self);
        let of_tenants = format!("{folder}/{IMPORTED}/");
        let mut media = Vec::new();
        for (name, browser) in self.browsers(placement).await? {
            let files = match self.files(&browser, &format!("[{name}] {folder}"), "*.iso", true).await {
                // A datastore that the account may not look into hides neither the templates nor other media.
                Err(error) if is_refusal(&error) => {
                    tracing::warn!(datastore = name, ?error, "cannot look for media");
                    continue;
                }
                files => files?,
            };
            for File { path: file, .. } in files {
                let display_name = file.rsplit_once('/').map_or(&*file, |(_, file)| file);
                let is_imported = parts(&file).is_some_and(|(_, of, _)| of.starts_with(&of_tenants));
                media.push(TemplateInfo {
                    display_name: display_name.get(..display_name.len() - 4).unwrap_or(display_name).to_owned(),
                    reference: TemplateRef(file),
                    kind: TemplateKind::Iso,
                    guest_os: GUEST.1.to_owned(),
                    cpu_count: SIZE.0,
                    memory_mib: SIZE.1,
                    disk_gib: SIZE.2,
                    further_disk_gib: 0,
                    is_imported,
                });
            }
        }
        media.sort_by(|a, b| a.reference.0.cmp(&b.reference.0));
        Ok(media)
    }

    /// Whether a medium is there.
    pub(super) async fn has_medium(
        self: &Arc<Self>,
        placement: &Placement,
        medium: &TemplateRef,
    ) -> Result<bool, Error> {
        let Some((datastore, folder, file)) = parts(&medium.0) else { return Ok(false) };
        let browsers = self.browsers(placement).await?;
        let Some((_, browser)) = browsers.into_iter().find(|(name, _)| name == datastore) else { return Ok(false) };
        Ok(!self.files(&browser, &format!("[{datastore}] {folder}"), file, false).await?.is_empty())
    }

    /// Datastores that can be looked into, by name.
    pub(super) async fn browsers(self: &Arc<Self>, placement: &Placement) -> Result<Vec<(String, ManagedRef)>, Error> {
        let offered = self.offered(&placement.pool, "datastore").await?;
        let found = self.read_all(&offered, "Datastore", &["name", "browser", "summary.accessible"]).await?;
        let accessible = found.iter().filter(|datastore| datastore.text("summary.accessible") != Some("false"));
        Ok(accessible
            .filter_map(|datastore| Some((datastore.text("name")?.to_owned(), datastore.get("browser")?.managed()?)))
            .collect())
    }

    /// The files in a folder; none where there is no such folder.
    pub(super) async fn files(
        self: &Arc<Self>,
        browser: &ManagedRef,
        folder: &str,
        pattern: &str,
        below: bool,
    ) -> Result<Vec<File>, Error> {
        let method = if below { "SearchDatastoreSubFolders_Task" } else { "SearchDatastore_Task" };
        let details = [("fileType", false), ("fileSize", true), ("modification", false), ("fileOwner", false)];
        let details = details.into_iter().fold(Xml::new(), |xml, (detail, wanted)| xml.text(detail, wanted));
        let spec =
            Xml::new().node("details", details).text("searchCaseInsensitive", true).text("matchPattern", pattern);
        let arguments = Xml::new().text("datastorePath", folder).node("searchSpec", spec);
        let task = started(&self.call(&Call::read(method, browser, arguments)).await?)?;
        let result = match self.result_of(&task).await {
            Err(error) if error.is("FileNotFound") => return Ok(Vec::new()),
            result => result?,
        };
        let folders = if below { result.children.iter().collect() } else { vec![&result] };
        Ok(folders.into_iter().flat_map(found).collect())
    }
}

/// Whether a datastore is not to be looked into, now and later. A password that is refused says nothing of a datastore.
pub(super) fn is_refusal(error: &Error) -> bool {
    let refused = matches!(error, Error::Vim(fault) if !fault.is("InvalidLogin"));
    refused && Fault::from(error.clone()).class == FaultClass::Permanent
}

/// Of one `HostDatastoreBrowserSearchResults`.
fn found(results: &Element) -> impl Iterator<Item = File> {
    let folder = results.text_at("folderPath").unwrap_or_default();
    results.all("file").filter_map(move |file| {
        let gap = if folder.ends_with(['/', ' ', ']']) { "" } else { "/" };
        Some(File { path: format!("{folder}{gap}{}", file.text_at("path")?), size: file.value_at("fileSize") })
    })
}

/// Makes an empty machine with the medium in its drive; none where the reference names no file. Elements in the order of
/// the WSDL, on which a vCenter insists.
pub(super) fn creation(placement: &Placement, card: &Xml, name: &str, spec: &VmSpec) -> Option<Call> {
    let (medium_on, ..) = parts(&spec.template.0)?;
    let datastore = placement.datastore_name.as_deref().unwrap_or(medium_on);
    let connected = || {
        let inner = Xml::new().text("startConnected", true).text("allowGuestControl", true).text("connected", true);
        Xml::new().node("connectable", inner)
    };
    let scsi = Xml::new().text("key", SCSI).text("busNumber", 0).text("sharedBus", "noSharing");
    // An empty file name: beside the VM.
    let backing = Xml::new().text("fileName", "").text("diskMode", "persistent").text("thinProvisioned", true);
    let disk = Xml::new()
        .text("key", DISK)
        .typed("backing", "VirtualDiskFlatVer2BackingInfo", backing)
        .text("controllerKey", SCSI)
        .text("unitNumber", 0)
        .text("capacityInKB", i64::from(spec.size.disk_gib) << 20);
    let sata = Xml::new().text("key", SATA).text("busNumber", 0);
    let drive = Xml::new()
        .text("key", DRIVE)
        .typed("backing", "VirtualCdromIsoBackingInfo", Xml::new().text("fileName", &spec.template.0))
        .join(&connected())
        .text("controllerKey", SATA)
        .text("unitNumber", 0);
    let card = Xml::new().text("key", CARD).join(card).join(&connected()).text("addressType", "generated");
    let devices = [
        ("ParaVirtualSCSIController", scsi),
        ("VirtualDisk", disk),
        ("VirtualAHCIController", sata),
        ("VirtualCdrom", drive),
        ("VirtualVmxnet3", card),
    ];
    let devices = devices.into_iter().fold(Xml::new(), |xml, (kind, device)| {
        let mut change = Xml::new().text("operation", "add");
        if kind == "VirtualDisk" {
            change = change.text("fileOperation", "create");
        }
        xml.typed("deviceChange", "VirtualDeviceConfigSpec", change.typed("device", kind, device))
    });
    let config = Xml::new()
        .text("name", name)
        .text("instanceUuid", spec.id)
        .text("guestId", GUEST.0)
        .node("files", Xml::new().text("vmPathName", format_args!("[{datastore}]")))
        .text("numCPUs", spec.size.cpu_count)
        .text("memoryMB", spec.size.memory_mib)
        .join(&devices)
        .join(&marks(spec))
        .join(&guest_info(spec));
    let arguments = Xml::new().node("config", config).reference("pool", &placement.pool);
    Some(Call::change("CreateVM_Task", &placement.folder, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_is_known_by_its_path() {
        let medium = TemplateRef("[ds 1] templates/a/debian.iso".into());
        assert!(is_medium(&medium));
        assert_eq!(parts(&medium.0), Some(("ds 1", "templates/a", "debian.iso")));
        assert_eq!(parts("[ds] x.iso"), Some(("ds", "", "x.iso")));
        assert!(!is_medium(&TemplateRef("5027a1de-0000-4000-8000-00000000d012".into())));
    }

    #[test]
    fn a_path_is_put_together_however_its_folder_ends() {
        for folder in ["[ds] templates", "[ds] templates/"] {
            let text = format!(
                "<r><folderPath>{folder}</folderPath><file><path>a.iso</path><fileSize>7</fileSize></file></r>"
            );
            let results = Element::parse(&text).expect("well-formed");
            let file = File { path: "[ds] templates/a.iso".to_owned(), size: Some(7) };
            assert_eq!(found(&results).collect::<Vec<_>>(), [file]);
        }
    }
}
