//! Media that tenants bring: files in a folder of ours below that of the media on offer.
//!
//! A file has its name only when it is whole. Until then it is called otherwise, so that nobody takes half of it for a medium;
//! and since its name ends in the template's id, what an earlier import has left is found wherever it lies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, COOKIE};
use tokio::time::timeout;
use virtualstack_model::compute::id::TemplateId;

use super::super::import::{Attendance, ImageSource, ImportSpec, Imported};
use super::super::{Fault, TaskRef, TemplateRef};
use super::adapter::VCenter;
use super::faults::Error;
use super::import_faults::{corrupted, held, of_call};
use super::marks::name_with;
use super::media::{File, GUEST, IMPORTED, is_refusal, parts};
use super::placement::{Datastore, Placement};
use super::session::Session;
use super::soap::Call;
use super::tasks::started;
use super::upload::{Cargo, Meter};
use super::xml::Xml;

/// What files are called that are not whole.
const PART: &str = ".part";
/// How long it may take to take back what was begun.
const TAKING_BACK: Duration = Duration::from_secs(10);

/// An import of a medium, and what goes with it.
pub(super) struct MediumImport<'a> {
    pub(super) spec: &'a ImportSpec,
    pub(super) size: u64,
    pub(super) source: &'a dyn ImageSource,
    pub(super) attendance: &'a Attendance,
}

impl VCenter {
    pub(super) async fn import_medium(&self, import: &MediumImport<'_>) -> Result<Imported, Fault> {
        let begun = AtomicBool::new(false);
        let made = tokio::select! {
            made = self.make_medium(import, &begun) => made,
            () = import.attendance.stop().cancelled() => Err(Attendance::stopped()),
        };
        if made.is_err() && begun.load(Ordering::Relaxed) {
            let id = import.spec.id;
            match timeout(TAKING_BACK, self.delete_files(id)).await {
                Ok(Ok(())) => {}
                outcome => tracing::warn!(template = %id, ?outcome, "an import is not yet taken back"),
            }
        }
        made.map(|reference| Imported { reference, guest_os: GUEST.1.to_owned(), warnings: Vec::new() })
    }

    async fn make_medium(&self, import: &MediumImport<'_>, begun: &AtomicBool) -> Result<TemplateRef, Fault> {
        let MediumImport { spec, size, source, attendance } = import;
        let placement = self.placement().await?;
        for file in self.session.files_of(&placement, spec.id).await? {
            if file.size == Some(*size) && !file.path.ends_with(PART) {
                return Ok(TemplateRef(file.path));
            }
            self.session.delete_file(&placement, &file.path).await?;
        }
        let datastore = self.session.datastore_for(&placement, *size).await?;
        let folder = format!("{}/{IMPORTED}/{}", placement.media_folder(&self.session), spec.tenant);
        self.session.make_directory(&placement, &format!("[{}] {folder}", datastore.name)).await?;
        let name = format!("{}.iso", name_with(&spec.display_name, spec.id));
        let (whole, part) = (format!("{folder}/{name}"), format!("{folder}/{name}{PART}"));
        begun.store(true, Ordering::Relaxed);
        let login = self.session.login().await.map_err(of_call)?;
        let url = file_url(self.session.transport().url(), &part, &placement.path, &datastore.name);
        let request = self.session.transport().http().put(url).header(COOKIE, login.cookie());
        let request = request.header(CONTENT_TYPE, "application/octet-stream");
        let all = 0..*size;
        let cargo = Cargo { source: *source, parts: std::slice::from_ref(&all), inflates_to: None };
        let meter = Meter::new(attendance, *size);
        cargo.send(request, &meter, self.session.config().request_timeout()).await?;
        self.session.check_size(&datastore, &folder, &format!("{name}{PART}"), *size).await?;
        let [part, whole] = [part, whole].map(|path| format!("[{}] {path}", datastore.name));
        self.session.rename(&placement, &part, &whole).await?;
        Ok(TemplateRef(whole))
    }

    async fn delete_files(&self, id: TemplateId) -> Result<(), Fault> {
        let placement = self.placement().await?;
        for file in self.session.files_of(&placement, id).await? {
            self.session.delete_file(&placement, &file.path).await?;
        }
        Ok(())
    }
}

impl Session {
    /// Files of a template, whole and half, on all datastores that can be looked into.
    pub(super) async fn files_of(self: &Arc<Self>, placement: &Placement, id: TemplateId) -> Result<Vec<File>, Fault> {
        let folder = placement.media_folder(self);
        let mut found = Vec::new();
        for (name, browser) in self.browsers(placement).await? {
            match self.files(&browser, &format!("[{name}] {folder}"), &format!("*{id}.iso*"), true).await {
                // What the account may not look into, it has put nothing into.
                Err(error) if is_refusal(&error) => {}
                files => found.extend(files.map_err(of_call)?),
            }
        }
        found.retain(|file| is_of(&file.path, id));
        Ok(found)
    }

    async fn check_size(
        self: &Arc<Self>,
        datastore: &Datastore,
        folder: &str,
        name: &str,
        size: u64,
    ) -> Result<(), Fault> {
        let folder = format!("[{}] {folder}", datastore.name);
        let files = self.files(&datastore.browser, &folder, name, false).await.map_err(of_call)?;
        match files.first().map(|file| file.size) {
            Some(Some(found)) if found != size => {
                Err(corrupted(format_args!("{folder}/{name}: sent {size} bytes, there are {found}")))
            }
            Some(_) => Ok(()),
            None => Err(corrupted(format_args!("{folder}/{name}: sent {size} bytes, and there is no such file"))),
        }
    }

    async fn make_directory(self: &Arc<Self>, placement: &Placement, path: &str) -> Result<(), Fault> {
        let files = self.login().await.and_then(|login| login.service("fileManager")).map_err(of_call)?;
        let arguments = Xml::new()
            .text("name", path)
            .reference("datacenter", &placement.datacenter)
            .text("createParentDirectories", true);
        match self.call(&Call::change("MakeDirectory", &files, arguments)).await {
            Err(Error::Vim(fault)) if fault.is_name_taken() => Ok(()),
            outcome => outcome.map(drop).map_err(of_call),
        }
    }

    async fn rename(self: &Arc<Self>, placement: &Placement, from: &str, to: &str) -> Result<(), Fault> {
        let files = self.login().await.and_then(|login| login.service("fileManager")).map_err(of_call)?;
        let arguments = Xml::new()
            .text("sourceName", from)
            .reference("sourceDatacenter", &placement.datacenter)
            .text("destinationName", to)
            .reference("destinationDatacenter", &placement.datacenter)
            .text("force", true);
        let moved = async {
            let task = started(&self.call(&Call::change("MoveDatastoreFile_Task", &files, arguments)).await?)?;
            self.result_of(&task).await
        };
        moved.await.map(drop).map_err(of_call)
    }

    /// Starts to delete a file.
    pub(super) async fn start_to_delete(self: &Arc<Self>, placement: &Placement, path: &str) -> Result<TaskRef, Error> {
        let files = self.login().await?.service("fileManager")?;
        let arguments = Xml::new().text("name", path).reference("datacenter", &placement.datacenter);
        started(&self.call(&Call::change("DeleteDatastoreFile_Task", &files, arguments)).await?)
    }

    /// Deletes a file that an earlier import has left.
    async fn delete_file(self: &Arc<Self>, placement: &Placement, path: &str) -> Result<(), Fault> {
        let deleted = async {
            let task = self.start_to_delete(placement, path).await?;
            self.result_of(&task).await
        };
        match deleted.await {
            Err(error) if error.is("FileNotFound") => Ok(()),
            // A connection that broke off holds it for a while.
            Err(Error::Vim(fault)) => Err(held(format_args!("{path}: {fault}"))),
            outcome => outcome.map(drop).map_err(of_call),
        }
    }
}

/// Whether a file is that of a template, whole or half.
pub(super) fn is_of(path: &str, id: TemplateId) -> bool {
    let whole = path.strip_suffix(PART).unwrap_or(path);
    whole.ends_with(&format!("-{id}.iso")) && parts(path).is_some()
}

/// Where a vCenter takes a file, for a path below its datastore.
fn file_url(service: &Url, path: &str, datacenter: &str, datastore: &str) -> Url {
    let mut url = service.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().push("folder").extend(path.split('/'));
    }
    url.set_query(None);
    url.query_pairs_mut().append_pair("dcPath", datacenter).append_pair("dsName", datastore);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_file_says_where_it_lies() {
        let service = Url::parse("https://vc.test:8443/sdk").expect("a URL");
        let url = file_url(&service, "my templates/tenants/a#b/x?.iso.part", "F/DC 0", "ds & 1");
        let expected =
            "https://vc.test:8443/folder/my%20templates/tenants/a%23b/x%3F.iso.part?dcPath=F%2FDC+0&dsName=ds+%26+1";
        assert_eq!(url.as_str(), expected);
    }

    #[test]
    fn a_file_is_known_by_the_end_of_its_name() {
        let id = TemplateId::new();
        assert!(is_of(&format!("[ds] templates/tenants/t/debian-{id}.iso"), id));
        assert!(is_of(&format!("[ds] templates/tenants/t/debian-{id}.iso.part"), id));
        assert!(!is_of(&format!("[ds] templates/debian-{}.iso", TemplateId::new()), id));
        assert!(!is_of(&format!("[ds] templates/{id}.iso/other.iso"), id));
        assert!(!is_of("[ds] templates/debian.iso", id));
    }
}
