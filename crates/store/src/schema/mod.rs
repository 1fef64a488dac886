//! The tables as diesel sees them, a file per schema. A test holds this equal to the migrated database.

mod audit;
mod compute;
mod iam;
pub mod migrate;
mod notifications;
pub mod reach;
mod support;

pub use audit::*;
pub use compute::*;
pub use iam::*;
pub use notifications::*;
pub use support::*;
