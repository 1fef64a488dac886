//! How a tenant ends: it is purged when its time has come.
//!
//! - What it does: it starts forced deletes of the tenant's VMs and deletes of its templates, and once none is left it deletes all the rest. Each run goes
//!   as far as it can, and the next goes on; two at once are harmless, for each step locks what it reads.
//! - What it must never do: touch a tenant that was undeleted meanwhile, or the audit log.
//! - When it is activated: by its timer, `worker.housekeeping_seconds`.

use virtualstack_model::Result;
use virtualstack_model::compute::id::{TemplateId, VmId};
use virtualstack_model::compute::jobs::{TemplateDelete, VmDelete};
use virtualstack_model::compute::template::TemplateState;
use virtualstack_model::compute::vm::VmState;
use virtualstack_model::id::{OperationId, TenantId};
use virtualstack_model::jobs::TenantPurge;
use virtualstack_model::log::{Actor, Audit, Outcome};
use virtualstack_model::operation::Verb;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::user_templates;
use virtualstack_store::compute::vms::{self, Update};
use virtualstack_store::tenant_life;
use virtualstack_store::{Store, SystemTx, TenantTx, Write, operations};

use crate::config::Config;
use crate::engine::registry::Registry;
use crate::engine::task::{Next, Task, TaskContext};

/// Tenants, and VMs and templates of each, that one run looks at.
const TENANTS: i64 = 500;
const VMS: i64 = 100;
const TEMPLATES: i64 = 100;

/// Operations and changes that are forgotten in one statement.
const HISTORY: i64 = 5_000;

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    registry.scheduled::<TenantPurge>(config.housekeeping());
}

impl Task for TenantPurge {
    /// Goes on with the purges that are due. One that fails does not stop the others.
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let store = context.store();
        let due =
            store.system(crate::reconciler::reconciler(), async |tx| tenant_life::purgeable(tx, TENANTS).await).await?;
        for tenant in due {
            match purge(store, tenant).await {
                Ok(true) => tracing::info!(%tenant, "the tenant was purged"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, %tenant, "cannot purge the tenant"),
            }
        }
        Ok(Next::Done)
    }
}

/// Goes on with the purge of a tenant; whether it is done.
async fn purge(store: &Store, tenant: TenantId) -> Result<bool> {
    let vms = store.system(crate::reconciler::reconciler(), async |tx| vms::of_tenant(tx, tenant, VMS).await).await?;
    for vm in vms {
        if let Err(error) = delete(store, tenant, vm).await {
            tracing::warn!(%error, %vm, "cannot start the purge of a VM");
        }
    }
    let templates = async |tx: &mut SystemTx| user_templates::of_tenant(tx, tenant, TEMPLATES).await;
    for template in store.system(crate::reconciler::reconciler(), templates).await? {
        if let Err(error) = delete_template(store, tenant, template).await {
            tracing::warn!(%error, %template, "cannot start the deletion of a template");
        }
    }
    let any = async |tx: &mut SystemTx| {
        Ok(vms::any_of_tenant(tx, tenant).await? || user_templates::any_of_tenant(tx, tenant).await?)
    };
    if store.system(crate::reconciler::reconciler(), any).await? {
        return Ok(false);
    }
    while store
        .system(crate::reconciler::reconciler(), async |tx| tenant_life::forget_history(tx, tenant, HISTORY).await)
        .await?
    {}
    let audit = Audit {
        action: "tenant_purge".to_owned(),
        actor: Actor::System("reconciler"),
        resource: tenant.name(),
        request_id: String::new(),
        client_address: None,
        traceparent: None,
        outcome: Outcome::Done,
    };
    store.system(crate::reconciler::reconciler(), async |tx| tenant_life::purge(tx, &audit, tenant).await).await
}

/// Starts the forced delete of a VM. Behind another operation it waits, and asks that one to cancel.
async fn delete(store: &Store, tenant: TenantId, id: VmId) -> Result<()> {
    store
        .write_as_system(&crate::reconciler::reconciler(), tenant, "vm_purge", async |tx| {
            if !tenant_life::is_due(tx).await? {
                return Ok(());
            }
            let Some(mut vm) = vms::find_locked(tx, id).await? else { return Ok(()) };
            if vm.state == VmState::Deleting {
                return Ok(());
            }
            let operation = OperationId::new();
            let new = vms::operation(operation, Verb::Delete, id);
            operations::start_delete(tx, new, &VmDelete { vm: id, operation, force: true }).await?;
            tx.audit_resource(id.name());
            let update = Update { state: Some(VmState::Deleting), ..Update::default() };
            let message = "The tenant is purged, and the VM with it".to_owned();
            let event = Event { reason: "VM_PURGE_STARTED", message, operation: Some(operation) };
            vms::update_state(tx, &mut vm, update, event).await
        })
        .await
}

/// Starts the delete of a template; behind another operation as well. While a VM is being created from it, the next run does.
async fn delete_template(store: &Store, tenant: TenantId, id: TemplateId) -> Result<()> {
    let delete = async |tx: &mut TenantTx<Write>| {
        if !tenant_life::is_due(tx).await? {
            return Ok(());
        }
        let Some(before) = user_templates::find_locked(tx, id).await? else { return Ok(()) };
        if before.state == TemplateState::Deleting || user_templates::is_in_use(tx, id).await? {
            return Ok(());
        }
        let operation = OperationId::new();
        let new = user_templates::operation(operation, Verb::Delete, id);
        operations::start_delete(tx, new, &TemplateDelete { template: id, operation }).await?;
        tx.audit_resource(id.name());
        user_templates::start_delete(tx, before, "The tenant is purged, and the template with it", operation).await
    };
    store.write_as_system(&crate::reconciler::reconciler(), tenant, "template_purge", delete).await
}
