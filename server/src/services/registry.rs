//! What each module adds to the tables of the ground: the one file here that the ground may read and that names modules.

use virtualstack_store::compute::templates::Template;
use virtualstack_store::compute::vms::Vm;
use virtualstack_store::operations::Operation;
use virtualstack_store::support::tickets::Ticket;

use super::compute::targets;
use super::notifications::messages::NOTICES;
use super::target::Target;
use super::watched::{Collection, Compared};

/// What operations work on, and what they answer with. The first row that fits is taken.
pub(crate) static TARGETS: &[Target] = &[targets::CONSOLE, targets::VM, targets::SNAPSHOT, targets::TEMPLATE];

/// What can be watched.
pub(crate) static OPERATIONS: Collection = Collection::of::<Operation>();
pub(crate) static VMS: Collection = Collection::of::<Vm>();
pub(crate) static TEMPLATES: Collection = Collection::of::<Template>();
pub(crate) static TICKETS: Collection = Collection::of::<Ticket>();
pub(crate) static NOTIFICATIONS: Compared = NOTICES;
