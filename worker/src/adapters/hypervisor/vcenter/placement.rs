//! Where in the inventory our VMs and templates are: settings made into references.

use std::sync::Arc;

use super::escapes::{escaped, unescaped};
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
    /// Its name, as in paths of files.
    pub(super) datastore_name: Option<String>,
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
        let datastore_name = config.datastore.clone();
        Ok(Self { datacenter: datacenter.reference, folder, pool, datastore, datastore_name, root })
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
        let call = Call::read("FindChild", &index, Xml::new().reference("entity", folder).text("name", escaped(name)));
        Ok(self.call(&call).await?.at("returnval").and_then(Element::managed))
    }

    async fn child_folder(self: &Arc<Self>, folder: &ManagedRef, name: &str) -> Result<ManagedRef, Error> {
        let absent = || Error::Setup(format!("vm_folder: there is no folder {name} and it cannot be made"));
        if let Some(child) = self.child(folder, name).await? {
            return Ok(child);
        }
        match self.call(&Call::change("CreateFolder", folder, Xml::new().text("name", escaped(name)))).await {
            Ok(reply) => reply.at("returnval").and_then(Element::managed).ok_or_else(absent),
            // Another worker was faster.
            Err(Error::Vim(fault)) if fault.is_name_taken() => self.child(folder, name).await?.ok_or_else(absent),
            Err(error) => Err(error),
        }
    }

    async fn datacenter(self: &Arc<Self>) -> Result<Object, Error> {
        const PARTS: [&str; 4] = ["name", "vmFolder", "hostFolder", "datastoreFolder"];
        let login = self.login().await?;
        let desired = self.config().datacenter.as_deref();
        if let Some(path) = desired.filter(|name| name.contains('/')) {
            let arguments = Xml::new().text("inventoryPath", path.trim_matches('/'));
            let found =
                self.call(&Call::read("FindByInventoryPath", &login.service("searchIndex")?, arguments)).await?;
            let found = found.at("returnval").and_then(Element::managed).filter(|found| found.kind == "Datacenter");
            let found = found.ok_or_else(|| Error::Setup(format!("datacenter: there is none at {path}")))?;
            return the_one("datacenter", self.read_all(&[found], "Datacenter", &PARTS).await?, None);
        }
        the_one("datacenter", self.list(&login.service("rootFolder")?, "Datacenter", &PARTS).await?, desired)
    }

    async fn pool(self: &Arc<Self>, hosts: &ManagedRef) -> Result<ManagedRef, Error> {
        let clusters = self.list(hosts, "ComputeResource", &["name", "resourcePool"]).await?;
        let root = |cluster: &Object| {
            let root = cluster.get("resourcePool").and_then(Element::managed);
            root.ok_or_else(|| Error::Setup("resource_pool: the account may not see the cluster's pool".into()))
        };
        let Some(desired) = self.config().resource_pool.as_deref() else {
            return root(&the_one("resource_pool", clusters, None)?);
        };
        if clusters.iter().any(|cluster| cluster.text("name") == Some(desired)) {
            return root(&the_one("resource_pool", clusters, Some(desired))?);
        }
        let (below, name) = match desired.split_once('/') {
            Some((cluster, name)) => (the_one("resource_pool", clusters, Some(cluster))?.reference, name),
            None => (hosts.clone(), desired),
        };
        Ok(the_one("resource_pool", self.list(&below, "ResourcePool", &["name"]).await?, Some(name))?.reference)
    }
}

impl Session {
    /// What the cluster or host offers that a pool belongs to, e.g. its `network`.
    pub(super) async fn offered(self: &Arc<Self>, pool: &ManagedRef, what: &str) -> Result<Vec<ManagedRef>, Error> {
        let unseen = || Error::Setup(format!("resource_pool: the account may not see its owner's {what}"));
        let pool = self.read(pool, &["owner"]).await?.ok_or_else(unseen)?;
        let owner = pool.get("owner").and_then(Element::managed).ok_or_else(unseen)?;
        let owner = self.read(&owner, &[what]).await?.ok_or_else(unseen)?;
        Ok(owner.get(what).map_or(&[][..], |list| &list.children).iter().filter_map(Element::managed).collect())
    }

    /// What a network card hangs on: the network of the settings, or the first that the pool's owner offers.
    pub(super) async fn card_backing(self: &Arc<Self>, pool: &ManagedRef) -> Result<Xml, Error> {
        const PORTGROUP: &str = "DistributedVirtualPortgroup";
        let offered = self.offered(pool, "network").await?;
        let of = |kind: &str| offered.iter().filter(|network| network.kind == kind).cloned().collect::<Vec<_>>();
        let mut usable = self.read_all(&of("Network"), "Network", &["name"]).await?;
        let groups = ["name", "tag", "key", "config.distributedVirtualSwitch"];
        let groups = self.read_all(&of(PORTGROUP), PORTGROUP, &groups).await?;
        usable.extend(groups.into_iter().filter(|group| !is_uplink(group)));
        let rank = |network: &Object| offered.iter().position(|offered| *offered == network.reference);
        usable.sort_by_key(rank);
        let network = match self.config().network.as_deref() {
            Some(name) => the_one("network", usable, Some(name))?,
            None => usable.into_iter().next().ok_or_else(|| Error::Setup("network: the cluster offers none".into()))?,
        };
        if network.reference.kind != PORTGROUP {
            let inner = Xml::new().text("deviceName", network.text("name").unwrap_or_default());
            let inner = inner.reference("network", &network.reference);
            return Ok(Xml::new().typed("backing", "VirtualEthernetCardNetworkBackingInfo", inner));
        }
        let switch = network.get("config.distributedVirtualSwitch").and_then(Element::managed);
        let switch = match &switch {
            Some(switch) => self.read(switch, &["uuid"]).await?,
            None => None,
        };
        let uuid = switch.as_ref().and_then(|switch| switch.text("uuid"));
        let (Some(uuid), Some(key)) = (uuid, network.text("key")) else {
            return Err(Error::Setup("network: the account may not see the portgroup's switch".into()));
        };
        let port = Xml::new().text("switchUuid", uuid).text("portgroupKey", key);
        let inner = Xml::new().node("port", port);
        Ok(Xml::new().typed("backing", "VirtualEthernetCardDistributedVirtualPortBackingInfo", inner))
    }
}

/// The portgroup of a switch's own cables, to which no VM is connected; a vCenter tags it so.
fn is_uplink(group: &Object) -> bool {
    let tags = group.get("tag").map_or(&[][..], |tags| &tags.children);
    tags.iter().any(|tag| tag.text_at("key") == Some("SYSTEM/DVS.UPLINKPG"))
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// The object of a name, or the only one there is; `key` is the setting that decides.
fn the_one(key: &str, mut found: Vec<Object>, name: Option<&str>) -> Result<Object, Error> {
    if let Some(name) = name {
        // As people gave it, or as tools show it.
        found.retain(|object| object.text("name").is_some_and(|found| found == name || found == unescaped(name)));
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
