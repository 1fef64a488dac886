//! What the import of a template is given, and what it reports: its bytes come from the object store and go to the
//! hypervisor as they come, so this is the one call that is long.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::id::{OperationId, TenantId};

use super::fault::{Fault, FaultClass};
use super::references::{TaskRef, TemplateRef};

/// A template to make of a tenant's file.
#[derive(Clone, Debug)]
pub struct ImportSpec {
    pub id: TemplateId,
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// The operation that imports it.
    pub operation: OperationId,
    /// Name for people, unique in the tenant only.
    pub display_name: String,
    pub content: Content,
}

/// What is in the file.
#[derive(Clone, Debug)]
pub enum Content {
    Ova(Appliance),
    Iso {
        /// Size of the file in bytes.
        size: u64,
    },
}

/// A virtual machine in an OVA, validated.
#[derive(Clone, Debug)]
pub struct Appliance {
    /// The text of the OVF.
    pub descriptor: String,
    /// In the order of the hardware section.
    pub disks: Vec<DiskFile>,
    /// Networks that the descriptor names.
    pub networks: Vec<String>,
    /// Guest operating system, for people, where the hypervisor does not say.
    pub guest_os: String,
}

/// A disk in an OVA.
#[derive(Clone, Debug)]
pub struct DiskFile {
    /// The `ovf:href` of its file, by which the hypervisor asks for it.
    pub href: String,
    pub capacity_bytes: u64,
    /// Whether its bytes are compressed by gzip around the disk format.
    pub gzip: bool,
    /// Where its bytes stand in the file; several where it comes in chunks.
    pub parts: Vec<Range<u64>>,
}

/// The bytes of a file.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// A part of it, in pieces of at most some MiB. An error ends it.
    async fn read(&self, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault>;
}

/// A template that an import has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// How the hypervisor refers to it.
    pub reference: TemplateRef,
    /// Guest operating system, for people.
    pub guest_os: String,
    /// What the hypervisor found worth a warning.
    pub warnings: Vec<String>,
}

/// A template that may be there, or may just be made.
#[derive(Clone, Debug)]
pub struct TemplateIdentity {
    pub id: TemplateId,
    pub display_name: String,
    pub kind: TemplateKind,
    /// How the hypervisor refers to it, once it has been made.
    pub reference: Option<TemplateRef>,
}

/// What a long call says of itself while it is at work, and what it is told.
pub struct Attendance {
    stop: CancellationToken,
    done: AtomicU64,
    total: AtomicU64,
    tasks: mpsc::Sender<(TaskRef, oneshot::Sender<()>)>,
}

/// Tasks that a long call wants to be stored, each with whom to tell that it is.
pub type Tasks = mpsc::Receiver<(TaskRef, oneshot::Sender<()>)>;

impl Attendance {
    /// Of a call that `stop` tells to end.
    #[must_use]
    pub fn new(stop: CancellationToken) -> (Self, Tasks) {
        let (tasks, stored) = mpsc::channel(1);
        (Self { stop, done: AtomicU64::new(0), total: AtomicU64::new(0), tasks }, stored)
    }

    /// Cancelled when the call shall end: it takes back what it can within seconds, and ends with [`Self::stopped`].
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The fault that a call ends with that was told to stop.
    #[must_use]
    pub fn stopped() -> Fault {
        Fault::new(FaultClass::Unknown, "IMPORT_STOPPED", "the import was stopped", "told to stop")
    }

    /// Says how far it is, in any unit.
    pub fn report(&self, done: u64, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }

    /// How far it is.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        u8::try_from(percent.min(100)).unwrap_or(100)
    }

    /// Stores the reference of what it has begun, before anything else happens to it: the next call gets it.
    pub async fn store(&self, task: TaskRef) -> Result<(), Fault> {
        let (told, stored) = oneshot::channel();
        let sent = self.tasks.send((task, told)).await;
        match (sent, stored.await) {
            (Ok(()), Ok(())) => Ok(()),
            _ => Err(Self::stopped()),
        }
    }
}
