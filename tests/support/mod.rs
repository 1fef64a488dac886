//! What every test stands on: a PostgreSQL of the test run's own, a database per test, and a whole control plane on
//! free ports of the loopback address.

mod control_plane;
mod database;
mod desk;
mod first_admin;
mod intercepted;
mod mails;
pub(crate) mod plans;
mod probes;
mod scopes;
mod seed;
mod session;
mod settings;
mod wire;

pub(crate) use control_plane::{ControlPlane, SECRET, WorkerTask, master_key};
pub(crate) use database::Database;
pub(crate) use desk::{DeskStandIn, HOOK};
pub(crate) use first_admin::{ADMIN, DEMO, PASSWORD};
pub(crate) use intercepted::{Call, Hook, Intercepted, Passing, When, hang, test_fault};
pub(crate) use mails::Mails;
pub(crate) use probes::{Crash, CrashProbe, Gate};
pub(crate) use scopes::{member_scope, system};
pub(crate) use seed::Seed;
pub(crate) use session::{Rest, Session, reason};
pub(crate) use settings::{rounds, setting};
pub(crate) use wire::Wire;
