//! Templates.

use virtualstack_model::Result;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::template::{TemplateKind, TemplateState};
use virtualstack_proto::virtualstack::compute::v1::template::{Kind, Scope, State};
use virtualstack_proto::virtualstack::compute::v1::{
    GetTemplateRequest, ListTemplatesRequest, ListTemplatesResponse, Template,
};
use virtualstack_store::Store;
use virtualstack_store::compute::templates;

use crate::call::TenantCall;
use crate::call::list::{List as _, page};
use crate::call::message::time;
use crate::generated::virtualstack::compute::v1::TemplateService;

pub(crate) struct Templates {
    pub(crate) store: Store,
}

impl TemplateService for Templates {
    async fn list_templates(&self, call: TenantCall<ListTemplatesRequest>) -> Result<ListTemplatesResponse> {
        let request = call.request.list();
        let listed = templates::list(&mut self.store.single(&call.tenant()), &request).await?;
        Ok(page(listed, message))
    }

    async fn get_template(&self, call: TenantCall<GetTemplateRequest>) -> Result<Template> {
        let id = TemplateId::parse("name", &call.request.name)?;
        templates::get(&mut self.store.single(&call.tenant()), id).await.map(message)
    }
}

/// A template as clients see it.
fn message(row: templates::Template) -> Template {
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
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
        scope: Scope::Provider.into(),
    }
}
