//! Virtual machines.

use chrono::Utc;
use serde_json::json;
use virtualstack_model::compute::customization::{GuestCustomization, is_windows};
use virtualstack_model::compute::id::{TemplateId, VmId};
use virtualstack_model::compute::jobs::{Graceful, VmConsole, VmCreate, VmDelete, VmPower, VmResize};
use virtualstack_model::compute::template::{TemplateKind, TemplateState};
use virtualstack_model::compute::vm::{Size, VmState};
use virtualstack_model::error::Violation;
use virtualstack_model::id::OperationId;
use virtualstack_model::jobs::OperationJob;
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::compute::{guest_customizations, snapshots, templates, user_templates};
use virtualstack_store::{MasterKey, Read, Store, TenantTx, Write, operations};

use super::messages::{event_message, vm_message};
use crate::call::TenantCall;
use crate::call::caller::TenantCaller;
use crate::call::codec;
use crate::call::list::{List as _, page};
use crate::call::message::update_mask;
use crate::call::write::Mutation;
use crate::generated::virtualstack::compute::v1::VmService;
use crate::services::mutations::{begin, start};

/// What a tenant may change: the first three at once, the others by an operation.
const UPDATABLE: [&str; 6] = ["display_name", "description", "labels", "cpu_count", "memory_mib", "disk_gib"];

/// Those of them that an operation changes.
const SIZES: [&str; 3] = ["cpu_count", "memory_mib", "disk_gib"];

pub(crate) struct Vms {
    pub(crate) store: Store,
    /// What first-boot settings are sealed with.
    pub(crate) master_key: MasterKey,
}

impl VmService for Vms {
    async fn list_vms(&self, call: TenantCall<proto::ListVmsRequest>) -> Result<proto::ListVmsResponse> {
        let (request, show_deleted) = (call.request.list(), call.request.show_deleted);
        let listed = vms::list(&mut self.store.single(&call.tenant()), &request, show_deleted).await?;
        Ok(page(listed, vm_message))
    }

    async fn get_vm(&self, call: TenantCall<proto::GetVmRequest>) -> Result<proto::Vm> {
        let id = VmId::parse("name", &call.request.name)?;
        vms::get(&mut self.store.single(&call.tenant()), id).await.map(vm_message)
    }

    async fn create_vm(&self, call: TenantCall<proto::CreateVmRequest>) -> Result<Operation> {
        let desired = call.request.vm.clone().unwrap_or_default();
        let template = TemplateId::parse("vm.template", &desired.template)?;
        let id = OperationId::new();
        let create = async |tx: &mut TenantTx<Write>| {
            let template = usable_template(tx, template).await?;
            let customization = customization(&template, &desired)?;
            let vm = new_vm(&call, &desired, template)?;
            vms::insert(tx, &vm, id).await?;
            if let Some(customization) = &customization {
                guest_customizations::put(tx, &self.master_key, vm.id, customization).await?;
            }
            tx.audit_resource(vm.id.name());
            let new = vms::operation(id, Verb::Create, vm.id);
            operations::start(tx, new, &VmCreate { vm: vm.id, operation: id }).await
        };
        start(&call, &self.store, id, create).await
    }

    async fn update_vm(&self, call: TenantCall<proto::UpdateVmRequest>) -> Result<Operation> {
        let proto::UpdateVmRequest { vm, update_mask: mask, allow_restart, .. } = call.request.clone();
        let desired = vm.unwrap_or_default();
        let target = VmId::parse("vm.name", &desired.name)?;
        if desired.guest_customization.is_some() {
            return Err(Error::invalid("vm.guest_customization", "is taken when a VM is created, and not later"));
        }
        let fields = update_mask(mask, &UPDATABLE, |field| match field {
            "display_name" => !desired.display_name.is_empty(),
            "description" => !desired.description.is_empty(),
            "labels" => !desired.labels.is_empty(),
            "cpu_count" => desired.cpu_count != 0,
            "memory_mib" => desired.memory_mib != 0,
            _ => desired.disk_gib != 0,
        })?;
        let id = OperationId::new();
        let update = async |tx: &mut TenantTx<Write>| {
            let before = vms::lock(tx, target).await?;
            Error::check_etag(&desired.etag, &before.etag())?;
            if matches!(before.state, VmState::Deleting | VmState::Deleted) {
                return Err(Error::precondition("VM_DELETED", target.name(), "a deleted VM cannot be changed"));
            }
            tx.audit_resource(target.name());
            let mut vm = before.clone();
            let size = merge(&mut vm, &desired, &fields)?;
            if vm != before {
                vms::update_metadata(tx, &before, &mut vm, id).await?;
            }
            // Another operation may be changing the size, and may fail: both sizes have to be what is asked for.
            let sized =
                fields.iter().any(|field| SIZES.contains(field)) && (size, size) != (vm.size(), vm.desired_size());
            if !sized {
                return operations::record_done(tx, vms::operation(id, Verb::Update, target)).await;
            }
            let job = VmResize { vm: target, operation: id, allow_restart };
            let started = operations::start(tx, vms::operation(id, Verb::Update, target), &job).await?;
            let state = vm.state.begin(Verb::Update, target)?;
            if size.disk_gib > vm.disk_gib && snapshots::count(tx, target).await? > 0 {
                let message = "vm.diskGib: the disk of a VM with snapshots cannot grow; delete them first";
                return Err(Error::precondition("VM_HAS_SNAPSHOTS", target.name(), message));
            }
            let Size { cpu_count, memory_mib, disk_gib } = size;
            let message = format!("A size of {cpu_count} CPUs, {memory_mib} MiB and {disk_gib} GiB was requested");
            let event = Event { reason: "VM_RESIZE_REQUESTED", message, operation: Some(id) };
            vms::set_desired_size(tx, &mut vm, state, size, event).await?;
            Ok(started)
        };
        start(&call, &self.store, id, update).await
    }

    async fn delete_vm(&self, call: TenantCall<proto::DeleteVmRequest>) -> Result<Operation> {
        let request = &call.request;
        let target = VmId::parse("name", &request.name)?;
        let id = OperationId::new();
        let delete = async |tx: &mut TenantTx<Write>| {
            let mut vm = vms::lock(tx, target).await?;
            Error::check_etag(&request.etag, &vm.etag())?;
            if vm.state == VmState::Deleted && !request.force {
                let message = "the VM is deleted already; force purges it";
                return Err(Error::precondition("VM_DELETED", target.name(), message));
            }
            // A VM of which nothing is on the hypervisor has nothing to undelete.
            let force = request.force || !vm.counted;
            let new = vms::operation(id, Verb::Delete, target);
            let job = VmDelete { vm: target, operation: id, force };
            let started = operations::start_delete(tx, new, &job).await?;
            begin(tx, &mut vm, Verb::Delete, id).await?;
            Ok(started)
        };
        start(&call, &self.store, id, delete).await
    }

    async fn undelete_vm(&self, call: TenantCall<proto::UndeleteVmRequest>) -> Result<Operation> {
        let target = VmId::parse("name", &call.request.name)?;
        let id = OperationId::new();
        let undelete = async |tx: &mut TenantTx<Write>| {
            let mut vm = vms::lock(tx, target).await?;
            if !matches!(vm.state, VmState::Deleted | VmState::Deleting) {
                return Err(Error::exists("VM_NOT_DELETED", target.name(), "the VM is not deleted"));
            }
            let state = vm.state.begin(Verb::Undelete, target)?;
            if vm.is_lost() || !vm.counted {
                let message = "the VM is gone from the hypervisor, so it cannot be undeleted";
                return Err(Error::precondition("VM_LOST", target.name(), message));
            }
            tx.audit_resource(target.name());
            vms::undelete(tx, &mut vm, state, id).await?;
            operations::record_done(tx, vms::operation(id, Verb::Undelete, target)).await
        };
        start(&call, &self.store, id, undelete).await
    }

    async fn start_vm(&self, call: TenantCall<proto::StartVmRequest>) -> Result<Operation> {
        self.power(&call, &call.request.name, Verb::Start, None).await
    }

    async fn stop_vm(&self, call: TenantCall<proto::StopVmRequest>) -> Result<Operation> {
        let graceful = graceful(&call.request)?;
        self.power(&call, &call.request.name, Verb::Stop, graceful).await
    }

    async fn restart_vm(&self, call: TenantCall<proto::RestartVmRequest>) -> Result<Operation> {
        self.power(&call, &call.request.name, Verb::Restart, Some(Graceful::default())).await
    }

    async fn reset_vm(&self, call: TenantCall<proto::ResetVmRequest>) -> Result<Operation> {
        self.power(&call, &call.request.name, Verb::Reset, None).await
    }

    async fn suspend_vm(&self, call: TenantCall<proto::SuspendVmRequest>) -> Result<Operation> {
        self.power(&call, &call.request.name, Verb::Suspend, None).await
    }

    async fn open_console(&self, call: TenantCall<proto::OpenConsoleRequest>) -> Result<Operation> {
        let target = VmId::parse("name", &call.request.name)?;
        let operation = OperationId::new();
        self.start_on(&call, target, operation, Verb::OpenConsole, VmConsole { vm: target, operation }).await
    }

    async fn list_vm_events(
        &self,
        call: TenantCall<proto::ListVmEventsRequest>,
    ) -> Result<proto::ListVmEventsResponse> {
        let id = VmId::parse("parent", &call.request.parent)?;
        let request = call.request.list();
        let read = async |tx: &mut TenantTx<Read>| {
            vms::get(tx, id).await?;
            vms::list_events(tx, &request, id).await
        };
        let listed = self.store.read(&call.tenant(), read).await?;
        Ok(page(listed, |row| event_message(id, row)))
    }
}

impl Vms {
    async fn power<R: Mutation>(
        &self,
        call: &TenantCall<R>,
        name: &str,
        verb: Verb,
        graceful: Option<Graceful>,
    ) -> Result<Operation> {
        let target = VmId::parse("name", name)?;
        let operation = OperationId::new();
        self.start_on(call, target, operation, verb, VmPower { vm: target, operation, verb, graceful }).await
    }

    /// Starts an operation that needs nothing but a VM in a state that allows it.
    async fn start_on<R: Mutation, J: OperationJob>(
        &self,
        call: &TenantCall<R>,
        target: VmId,
        operation: OperationId,
        verb: Verb,
        job: J,
    ) -> Result<Operation> {
        let change = async |tx: &mut TenantTx<Write>| {
            let mut vm = vms::lock(tx, target).await?;
            let started = operations::start(tx, vms::operation(operation, verb, target), &job).await?;
            begin(tx, &mut vm, verb, operation).await?;
            Ok(started)
        };
        start(call, &self.store, operation, change).await
    }
}

/// How a stop is to ask the guest; none cuts the power.
fn graceful(request: &proto::StopVmRequest) -> Result<Option<Graceful>> {
    if !request.graceful {
        // Somebody who says how to ask the guest does not want its power to be cut.
        let said = [("timeout", request.timeout.is_some()), ("fallback", request.fallback != 0)];
        let said = said.into_iter().filter(|(_, said)| *said);
        let violations: Vec<_> = said.map(|(field, _)| Violation::new(field, "is for a graceful stop")).collect();
        return if violations.is_empty() { Ok(None) } else { Err(Error::invalid_all(violations)) };
    }
    let mut graceful =
        Graceful { power_off: request.fallback() != proto::stop_vm_request::Fallback::Fail, ..Graceful::default() };
    if let Some(timeout) = request.timeout {
        let seconds = timeout.seconds + i64::from(timeout.nanos > 0);
        graceful.timeout_seconds = seconds.try_into().map_err(|_| Error::invalid("timeout", "must not be negative"))?;
    }
    Ok(Some(graceful))
}

/// Puts the fields that an update names into a VM, but for its size, which it is to have later. The rules hold for the VM
/// that comes of it, not for the part that was sent.
fn merge(vm: &mut Vm, desired: &proto::Vm, fields: &[&str]) -> Result<Size> {
    let mut size = vm.desired_size();
    let mut violations = Vec::new();
    let mut sized = |field: &str, desired: i32, to: &mut i32| {
        if desired == 0 {
            violations.push(Violation::new(&format!("vm.{field}"), "must be more than zero"));
        }
        *to = desired;
    };
    for field in fields {
        match *field {
            "display_name" => vm.display_name.clone_from(&desired.display_name),
            "description" => vm.description.clone_from(&desired.description),
            "labels" => vm.labels = json!(desired.labels),
            "cpu_count" => sized(field, desired.cpu_count, &mut size.cpu_count),
            "memory_mib" => sized(field, desired.memory_mib, &mut size.memory_mib),
            _ => sized(field, desired.disk_gib, &mut size.disk_gib),
        }
    }
    if !violations.is_empty() {
        return Err(Error::invalid_all(violations));
    }
    let Size { cpu_count, memory_mib, disk_gib } = size;
    let merged = proto::Vm { cpu_count, memory_mib, disk_gib, ..vm_message(vm.clone()) };
    codec::validate(&proto::CreateVmRequest { vm: Some(merged), ..Default::default() })?;
    if disk_gib < vm.disk_gib {
        return Err(Error::invalid("vm.disk_gib", format!("only grows; it is {} GiB", vm.disk_gib)));
    }
    Ok(size)
}

/// The template of a new VM, which is not deleted before the VM is known.
async fn usable_template(tx: &mut TenantTx<Write>, id: TemplateId) -> Result<templates::Template> {
    let template = match user_templates::hold(tx, id).await? {
        Some(own) => Some(own.seen()),
        None => templates::find(tx, id).await?,
    };
    let template = template.ok_or_else(|| Error::invalid("vm.template", format!("there is no {}", id.name())))?;
    match template.state {
        TemplateState::Ready => Ok(template),
        TemplateState::Unavailable => {
            let message = "vm.template: the template is not on its hypervisor now; ask the provider";
            Err(Error::precondition("TEMPLATE_UNAVAILABLE", id.name(), message))
        }
        state => {
            let why = if template.state_reason.is_empty() { "" } else { ": " };
            let message = format!("vm.template: the template is {state}{why}{}", template.state_reason);
            Err(Error::precondition("TEMPLATE_STATE", id.name(), message))
        }
    }
}

/// What the guest of a new VM is told at its first boot, if the request says so and its template can take it.
fn customization(template: &templates::Template, desired: &proto::Vm) -> Result<Option<GuestCustomization>> {
    let Some(proto::GuestCustomization { hostname, ssh_keys, user_data }) = desired.guest_customization.clone() else {
        return Ok(None);
    };
    let told = GuestCustomization { hostname, ssh_keys, user_data };
    if told == GuestCustomization::default() {
        return Ok(None);
    }
    let unsupported = |field: &str, why: &str| {
        let message = format!("vm.guestCustomization{field}: {why}");
        Err(Error::precondition("GUEST_CUSTOMIZATION_UNSUPPORTED", template.id.name(), message))
    };
    if template.kind == TemplateKind::Iso {
        return unsupported("", "an installer that is started from an ISO takes no such settings");
    }
    if !told.ssh_keys.is_empty() && is_windows(&template.guest_os) {
        return unsupported(".sshKeys", "Windows takes the host name alone");
    }
    if !told.user_data.is_empty() && is_windows(&template.guest_os) {
        return unsupported(".userData", "Windows takes the host name alone");
    }
    Ok(Some(told))
}

/// The VM that a request and its template make.
fn new_vm(caller: &TenantCaller, desired: &proto::Vm, template: templates::Template) -> Result<Vm> {
    let least = [
        ("vm.cpu_count", desired.cpu_count, template.cpu_count, "CPUs"),
        ("vm.memory_mib", desired.memory_mib, template.memory_mib, "MiB"),
        ("vm.disk_gib", desired.disk_gib, template.disk_gib, "GiB"),
    ];
    let small = least.into_iter().filter(|(_, desired, least, _)| *desired != 0 && desired < least);
    let violations: Vec<_> = small
        .map(|(field, _, least, unit)| Violation::new(field, format!("must be at least the template's {least} {unit}")))
        .collect();
    if !violations.is_empty() {
        return Err(Error::invalid_all(violations));
    }
    let or_template = |field: &str, desired: i32, template: i32| match (desired, template) {
        (0, ..=0) => Err(Error::invalid(field, "is required: the template does not say")),
        (0, template) => Ok(template),
        (desired, _) => Ok(desired),
    };
    let now = Utc::now();
    Ok(Vm {
        tenant_id: caller.tenant_id(),
        id: VmId::new(),
        display_name: desired.display_name.clone(),
        description: desired.description.clone(),
        state: VmState::Provisioning,
        state_reason: String::new(),
        cpu_count: or_template("vm.cpu_count", desired.cpu_count, template.cpu_count)?,
        memory_mib: or_template("vm.memory_mib", desired.memory_mib, template.memory_mib)?,
        disk_gib: or_template("vm.disk_gib", desired.disk_gib, template.disk_gib)?,
        template_id: template.id,
        template_reference: template.reference,
        template_display_name: template.display_name,
        guest_os: template.guest_os,
        ip_addresses: Vec::new(),
        labels: json!(desired.labels),
        owner_id: caller.user(),
        created_at: now,
        updated_at: now,
        observed_at: None,
        observed_power_state: None,
        deleted_at: None,
        purge_at: None,
        version: 1,
        template_kind: template.kind,
        hypervisor: template.hypervisor,
        desired_cpu_count: None,
        desired_memory_mib: None,
        desired_disk_gib: None,
        counted: true,
        further_disk_gib: template.further_disk_gib,
    })
}
