//! VMs, their snapshots and their consoles, and templates as targets of operations; VMs and templates as what is watched.

use futures::future::BoxFuture;
use prost_types::Any;
use serde::de::DeserializeOwned;
use serde_json::Value;
use virtualstack_model::compute::console::ConsoleTicket;
use virtualstack_model::compute::id::{SnapshotId, TemplateId, VmId};
use virtualstack_model::id::OperationId;
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Resource;
use virtualstack_store::compute::templates::Template;
use virtualstack_store::compute::vms::Vm;
use virtualstack_store::compute::{console_tickets, snapshots, templates, vms};
use virtualstack_store::{MasterKey, Read, TenantTx, Write};

use super::messages::{snapshot_message, template_message, vm_message};
use crate::call::message::{any, time};
use crate::services::target::{Once, Target};
use crate::services::watched::Packed;

pub(crate) const VM: Target = Target {
    names: VmId::NAMES,
    verb: None,
    read: |tx, names| Box::pin(read_vms(tx, names)),
    last: |name, was| {
        let gone = || proto::Vm {
            name: name.to_owned(),
            uid: uid(name),
            state: proto::vm::State::Deleted.into(),
            ..Default::default()
        };
        any(&kept(was).map_or_else(gone, vm_message))
    },
    once: None,
};

pub(crate) const SNAPSHOT: Target = Target {
    names: SnapshotId::NAMES,
    verb: None,
    read: |tx, names| Box::pin(read_snapshots(tx, names)),
    last: |name, was| {
        let gone = || proto::Snapshot { name: name.to_owned(), uid: uid(name), ..Default::default() };
        any(&kept(was).map_or_else(gone, snapshot_message))
    },
    once: None,
};

pub(crate) const TEMPLATE: Target = Target {
    names: TemplateId::NAMES,
    verb: None,
    read: |tx, names| Box::pin(read_templates(tx, names)),
    last: |name, was| {
        let gone = || proto::Template {
            name: name.to_owned(),
            uid: uid(name),
            state: proto::template::State::Deleting.into(),
            ..Default::default()
        };
        any(&kept(was).map_or_else(gone, template_message))
    },
    once: None,
};

/// A console is not kept: what is left of it is whose it was.
pub(crate) const CONSOLE: Target = Target {
    names: VmId::NAMES,
    verb: Some(Verb::OpenConsole),
    read: |_, _| Box::pin(async { Ok(Vec::new()) }),
    last: |name, _| any(&proto::ConsoleTicket { vm: name.to_owned(), ..Default::default() }),
    once: Some(Once {
        permission: "vm:console",
        waits: |tx, id| Box::pin(console_tickets::waits(tx, id)),
        take: take_ticket,
    }),
};

async fn read_vms(tx: &mut TenantTx<Read>, names: Vec<String>) -> Result<Vec<(String, Any)>> {
    let ids: Result<Vec<_>> = names.iter().map(|name| VmId::parse("target", name)).collect();
    let rows = vms::get_many(tx, &ids?).await?;
    Ok(rows.into_iter().map(|row| (row.id.name(), any(&vm_message(row)))).collect())
}

async fn read_snapshots(tx: &mut TenantTx<Read>, names: Vec<String>) -> Result<Vec<(String, Any)>> {
    let ids: Result<Vec<_>> = names.iter().map(|name| Ok(SnapshotId::parse_in("target", name)?.1)).collect();
    let rows = snapshots::get_many(tx, &ids?).await?;
    Ok(rows.into_iter().map(|row| (row.name(), any(&snapshot_message(row)))).collect())
}

async fn read_templates(tx: &mut TenantTx<Read>, names: Vec<String>) -> Result<Vec<(String, Any)>> {
    let ids: Result<Vec<_>> = names.iter().map(|name| TemplateId::parse("target", name)).collect();
    let rows = templates::get_many(tx, &ids?).await?;
    Ok(rows.into_iter().map(|row| (row.id.name(), any(&template_message(row)))).collect())
}

/// What was kept of a target that ceased to be.
fn kept<T: DeserializeOwned>(was: Option<Value>) -> Option<T> {
    was.and_then(|was| serde_json::from_value(was).ok())
}

fn uid(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

impl Packed for Vm {
    async fn pack(_: &mut TenantTx<Read>, rows: Vec<Self>) -> Result<Vec<Resource>> {
        Ok(rows.into_iter().map(|row| Resource::Vm(vm_message(row))).collect())
    }
}

impl Packed for Template {
    async fn pack(_: &mut TenantTx<Read>, rows: Vec<Self>) -> Result<Vec<Resource>> {
        Ok(rows.into_iter().map(|row| Resource::Template(template_message(row))).collect())
    }
}

fn take_ticket<'t>(
    tx: &'t mut TenantTx<Write>,
    key: &'t MasterKey,
    id: OperationId,
    vm: &'t str,
) -> BoxFuture<'t, Result<Option<Any>>> {
    Box::pin(async move {
        let Some((sealed, _)) = console_tickets::take(tx, id).await? else { return Ok(None) };
        let opened = key.open(&console_tickets::purpose(id), &sealed)?;
        let ConsoleTicket { url, ticket, protocol, expires_at } =
            serde_json::from_slice(&opened).map_err(Error::internal)?;
        let expire_time = Some(time(expires_at));
        Ok(Some(any(&proto::ConsoleTicket { vm: vm.to_owned(), url, ticket, protocol, expire_time })))
    })
}
