//! Virtual machines.

use chrono::Utc;
use serde_json::json;
use tonic::{Request, Response, Status};
use virtualstack_model::id::{OperationId, TemplateId, VmId};
use virtualstack_model::jobs::{VmCreate, VmDelete, VmPower};
use virtualstack_model::operation::Verb;
use virtualstack_model::template::TemplateState;
use virtualstack_model::vm::VmState;
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_store::request_ids::{self, Request as RequestId};
use virtualstack_store::vms::{self, Event, Update, Vm};
use virtualstack_store::{ListRequest, Listed, Store, TenantTx, Write, operations, templates, vm_events};

use crate::caller::Caller;
use crate::codec;
use crate::generated::virtualstack::compute::v1::vm_service_server::VmService;
use crate::services::operations as operation_service;
use crate::status::from_error;
use crate::wire;
use crate::wire::vm::{event_message, vm_message};

/// What a tenant may change at once.
const UPDATABLE: [&str; 3] = ["display_name", "description", "labels"];

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
        let caller = Caller::of(&request)?;
        let repeat = repeat("CreateVm", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let wanted = request.into_inner().vm.unwrap_or_default();
        let template = TemplateId::parse("vm.template", &wanted.template).map_err(from_error)?;
        let answered = self
            .store
            .write(&caller.tenant(), caller.audit(""), async |tx| {
                let id = OperationId::new();
                if let Some(first) = first_answer(tx, &repeat, id).await? {
                    return Ok(first);
                }
                let template = usable_template(tx, template).await?;
                let vm = new_vm(&caller, &wanted, template)?;
                vms::insert(tx, &vm, id).await?;
                tx.audit_resource(vm.id.name());
                operations::start(tx, id, Verb::Create, vm.id, &VmCreate { vm: vm.id, operation: id }).await?;
                operation_service::read(tx, id).await
            })
            .await;
        answered.map(Response::new).map_err(from_error)
    }

    async fn update_vm(&self, request: Request<proto::UpdateVmRequest>) -> Result<Response<Operation>, Status> {
        let caller = Caller::of(&request)?;
        let repeat = repeat("UpdateVm", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let request = request.into_inner();
        let wanted = request.vm.unwrap_or_default();
        let target = VmId::parse("vm.name", &wanted.name).map_err(from_error)?;
        let fields = wire::update_mask(request.update_mask, &UPDATABLE, |field| match field {
            "display_name" => !wanted.display_name.is_empty(),
            "description" => !wanted.description.is_empty(),
            _ => !wanted.labels.is_empty(),
        })
        .map_err(from_error)?;
        let answered = self
            .store
            .write(&caller.tenant(), caller.audit(""), async |tx| {
                let id = OperationId::new();
                if let Some(first) = first_answer(tx, &repeat, id).await? {
                    return Ok(first);
                }
                let before = vms::lock(tx, target).await?;
                Error::check_etag(&wanted.etag, &before.etag())?;
                if matches!(before.state, VmState::Deleting | VmState::Deleted) {
                    return Err(Error::precondition("VM_DELETED", target.name(), "a deleted VM cannot be changed"));
                }
                let mut vm = before.clone();
                for field in &fields {
                    match *field {
                        "display_name" => vm.display_name.clone_from(&wanted.display_name),
                        "description" => vm.description.clone_from(&wanted.description),
                        _ => vm.labels = json!(wanted.labels),
                    }
                }
                // The rules hold for the VM that comes of it, not for the part that was sent.
                codec::validate(&proto::CreateVmRequest { vm: Some(vm_message(vm.clone())), ..Default::default() })?;
                if !fields.is_empty() {
                    vms::update_metadata(tx, &before, &mut vm, id).await?;
                }
                tx.audit_resource(target.name());
                operations::record_done(tx, id, Verb::Update, target).await?;
                operation_service::read(tx, id).await
            })
            .await;
        answered.map(Response::new).map_err(from_error)
    }

    async fn delete_vm(&self, request: Request<proto::DeleteVmRequest>) -> Result<Response<Operation>, Status> {
        let caller = Caller::of(&request)?;
        let repeat = repeat("DeleteVm", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let request = request.into_inner();
        let target = VmId::parse("name", &request.name).map_err(from_error)?;
        let answered = self
            .store
            .write(&caller.tenant(), caller.audit(""), async |tx| {
                let id = OperationId::new();
                if let Some(first) = first_answer(tx, &repeat, id).await? {
                    return Ok(first);
                }
                let mut vm = vms::lock(tx, target).await?;
                Error::check_etag(&request.etag, &vm.etag())?;
                if vm.state == VmState::Deleted && !request.force {
                    return Err(Error::precondition(
                        "VM_DELETED",
                        target.name(),
                        "the VM is deleted already; force purges it",
                    ));
                }
                let job = VmDelete { vm: target, operation: id, force: request.force };
                operations::start_delete(tx, id, target, &job).await?;
                begin(tx, &mut vm, Verb::Delete, id).await?;
                operation_service::read(tx, id).await
            })
            .await;
        answered.map(Response::new).map_err(from_error)
    }

    async fn start_vm(&self, request: Request<proto::StartVmRequest>) -> Result<Response<Operation>, Status> {
        let repeat = repeat("StartVm", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        self.power(Caller::of(&request)?, repeat, &request.get_ref().name, Verb::Start).await
    }

    async fn stop_vm(&self, request: Request<proto::StopVmRequest>) -> Result<Response<Operation>, Status> {
        let repeat = repeat("StopVm", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        self.power(Caller::of(&request)?, repeat, &request.get_ref().name, Verb::Stop).await
    }

    async fn restart_vm(&self, request: Request<proto::RestartVmRequest>) -> Result<Response<Operation>, Status> {
        let repeat = repeat("RestartVm", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        self.power(Caller::of(&request)?, repeat, &request.get_ref().name, Verb::Restart).await
    }

    async fn undelete_vm(&self, _request: Request<proto::UndeleteVmRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn reset_vm(&self, _request: Request<proto::ResetVmRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn suspend_vm(&self, _request: Request<proto::SuspendVmRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("placeholder"))
    }

    async fn open_console(&self, _request: Request<proto::OpenConsoleRequest>) -> Result<Response<Operation>, Status> {
        Err(Status::unimplemented("placeholder"))
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
                vm_events::list(tx, &request, id).await
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
        caller: Caller,
        repeat: RequestId,
        name: &str,
        verb: Verb,
    ) -> Result<Response<Operation>, Status> {
        let target = VmId::parse("name", name).map_err(from_error)?;
        let answered = self
            .store
            .write(&caller.tenant(), caller.audit(""), async |tx| {
                let id = OperationId::new();
                if let Some(first) = first_answer(tx, &repeat, id).await? {
                    return Ok(first);
                }
                let mut vm = vms::lock(tx, target).await?;
                operations::start(tx, id, verb, target, &VmPower { vm: target, operation: id, verb, graceful: None })
                    .await?;
                begin(tx, &mut vm, verb, id).await?;
                operation_service::read(tx, id).await
            })
            .await;
        answered.map(Response::new).map_err(from_error)
    }
}

/// Puts a VM in the state that an operation begins with.
async fn begin(tx: &mut TenantTx<Write>, vm: &mut Vm, verb: Verb, operation: OperationId) -> Result<()> {
    let state = vm.state.begin(verb, vm.id)?;
    let (reason, message) = match verb {
        Verb::Start => ("VM_START_REQUESTED", "Start was requested"),
        Verb::Stop => ("VM_STOP_REQUESTED", "Stop was requested"),
        Verb::Restart => ("VM_RESTART_REQUESTED", "Restart was requested"),
        Verb::Delete => ("VM_DELETE_REQUESTED", "Deletion was requested"),
        _ => return Err(Error::internal("not an operation of an existing VM")),
    };
    tx.audit_resource(vm.id.name());
    let update = Update { state: Some(state), ..Update::default() };
    let event = Event { reason, message: message.to_owned(), operation: Some(operation) };
    vms::update_state(tx, vm, update, event).await
}

/// What tells a repeat of a request from a new one: its id, and that it says the same.
fn repeat(method: &'static str, request: &impl prost::Message, id: &str) -> Result<RequestId> {
    RequestId::new(method, id, &request.encode_to_vec())
}

/// The answer that the first call with this request id got, if this is a repeat. Otherwise the request id is taken for
/// the operation `id`, before anything else is written: of two calls at once the slower one waits here, and then finds
/// the faster one's answer instead of what the faster one made.
async fn first_answer(tx: &mut TenantTx<Write>, repeat: &RequestId, id: OperationId) -> Result<Option<Operation>> {
    let Some(name) = request_ids::answered(tx, repeat).await? else {
        request_ids::remember(tx, repeat, &id.name()).await?;
        return Ok(None);
    };
    operation_service::read(tx, OperationId::parse("request_id", &name)?).await.map(Some)
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
    let or_template = |wanted: i32, template: i32| if wanted == 0 { template } else { wanted };
    let now = Utc::now();
    Ok(Vm {
        tenant_id: caller.tenant_id(),
        id: VmId::new(),
        display_name: wanted.display_name.clone(),
        description: wanted.description.clone(),
        state: VmState::Provisioning,
        state_reason: String::new(),
        cpu_count: or_template(wanted.cpu_count, template.cpu_count),
        memory_mib: or_template(wanted.memory_mib, template.memory_mib),
        disk_gib: or_template(wanted.disk_gib, template.disk_gib),
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
