//! Periodic jobs. They take no input, have no leader, and never end: each run waits for the next.

use chrono::{TimeDelta, Utc};
use serde_json::json;
use virtualstack_model::Result;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::jobs::{Inventory, VmDelete};
use virtualstack_model::compute::vm::VmState;
use virtualstack_model::id::{OperationId, TenantId};
use virtualstack_model::jobs::Housekeeping;
use virtualstack_model::operation::Verb;
use virtualstack_queue::{Lease, Outcome};
use virtualstack_store::compute::console_tickets;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::templates::{self, Seen};
use virtualstack_store::compute::vms::{self, Update};
use virtualstack_store::iam::{password_resets, rate_limits, sessions};
use virtualstack_store::{Store, SystemPurpose, operations, request_ids};

use crate::engine::context::{CALL_LIMIT, Shared, stopped};
use crate::tenant_life;

/// Purges that one run starts at most; the next run goes on.
const PURGES: i64 = 100;

/// How long ended sessions are remembered, and how many one run forgets at most.
const SESSION_MEMORY: TimeDelta = TimeDelta::days(30);
const SESSIONS: i64 = 1000;

/// Puts the periodic jobs in, unless they are there.
pub(crate) async fn schedule(store: &Store) -> Result<()> {
    store
        .system(SystemPurpose::Reconcile, async |tx| {
            tx.schedule(&Inventory {}).await?;
            tx.schedule(&Housekeeping {}).await
        })
        .await
}

/// Publishes the templates that the hypervisor has.
pub(crate) async fn inventory(shared: &Shared, lease: &Lease) -> Result<()> {
    let observed = tokio::select! {
        answer = tokio::time::timeout(CALL_LIMIT, shared.hypervisor.observe_templates()) => match answer {
            Ok(answer) => answer.map_err(|fault| fault.to_string()),
            Err(late) => Err(late.to_string()),
        },
        () = stopped(&shared.stop) => Err("the worker stops".to_owned()),
    };
    let next = Outcome::Wait(json!({}), TimeDelta::seconds(i64::from(shared.config.inventory_seconds)));
    let seen: Vec<_> = match observed {
        Ok(templates) => templates
            .into_iter()
            .map(|template| Seen {
                reference: template.reference.0,
                display_name: template.display_name,
                kind: template.kind,
                guest_os: template.guest_os,
                cpu_count: template.cpu_count,
                memory_mib: template.memory_mib,
                disk_gib: template.disk_gib,
            })
            .collect(),
        Err(error) => {
            // An outage says nothing about templates: the catalogue stays as it is, and we look again soon.
            tracing::warn!(error, "cannot read the templates");
            let soon = Outcome::Retry { error, after: Some(TimeDelta::seconds(5)), within: None };
            return shared.store.system_for_job(lease, async |_| Ok(((), soon.clone()))).await;
        }
    };
    shared
        .store
        .system_for_job(lease, async |tx| {
            templates::publish(tx, shared.hypervisor.kind(), &seen).await?;
            Ok(((), next.clone()))
        })
        .await
}

/// Starts due purges, and forgets what nobody asks for any more.
pub(crate) async fn housekeeping(shared: &Shared, lease: &Lease) -> Result<()> {
    let due = shared.store.system(SystemPurpose::Reconcile, async |tx| vms::purgeable(tx, PURGES).await).await?;
    for (tenant, vm) in due {
        if let Err(error) = purge(&shared.store, tenant, vm).await {
            tracing::warn!(%error, %vm, "cannot start a purge");
        }
    }
    tenant_life::run(&shared.store).await;
    let next = Outcome::Wait(json!({}), TimeDelta::seconds(i64::from(shared.config.housekeeping_seconds)));
    shared
        .store
        .system_for_job(lease, async |tx| {
            request_ids::prune(tx).await?;
            password_resets::prune(tx).await?;
            console_tickets::prune(tx).await?;
            sessions::prune(tx, Utc::now() - SESSION_MEMORY, SESSIONS).await?;
            tx.prune_jobs(Utc::now() - TimeDelta::days(7)).await?;
            // Last: whoever calls under a limit may wait for these rows.
            rate_limits::prune(tx).await?;
            Ok(((), next.clone()))
        })
        .await
}

async fn purge(store: &Store, tenant: TenantId, id: VmId) -> Result<()> {
    store
        .write_as_system(tenant, "vm_purge", async |tx| {
            let Some(mut vm) = vms::find_locked(tx, id).await? else { return Ok(()) };
            // It may have been undeleted since it was found, and deleted again: then it has its window before it.
            if vm.state != VmState::Deleted || vm.purge_at.is_none_or(|due| due > Utc::now()) {
                return Ok(());
            }
            let operation = OperationId::new();
            let job = VmDelete { vm: id, operation, force: true };
            operations::start(tx, operation, Verb::Delete, id, &job).await?;
            tx.audit_resource(id.name());
            let update = Update { state: Some(VmState::Deleting), ..Update::default() };
            let message = "The undelete window is over; the VM is purged".to_owned();
            let event = Event { reason: "VM_PURGE_STARTED", message, operation: Some(operation) };
            vms::update_state(tx, &mut vm, update, event).await
        })
        .await
}
