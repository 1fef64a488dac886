//! The provider's templates, for its operators.

use virtualstack_model::compute::id::ProviderTemplateId;
use virtualstack_model::compute::template::Audience;
use virtualstack_model::id::TenantId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::compute::v1 as proto;
use virtualstack_proto::virtualstack::compute::v1::provider_template;
use virtualstack_store::compute::provider_templates::{self, Described};
use virtualstack_store::iam::tenants;
use virtualstack_store::{Store, SystemTx};

use super::messages::{template_kind, template_state};
use crate::call::PlatformCall;
use crate::call::list::{List as _, page};
use crate::call::message::{time, update_mask};
use crate::call::write::Answer;
use crate::generated::virtualstack::compute::v1::ProviderTemplateService;

const UPDATABLE: [&str; 2] = ["audience", "tenants"];

pub(crate) struct ProviderTemplates {
    pub(crate) store: Store,
}

impl ProviderTemplateService for ProviderTemplates {
    async fn list_provider_templates(
        &self,
        call: PlatformCall<proto::ListProviderTemplatesRequest>,
    ) -> Result<proto::ListProviderTemplatesResponse> {
        let request = call.request.list();
        let list = async |tx: &mut SystemTx| provider_templates::list(tx, &request).await;
        Ok(page(self.store.system(call.platform(), list).await?, message))
    }

    async fn get_provider_template(
        &self,
        call: PlatformCall<proto::GetProviderTemplateRequest>,
    ) -> Result<proto::ProviderTemplate> {
        let id = ProviderTemplateId::parse("name", &call.request.name)?;
        let get = async |tx: &mut SystemTx| provider_templates::get(tx, id).await;
        self.store.system(call.platform(), get).await.map(message)
    }

    async fn update_provider_template(
        &self,
        call: PlatformCall<proto::UpdateProviderTemplateRequest>,
    ) -> Result<proto::ProviderTemplate> {
        let desired = call.request.provider_template.clone().unwrap_or_default();
        let id = ProviderTemplateId::parse("provider_template.name", &desired.name)?;
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| match field {
            "audience" => desired.audience() != provider_template::Audience::Unspecified,
            _ => !desired.tenants.is_empty(),
        })?;
        let update = async |tx: &mut SystemTx| {
            let before = provider_templates::lock(tx, id).await?;
            Error::check_etag(&desired.etag, &before.template.etag())?;
            let (audience, tenants) = granted(tx, &before, &desired, &fields).await?;
            let audit = call.audit(id.name());
            provider_templates::set_audience(tx, (&audit, call.tenant_id()), &before, audience, &tenants).await?;
            provider_templates::get(tx, id).await.map(message)
        };
        call.write(&self.store, update).await
    }
}

/// Who may use a template after an update.
async fn granted(
    tx: &mut SystemTx,
    before: &Described,
    desired: &proto::ProviderTemplate,
    fields: &[&str],
) -> Result<(Audience, Vec<TenantId>)> {
    let audience = if fields.contains(&"audience") {
        match desired.audience() {
            provider_template::Audience::Unspecified => {
                return Err(Error::invalid("provider_template.audience", "must be ALL or TENANTS"));
            }
            provider_template::Audience::All => Audience::All,
            provider_template::Audience::Tenants => Audience::Tenants,
        }
    } else {
        before.template.audience
    };
    let named = fields.contains(&"tenants");
    match audience {
        Audience::All if named && !desired.tenants.is_empty() => {
            Err(Error::invalid("provider_template.tenants", "go with the audience TENANTS only"))
        }
        Audience::All => Ok((audience, Vec::new())),
        Audience::Tenants if named => {
            Ok((audience, tenants::find_all(tx, "provider_template.tenants", &desired.tenants).await?))
        }
        Audience::Tenants => Ok((audience, before.tenants.clone())),
    }
}

impl Answer<SystemTx> for proto::ProviderTemplate {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut SystemTx, name: &str) -> Result<Self> {
        provider_templates::get(tx, ProviderTemplateId::parse("request_id", name)?).await.map(message)
    }
}

/// A template as operators see it.
fn message(row: Described) -> proto::ProviderTemplate {
    let Described { template, copies, tenants } = row;
    let id = ProviderTemplateId(template.id.0);
    let audience = match template.audience {
        Audience::All => provider_template::Audience::All,
        Audience::Tenants => provider_template::Audience::Tenants,
    };
    let copies = copies.into_iter().map(|copy| provider_template::Copy {
        hypervisor: copy.hypervisor,
        reference: copy.reference,
        state: template_state(copy.state).into(),
    });
    proto::ProviderTemplate {
        name: id.name(),
        uid: id.to_string(),
        etag: template.etag(),
        display_name: template.display_name,
        kind: template_kind(template.kind).into(),
        state: template_state(template.state).into(),
        guest_os: template.guest_os,
        min_cpu_count: template.cpu_count,
        min_memory_mib: template.memory_mib,
        min_disk_gib: template.disk_gib,
        create_time: Some(time(template.created_at)),
        update_time: Some(time(template.updated_at)),
        copies: copies.collect(),
        audience: audience.into(),
        tenants: tenants.into_iter().map(|tenant| tenant.name()).collect(),
    }
}
