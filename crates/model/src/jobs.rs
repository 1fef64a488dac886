//! Background jobs: each kind, its queue and its payload. Payloads carry ids, never secrets.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{AccountId, InvitationId, OperationId, VmId};
use crate::operation::Verb;

/// The queue of work on VMs.
pub const VM_QUEUE: &str = "vm";

/// The queue of mail.
pub const MAIL_QUEUE: &str = "mail";

/// The queue of periodic work.
pub const PERIODIC_QUEUE: &str = "periodic";

/// A kind of job.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Stable name.
    const KIND: &'static str;
    /// Queue it waits in.
    const QUEUE: &'static str;
    /// Tries of one step before the job gives up.
    const MAX_ATTEMPTS: i32;
}

/// Creates a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmCreate {
    /// The VM.
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
}

impl Job for VmCreate {
    const KIND: &'static str = "vm_create";
    const QUEUE: &'static str = VM_QUEUE;
    const MAX_ATTEMPTS: i32 = 10;
}

/// Starts, stops or restarts a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmPower {
    /// The VM.
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
    /// Start, stop or restart.
    pub verb: Verb,
}

impl Job for VmPower {
    const KIND: &'static str = "vm_power";
    const QUEUE: &'static str = VM_QUEUE;
    const MAX_ATTEMPTS: i32 = 10;
}

/// Deletes a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmDelete {
    /// The VM.
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
    /// Purge at once instead of keeping it for an undelete.
    pub force: bool,
}

impl Job for VmDelete {
    const KIND: &'static str = "vm_delete";
    const QUEUE: &'static str = VM_QUEUE;
    const MAX_ATTEMPTS: i32 = 20;
}

/// Sends an invitation. The worker makes the token, so that no job ever holds one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InvitationMail {
    /// The invitation.
    pub invitation: InvitationId,
}

impl Job for InvitationMail {
    const KIND: &'static str = "invitation_mail";
    const QUEUE: &'static str = MAIL_QUEUE;
    const MAX_ATTEMPTS: i32 = 10;
}

/// Sends a token to set a new password with. The account may be one that nobody has: the answer, and the work, are
/// the same for an address that nobody knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PasswordResetMail {
    /// The account.
    pub account: AccountId,
}

impl Job for PasswordResetMail {
    const KIND: &'static str = "password_reset_mail";
    const QUEUE: &'static str = MAIL_QUEUE;
    const MAX_ATTEMPTS: i32 = 10;
}

/// Publishes the hypervisor's templates. Periodic: takes no input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inventory {}

impl Job for Inventory {
    const KIND: &'static str = "inventory";
    const QUEUE: &'static str = PERIODIC_QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
}

/// Purges deleted VMs whose time has come, and forgets what nobody asks for any more. Periodic: takes no input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Housekeeping {}

impl Job for Housekeeping {
    const KIND: &'static str = "housekeeping";
    const QUEUE: &'static str = PERIODIC_QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
}
