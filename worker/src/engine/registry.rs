//! From a job's kind to what does it. A new kind of job is one line here.

use tokio_util::sync::CancellationToken;
use virtualstack_model::Error;
use virtualstack_model::compute::jobs::{Inventory, VmConsole, VmCreate, VmDelete, VmPower, VmResize, VmSnapshot};
use virtualstack_model::iam::jobs::{InvitationMail, PasswordResetMail};
use virtualstack_model::jobs::{Housekeeping, Job};
use virtualstack_queue::{Handler, Lease};

use crate::engine::context::Shared;
use crate::engine::run;
use crate::iam::token_mail;
use crate::periodic;

/// Hands claimed jobs to their workflows.
pub(crate) struct Dispatcher(pub(crate) Shared);

impl Handler for Dispatcher {
    async fn handle(&self, lease: Lease, lost: CancellationToken) {
        let shared = &self.0;
        let done = match lease.kind.as_str() {
            VmCreate::KIND => run::run::<VmCreate>(shared, &lease, &lost).await,
            VmPower::KIND => run::run::<VmPower>(shared, &lease, &lost).await,
            VmResize::KIND => run::run::<VmResize>(shared, &lease, &lost).await,
            VmSnapshot::KIND => run::run::<VmSnapshot>(shared, &lease, &lost).await,
            VmConsole::KIND => run::run::<VmConsole>(shared, &lease, &lost).await,
            VmDelete::KIND => run::run::<VmDelete>(shared, &lease, &lost).await,
            InvitationMail::KIND => token_mail::send::<InvitationMail>(shared, &lease).await,
            PasswordResetMail::KIND => token_mail::send::<PasswordResetMail>(shared, &lease).await,
            Inventory::KIND => periodic::inventory(shared, &lease).await,
            Housekeeping::KIND => periodic::housekeeping(shared, &lease).await,
            kind => Err(Error::internal(format!("no worker of this version knows jobs of kind {kind}"))),
        };
        if let Err(error) = done {
            // The lease runs out, and somebody tries again.
            tracing::warn!(
                source = std::error::Error::source(&error).map(ToString::to_string),
                "job interrupted: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::engine::run::Workflow;

    /// A workflow whose step cannot be read begins again, and whoever waits for it waits twice as long.
    fn reads<W: Workflow>(job: &Value) {
        let payload = serde_json::from_value::<W>(job["payload"].clone());
        assert!(payload.is_ok(), "{:?}: {job}", payload.err());
        let step = serde_json::from_value::<Option<W::Step>>(job["progress"].clone());
        assert!(step.is_ok(), "{:?}: {job}", step.err());
    }

    #[test]
    fn steps_that_earlier_releases_have_kept_are_known() {
        let releases = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/upgrade")).expect("a folder");
        let facts =
            releases.filter_map(|release| std::fs::read_to_string(release.ok()?.path().join("facts.json")).ok());
        let mut read = 0;
        for facts in facts {
            let facts: Value = serde_json::from_str(&facts).expect("JSON");
            for job in facts["jobs"].as_array().expect("jobs") {
                match job["kind"].as_str().expect("a kind") {
                    VmCreate::KIND => reads::<VmCreate>(job),
                    VmPower::KIND => reads::<VmPower>(job),
                    VmResize::KIND => reads::<VmResize>(job),
                    VmSnapshot::KIND => reads::<VmSnapshot>(job),
                    VmConsole::KIND => reads::<VmConsole>(job),
                    VmDelete::KIND => reads::<VmDelete>(job),
                    // These have no steps.
                    _ => {}
                }
                read += 1;
            }
        }
        assert!(read > 0, "no release is kept");
    }
}
