//! One file per resource. A method is one transaction: it reads the request, says what is to be done, and packs the reply.

mod compute;
mod health;
mod iam;
mod incoming;
mod mutations;
mod notifications;
mod operations;
pub(crate) mod parts;
mod registry;
mod support;
mod target;
mod watched;
mod watches;

use tonic::service::Routes;
use virtualstack_model::{Error, Result};

use crate::call::Served;
use crate::config::Config;
use crate::generated::google::longrunning::operations_server::OperationsServer;
use crate::generated::virtualstack::compute::v1::provider_template_service_server::ProviderTemplateServiceServer;
use crate::generated::virtualstack::compute::v1::quota_service_server::QuotaServiceServer;
use crate::generated::virtualstack::compute::v1::snapshot_service_server::SnapshotServiceServer;
use crate::generated::virtualstack::compute::v1::template_service_server::TemplateServiceServer;
use crate::generated::virtualstack::compute::v1::vm_service_server::VmServiceServer;
use crate::generated::virtualstack::iam::v1::api_key_service_server::ApiKeyServiceServer;
use crate::generated::virtualstack::iam::v1::auth_service_server::AuthServiceServer;
use crate::generated::virtualstack::iam::v1::invitation_service_server::InvitationServiceServer;
use crate::generated::virtualstack::iam::v1::me_service_server::MeServiceServer;
use crate::generated::virtualstack::iam::v1::permission_service_server::PermissionServiceServer;
use crate::generated::virtualstack::iam::v1::role_service_server::RoleServiceServer;
use crate::generated::virtualstack::iam::v1::session_service_server::SessionServiceServer;
use crate::generated::virtualstack::iam::v1::tenant_service_server::TenantServiceServer;
use crate::generated::virtualstack::iam::v1::user_service_server::UserServiceServer;
use crate::generated::virtualstack::notifications::v1::broadcast_service_server::BroadcastServiceServer;
use crate::generated::virtualstack::notifications::v1::notification_service_server::NotificationServiceServer;
use crate::generated::virtualstack::notifications::v1::tenant_broadcast_service_server::TenantBroadcastServiceServer;
use crate::generated::virtualstack::support::v1::desk_webhook_service_server::DeskWebhookServiceServer;
use crate::generated::virtualstack::support::v1::tenant_ticket_attachment_service_server::TenantTicketAttachmentServiceServer;
use crate::generated::virtualstack::support::v1::tenant_ticket_service_server::TenantTicketServiceServer;
use crate::generated::virtualstack::support::v1::ticket_attachment_service_server::TicketAttachmentServiceServer;
use crate::generated::virtualstack::support::v1::ticket_service_server::TicketServiceServer;
use crate::generated::virtualstack::watch::v1::watch_service_server::WatchServiceServer;

use crate::shares::{Most, Places};
use parts::Parts;

/// Every service there is.
pub(crate) fn routes(config: &Config, parts: &Parts) -> Result<Routes> {
    let Parts { store, passwords, limits, journal, .. } = parts.clone();
    let most = Most {
        of_all: config.max_waits,
        of_tenant: config.max_waits_per_tenant,
        of_member: config.max_waits_per_principal,
    };
    let waits = Places::new("waits open", "TOO_MANY_WAITS", most);
    let files = incoming::Files::new(parts, config);
    let attachments = support::attachments::Attachments::new(parts, config, files.clone());
    let mut routes = Routes::builder();
    macro_rules! serve {
        ($($server:ident: $service:expr;)*) => {
            $(routes.add_service($server::new(Served($service)).max_decoding_message_size(config.max_request_bytes));)*
        };
    }
    serve! {
        AuthServiceServer: iam::auth::Auth::new(parts.clone(), config);
        SessionServiceServer: iam::sessions::Sessions { store: store.clone() };
        MeServiceServer: iam::me::Me { store: store.clone(), passwords: passwords.clone(), limits: limits.clone() };
        TenantServiceServer: iam::tenants::Tenants::new(parts.clone(), config.default_quota);
        UserServiceServer: iam::users::Users { store: store.clone(), passwords: passwords.clone(), limits: limits.clone() };
        RoleServiceServer: iam::roles::Roles { store: store.clone() };
        PermissionServiceServer: iam::roles::Permissions { store: store.clone() };
        ApiKeyServiceServer: iam::api_keys::ApiKeys { store: store.clone() };
        InvitationServiceServer: iam::invitations::Invitations { store: store.clone(), passwords, limits };
        VmServiceServer: compute::vms::Vms { store: store.clone(), master_key: parts.master_key.clone() };
        SnapshotServiceServer: compute::snapshots::Snapshots { store: store.clone() };
        QuotaServiceServer: compute::quotas::Quotas { store: store.clone(), journal: journal.clone() };
        WatchServiceServer: watches::Watches::new(parts.clone(), config);
        TemplateServiceServer: compute::templates::Templates::new(parts, config, files.clone());
        ProviderTemplateServiceServer: compute::provider_templates::ProviderTemplates { store: store.clone() };
        TicketServiceServer: support::tickets::Tickets::new(store.clone(), config);
        TenantTicketServiceServer: support::tenant_tickets::TenantTickets {
            store: store.clone(),
            journal: journal.clone(),
            desk_is_local: config.desk_is_local,
        };
        DeskWebhookServiceServer: support::desk_webhooks::DeskWebhooks {
            store: store.clone(),
            webhook: parts.desk_webhook.clone(),
        };
        TicketAttachmentServiceServer: support::attachments::OfTenant(attachments.clone());
        TenantTicketAttachmentServiceServer: support::tenant_attachments::OfStaff { files: attachments, journal: journal.clone() };
        BroadcastServiceServer: notifications::broadcasts::Broadcasts { store: store.clone() };
        TenantBroadcastServiceServer: notifications::tenant_broadcasts::TenantBroadcasts { store: store.clone() };
        NotificationServiceServer: notifications::notices::Notices {
            store: store.clone(),
            master_key: parts.master_key.clone(),
        };
        OperationsServer: operations::Operations {
            store: store.clone(),
            master_key: parts.master_key.clone(),
            stopping: parts.stopping.clone(),
            waits,
        };
    }
    routes.add_service(health::service(store));
    if config.reflection {
        let descriptors = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(virtualstack_proto::DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        routes
            .add_service(descriptors().build_v1().map_err(Error::internal)?)
            // What older clients ask for.
            .add_service(descriptors().build_v1alpha().map_err(Error::internal)?);
    }
    Ok(routes.routes())
}
