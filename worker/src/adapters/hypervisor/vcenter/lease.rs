//! A lease: a vCenter's leave to put disks into a VM that it has just made.
//!
//! It lives in our session, ends by itself when nobody reports progress for some minutes, and takes the half made VM with it.
//! The URLs in it lead to a host, not to the vCenter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, Url};

use super::super::import::Attendance;
use super::super::{Fault, TaskRef};
use super::faults::{Error, VimFault};
use super::import_faults::{corrupted, lease_lost, of_call, of_vim, unusable_address, wrong_thumbprint};
use super::session::Session;
use super::soap::{Call, client};
use super::tls::{Met, pinned};
use super::upload::Sent;
use super::xml::{Element, ManagedRef, Xml};

/// How often progress is reported; a vCenter wants to hear at least once in some minutes, people more often.
const HEARTBEAT: Duration = Duration::from_millis(1_500);
/// How long a vCenter may take to make the VM and its empty disks.
const INITIALIZING: Duration = Duration::from_secs(600);
/// What stored references of leases begin with.
const STORED: &str = "lease:";

/// What a lease that is ready tells.
#[derive(Debug)]
pub(super) struct Ready {
    /// The VM.
    pub(super) entity: ManagedRef,
    pub(super) devices: Vec<Device>,
}

/// Where a disk goes.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) key: String,
    pub(super) import_key: String,
    url: String,
    thumbprint: String,
}

enum State {
    Initializing,
    Ready(Ready),
    Failed(VimFault),
    Gone,
}

/// The reference of a lease, as it is stored.
pub(super) fn stored(lease: &ManagedRef) -> TaskRef {
    TaskRef(format!("{STORED}{}", lease.id))
}

/// The lease of a stored reference, if it is one.
pub(super) fn of_stored(task: &TaskRef) -> Option<ManagedRef> {
    task.0.strip_prefix(STORED).map(|id| ManagedRef::new("HttpNfcLease", id))
}

impl Session {
    /// Waits until disks may be sent.
    pub(super) async fn lease_ready(self: &Arc<Self>, lease: &ManagedRef) -> Result<Ready, Fault> {
        let (asked, mut pause) = (Instant::now(), Duration::from_millis(50));
        loop {
            match self.lease_state(lease).await.map_err(of_call)? {
                State::Ready(ready) => return Ok(ready),
                State::Failed(fault) => return Err(of_vim(fault)),
                State::Gone => return Err(lease_lost(format_args!("{} is gone before it was ready", lease.id))),
                State::Initializing if asked.elapsed() > INITIALIZING => {
                    return Err(lease_lost(format_args!("{} does not become ready", lease.id)));
                }
                State::Initializing => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn lease_state(self: &Arc<Self>, lease: &ManagedRef) -> Result<State, Error> {
        let Some(object) = self.read(lease, &["state", "error", "info"]).await? else { return Ok(State::Gone) };
        Ok(match object.text("state") {
            Some("initializing") => State::Initializing,
            Some("ready") => match object.get("info").and_then(Ready::from_info) {
                Some(ready) => State::Ready(ready),
                None => State::Initializing,
            },
            Some("error") => {
                State::Failed(VimFault::from_localized(object.get("error").unwrap_or(&Element::default())))
            }
            _ => State::Gone,
        })
    }

    /// Tells the vCenter again and again how far the import is, and ends with what became of the lease if that ends first.
    pub(super) async fn keep_lease(self: &Arc<Self>, lease: &ManagedRef, attendance: &Attendance) -> Fault {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let arguments = Xml::new().text("percent", attendance.percent());
            let told = self.call(&Call::read("HttpNfcLeaseProgress", lease, arguments)).await;
            if let Some(fault) = self.lease_fault(lease).await {
                return fault;
            }
            if let Err(Error::Vim(fault)) = told {
                return of_vim(fault);
            }
        }
    }

    /// Why a lease is of no use any more, if it is. A vCenter that does not answer just now says nothing.
    pub(super) async fn lease_fault(self: &Arc<Self>, lease: &ManagedRef) -> Option<Fault> {
        match self.lease_state(lease).await {
            Ok(State::Failed(fault)) => Some(of_vim(fault)),
            Ok(State::Gone) => Some(lease_lost(format_args!("{} is gone", lease.id))),
            _ => None,
        }
    }

    /// Compares what arrived with what was sent. Not every vCenter says it of everything.
    pub(super) async fn check_manifest(
        self: &Arc<Self>,
        lease: &ManagedRef,
        sent: &[(Device, Sent)],
    ) -> Result<(), Fault> {
        let manifest = match self.call(&Call::read("HttpNfcLeaseGetManifest", lease, Xml::new())).await {
            // Some say it of leases to export only. Whether the lease is still good, its completion shows.
            Err(Error::Vim(fault)) => {
                tracing::debug!(%fault, "the vCenter does not say what it received");
                return Ok(());
            }
            manifest => manifest.map_err(of_call)?,
        };
        for (device, sent) in sent {
            let Some(entry) = manifest.all("returnval").find(|entry| entry.text_at("key") == Some(&device.key)) else {
                continue;
            };
            let sha1 = entry.text_at("sha1").unwrap_or_default().trim().to_lowercase();
            let size = entry.value_at::<u64>("size").unwrap_or_default();
            if !sha1.is_empty() && (sha1 != sent.sha1 || size > 0 && size != sent.bytes) {
                let Sent { bytes, sha1: ours } = sent;
                let what = format_args!("{}: sent {bytes} bytes {ours}, arrived {size} bytes {sha1}", device.key);
                return Err(corrupted(what));
            }
        }
        Ok(())
    }

    /// Says that all disks are there: the VM is one like any other from now on.
    pub(super) async fn complete_lease(self: &Arc<Self>, lease: &ManagedRef) -> Result<(), Fault> {
        let done = self.call(&Call::change("HttpNfcLeaseComplete", lease, Xml::new())).await;
        done.map(drop).map_err(of_call)
    }

    /// Gives a lease back; one that has ended is as good.
    pub(super) async fn abort_lease(self: &Arc<Self>, lease: &ManagedRef) -> Result<(), Error> {
        match self.call(&Call::change("HttpNfcLeaseAbort", lease, Xml::new())).await {
            Err(Error::Vim(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The way to where a disk goes, trusted as the vCenter says.
    pub(super) async fn way_to(self: &Arc<Self>, device: &Device, method: Method) -> Result<Way, Fault> {
        let own = self.transport().url();
        let url = device.address(own)?;
        let (client, met) = self.client_for(device, &url)?;
        let mut request = client.request(method, url.clone());
        // A host knows its visitors by the URL; nobody but the vCenter gets the cookie.
        if url.origin() == own.origin() {
            let login = self.login().await.map_err(of_call)?;
            request = request.header(reqwest::header::COOKIE, login.cookie());
        }
        Ok(Way { request, whom: Whom { met, expected: device.thumbprint.clone(), host: url.authority().to_owned() } })
    }

    fn client_for(&self, device: &Device, url: &Url) -> Result<(Client, Met), Fault> {
        if device.thumbprint.is_empty() || url.scheme() != "https" {
            return Ok((self.transport().http().clone(), Met::default()));
        }
        let (tls, met) = pinned(&device.thumbprint).map_err(unusable_address)?;
        Ok((client(self.config(), tls).map_err(unusable_address)?, met))
    }
}

/// A request to be made, and whom it meets.
pub(super) struct Way {
    pub(super) request: RequestBuilder,
    pub(super) whom: Whom,
}

/// Whom a request met, who was expected, and where.
pub(super) struct Whom {
    met: Met,
    expected: String,
    host: String,
}

impl Whom {
    /// What to say of a failure: whether it was the wrong host.
    pub(super) fn explain(&self, fault: Fault) -> Fault {
        let Self { met, expected, host } = self;
        match met.get() {
            Some(found) => wrong_thumbprint(format_args!("{host}: expected {expected}, met {found}")),
            None => fault,
        }
    }
}

impl Device {
    /// Its URL, in which `*` stands for the vCenter.
    fn address(&self, own: &Url) -> Result<Url, Fault> {
        let unusable = |problem: &dyn std::fmt::Display| unusable_address(format_args!("{}: {problem}", self.url));
        let host = own.host_str().unwrap_or_default();
        let place = own.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // A star is no host, so it goes before anything else is read.
        let url = self.url.replacen("://*:", &format!("://{host}:"), 1).replacen("://*/", &format!("://{place}/"), 1);
        let url = Url::parse(&url).map_err(|error| unusable(&error))?;
        if url.scheme() != "https" && !is_loopback(&url) {
            return Err(unusable(&"it is not encrypted"));
        }
        Ok(url)
    }
}

impl Ready {
    fn from_info(info: &Element) -> Option<Self> {
        let device = |url: &Element| {
            Some(Device {
                key: url.text_at("key")?.to_owned(),
                import_key: url.text_at("importKey")?.to_owned(),
                url: url.text_at("url")?.trim().to_owned(),
                thumbprint: url.text_at("sslThumbprint").unwrap_or_default().trim().to_owned(),
            })
        };
        let devices = info.all("deviceUrl").filter_map(device).collect();
        Some(Self { entity: info.at("entity")?.managed()?, devices })
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Result<String, Fault> {
        let own = Url::parse("https://vc.test:8443/sdk").expect("a URL");
        let url = url.to_owned();
        let device = Device { key: String::new(), import_key: String::new(), url, thumbprint: String::new() };
        device.address(&own).map(Into::into)
    }

    #[test]
    fn a_star_is_the_vcenter_itself() {
        assert_eq!(address("https://*/nfc/1/disk-0.vmdk").expect("a URL"), "https://vc.test:8443/nfc/1/disk-0.vmdk");
        assert_eq!(address("https://*:444/nfc/1/*").expect("a URL"), "https://vc.test:444/nfc/1/*");
        assert_eq!(address("https://esx1.test/nfc/1/a").expect("a URL"), "https://esx1.test/nfc/1/a");
    }

    #[test]
    fn nothing_goes_over_a_network_unencrypted() {
        for url in ["http://esx1.test/nfc/1/a", "ftp://esx1.test/a", "nonsense"] {
            let fault = address(url).expect_err("refused");
            assert_eq!(fault.reason, "HYPERVISOR_MISCONFIGURED");
            assert!(fault.detail.starts_with(url), "{fault}");
        }
        assert!(address("http://127.0.0.1:8989/nfc/1/a").is_ok());
    }

    #[test]
    fn a_lease_is_known_by_its_stored_reference() {
        let lease = ManagedRef::new("HttpNfcLease", "session[52]9d");
        assert_eq!(of_stored(&stored(&lease)), Some(lease));
        assert_eq!(of_stored(&TaskRef("task-9".to_owned())), None);
    }
}
