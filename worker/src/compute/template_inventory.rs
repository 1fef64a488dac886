//! Publishes the templates that the hypervisors have.
//!
//! - What it does: it reads the templates of each hypervisor and makes the catalogue say the same: new ones come in, known
//!   ones follow, missing ones become unavailable.
//! - What it must never do: publish a template that is a tenant's; take a template away because a hypervisor did not answer. An outage says nothing about
//!   templates.
//! - When it is activated: by its timer, `worker.inventory_seconds`; and by each start of a worker, whose settings may name
//!   other hypervisors or folders.

use chrono::TimeDelta;
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::TemplateInventory;
use virtualstack_store::compute::provider_templates::{self, Seen};

use crate::adapters::hypervisor::TemplateInfo;
use crate::engine::task::{Next, Task, TaskContext};

/// How long after an outage the templates are read again, at least.
const AGAIN: TimeDelta = TimeDelta::seconds(5);

impl Task for TemplateInventory {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let hypervisors = &context.shared.hypervisors;
        let mut faults = Vec::new();
        for (name, hypervisor) in hypervisors.iter() {
            match context.ask(hypervisor.observe_templates()).await {
                Ok(found) => {
                    let of_provider = found.into_iter().filter(|template| !template.is_imported);
                    let seen: Vec<_> = of_provider.map(seen).collect();
                    context.commit("publish", async |tx| provider_templates::publish(tx, name, &seen).await).await?;
                }
                Err(fault) => faults.push(format!("cannot read the templates of {name}: {fault}")),
            }
        }
        if !faults.is_empty() {
            return Ok(Next::Retry { error: faults.join("; "), after: Some(AGAIN) });
        }
        let names = hypervisors.names();
        context.end("withdraw", Next::Done, async |tx| provider_templates::withdraw_others(tx, &names).await).await
    }
}

fn seen(template: TemplateInfo) -> Seen {
    Seen {
        reference: template.reference.0,
        display_name: template.display_name,
        kind: template.kind,
        guest_os: template.guest_os,
        cpu_count: template.cpu_count,
        memory_mib: template.memory_mib,
        disk_gib: template.disk_gib,
        further_disk_gib: template.further_disk_gib,
    }
}
