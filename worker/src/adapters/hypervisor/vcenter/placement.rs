//! Where in the inventory our VMs and templates are: settings made into references.

use std::sync::Arc;

use super::faults::Error;
use super::properties::Object;
use super::session::Session;
use super::soap::Call;
use super::xml::{Element, ManagedRef, Xml};

/// Where VMs go.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) datacenter: ManagedRef,
    pub(super) folder: ManagedRef,
    pub(super) pool: ManagedRef,
    pub(super) datastore: Option<ManagedRef>,
    /// The datacenter's own folder of VMs.
    root: ManagedRef,
}

impl Placement {
    /// Finds everything, and makes the VM folder if it is absent.
    pub(super) async fn discover(session: &Arc<Session>) -> Result<Self, Error> {
        let config = session.config();
        let datacenter = session.datacenter().await?;
        let part = |name: &str| {
            let part = datacenter.get(name).and_then(Element::managed);
            part.ok_or_else(|| Error::Setup(format!("the account may not see the datacenter's {name}")))
        };
        let root = part("vmFolder")?;
        let mut folder = root.clone();
        for name in segments(&config.vm_folder) {
            folder = session.child_folder(&folder, name).await?;
        }
        let datastore = match &config.datastore {
            None => None,
            Some(name) => {
                let found = session.list(&part("datastoreFolder")?, "Datastore", &["name"]).await?;
                Some(the_one("datastore", found, Some(name))?.reference)
            }
        };
        let pool = session.pool(&part("hostFolder")?).await?;
        Ok(Self { datacenter: datacenter.reference, folder, pool, datastore, root })
    }

    /// The folder of templates; it is not ours to make.
    pub(super) async fn template_folder(&self, session: &Arc<Session>) -> Result<ManagedRef, Error> {
        let path = &session.config().template_folder;
        let mut folder = self.root.clone();
        for name in segments(path) {
            folder = session
                .child(&folder, name)
                .await?
                .ok_or_else(|| Error::Setup(format!("template_folder: there is no folder {path}")))?;
        }
        Ok(folder)
    }
}

impl Session {
    /// A child of a folder, by name.
    pub(super) async fn child(self: &Arc<Self>, folder: &ManagedRef, name: &str) -> Result<Option<ManagedRef>, Error> {
        let index = self.login().await?.service("searchIndex")?;
        let call = Call::read("FindChild", &index, Xml::new().reference("entity", folder).text("name", name));
        Ok(self.call(&call).await?.at("returnval").and_then(Element::managed))
    }

    async fn child_folder(self: &Arc<Self>, folder: &ManagedRef, name: &str) -> Result<ManagedRef, Error> {
        let absent = || Error::Setup(format!("vm_folder: there is no folder {name} and it cannot be made"));
        if let Some(child) = self.child(folder, name).await? {
            return Ok(child);
        }
        match self.call(&Call::change("CreateFolder", folder, Xml::new().text("name", name))).await {
            Ok(reply) => reply.at("returnval").and_then(Element::managed).ok_or_else(absent),
            // Another worker was faster.
            Err(Error::Vim(fault)) if fault.is_name_taken() => self.child(folder, name).await?.ok_or_else(absent),
            Err(error) => Err(error),
        }
    }

    async fn datacenter(self: &Arc<Self>) -> Result<Object, Error> {
        const PARTS: [&str; 4] = ["name", "vmFolder", "hostFolder", "datastoreFolder"];
        let login = self.login().await?;
        let wanted = self.config().datacenter.as_deref();
        if let Some(path) = wanted.filter(|name| name.contains('/')) {
            let arguments = Xml::new().text("inventoryPath", path.trim_matches('/'));
            let found =
                self.call(&Call::read("FindByInventoryPath", &login.service("searchIndex")?, arguments)).await?;
            let found = found.at("returnval").and_then(Element::managed).filter(|found| found.kind == "Datacenter");
            let found = found.ok_or_else(|| Error::Setup(format!("datacenter: there is none at {path}")))?;
            return the_one("datacenter", self.read_all(&[found], "Datacenter", &PARTS).await?, None);
        }
        the_one("datacenter", self.list(&login.service("rootFolder")?, "Datacenter", &PARTS).await?, wanted)
    }

    async fn pool(self: &Arc<Self>, hosts: &ManagedRef) -> Result<ManagedRef, Error> {
        let clusters = self.list(hosts, "ComputeResource", &["name", "resourcePool"]).await?;
        let root = |cluster: &Object| {
            let root = cluster.get("resourcePool").and_then(Element::managed);
            root.ok_or_else(|| Error::Setup("resource_pool: the account may not see the cluster's pool".into()))
        };
        let Some(wanted) = self.config().resource_pool.as_deref() else {
            return root(&the_one("resource_pool", clusters, None)?);
        };
        if clusters.iter().any(|cluster| cluster.text("name") == Some(wanted)) {
            return root(&the_one("resource_pool", clusters, Some(wanted))?);
        }
        let (below, name) = match wanted.split_once('/') {
            Some((cluster, name)) => (the_one("resource_pool", clusters, Some(cluster))?.reference, name),
            None => (hosts.clone(), wanted),
        };
        Ok(the_one("resource_pool", self.list(&below, "ResourcePool", &["name"]).await?, Some(name))?.reference)
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// The object of a name, or the only one there is; `key` is the setting that decides.
fn the_one(key: &str, mut found: Vec<Object>, name: Option<&str>) -> Result<Object, Error> {
    if let Some(name) = name {
        found.retain(|object| object.text("name") == Some(name));
    }
    let count = found.len();
    match (found.pop(), count, name) {
        (Some(one), 1, _) => Ok(one),
        (None, _, Some(name)) => Err(Error::Setup(format!("{key}: there is no {name}"))),
        (None, _, None) => Err(Error::Setup(format!("{key}: the account sees none"))),
        (Some(_), _, Some(name)) => Err(Error::Setup(format!("{key}: there are {count} of the name {name}"))),
        (Some(_), _, None) => Err(Error::Setup(format!("{key}: there are {count}; say which"))),
    }
}
