//! The isolation matrix: every rpc of the descriptor set is called with another tenant's ids, and must answer exactly
//! as it answers ids that do not exist.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost_reflect::MethodDescriptor;
use serde_json::{Value, json};
use uuid::Uuid;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::notifications::kind::NotificationKind;
use virtualstack_store::notifications::unsubscribe;

use super::calls::{call, rpcs, texts, told};
use crate::support::{ControlPlane, DEMO, Database, PASSWORD, Session, master_key};

/// What a sample can name: things of one tenant, or things that are nowhere.
#[derive(Clone, Debug)]
struct Ids {
    tenant: String,
    vm: String,
    user: String,
    /// A custom role that nobody holds.
    role: String,
    /// An operation that is done.
    operation: String,
    /// One that is not.
    open_operation: String,
    /// A snapshot of the VM.
    snapshot: String,
    /// A VM that is deleted and not purged.
    deleted_vm: String,
    api_key: String,
    /// A session of the account that is signed in.
    session: String,
    /// Of the caller, not of the tenant that is named.
    email: String,
    refresh_token: String,
    /// The provider's.
    template: String,
    /// The tenant's own, with all of its file.
    user_template: String,
    /// With a comment, and an internal one.
    ticket: String,
    closed_ticket: String,
    comment: String,
    attachment: String,
    notification: String,
    /// A draft of the tenant's, and one of the provider's.
    draft: String,
    /// A broadcast of the tenant's that is active, and one of the provider's.
    broadcast: String,
    invitation: String,
    /// Of the invitation.
    invitation_token: String,
    /// Of the caller's account.
    reset_token: String,
    /// Tenants of nobody, for operators to do away with, and to bring back.
    doomed_tenant: String,
    deleted_tenant: String,
}

impl Ids {
    /// Ids of nothing, by the same caller.
    fn of_nothing(&self) -> Self {
        let id = || Uuid::now_v7().to_string();
        Self {
            tenant: id(),
            vm: id(),
            user: id(),
            role: id(),
            operation: id(),
            open_operation: id(),
            snapshot: id(),
            deleted_vm: id(),
            api_key: id(),
            invitation: id(),
            session: id(),
            user_template: id(),
            ticket: id(),
            closed_ticket: id(),
            comment: id(),
            attachment: id(),
            notification: id(),
            draft: id(),
            broadcast: id(),
            ..self.clone()
        }
    }

    /// Something of `other`'s, by the same caller.
    fn of(&self, other: &Self) -> Self {
        let Self {
            email, refresh_token, template, invitation_token, reset_token, doomed_tenant, deleted_tenant, ..
        } = self.clone();
        let callers = Self { email, refresh_token, template, invitation_token, reset_token, ..other.clone() };
        Self { doomed_tenant, deleted_tenant, ..callers }
    }

    fn named(&self) -> Vec<&str> {
        let Self { tenant, vm, user, role, operation, open_operation, snapshot, deleted_vm, .. } = self;
        let Self { api_key, session, invitation, user_template, ticket, closed_ticket, comment, attachment, .. } = self;
        let Self { notification, draft, broadcast, .. } = self;
        let of_iam = [tenant, user, role, api_key, session, invitation];
        let of_compute = [vm, operation, open_operation, snapshot, deleted_vm, user_template];
        let of_others = [ticket, closed_ticket, comment, attachment, notification, draft, broadcast];
        of_iam.into_iter().chain(of_compute).chain(of_others).map(String::as_str).collect()
    }
}

type Request = fn(&Ids) -> Value;

/// How an rpc is tried.
enum Sample {
    /// It names something by id. Succeeds with an own one; another tenant's answers as one that does not exist.
    ById(Request),
    /// It lists. Shows what is the caller's, and nothing of another tenant's.
    List(Request),
    /// No id of a tenant's goes in, and the reason why there is nothing to confuse. Succeeds, and shows nothing of
    /// another tenant's.
    NotByTenantId(&'static str, Request),
}

use Sample::{ById, List, NotByTenantId};

/// How each rpc is tried. A new rpc needs a line: ById when its request names anything that belongs to a tenant.
const SAMPLES: &[(&str, Sample)] = &[
    ("google.longrunning.Operations.CancelOperation", ById(operation)),
    ("google.longrunning.Operations.DeleteOperation", ById(operation)),
    ("google.longrunning.Operations.GetOperation", ById(operation)),
    ("google.longrunning.Operations.ListOperations", List(|_| json!({}))),
    ("google.longrunning.Operations.WaitOperation", ById(operation)),
    ("virtualstack.compute.v1.QuotaService.GetQuota", NotByTenantId("it reads the tenant of the token", |_| json!({}))),
    (
        "virtualstack.compute.v1.QuotaService.GetTenantQuota",
        NotByTenantId(OPERATORS, |ids| json!({"name": format!("{}/quota", tenant_name(ids))})),
    ),
    (
        "virtualstack.compute.v1.QuotaService.UpdateTenantQuota",
        NotByTenantId(
            OPERATORS,
            |ids| json!({"quota": {"name": format!("{}/quota", tenant_name(ids)), "limits": {"templates": 7}}}),
        ),
    ),
    (
        "virtualstack.compute.v1.SnapshotService.CreateSnapshot",
        ById(|ids| json!({"parent": vm_name(ids), "snapshot": {"displayName": "another"}})),
    ),
    ("virtualstack.compute.v1.SnapshotService.DeleteSnapshot", ById(snapshot)),
    ("virtualstack.compute.v1.SnapshotService.GetSnapshot", ById(snapshot)),
    ("virtualstack.compute.v1.SnapshotService.ListSnapshots", ById(|ids| json!({"parent": vm_name(ids)}))),
    ("virtualstack.compute.v1.SnapshotService.RevertSnapshot", ById(snapshot)),
    (
        "virtualstack.compute.v1.ProviderTemplateService.GetProviderTemplate",
        NotByTenantId(OPERATORS, |ids| json!({"name": provider_template_name(ids)})),
    ),
    ("virtualstack.compute.v1.ProviderTemplateService.ListProviderTemplates", NotByTenantId(OPERATORS, |_| json!({}))),
    (
        "virtualstack.compute.v1.ProviderTemplateService.UpdateProviderTemplate",
        NotByTenantId(
            OPERATORS,
            |ids| json!({"providerTemplate": {"name": provider_template_name(ids), "audience": "ALL"}}),
        ),
    ),
    (
        "virtualstack.compute.v1.TemplateService.CreateTemplate",
        NotByTenantId(
            "it names only what is new; the display name is one that the other tenant has taken",
            |_| json!({"template": {"displayName": "of-the-rival", "kind": "OVA"}}),
        ),
    ),
    ("virtualstack.support.v1.TicketService.ListTickets", List(|_| json!({}))),
    ("virtualstack.support.v1.TicketService.GetTicket", ById(ticket)),
    (
        "virtualstack.support.v1.TicketService.CreateTicket",
        ById(|ids| {
            json!({"ticket": {"subject": "of it", "description": "it hangs", "vm": vm_name(ids),
            "operation": format!("operations/{}", ids.operation)}})
        }),
    ),
    (
        "virtualstack.support.v1.TicketService.UpdateTicket",
        ById(|ids| json!({"ticket": {"name": ticket_name(ids), "subject": "changed"}})),
    ),
    ("virtualstack.support.v1.TicketService.CloseTicket", ById(ticket)),
    (
        "virtualstack.support.v1.TicketService.ReopenTicket",
        ById(|ids| json!({"name": format!("tickets/{}", ids.closed_ticket)})),
    ),
    ("virtualstack.support.v1.TicketService.ListTicketComments", ById(|ids| json!({"parent": ticket_name(ids)}))),
    (
        "virtualstack.support.v1.TicketService.GetTicketComment",
        ById(|ids| json!({"name": format!("{}/comments/{}", ticket_name(ids), ids.comment)})),
    ),
    (
        "virtualstack.support.v1.TicketService.CreateTicketComment",
        ById(|ids| json!({"parent": ticket_name(ids), "comment": {"body": "more"}})),
    ),
    (
        "virtualstack.support.v1.TenantTicketService.ListTenantTickets",
        NotByTenantId(OPERATORS, |ids| json!({"parent": tenant_name(ids)})),
    ),
    ("virtualstack.support.v1.TenantTicketService.GetTenantTicket", NotByTenantId(OPERATORS, tenant_ticket)),
    (
        "virtualstack.support.v1.TenantTicketService.UpdateTenantTicket",
        NotByTenantId(OPERATORS, |ids| json!({"ticket": {"name": tenant_ticket_name(ids), "priority": "HIGH"}})),
    ),
    ("virtualstack.support.v1.TenantTicketService.CloseTenantTicket", NotByTenantId(OPERATORS, tenant_ticket)),
    (
        "virtualstack.support.v1.TenantTicketService.ReopenTenantTicket",
        NotByTenantId(OPERATORS, |ids| json!({"name": format!("{}/tickets/{}", tenant_name(ids), ids.closed_ticket)})),
    ),
    ("virtualstack.support.v1.TenantTicketService.SyncTenantTicket", NotByTenantId(OPERATORS, tenant_ticket)),
    (
        "virtualstack.support.v1.TenantTicketService.ListTenantTicketComments",
        NotByTenantId(OPERATORS, |ids| json!({"parent": tenant_ticket_name(ids)})),
    ),
    (
        "virtualstack.support.v1.TenantTicketService.GetTenantTicketComment",
        NotByTenantId(
            OPERATORS,
            |ids| json!({"name": format!("{}/comments/{}", tenant_ticket_name(ids), ids.comment)}),
        ),
    ),
    (
        "virtualstack.support.v1.TenantTicketService.CreateTenantTicketComment",
        NotByTenantId(
            OPERATORS,
            |ids| json!({"parent": tenant_ticket_name(ids), "comment": {"body": "a note", "internal": true}}),
        ),
    ),
    (
        "virtualstack.support.v1.TicketAttachmentService.ListTicketAttachments",
        ById(|ids| json!({"parent": ticket_name(ids)})),
    ),
    ("virtualstack.support.v1.TicketAttachmentService.GetTicketAttachment", ById(attachment)),
    (
        "virtualstack.support.v1.TicketAttachmentService.UploadTicketAttachment",
        ById(|ids| json!({"parent": ticket_name(ids), "fileName": "log.txt", "body": {"data": "aGVsbG8="}})),
    ),
    ("virtualstack.support.v1.TicketAttachmentService.DownloadTicketAttachment", ById(attachment)),
    ("virtualstack.support.v1.TicketAttachmentService.DeleteTicketAttachment", ById(attachment)),
    (
        "virtualstack.support.v1.TenantTicketAttachmentService.ListTenantTicketAttachments",
        NotByTenantId(OPERATORS, |ids| json!({"parent": tenant_ticket_name(ids)})),
    ),
    (
        "virtualstack.support.v1.TenantTicketAttachmentService.GetTenantTicketAttachment",
        NotByTenantId(OPERATORS, tenant_attachment),
    ),
    (
        "virtualstack.support.v1.TenantTicketAttachmentService.UploadTenantTicketAttachment",
        NotByTenantId(
            OPERATORS,
            |ids| json!({"parent": tenant_ticket_name(ids), "fileName": "log.txt", "body": {"data": "aGVsbG8="}}),
        ),
    ),
    (
        "virtualstack.support.v1.TenantTicketAttachmentService.DownloadTenantTicketAttachment",
        NotByTenantId(OPERATORS, tenant_attachment),
    ),
    (
        "virtualstack.support.v1.TenantTicketAttachmentService.DeleteTenantTicketAttachment",
        NotByTenantId(OPERATORS, tenant_attachment),
    ),
    (
        "virtualstack.notifications.v1.BroadcastService.ListBroadcasts",
        NotByTenantId(OPERATORS, |ids| json!({"filter": format!("name = \"{}\"", broadcast_name(ids))})),
    ),
    (
        "virtualstack.notifications.v1.BroadcastService.GetBroadcast",
        NotByTenantId(OPERATORS, |ids| json!({"name": broadcast_name(ids)})),
    ),
    (
        "virtualstack.notifications.v1.BroadcastService.CreateBroadcast",
        NotByTenantId(OPERATORS, |ids| json!({"broadcast": new_broadcast(json!({"tenants": [tenant_name(ids)]}))})),
    ),
    (
        "virtualstack.notifications.v1.BroadcastService.UpdateBroadcast",
        NotByTenantId(OPERATORS, |ids| json!({"broadcast": {"name": broadcast_name(ids), "title": "changed"}})),
    ),
    (
        "virtualstack.notifications.v1.BroadcastService.ActivateBroadcast",
        NotByTenantId(OPERATORS, |ids| json!({"name": format!("broadcasts/{}", ids.draft)})),
    ),
    (
        "virtualstack.notifications.v1.BroadcastService.DeactivateBroadcast",
        NotByTenantId(OPERATORS, |ids| json!({"name": broadcast_name(ids)})),
    ),
    (
        "virtualstack.notifications.v1.BroadcastService.PreviewBroadcast",
        NotByTenantId(OPERATORS, |ids| json!({"name": broadcast_name(ids)})),
    ),
    (
        "virtualstack.notifications.v1.BroadcastService.DeleteBroadcast",
        NotByTenantId(OPERATORS, |ids| json!({"name": broadcast_name(ids)})),
    ),
    ("virtualstack.notifications.v1.TenantBroadcastService.ListTenantBroadcasts", List(|_| json!({}))),
    (
        "virtualstack.notifications.v1.TenantBroadcastService.GetTenantBroadcast",
        ById(|ids| json!({"name": format!("tenants/current/{}", broadcast_name(ids))})),
    ),
    (
        "virtualstack.notifications.v1.TenantBroadcastService.CreateTenantBroadcast",
        ById(|ids| json!({"broadcast": new_broadcast(json!({"users": [user_name(ids)]}))})),
    ),
    (
        "virtualstack.notifications.v1.TenantBroadcastService.UpdateTenantBroadcast",
        ById(|ids| json!({"broadcast": {"name": tenant_broadcast_name(ids), "title": "changed"}})),
    ),
    (
        "virtualstack.notifications.v1.TenantBroadcastService.ActivateTenantBroadcast",
        ById(|ids| json!({"name": format!("{}/broadcasts/{}", tenant_name(ids), ids.draft)})),
    ),
    (
        "virtualstack.notifications.v1.TenantBroadcastService.DeactivateTenantBroadcast",
        ById(|ids| json!({"name": tenant_broadcast_name(ids)})),
    ),
    (
        "virtualstack.notifications.v1.TenantBroadcastService.PreviewTenantBroadcast",
        ById(|ids| json!({"name": tenant_broadcast_name(ids)})),
    ),
    (
        "virtualstack.notifications.v1.TenantBroadcastService.DeleteTenantBroadcast",
        ById(|ids| json!({"name": tenant_broadcast_name(ids)})),
    ),
    ("virtualstack.notifications.v1.NotificationService.ListNotifications", List(|_| json!({}))),
    ("virtualstack.notifications.v1.NotificationService.GetNotification", ById(notification)),
    ("virtualstack.notifications.v1.NotificationService.MarkNotificationRead", ById(notification)),
    ("virtualstack.notifications.v1.NotificationService.DismissNotification", ById(notification)),
    (
        "virtualstack.notifications.v1.NotificationService.MarkAllNotificationsRead",
        NotByTenantId("it marks the caller's own", |_| json!({})),
    ),
    (
        "virtualstack.notifications.v1.NotificationService.GetNotificationPreferences",
        NotByTenantId("they are the caller's own", |_| json!({"name": "users/me/notificationPreferences"})),
    ),
    (
        "virtualstack.notifications.v1.NotificationService.UpdateNotificationPreferences",
        NotByTenantId(
            "they are the caller's own",
            |_| json!({"notificationPreferences": {"name": "users/me/notificationPreferences", "language": "de"}}),
        ),
    ),
    (
        "virtualstack.notifications.v1.NotificationService.ShowUnsubscribe",
        NotByTenantId("the member is that of the token", |ids| json!({"token": unsubscribe_token(ids)})),
    ),
    (
        "virtualstack.notifications.v1.NotificationService.Unsubscribe",
        NotByTenantId("the member is that of the token", |ids| json!({"token": unsubscribe_token(ids)})),
    ),
    (
        "virtualstack.support.v1.DeskWebhookService.ReceiveDeskWebhook",
        NotByTenantId("it is a hint for the worker, and answers everybody alike", |_| json!({"secret": "a-guess"})),
    ),
    ("virtualstack.watch.v1.WatchService.WatchTickets", List(|_| json!({}))),
    ("virtualstack.watch.v1.WatchService.WatchNotifications", List(|_| json!({}))),
    ("virtualstack.compute.v1.TemplateService.DeleteTemplate", ById(user_template)),
    ("virtualstack.compute.v1.TemplateService.GetTemplate", ById(user_template)),
    (
        "virtualstack.compute.v1.TemplateService.ImportTemplate",
        ById(|ids| json!({"name": format!("templates/{}", ids.user_template), "sha256": "0".repeat(64)})),
    ),
    ("virtualstack.compute.v1.TemplateService.ListTemplates", List(|_| json!({}))),
    (
        "virtualstack.compute.v1.TemplateService.UpdateTemplate",
        ById(|ids| json!({"template": {"name": format!("templates/{}", ids.user_template), "description": "changed"}})),
    ),
    ("virtualstack.compute.v1.TemplateService.UploadTemplate", ById(user_template)),
    (
        "virtualstack.compute.v1.VmService.CreateVm",
        NotByTenantId(
            "it names only a shared template; the display name is one that the other tenant has taken",
            |ids| json!({"vm": {"displayName": "of-the-rival", "template": ids.template}, "requestId": REQUEST_ID}),
        ),
    ),
    ("virtualstack.compute.v1.VmService.DeleteVm", ById(|ids| json!({"name": vm_name(ids), "force": true}))),
    ("virtualstack.compute.v1.VmService.GetVm", ById(vm)),
    ("virtualstack.compute.v1.VmService.ListVmEvents", ById(|ids| json!({"parent": vm_name(ids)}))),
    ("virtualstack.compute.v1.VmService.ListVms", List(|_| json!({"showDeleted": true}))),
    ("virtualstack.compute.v1.VmService.OpenConsole", ById(vm)),
    ("virtualstack.compute.v1.VmService.ResetVm", ById(vm)),
    ("virtualstack.compute.v1.VmService.RestartVm", ById(vm)),
    ("virtualstack.compute.v1.VmService.StartVm", ById(vm)),
    ("virtualstack.compute.v1.VmService.StopVm", ById(vm)),
    ("virtualstack.compute.v1.VmService.SuspendVm", ById(vm)),
    ("virtualstack.compute.v1.VmService.UndeleteVm", ById(|ids| json!({"name": format!("vms/{}", ids.deleted_vm)}))),
    (
        "virtualstack.compute.v1.VmService.UpdateVm",
        ById(|ids| json!({"vm": {"name": vm_name(ids), "description": "changed"}, "updateMask": "description"})),
    ),
    (
        "virtualstack.iam.v1.ApiKeyService.CreateApiKey",
        NotByTenantId(
            "it names nothing that is there",
            |_| json!({"apiKey": {"displayName": "ci", "permissions": ["vm:read"]}}),
        ),
    ),
    ("virtualstack.iam.v1.ApiKeyService.DeleteApiKey", ById(api_key)),
    ("virtualstack.iam.v1.ApiKeyService.GetApiKey", ById(api_key)),
    ("virtualstack.iam.v1.ApiKeyService.ListApiKeys", List(|_| json!({}))),
    ("virtualstack.iam.v1.ApiKeyService.RotateApiKey", ById(api_key)),
    (
        "virtualstack.iam.v1.ApiKeyService.UpdateApiKey",
        ById(|ids| json!({"apiKey": {"name": format!("apiKeys/{}", ids.api_key), "displayName": "changed"}})),
    ),
    (
        "virtualstack.iam.v1.AuthService.Explain",
        ById(|ids| json!({"permission": "vm:read", "user": format!("users/{}", ids.user), "resource": vm_name(ids)})),
    ),
    (
        "virtualstack.iam.v1.AuthService.RequestPasswordReset",
        NotByTenantId("it names an address", |ids| json!({"email": ids.email})),
    ),
    (
        "virtualstack.iam.v1.AuthService.ResetPassword",
        NotByTenantId("the token is an account's", |ids| json!({"token": ids.reset_token, "password": PASSWORD})),
    ),
    (
        "virtualstack.iam.v1.InvitationService.AcceptInvitation",
        NotByTenantId(
            "the tenant is that of the token",
            |ids| json!({"token": ids.invitation_token, "password": PASSWORD}),
        ),
    ),
    (
        "virtualstack.iam.v1.InvitationService.CreateInvitation",
        ById(|ids| {
            let role = format!("roles/{}", ids.role);
            json!({"invitation": {"email": "invited-by-both@example.com", "role": role}})
        }),
    ),
    ("virtualstack.iam.v1.InvitationService.GetInvitation", ById(invitation)),
    ("virtualstack.iam.v1.InvitationService.ListInvitations", List(|_| json!({}))),
    ("virtualstack.iam.v1.InvitationService.ResendInvitation", ById(invitation)),
    ("virtualstack.iam.v1.InvitationService.RevokeInvitation", ById(invitation)),
    (
        "virtualstack.iam.v1.InvitationService.VerifyInvitation",
        NotByTenantId("the tenant is that of the token", |ids| json!({"token": ids.invitation_token})),
    ),
    (
        "virtualstack.iam.v1.AuthService.Login",
        ById(|ids| json!({"email": ids.email, "password": PASSWORD, "tenant": tenant_name(ids)})),
    ),
    ("virtualstack.iam.v1.AuthService.Logout", NotByTenantId("it ends the session of the token", |_| json!({}))),
    (
        "virtualstack.iam.v1.AuthService.Refresh",
        NotByTenantId("the tenant is that of the token", |ids| json!({"refreshToken": ids.refresh_token})),
    ),
    ("virtualstack.iam.v1.AuthService.SwitchTenant", ById(|ids| json!({"tenant": tenant_name(ids)}))),
    (
        "virtualstack.iam.v1.MeService.ChangePassword",
        NotByTenantId(
            "it changes the caller; to what it is, for the others to sign in",
            |_| json!({"oldPassword": PASSWORD, "newPassword": PASSWORD}),
        ),
    ),
    ("virtualstack.iam.v1.MeService.GetMe", NotByTenantId("it reads the caller", |_| json!({}))),
    (
        "virtualstack.iam.v1.MeService.UpdateMe",
        NotByTenantId("it changes the caller", |_| json!({"user": {"displayName": "Somebody"}})),
    ),
    ("virtualstack.iam.v1.PermissionService.ListPermissions", NotByTenantId("the catalogue is shared", |_| json!({}))),
    (
        "virtualstack.iam.v1.RoleService.CreateRole",
        NotByTenantId(
            "it names only what is new; the display name is one that the other tenant has taken",
            |_| json!({"role": {"displayName": "of-the-rival", "permissions": ["vm:read"]}}),
        ),
    ),
    ("virtualstack.iam.v1.RoleService.DeleteRole", ById(|ids| json!({"name": role_name(ids)}))),
    ("virtualstack.iam.v1.RoleService.GetRole", ById(|ids| json!({"name": role_name(ids)}))),
    ("virtualstack.iam.v1.RoleService.ListRoleUsers", ById(|ids| json!({"parent": role_name(ids)}))),
    ("virtualstack.iam.v1.RoleService.ListRoles", List(|_| json!({}))),
    (
        "virtualstack.iam.v1.RoleService.SetRoleUsers",
        ById(|ids| json!({"name": "roles/viewer", "users": [user_name(ids)]})),
    ),
    (
        "virtualstack.iam.v1.RoleService.UpdateRole",
        ById(|ids| json!({"role": {"name": role_name(ids), "description": "changed"}})),
    ),
    ("virtualstack.iam.v1.SessionService.DeleteSession", ById(session)),
    (
        "virtualstack.iam.v1.SessionService.GetCurrentSession",
        NotByTenantId("it reads the session of the token", |_| json!({})),
    ),
    ("virtualstack.iam.v1.SessionService.GetSession", ById(session)),
    ("virtualstack.iam.v1.SessionService.ListSessions", List(|_| json!({}))),
    (
        "virtualstack.iam.v1.TenantService.CreateTenant",
        NotByTenantId(
            "for operators, and it names only what is new",
            |_| json!({"tenant": {"slug": "newcomer", "displayName": "New"}, "adminEmail": "new@example.com", "adminPassword": PASSWORD}),
        ),
    ),
    (
        "virtualstack.iam.v1.TenantService.ActivateTenant",
        NotByTenantId(OPERATORS, |ids| json!({"name": format!("tenants/{}", ids.doomed_tenant)})),
    ),
    (
        "virtualstack.iam.v1.TenantService.DeleteTenant",
        NotByTenantId(OPERATORS, |ids| json!({"name": format!("tenants/{}", ids.doomed_tenant), "force": true})),
    ),
    ("virtualstack.iam.v1.TenantService.GetTenant", ById(|ids| json!({"name": tenant_name(ids)}))),
    ("virtualstack.iam.v1.TenantService.ListTenants", List(|_| json!({}))),
    ("virtualstack.iam.v1.UserService.ActivateUser", ById(user)),
    ("virtualstack.iam.v1.UserService.AssignRole", ById(|ids| json!({"name": user_name(ids), "role": role_name(ids)}))),
    (
        "virtualstack.iam.v1.UserService.CreateUser",
        ById(|ids| json!({"user": {"email": "one@example.com", "displayName": "One", "roles": [role_name(ids)]}})),
    ),
    ("virtualstack.iam.v1.UserService.DeactivateUser", ById(user)),
    ("virtualstack.iam.v1.UserService.DeleteUser", ById(user)),
    ("virtualstack.iam.v1.UserService.GetUser", ById(user)),
    ("virtualstack.iam.v1.UserService.ListUsers", List(|_| json!({}))),
    (
        "virtualstack.iam.v1.UserService.UnassignRole",
        ById(|ids| json!({"name": user_name(ids), "role": "roles/viewer"})),
    ),
    (
        "virtualstack.iam.v1.UserService.UpdateUser",
        ById(|ids| json!({"user": {"name": user_name(ids), "displayName": "changed"}})),
    ),
    (
        "virtualstack.iam.v1.TenantService.SuspendTenant",
        NotByTenantId(OPERATORS, |ids| json!({"name": format!("tenants/{}", ids.doomed_tenant)})),
    ),
    (
        "virtualstack.iam.v1.TenantService.UndeleteTenant",
        NotByTenantId(OPERATORS, |ids| json!({"name": format!("tenants/{}", ids.deleted_tenant)})),
    ),
    (
        "virtualstack.iam.v1.TenantService.UpdateCurrentTenant",
        NotByTenantId("it changes the tenant of the token", |_| json!({"tenant": {"displayName": "Renamed"}})),
    ),
    (
        "virtualstack.iam.v1.TenantService.UpdateTenant",
        NotByTenantId(OPERATORS, |ids| json!({"tenant": {"name": tenant_name(ids), "displayName": "Renamed"}})),
    ),
    // What comes by itself is all that there is; a token of another tenant's stream is tried by the tests of watches.
    ("virtualstack.watch.v1.WatchService.WatchOperations", List(|_| json!({}))),
    ("virtualstack.watch.v1.WatchService.WatchTemplates", List(|_| json!({}))),
    ("virtualstack.watch.v1.WatchService.WatchVms", List(|_| json!({}))),
];

/// Jobs are machinery, but those of a group are a tenant's.
const JOBS: &str = "background_jobs.jobs";

/// Machinery with rows of tenants, and the column that says whose.
const MACHINERY: [(&str, &str); 5] = [
    (JOBS, "group_key"),
    ("notifications.broadcast_marks", "tenant_id"),
    ("iam.refresh_tokens", "tenant_id"),
    ("notifications.notices", "tenant_id"),
    ("notifications.preferences", "tenant_id"),
];

/// Tables of tenants that may change while another tenant works, and why.
const NOT_COMPARED: &[(&str, &str)] = &[];

/// Every table that has rows of tenants, and the column that says whose. `classes::every_table_has_a_class` holds their list
/// equal to the schema, and the test below to the column.
fn tenants_tables() -> impl Iterator<Item = (&'static str, &'static str)> {
    let compared = |(table, _): &(&str, &str)| NOT_COMPARED.iter().all(|(known, _)| known != table);
    super::classes::tables_of_tenants().chain(MACHINERY).filter(compared)
}

/// Why an rpc of the platform takes any tenant.
const OPERATORS: &str = "for operators, who may name every tenant";

/// A request id that the other tenant has used.
const REQUEST_ID: &str = "6f9f2f1e-43f2-4b44-9a57-6a2bb4d1b1c5";

fn vm_name(ids: &Ids) -> String {
    format!("vms/{}", ids.vm)
}

fn provider_template_name(ids: &Ids) -> String {
    ids.template.replace("templates/", "providerTemplates/")
}

fn user_template(ids: &Ids) -> Value {
    json!({"name": format!("templates/{}", ids.user_template)})
}

fn ticket_name(ids: &Ids) -> String {
    format!("tickets/{}", ids.ticket)
}

fn ticket(ids: &Ids) -> Value {
    json!({"name": ticket_name(ids)})
}

fn attachment(ids: &Ids) -> Value {
    json!({"name": format!("{}/attachments/{}", ticket_name(ids), ids.attachment)})
}

fn tenant_attachment(ids: &Ids) -> Value {
    json!({"name": format!("{}/attachments/{}", tenant_ticket_name(ids), ids.attachment)})
}

fn unsubscribe_token(ids: &Ids) -> String {
    let id = |text: &str| text.parse().expect("an id");
    let (tenant, user) = (TenantId(id(&ids.tenant)), UserId(id(&ids.user)));
    unsubscribe::token(&master_key(), tenant, user, NotificationKind::TicketAnswered).expect("a token")
}

fn broadcast_name(ids: &Ids) -> String {
    format!("broadcasts/{}", ids.broadcast)
}

fn tenant_broadcast_name(ids: &Ids) -> String {
    format!("{}/{}", tenant_name(ids), broadcast_name(ids))
}

fn new_broadcast(audience: Value) -> Value {
    json!({"title": "Work on the storage", "body": "It will be slow.", "audience": audience})
}

fn notification(ids: &Ids) -> Value {
    json!({"name": format!("notifications/{}", ids.notification)})
}

fn tenant_ticket_name(ids: &Ids) -> String {
    format!("{}/{}", tenant_name(ids), ticket_name(ids))
}

fn tenant_ticket(ids: &Ids) -> Value {
    json!({"name": tenant_ticket_name(ids)})
}

fn tenant_name(ids: &Ids) -> String {
    format!("tenants/{}", ids.tenant)
}

fn user_name(ids: &Ids) -> String {
    format!("users/{}", ids.user)
}

fn role_name(ids: &Ids) -> String {
    format!("roles/{}", ids.role)
}

fn user(ids: &Ids) -> Value {
    json!({"name": user_name(ids)})
}

fn vm(ids: &Ids) -> Value {
    json!({"name": vm_name(ids)})
}

fn snapshot(ids: &Ids) -> Value {
    json!({"name": format!("{}/snapshots/{}", vm_name(ids), ids.snapshot)})
}

fn invitation(ids: &Ids) -> Value {
    json!({"name": format!("invitations/{}", ids.invitation)})
}

fn operation(ids: &Ids) -> Value {
    json!({"name": format!("operations/{}", ids.operation)})
}

fn api_key(ids: &Ids) -> Value {
    json!({"name": format!("apiKeys/{}", ids.api_key)})
}

fn session(ids: &Ids) -> Value {
    json!({"name": format!("sessions/{}", ids.session)})
}

fn sample(rpc: &MethodDescriptor) -> &'static Sample {
    let name = rpc.full_name();
    let found = SAMPLES.iter().find(|(known, _)| *known == name).map(|(_, sample)| sample);
    found.unwrap_or_else(|| {
        panic!(
            "{name} has no sample. Add one to SAMPLES in tests/tenancy/isolation.rs: ById with a request that names \
             things by id (give Ids what it lacks), List, or NotByTenantId with the reason."
        )
    })
}

#[test]
fn every_rpc_has_a_sample() {
    let rpcs = rpcs();
    rpcs.iter().for_each(|rpc| _ = sample(rpc));
    let names: BTreeSet<_> = rpcs.iter().map(|rpc| rpc.full_name()).collect();
    let stale: Vec<_> = SAMPLES.iter().filter(|(name, _)| !names.contains(name)).map(|(name, _)| name).collect();
    assert!(stale.is_empty(), "samples of rpcs that are gone: {stale:?}");
}

/// Makes something by an rpc of this name.
async fn made(session: &Session, name: &str, request: Value) {
    let rpc = rpcs().into_iter().find(|rpc| rpc.name() == name).expect("an rpc");
    call(&session.channel, Some(&session.tokens.access_token), &rpc, request).await.expect(name);
}

/// Two tenants, nobody at work on their jobs, and all that belongs to `rival`.
struct World {
    plane: ControlPlane,
    template: String,
}

impl World {
    async fn new() -> Self {
        // With a desk, or nothing could be sent there again.
        let plane = ControlPlane::with_another_desk().await;
        let worker = plane.work(std::sync::Arc::new(virtualstack_worker::NoProbe)).await;
        let template = plane.templates().await;
        for slug in ["acme", "rival"] {
            let session = plane.tenant(slug).await;
            session.running("pattern").await;
            made(&session, "CreateRole", json!({"role": {"displayName": "pattern"}})).await;
        }
        plane.idle().await;
        worker.drain().await;
        let world = Self { plane, template };
        let rival = world.session("rival").await;
        // Names and request ids that the rival has taken.
        let vm = json!({"vm": {"displayName": "of-the-rival", "template": world.template}, "requestId": REQUEST_ID});
        made(&rival, "CreateVm", vm).await;
        made(&rival, "CreateRole", json!({"role": {"displayName": "of-the-rival"}})).await;
        made(&rival, "CreateTemplate", json!({"template": {"displayName": "of-the-rival", "kind": "OVA"}})).await;
        world
    }

    async fn session(&self, slug: &str) -> Session {
        self.plane.login(&format!("admin@{slug}.example.com"), slug).await
    }

    /// A running VM, a done operation, a member and a role of a tenant's, for one try: copies of those that were made
    /// in earnest.
    async fn ids(&self, slug: &str, session: &Session) -> Ids {
        let tenant = session.tokens.tenant.strip_prefix("tenants/").expect("a full name").to_owned();
        let (vm, operation) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
        let copy = |table: &str, change: Value, which: &str| {
            format!(
                "INSERT INTO {table} SELECT (jsonb_populate_record(t, '{change}')).* FROM {table} t \
                 WHERE tenant_id = '{tenant}' AND {which};"
            )
        };
        let name = format!("copy-{vm}");
        let vms = copy("compute.virtual_machines", json!({"id": vm, "display_name": name}), "display_name = 'pattern'");
        let which = "verb = 'CREATE' AND state = 'SUCCEEDED' ORDER BY created_at LIMIT 1";
        let operations = copy(
            "compute.operations",
            json!({"id": operation, "target": format!("vms/{vm}"), "slot": format!("vms/{vm}")}),
            which,
        );
        let (open_operation, snapshot, deleted_vm) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let open =
            json!({"id": open_operation, "slot": format!("vms/{}", Uuid::now_v7()), "state": "OPEN", "ended_at": null});
        let open = copy("compute.operations", open, which);
        let deleted = json!({"id": deleted_vm, "display_name": format!("{name}-deleted"), "state": "DELETED", "deleted_at": "2026-01-01T00:00:00Z"});
        let deleted = copy("compute.virtual_machines", deleted, "display_name = 'pattern'");
        let snapshots = format!(
            "INSERT INTO compute.snapshots (tenant_id, id, vm_id, display_name, state, cpu_count, memory_mib, creator) \
             VALUES ('{tenant}', '{snapshot}', '{vm}', 'pattern', 'READY', 1, 1024, 'system');"
        );
        let user_template = Uuid::now_v7();
        let templates = format!(
            "INSERT INTO compute.user_templates (tenant_id, id, display_name, name_key, description, labels, kind, state, \
                size_bytes, uploaded_bytes, owner_id) SELECT tenant_id, '{user_template}', '{user_template}', '{user_template}', '', \
                '{{}}', 'OVA', 'UPLOADING', 1, 1, owner_id FROM compute.virtual_machines WHERE tenant_id = '{tenant}' AND id = '{vm}'; \
             UPDATE compute.quotas SET templates = templates + 1, template_bytes = template_bytes + 1 WHERE tenant_id = '{tenant}';"
        );
        let (ticket, closed_ticket, comment, attachment) =
            (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let tickets = format!(
            "INSERT INTO support.ticket_usage VALUES ('{tenant}', 2, 1) ON CONFLICT (tenant_id) DO UPDATE SET \
                last_number = ticket_usage.last_number + 2, open_tickets = ticket_usage.open_tickets + 1; \
             INSERT INTO support.tickets (tenant_id, id, number, subject, description, category, priority, state, requester_id, facts, \
                comment_count) SELECT u.tenant_id, '{ticket}', u.last_number, 'pattern', 'pattern', 'QUESTION', 'LOW', 'OPEN', v.owner_id, \
                '{{}}', 1 FROM support.ticket_usage u JOIN compute.virtual_machines v ON v.tenant_id = u.tenant_id AND v.id = '{vm}'; \
             INSERT INTO support.tickets SELECT (jsonb_populate_record(t, jsonb_build_object('id', '{closed_ticket}', 'number', \
                number - 1, 'state', 'CLOSED', 'closed_at', now()))).* FROM support.tickets t WHERE id = '{ticket}'; \
             INSERT INTO support.ticket_comments (tenant_id, id, ticket_id, author_id, author_name, body, source) \
                SELECT tenant_id, '{comment}', id, requester_id, 'somebody', 'pattern', 'API' FROM support.tickets WHERE id = '{ticket}'; \
             INSERT INTO support.ticket_attachments (tenant_id, id, ticket_id, file_name, size_bytes, content_type, sha256, author_id, \
                author_name) SELECT tenant_id, '{attachment}', id, 'pattern', 3, 'text/plain', '', requester_id, 'somebody' \
                FROM support.tickets WHERE id = '{ticket}'; \
             UPDATE support.ticket_usage SET attachment_bytes = attachment_bytes + 3 WHERE tenant_id = '{tenant}'; \
             INSERT INTO support.internal_comments (tenant_id, id, ticket_id, author_name, body, source) \
                VALUES ('{tenant}', gen_random_uuid(), '{ticket}', 'staff', 'INTERNAL-{tenant}', 'API');"
        );
        let compute = format!("{vms}{operations}{open}{deleted}{snapshots}{templates}{tickets}");
        let (user, account, role) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
        let accounts = format!(
            "INSERT INTO iam.users (id, email, display_name) VALUES ('{account}', '{account}@example.com', 'Copy');"
        );
        let change = json!({"id": user, "account_id": account, "email": format!("{account}@example.com")});
        let admin = format!("email = 'admin@{slug}.example.com'");
        let users = copy("iam.memberships", change, &admin);
        let roles = copy(
            "iam.tenant_roles",
            json!({"id": role, "display_name": name, "name_key": name}),
            "display_name = 'pattern'",
        );
        self.plane.database.execute(&format!("{compute}{accounts}{users}{roles}")).await;
        let object = format!("attachments/{tenant}/{attachment}/0").parse().expect("a key");
        let bytes = vec![Bytes::from_static(b"abc")];
        self.plane.database.objects().put(&object, bytes).await.expect("an object");
        let email = format!("admin@{slug}.example.com");
        let member = format!("m.tenant_id = '{tenant}' AND m.email = '{email}'");
        let notification = Uuid::now_v7().to_string();
        let (draft, broadcast) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
        let (own_notice, notice) = (Uuid::now_v7(), Uuid::now_v7());
        let broadcasts = format!(
            "INSERT INTO notifications.broadcasts (tenant_id, id, platform, title, body, severity, audience, audience_ids, active, \
                notice_id, told_at) SELECT o.tenant_id, b.id, o.platform, 'pattern', 'pattern', 'INFO', 'TENANTS', \
                '{{{tenant}}}', b.active, CASE WHEN b.active THEN o.notice_id END, b.at \
                FROM (SELECT '{tenant}'::uuid AS tenant_id, false AS platform, '{own_notice}'::uuid AS notice_id \
                    UNION SELECT id, true, '{notice}' FROM iam.tenants WHERE slug = 'provider') o, \
                (VALUES ('{draft}'::uuid, false, NULL), ('{broadcast}', true, now())) b (id, active, at)"
        );
        self.plane.database.execute(&broadcasts).await;
        let (api_key, session_id) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
        let made = format!(
            "INSERT INTO iam.api_keys (tenant_id, id, owner_id, display_name, public_id, permissions, digest) \
                SELECT m.tenant_id, '{api_key}', m.id, 'ci', right(replace('{api_key}', '-', ''), 16), '{{vm:read}}', '\\x' \
                FROM iam.memberships m WHERE {member}; \
             INSERT INTO notifications.notices (account_id, id, tenant_id, user_id, kind, source, title, body, severity, resource, \
                in_app, mail_due) SELECT m.account_id, '{notification}', m.tenant_id, m.id, 'TICKET_ANSWERED', '{notification}', 'x', 'x', \
                'INFO', 'x', true, false \
                FROM iam.memberships m WHERE {member}; \
             INSERT INTO iam.sessions (id, account_id, expires_at) \
                SELECT '{session_id}', m.account_id, now() + interval '1 hour' FROM iam.memberships m WHERE {member}"
        );
        self.plane.database.execute(&made).await;
        let invitation = Uuid::now_v7().to_string();
        let invitation_token = format!("vsi_{invitation}");
        let reset_token = format!("vsp_{invitation}");
        let tokens = format!(
            "INSERT INTO iam.invitations (tenant_id, id, email, role_id, digest, expires_at) VALUES \
             ('{tenant}', '{invitation}', 'p{invitation}@example.com', \
              (SELECT id FROM iam.tenant_roles WHERE tenant_id = '{tenant}' AND display_name = 'viewer'), sha256('{invitation_token}'), \
              now() + interval '1 day'); \
             INSERT INTO iam.password_resets SELECT id, sha256('{reset_token}'), now() + interval '1 hour' FROM iam.users \
             WHERE email = 'admin@{slug}.example.com' \
             ON CONFLICT (account_id) DO UPDATE SET digest = EXCLUDED.digest"
        );
        self.plane.database.execute(&tokens).await;
        let (doomed_tenant, deleted_tenant) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
        let tenants = format!(
            "INSERT INTO iam.tenants (id, slug, display_name, state, purge_at, undelete_state) VALUES \
             ('{doomed_tenant}', 'doomed-{doomed_tenant}', 'Doomed', 'ACTIVE', NULL, NULL), \
             ('{deleted_tenant}', 'deleted-{deleted_tenant}', 'Deleted', 'DELETED', now() + interval '1 day', 'ACTIVE')"
        );
        self.plane.database.execute(&tenants).await;
        Ids {
            tenant,
            vm,
            user: user.to_string(),
            role: role.to_string(),
            operation,
            open_operation: open_operation.to_string(),
            snapshot: snapshot.to_string(),
            deleted_vm: deleted_vm.to_string(),
            api_key,
            session: session_id,
            email,
            refresh_token: session.tokens.refresh_token.clone(),
            template: self.template.clone(),
            user_template: user_template.to_string(),
            ticket: ticket.to_string(),
            closed_ticket: closed_ticket.to_string(),
            comment: comment.to_string(),
            attachment: attachment.to_string(),
            notification,
            draft,
            broadcast,
            invitation,
            invitation_token,
            reset_token,
            doomed_tenant,
            deleted_tenant,
        }
    }

    /// Everything that the rival has, in one digest.
    async fn rivals(&self, tenant: &str) -> Vec<String> {
        let digests: Vec<_> = tenants_tables()
            .map(|(table, key)| {
                let (from, key) = match table {
                    // Jobs of the system have no tenant.
                    JOBS => (format!("(SELECT * FROM {JOBS} WHERE group_key <> 'system')"), "group_key::uuid"),
                    _ => (table.to_owned(), key),
                };
                format!(
                    "SELECT '{table} ' || coalesce(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '-') \
                     FROM {from} t WHERE {key} = '{tenant}'"
                )
            })
            .collect();
        texts(&self.plane.database, &digests.join(" UNION ALL ")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_tenant_is_compared() {
    let database = Database::new().await;
    let query = "SELECT table_schema || '.' || table_name FROM information_schema.columns JOIN information_schema.tables \
         USING (table_schema, table_name) WHERE column_name = 'tenant_id' AND table_type = 'BASE TABLE'";
    let found = texts(&database, query).await;
    for table in &found {
        let known = tenants_tables().any(|(known, _)| known == table);
        let excused = NOT_COMPARED.iter().any(|(known, _)| known == table);
        assert!(
            known || excused,
            "{table} has rows of tenants, and nobody looks whether another tenant changes them: give it the class Tenant in \
             tests/tenancy/classes.rs, or put it into MACHINERY or, with a reason, NOT_COMPARED in tests/tenancy/isolation.rs"
        );
        assert!(!excused || !known, "{table}: it is compared, so take it out of NOT_COMPARED");
    }
    for (table, _) in NOT_COMPARED {
        assert!(found.contains(&(*table).to_owned()), "{table} is gone: take it out of NOT_COMPARED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_things_are_as_things_that_do_not_exist() {
    let world = World::new().await;
    // Nobody uses these up: that is what is shown.
    let theirs = world.ids("rival", &world.session("rival").await).await;
    for rpc in rpcs() {
        let name = rpc.full_name().to_owned();
        // A session of its own for each rpc: some end it, some use its tokens up.
        let session = world.session("acme").await;
        let channel = session.channel.clone();
        let own = world.ids("acme", &session).await;
        let before = world.rivals(&theirs.tenant).await;
        let operator = world.plane.operator().await;
        let platform = virtualstack_proto::policy(&super::calls::path(&rpc))
            .is_some_and(|policy| policy.scope == virtualstack_proto::Scope::Platform);
        let token = if platform { &operator.tokens.access_token } else { &session.tokens.access_token };
        let nowhere = own.of_nothing();
        let succeed = async |request: Value| {
            call(&channel, Some(token), &rpc, request)
                .await
                .unwrap_or_else(|error| panic!("{name}: the sample does not succeed in its own tenant: {error:?}"))
        };
        let shows_nothing_foreign = |answer: &Value| {
            let text = answer.to_string();
            for id in theirs.named() {
                assert!(!text.contains(id), "{name} shows {id} of another tenant: {text}");
            }
            text
        };
        match sample(&rpc) {
            ById(request) => {
                let refused = async |ids: &Ids| {
                    let status = match call(&channel, Some(token), &rpc, request(ids)).await {
                        Err(status) => status,
                        Ok(answer) => panic!("{name} gives what is not the caller's: {answer}"),
                    };
                    let mut told = told(&status).to_string();
                    for id in ids.named() {
                        told = told.replace(id, "{id}");
                    }
                    told
                };
                let foreign = refused(&own.of(&theirs)).await;
                assert_eq!(
                    foreign,
                    refused(&nowhere).await,
                    "{name} tells another tenant's from one that does not exist"
                );
                assert!(!foreign.contains("Internal") && !foreign.contains("Unimplemented"), "{name}: {foreign}");
                assert_eq!(
                    before,
                    world.rivals(&theirs.tenant).await,
                    "{name} has changed something of another tenant's"
                );
                // Last, for it may use the sample up; only now does it show that a refusal was not the sample's fault.
                shows_nothing_foreign(&succeed(request(&own)).await);
            }
            List(request) => {
                let text = shows_nothing_foreign(&succeed(request(&own)).await);
                assert!(own.named().iter().any(|id| text.contains(id)), "{name} does not show what is the caller's");
            }
            NotByTenantId(reason, request) => {
                assert!(!reason.is_empty(), "{name}: say why no id of a tenant's goes in");
                shows_nothing_foreign(&succeed(request(&own)).await);
            }
        }
        assert_eq!(before, world.rivals(&theirs.tenant).await, "{name} has changed something of another tenant's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_is_good_for_its_tenant_only() {
    let world = World::new().await;
    let (acme, rival) = (world.session("acme").await, world.session("rival").await);
    for session in [&acme, &rival] {
        world.ids(if std::ptr::eq(session, &acme) { "acme" } else { "rival" }, session).await;
    }
    for list in ["ListVms", "ListOperations", "ListUsers", "ListRoles"] {
        let rpc = rpcs().into_iter().find(|rpc| rpc.name() == list).expect(list);
        let page = async |session: &Session, token: &str| {
            let request = json!({"pageSize": 1, "pageToken": token});
            call(&session.channel, Some(&session.tokens.access_token), &rpc, request).await
        };
        let first = page(&rival, "").await.expect("a page");
        let token = first["nextPageToken"].as_str().expect("a second page");
        page(&rival, token).await.expect("the second page");
        let refused = page(&acme, token).await.expect_err("refused");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_in_the_request_changes_nothing() {
    // A request cannot name its tenant: metadata that would is not looked at.
    let plane = ControlPlane::without_worker().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let http = acme.rest();
    for header in ["x-tenant-id", "x-virtualstack-tenant", "virtualstack-tenant", "tenant"] {
        let id = rival.tokens.tenant.trim_start_matches("tenants/");
        let answer = http.request("GET", "/v1/sessions/current").header(header, id).send().await.expect("an answer");
        let session: Value = answer.json().await.expect("JSON");
        assert_eq!(session["tenant"], acme.tokens.tenant.as_str(), "{header}");
    }
    let refused =
        Session::login(&plane, "admin@acme.example.com", PASSWORD, DEMO).await.map(|_| ()).expect_err("refused");
    assert_eq!(crate::support::reason(&refused), "TENANT_NOT_YOURS");
}
