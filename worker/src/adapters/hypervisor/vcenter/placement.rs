//! Where in the inventory our VMs and templates are: settings made into references.

use std::sync::Arc;

use super::super::Fault;
use super::escapes::{escaped, unescaped};
use super::faults::Error;
use super::import_faults::no_room;
use super::properties::Object;
use super::session::Session;
use super::soap::Call;
use super::xml::{Element, ManagedRef, Xml};

const PORTGROUP: &str = "DistributedVirtualPortgroup";

/// A datastore that files can be put on.
#[derive(Debug)]
pub(super) struct Datastore {
    pub(super) name: String,
    pub(super) reference: ManagedRef,
    pub(super) browser: ManagedRef,
}

/// Where VMs go.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) datacenter: ManagedRef,
    pub(super) folder: ManagedRef,
    pub(super) pool: ManagedRef,
    pub(super) datastore: Option<ManagedRef>,
    /// Its name, as in paths of files.
    pub(super) datastore_name: Option<String>,
    /// The datacenter's path in the inventory.
    pub(super) path: String,
    /// The datacenter's own folder of VMs.
    root: ManagedRef,
}

impl Placement {
    /// Finds everything, and makes the VM folder if it is absent.
    pub(super) async fn discover(session: &Arc<Session>) -> Result<Self, Error> {
        let config = session.config();
        let datacenter = session.datacenter().await?;
        let path = session.path_of(&datacenter).await?;
        let part = |name: &str| {
            let part = datacenter.get(name).and_then(Element::managed);
            part.ok_or_else(|| Error::Setup(format!("datacenter: the account may not see its {name}")))
        };
        let root = part("vmFolder")?;
        let place = Place { key: "vm_folder", given: &config.vm_folder, home: format!("{path}/vm") };
        let folder = session.folder(&root, &place, true).await?;
        let pool = session.pool(&part("hostFolder")?, &path).await?;
        let datastore = match &config.datastore {
            None => None,
            Some(given) => {
                let known = session.list(&part("datastoreFolder")?, "Datastore", &["name"]).await?;
                let place = Place { key: "datastore", given, home: format!("{path}/datastore") };
                Some(session.one_of(&place, known).await?)
            }
        };
        let datastore_name = datastore.as_ref().and_then(|found| found.text("name")).map(str::to_owned);
        let datastore = datastore.map(|found| found.reference);
        Ok(Self { datacenter: datacenter.reference, folder, pool, datastore, datastore_name, path, root })
    }

    fn templates<'a>(&self, session: &'a Session) -> Place<'a> {
        Place { key: "template_folder", given: &session.config().template_folder, home: format!("{}/vm", self.path) }
    }

    /// The folder of templates; it is not ours to make.
    pub(super) async fn template_folder(&self, session: &Arc<Session>) -> Result<ManagedRef, Error> {
        session.folder(&self.root, &self.templates(session), false).await
    }

    /// The folder of media on a datastore: it is called as that of the templates.
    pub(super) fn media_folder(&self, session: &Session) -> String {
        self.templates(session).below_home().0.join("/")
    }

    /// The network of the settings, if they name one.
    pub(super) async fn check_network(&self, session: &Arc<Session>) -> Result<(), Error> {
        match &session.config().network {
            Some(_) => session.card_backing(self).await.map(drop),
            None => Ok(()),
        }
    }
}

/// A setting that says where something is: by a path as govc shows it, or by a name or path below where such things are.
struct Place<'a> {
    key: &'static str,
    given: &'a str,
    /// The path of where such things are, such as `DC0/vm`.
    home: String,
}

impl<'a> Place<'a> {
    /// What is below home, and whether what was given said so: a path from the top that leads elsewhere is not one to make
    /// anything by.
    fn below_home(&self) -> (Vec<&'a str>, bool) {
        let given: Vec<_> = segments(self.given).collect();
        let home: Vec<_> = segments(&self.home).collect();
        match given.starts_with(&home) {
            true => (given[home.len()..].to_vec(), true),
            false => (given, !self.given.starts_with('/')),
        }
    }

    /// The whole path.
    fn path(&self) -> String {
        let (below, _) = self.below_home();
        format!("{}/{}", self.home, below.join("/")).trim_end_matches('/').to_owned()
    }

    /// Says that nothing is there, and what there is instead.
    fn absent(&self, problem: &str, there_is: Vec<String>) -> Error {
        Error::Setup(format!("{} {:?}: {problem}; {}", self.key, self.given, listed(there_is)))
    }
}

impl Session {
    /// A child of a folder, by name.
    pub(super) async fn child(self: &Arc<Self>, folder: &ManagedRef, name: &str) -> Result<Option<ManagedRef>, Error> {
        let index = self.login().await?.service("searchIndex")?;
        let call = Call::read("FindChild", &index, Xml::new().reference("entity", folder).text("name", escaped(name)));
        Ok(self.call(&call).await?.at("returnval").and_then(Element::managed))
    }

    /// What is at a path of the inventory.
    async fn at(self: &Arc<Self>, path: &str) -> Result<Option<ManagedRef>, Error> {
        let index = self.login().await?.service("searchIndex")?;
        let arguments = Xml::new().text("inventoryPath", path.trim_matches('/'));
        let found = self.call(&Call::read("FindByInventoryPath", &index, arguments)).await?;
        Ok(found.at("returnval").and_then(Element::managed))
    }

    /// The path of an object that was read with its name and parent.
    async fn path_of(self: &Arc<Self>, object: &Object) -> Result<String, Error> {
        let mut path = object.text("name").unwrap_or_default().to_owned();
        let mut parent = object.get("parent").and_then(Element::managed);
        while let Some(above) = parent {
            let Some(above) = self.read(&above, &["name", "parent"]).await? else { break };
            parent = above.get("parent").and_then(Element::managed);
            // The folder of all is not named in paths.
            if parent.is_some() {
                path = format!("{}/{path}", above.text("name").unwrap_or_default());
            }
        }
        Ok(path)
    }

    /// A folder below another one, made where it may be and is absent.
    async fn folder(self: &Arc<Self>, home: &ManagedRef, place: &Place<'_>, make: bool) -> Result<ManagedRef, Error> {
        let (names, told) = place.below_home();
        let mut folder = home.clone();
        for (index, name) in names.iter().enumerate() {
            folder = match self.child(&folder, name).await? {
                Some(found) if found.kind == "Folder" => found,
                Some(found) => {
                    let problem = format!("{name} is a {} and no folder", found.kind);
                    return Err(place.absent(&problem, self.folders(&folder).await?));
                }
                None if make && told => self.make_folder(place, &folder, name).await?,
                None => {
                    let above = [place.home.as_str()].into_iter().chain(names[..index].iter().copied());
                    let problem = format!("/{} has no folder {name}", above.collect::<Vec<_>>().join("/"));
                    return Err(place.absent(&problem, self.folders(&folder).await?));
                }
            };
        }
        Ok(folder)
    }

    /// Names of the folders in a folder.
    async fn folders(self: &Arc<Self>, folder: &ManagedRef) -> Result<Vec<String>, Error> {
        let mut found = self.list(folder, "Folder", &["name", "parent"]).await?;
        found.retain(|found| found.get("parent").and_then(Element::managed).as_ref() == Some(folder));
        Ok(names_of(&found))
    }

    async fn make_folder(
        self: &Arc<Self>,
        place: &Place<'_>,
        folder: &ManagedRef,
        name: &str,
    ) -> Result<ManagedRef, Error> {
        let absent = || Error::Setup(format!("{}: there is no folder {name} and it cannot be made", place.key));
        match self.call(&Call::change("CreateFolder", folder, Xml::new().text("name", escaped(name)))).await {
            Ok(reply) => reply.at("returnval").and_then(Element::managed).ok_or_else(absent),
            // Another worker was faster.
            Err(Error::Vim(fault)) if fault.is_name_taken() => self.child(folder, name).await?.ok_or_else(absent),
            Err(error) => Err(error),
        }
    }

    async fn datacenter(self: &Arc<Self>) -> Result<Object, Error> {
        const PARTS: [&str; 5] = ["name", "parent", "vmFolder", "hostFolder", "datastoreFolder"];
        let known = self.list(&self.login().await?.service("rootFolder")?, "Datacenter", &PARTS).await?;
        match self.config().datacenter.as_deref() {
            None => the_only("datacenter", known),
            Some(given) => self.one_of(&Place { key: "datacenter", given, home: String::new() }, known).await,
        }
    }

    /// The one of the objects that there are which a setting names: by its name, or by a path to it.
    async fn one_of(self: &Arc<Self>, place: &Place<'_>, known: Vec<Object>) -> Result<Object, Error> {
        let there_is = names_of(&known);
        // Names are read as people gave them; tools show them escaped.
        let given = unescaped(place.given);
        let named = known.iter().filter(|object| object.text("name") == Some(&given)).count();
        if named > 1 {
            let problem = format!("there are {named} of this name; give the path of one");
            return Err(place.absent(&problem, there_is));
        }
        let at = if named == 0 { self.at(&place.path()).await? } else { None };
        let is_it =
            |object: &Object| at.as_ref().map_or(object.text("name") == Some(&given), |at| object.reference == *at);
        known.into_iter().find(is_it).ok_or_else(|| place.absent("there is none", there_is))
    }

    async fn pool(self: &Arc<Self>, hosts: &ManagedRef, datacenter: &str) -> Result<ManagedRef, Error> {
        let root = |cluster: &Object| {
            let root = cluster.get("resourcePool").and_then(Element::managed);
            root.ok_or_else(|| Error::Setup("resource_pool: the account may not see the cluster's pool".into()))
        };
        const CLUSTER: [&str; 2] = ["name", "resourcePool"];
        let clusters = self.list(hosts, "ComputeResource", &CLUSTER).await?;
        let Some(given) = self.config().resource_pool.as_deref() else {
            return root(&the_only("resource_pool", clusters)?);
        };
        let place = Place { key: "resource_pool", given, home: format!("{datacenter}/host") };
        match self.at(&place.path()).await? {
            Some(found) if found.kind == "ResourcePool" || found.kind == "VirtualApp" => return Ok(found),
            Some(found) if found.kind.ends_with("ComputeResource") => {
                let cluster = self.read(&found, &CLUSTER).await?;
                return cluster.as_ref().map_or_else(|| Err(place.absent("it is gone", Vec::new())), root);
            }
            _ => {}
        }
        // A name, or that of a cluster and that of one of its pools; wherever they are.
        let within = given.split_once('/').and_then(|(name, pool)| {
            let cluster = clusters.iter().find(|cluster| cluster.text("name") == Some(name))?;
            Some((cluster.reference.clone(), pool))
        });
        let (below, name) = within.unwrap_or_else(|| (hosts.clone(), given));
        let mut known = clusters;
        known.extend(self.list(&below, "ResourcePool", &["name"]).await?);
        let there_is = names_of(&known);
        known.retain(|known| known.text("name") == Some(name));
        match known.as_slice() {
            [one] if one.reference.kind.ends_with("ComputeResource") => root(one),
            [one] => Ok(one.reference.clone()),
            [] => Err(place.absent("there is no such cluster or resource pool", there_is)),
            many => {
                let problem = format!("there are {} of this name; give the path of one", many.len());
                Err(place.absent(&problem, there_is))
            }
        }
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

    /// The network of the settings, or the first that the pool's owner offers.
    async fn chosen_network(self: &Arc<Self>, placement: &Placement) -> Result<Object, Error> {
        let offered = self.offered(&placement.pool, "network").await?;
        let of = |kind: &str| offered.iter().filter(|network| network.kind == kind).cloned().collect::<Vec<_>>();
        let mut usable = self.read_all(&of("Network"), "Network", &["name"]).await?;
        let groups = ["name", "tag", "key", "config.distributedVirtualSwitch"];
        let groups = self.read_all(&of(PORTGROUP), PORTGROUP, &groups).await?;
        usable.extend(groups.into_iter().filter(|group| !is_uplink(group)));
        let rank = |network: &Object| offered.iter().position(|offered| *offered == network.reference);
        usable.sort_by_key(rank);
        match self.config().network.as_deref() {
            Some(given) => {
                let place = Place { key: "network", given, home: format!("{}/network", placement.path) };
                self.one_of(&place, usable).await
            }
            None => usable.into_iter().next().ok_or_else(|| Error::Setup("network: the cluster offers none".into())),
        }
    }

    /// Where the networks of a template are mapped to.
    pub(super) async fn network(self: &Arc<Self>, placement: &Placement) -> Result<ManagedRef, Error> {
        Ok(self.chosen_network(placement).await?.reference)
    }

    /// A datastore with so much room: that of the settings, or the first that the pool's owner can reach.
    pub(super) async fn datastore_for(self: &Arc<Self>, placement: &Placement, bytes: u64) -> Result<Datastore, Fault> {
        let candidates = match &placement.datastore {
            Some(datastore) => vec![datastore.clone()],
            None => self.offered(&placement.pool, "datastore").await?,
        };
        let properties = ["name", "browser", "summary.accessible", "summary.maintenanceMode", "summary.freeSpace"];
        let mut found = self.read_all(&candidates, "Datastore", &properties).await?;
        found.sort_by_key(|found| candidates.iter().position(|candidate| *candidate == found.reference));
        found.retain(|found| {
            found.text("summary.accessible") != Some("false")
                && found.text("summary.maintenanceMode").is_none_or(|mode| mode == "normal")
        });
        let free = |found: &Object| found.text("summary.freeSpace").and_then(|free| free.trim().parse().ok());
        let seen = names_of(&found);
        let with_room = found.into_iter().find(|found| free(found).is_none_or(|free: u64| free >= bytes));
        let chosen = with_room.ok_or_else(|| no_room(format_args!("{bytes} bytes: {}", listed(seen))))?;
        let browser = chosen.get("browser").and_then(Element::managed);
        let (Some(name), Some(browser)) = (chosen.text("name"), browser) else {
            return Err(Error::Setup("datastore: the account may not browse it".into()).into());
        };
        Ok(Datastore { name: name.to_owned(), reference: chosen.reference.clone(), browser })
    }

    /// What a network card hangs on: the network of the settings, or the first that the pool's owner offers.
    pub(super) async fn card_backing(self: &Arc<Self>, placement: &Placement) -> Result<Xml, Error> {
        let network = self.chosen_network(placement).await?;
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

/// The only one there is; `key` is the setting that decides where there are more.
fn the_only(key: &str, mut found: Vec<Object>) -> Result<Object, Error> {
    let (count, there_is) = (found.len(), names_of(&found));
    match found.pop() {
        Some(one) if count == 1 => Ok(one),
        Some(_) => Err(Error::Setup(format!("{key}: there are {count}; say which; {}", listed(there_is)))),
        None => Err(Error::Setup(format!("{key}: the account sees none"))),
    }
}

fn names_of(objects: &[Object]) -> Vec<String> {
    let mut names: Vec<_> = objects.iter().filter_map(|object| object.text("name")).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// What there is, as the end of a sentence.
fn listed(mut names: Vec<String>) -> String {
    const MOST: usize = 20;
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    match (names.as_slice(), more) {
        ([], _) => "the account sees none there".to_owned(),
        (names, 0) => format!("there is: {}", names.join(", ")),
        (names, more) => format!("there is: {} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_by_a_path_from_the_top_or_from_where_such_things_are() {
        let below = |given: &str| {
            let place = Place { key: "vm_folder", given, home: "F/DC0/vm".to_owned() };
            let (names, told) = place.below_home();
            (names.join("/"), told, place.path())
        };
        for given in ["a/b", "F/DC0/vm/a/b", "/F/DC0/vm/a/b", "a//b/"] {
            assert_eq!(below(given), ("a/b".to_owned(), true, "F/DC0/vm/a/b".to_owned()), "{given}");
        }
        assert_eq!(below("/F/DC0/vm"), (String::new(), true, "F/DC0/vm".to_owned()));
        // From the top, and elsewhere: found if it is there, and not made.
        assert_eq!(below("/DC9/vm/a"), ("DC9/vm/a".to_owned(), false, "F/DC0/vm/DC9/vm/a".to_owned()));
    }

    #[test]
    fn what_there_is_is_listed_within_bounds() {
        assert_eq!(listed(vec!["a".into(), "b".into()]), "there is: a, b");
        assert_eq!(listed(Vec::new()), "the account sees none there");
        let many = listed((0..30).map(|number| format!("n{number:02}")).collect());
        assert!(many.ends_with("n19 and 10 more"), "{many}");
    }
}
