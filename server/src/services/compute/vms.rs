//! Virtual machines.

use chrono::Utc;
use serde_json::json;
use tonic::{Request, Response, Status};
use virtualstack_model::compute::id::{TemplateId, VmId};
use virtualstack_model::compute::jobs::{Graceful, VmConsole, VmCreate, VmDelete, VmPower, VmResize};
use virtualstack_model::compute::template::TemplateState;
use virtualstack_model::compute::vm::{Size, VmState};
use virtualstack_model::error::Violation;
use virtualstack_model::jobs::OperationJob;
use virtualstack_model::operation::Verb;
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1 as proto;

use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::compute::{snapshots, templates};
use virtualstack_store::{ListRequest, Listed, Store, TenantTx, Write, operations};

use crate::call::caller::Caller;
use crate::call::codec;
use crate::call::status::from_error;
use crate::generated::virtualstack::compute::v1::vm_service_server::VmService;
use crate::services::mutations::{Mutation, begin};
use crate::wire;
use crate::wire::vm::{event_message, vm_message};

/// What a tenant may change: the first three at once, the others by an operation.
const UPDATABLE: [&str; 6] = ["display_name", "description", "labels", "cpu_count", "memory_mib", "disk_gib"];

/// Those of them that an operation changes.
const SIZES: [&str; 3] = ["cpu_count", "memory_mib", "disk_gib"];

pub(crate) struct Vms {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl VmService for Vms {
    async fn list_vms(
        &self,
        request: Request<proto::ListVmsRequest>,
    ) -> Result<Response<proto::ListVmsResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let proto::ListVmsRequest { page_size, page_token, show_deleted, filter, order_by, show_total } =
            request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } = self
            .store
            .read(&scope, async |tx| vms::list(tx, &request, show_deleted).await)
            .await
            .map_err(from_error)?;
        let vms = rows.into_iter().map(vm_message).collect();
        Ok(Response::new(proto::ListVmsResponse { vms, next_page_token, total_size }))
    }

    async fn get_vm(&self, request: Request<proto::GetVmRequest>) -> Result<Response<proto::Vm>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let id = VmId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let row = self.store.read(&scope, async |tx| vms::get(tx, id).await).await.map_err(from_error)?;
        Ok(Response::new(vm_message(row)))
    }

    async fn create_vm(&self, request: Request<proto::CreateVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("CreateVm", &request, |it| (&it.request_id, it.validate_only))?;
        let wanted = request.into_inner().vm.unwrap_or_default();
        let template = TemplateId::parse("vm.template", &wanted.template).map_err(from_error)?;
        let id = mutation.operation;
        mutation
            .make(&self.store, async |tx| {
                let template = usable_template(tx, template).await?;
                let vm = new_vm(&mutation.caller, &wanted, template)?;
                vms::insert(tx, &vm, id).await?;
                tx.audit_resource(vm.id.name());
                let new = vms::operation(id, Verb::Create, vm.id);
                operations::start(tx, new, &VmCreate { vm: vm.id, operation: id }).await
            })
            .await
    }

    async fn update_vm(&self, request: Request<proto::UpdateVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("UpdateVm", &request, |it| (&it.request_id, it.validate_only))?;
        let proto::UpdateVmRequest { vm, update_mask, allow_restart, .. } = request.into_inner();
        let wanted = vm.unwrap_or_default();
        let target = VmId::parse("vm.name", &wanted.name).map_err(from_error)?;
        let fields = wire::update_mask(update_mask, &UPDATABLE, |field| match field {
            "display_name" => !wanted.display_name.is_empty(),
            "description" => !wanted.description.is_empty(),
            "labels" => !wanted.labels.is_empty(),
            "cpu_count" => wanted.cpu_count != 0,
            "memory_mib" => wanted.memory_mib != 0,
            _ => wanted.disk_gib != 0,
        })
        .map_err(from_error)?;
        let id = mutation.operation;
        mutation
            .make(&self.store, async |tx| {
                let before = vms::lock(tx, target).await?;
                Error::check_etag(&wanted.etag, &before.etag())?;
                if matches!(before.state, VmState::Deleting | VmState::Deleted) {
                    return Err(Error::precondition("VM_DELETED", target.name(), "a deleted VM cannot be changed"));
                }
                tx.audit_resource(target.name());
                let mut vm = before.clone();
                let size = merge(&mut vm, &wanted, &fields)?;
                if vm != before {
                    vms::update_metadata(tx, &before, &mut vm, id).await?;
                }
                // A size that another operation is at work on is not there yet, and may never be.
                let sized =
                    fields.iter().any(|field| SIZES.contains(field)) && (size, size) != (vm.size(), vm.wanted_size());
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
                vms::want_size(tx, &mut vm, state, size, event).await?;
                Ok(started)
            })
            .await
    }

    async fn delete_vm(&self, request: Request<proto::DeleteVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("DeleteVm", &request, |it| (&it.request_id, it.validate_only))?;
        let request = request.into_inner();
        let target = VmId::parse("name", &request.name).map_err(from_error)?;
        let id = mutation.operation;
        mutation
            .make(&self.store, async |tx| {
                let mut vm = vms::lock(tx, target).await?;
                Error::check_etag(&request.etag, &vm.etag())?;
                if vm.state == VmState::Deleted && !request.force {
                    let message = "the VM is deleted already; force purges it";
                    return Err(Error::precondition("VM_DELETED", target.name(), message));
                }
                // Of what is not on the hypervisor, there is nothing to keep.
                let force = request.force || !vm.occupies;
                let new = vms::operation(id, Verb::Delete, target);
                let job = VmDelete { vm: target, operation: id, force };
                let started = operations::start_delete(tx, new, &job).await?;
                begin(tx, &mut vm, Verb::Delete, id).await?;
                Ok(started)
            })
            .await
    }

    async fn undelete_vm(&self, request: Request<proto::UndeleteVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("UndeleteVm", &request, |it| (&it.request_id, it.validate_only))?;
        let target = VmId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let id = mutation.operation;
        mutation
            .make(&self.store, async |tx| {
                let mut vm = vms::lock(tx, target).await?;
                if !matches!(vm.state, VmState::Deleted | VmState::Deleting) {
                    return Err(Error::exists("VM_NOT_DELETED", target.name(), "the VM is not deleted"));
                }
                let state = vm.state.begin(Verb::Undelete, target)?;
                if !vm.occupies {
                    let message = "nothing of the VM is left on the hypervisor, so it cannot be undeleted";
                    return Err(Error::precondition("VM_LOST", target.name(), message));
                }
                tx.audit_resource(target.name());
                vms::undelete(tx, &mut vm, state, id).await?;
                operations::record_done(tx, vms::operation(id, Verb::Undelete, target)).await
            })
            .await
    }

    async fn start_vm(&self, request: Request<proto::StartVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("StartVm", &request, |it| (&it.request_id, it.validate_only))?;
        self.power(mutation, &request.get_ref().name, Verb::Start, None).await
    }

    async fn stop_vm(&self, request: Request<proto::StopVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("StopVm", &request, |it| (&it.request_id, it.validate_only))?;
        let graceful = graceful(request.get_ref()).map_err(from_error)?;
        self.power(mutation, &request.get_ref().name, Verb::Stop, graceful).await
    }

    async fn restart_vm(&self, request: Request<proto::RestartVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("RestartVm", &request, |it| (&it.request_id, it.validate_only))?;
        self.power(mutation, &request.get_ref().name, Verb::Restart, Some(Graceful::default())).await
    }

    async fn reset_vm(&self, request: Request<proto::ResetVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("ResetVm", &request, |it| (&it.request_id, it.validate_only))?;
        self.power(mutation, &request.get_ref().name, Verb::Reset, None).await
    }

    async fn suspend_vm(&self, request: Request<proto::SuspendVmRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("SuspendVm", &request, |it| (&it.request_id, it.validate_only))?;
        self.power(mutation, &request.get_ref().name, Verb::Suspend, None).await
    }

    async fn open_console(&self, request: Request<proto::OpenConsoleRequest>) -> Result<Response<Operation>, Status> {
        let mutation = Mutation::of("OpenConsole", &request, |it| (&it.request_id, it.validate_only))?;
        let target = VmId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let job = VmConsole { vm: target, operation: mutation.operation };
        self.begin(mutation, target, Verb::OpenConsole, job).await
    }

    async fn list_vm_events(
        &self,
        request: Request<proto::ListVmEventsRequest>,
    ) -> Result<Response<proto::ListVmEventsResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let proto::ListVmEventsRequest { parent, page_size, page_token, filter, order_by, show_total } =
            request.into_inner();
        let id = VmId::parse("parent", &parent).map_err(from_error)?;
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } = self
            .store
            .read(&scope, async |tx| {
                vms::get(tx, id).await?;
                vms::list_events(tx, &request, id).await
            })
            .await
            .map_err(from_error)?;
        let vm_events = rows.into_iter().map(|row| event_message(id, row)).collect();
        Ok(Response::new(proto::ListVmEventsResponse { vm_events, next_page_token, total_size }))
    }
}

impl Vms {
    async fn power(
        &self,
        mutation: Mutation,
        name: &str,
        verb: Verb,
        graceful: Option<Graceful>,
    ) -> Result<Response<Operation>, Status> {
        let target = VmId::parse("name", name).map_err(from_error)?;
        let job = VmPower { vm: target, operation: mutation.operation, verb, graceful };
        self.begin(mutation, target, verb, job).await
    }

    /// Starts an operation that needs nothing but a VM in a state that allows it.
    async fn begin<J: OperationJob>(
        &self,
        mutation: Mutation,
        target: VmId,
        verb: Verb,
        job: J,
    ) -> Result<Response<Operation>, Status> {
        let id = mutation.operation;
        mutation
            .make(&self.store, async |tx| {
                let mut vm = vms::lock(tx, target).await?;
                let started = operations::start(tx, vms::operation(id, verb, target), &job).await?;
                begin(tx, &mut vm, verb, id).await?;
                Ok(started)
            })
            .await
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
fn merge(vm: &mut Vm, wanted: &proto::Vm, fields: &[&str]) -> Result<Size> {
    let mut size = vm.wanted_size();
    let mut violations = Vec::new();
    let mut sized = |field: &str, wanted: i32, to: &mut i32| {
        if wanted == 0 {
            violations.push(Violation::new(&format!("vm.{field}"), "must be more than zero"));
        }
        *to = wanted;
    };
    for field in fields {
        match *field {
            "display_name" => vm.display_name.clone_from(&wanted.display_name),
            "description" => vm.description.clone_from(&wanted.description),
            "labels" => vm.labels = json!(wanted.labels),
            "cpu_count" => sized(field, wanted.cpu_count, &mut size.cpu_count),
            "memory_mib" => sized(field, wanted.memory_mib, &mut size.memory_mib),
            _ => sized(field, wanted.disk_gib, &mut size.disk_gib),
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

async fn usable_template(tx: &mut TenantTx<Write>, id: TemplateId) -> Result<templates::Template> {
    let template = templates::find(tx, id)
        .await?
        .ok_or_else(|| Error::invalid("vm.template", format!("there is no {}", id.name())))?;
    if template.state != TemplateState::Ready {
        return Err(Error::precondition(
            "TEMPLATE_UNAVAILABLE",
            id.name(),
            "vm.template: the template is not available now",
        ));
    }
    Ok(template)
}

/// The VM that a request and its template make.
fn new_vm(caller: &Caller, wanted: &proto::Vm, template: templates::Template) -> Result<Vm> {
    if wanted.disk_gib != 0 && wanted.disk_gib < template.disk_gib {
        let least = format!("must be at least the template's {} GiB", template.disk_gib);
        return Err(Error::invalid("vm.disk_gib", least));
    }
    let or_template = |field: &str, wanted: i32, template: i32| match (wanted, template) {
        (0, ..=0) => Err(Error::invalid(field, "is required: the template does not say")),
        (0, template) => Ok(template),
        (wanted, _) => Ok(wanted),
    };
    let now = Utc::now();
    Ok(Vm {
        tenant_id: caller.tenant_id(),
        id: VmId::new(),
        display_name: wanted.display_name.clone(),
        description: wanted.description.clone(),
        state: VmState::Provisioning,
        state_reason: String::new(),
        cpu_count: or_template("vm.cpu_count", wanted.cpu_count, template.cpu_count)?,
        memory_mib: or_template("vm.memory_mib", wanted.memory_mib, template.memory_mib)?,
        disk_gib: or_template("vm.disk_gib", wanted.disk_gib, template.disk_gib)?,
        template_id: template.id,
        template_reference: template.reference,
        template_display_name: template.display_name,
        guest_os: template.guest_os,
        ip_addresses: Vec::new(),
        labels: json!(wanted.labels),
        owner_id: caller.principal.access.user,
        created_at: now,
        updated_at: now,
        observed_at: None,
        observed_power_state: None,
        deleted_at: None,
        purge_at: None,
        version: 1,
        template_kind: template.kind,
        hypervisor: template.hypervisor,
        wanted_cpu_count: None,
        wanted_memory_mib: None,
        wanted_disk_gib: None,
        occupies: true,
    })
}
