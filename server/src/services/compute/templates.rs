//! Templates.

use tonic::{Request, Response, Status};
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::template::{TemplateKind, TemplateState};
use virtualstack_proto::virtualstack::compute::v1::template::{Kind, Scope, State};
use virtualstack_proto::virtualstack::compute::v1::{
    GetTemplateRequest, ListTemplatesRequest, ListTemplatesResponse, Template,
};
use virtualstack_store::compute::templates;
use virtualstack_store::{ListRequest, Listed, Store};

use crate::call::caller::Caller;
use crate::call::status::from_error;
use crate::generated::virtualstack::compute::v1::template_service_server::TemplateService;
use crate::wire;

pub(crate) struct Templates {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl TemplateService for Templates {
    async fn list_templates(
        &self,
        request: Request<ListTemplatesRequest>,
    ) -> Result<Response<ListTemplatesResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let ListTemplatesRequest { page_size, page_token, filter, order_by, show_total } = request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } =
            self.store.read(&scope, async |tx| templates::list(tx, &request).await).await.map_err(from_error)?;
        let templates = rows.into_iter().map(template).collect();
        Ok(Response::new(ListTemplatesResponse { templates, next_page_token, total_size }))
    }

    async fn get_template(&self, request: Request<GetTemplateRequest>) -> Result<Response<Template>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let id = TemplateId::parse("name", &request.into_inner().name).map_err(from_error)?;
        let row = self.store.read(&scope, async |tx| templates::get(tx, id).await).await.map_err(from_error)?;
        Ok(Response::new(template(row)))
    }
}

fn template(row: templates::Template) -> Template {
    let kind = match row.kind {
        TemplateKind::Ova => Kind::Ova,
        TemplateKind::Iso => Kind::Iso,
    };
    let state = match row.state {
        TemplateState::Ready => State::Ready,
        TemplateState::Unavailable => State::Unavailable,
    };
    Template {
        name: row.id.name(),
        uid: row.id.to_string(),
        display_name: row.display_name,
        kind: kind.into(),
        state: state.into(),
        guest_os: row.guest_os,
        min_cpu_count: row.cpu_count,
        min_memory_mib: row.memory_mib,
        min_disk_gib: row.disk_gib,
        create_time: Some(wire::time(row.created_at)),
        update_time: Some(wire::time(row.updated_at)),
        scope: Scope::Provider.into(),
    }
}
