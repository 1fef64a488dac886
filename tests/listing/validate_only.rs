//! validateOnly runs every check and changes nothing: each rpc that has it is called with a request that is fine and with
//! one that is not, and the whole database is compared before and after.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost_reflect::MethodDescriptor;
use serde_json::{Value, json};
use uuid::Uuid;
use virtualstack_worker::NoProbe;

use crate::support::{ControlPlane, PASSWORD, Session};
use crate::tenancy::calls::{call, rpcs, texts, told};

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Admin,
    Operator,
}

use Who::{Admin, Operator};

/// Things of the tenant's that a request can name, made for one rpc.
struct Things {
    tenant: String,
    /// The provider's.
    template: String,
    /// The tenant's own, with all of its file.
    own_template: String,
    running: String,
    stopped: String,
    deleted: String,
    /// Of the running VM.
    snapshot: String,
    user: String,
    role: String,
    api_key: String,
    ticket: String,
    closed_ticket: String,
    attachment: String,
}

type Request = fn(&Things) -> Value;

/// For each rpc, a request that is done, and one that is refused whoever asks.
const SAMPLES: &[(&str, Who, Request, Request)] = &[
    (
        "compute.v1.VmService.CreateVm",
        Admin,
        |it| json!({"vm": {"displayName": "web-2", "template": it.template}}),
        |it| json!({"vm": {"displayName": "web-1", "template": it.template}}),
    ),
    (
        "compute.v1.VmService.UpdateVm",
        Admin,
        |it| json!({"vm": {"name": it.running, "description": "changed"}}),
        |it| json!({"vm": {"name": it.running, "description": "changed", "etag": "\"old\""}}),
    ),
    ("compute.v1.VmService.DeleteVm", Admin, |it| json!({"name": it.running}), |it| json!({"name": it.deleted})),
    ("compute.v1.VmService.UndeleteVm", Admin, |it| json!({"name": it.deleted}), |it| json!({"name": it.running})),
    ("compute.v1.VmService.StartVm", Admin, |it| json!({"name": it.stopped}), |it| json!({"name": it.deleted})),
    ("compute.v1.VmService.StopVm", Admin, |it| json!({"name": it.running}), |it| json!({"name": it.deleted})),
    ("compute.v1.VmService.RestartVm", Admin, |it| json!({"name": it.running}), |it| json!({"name": it.deleted})),
    ("compute.v1.VmService.ResetVm", Admin, |it| json!({"name": it.running}), |it| json!({"name": it.deleted})),
    ("compute.v1.VmService.SuspendVm", Admin, |it| json!({"name": it.running}), |it| json!({"name": it.deleted})),
    ("compute.v1.VmService.OpenConsole", Admin, |it| json!({"name": it.running}), |it| json!({"name": it.deleted})),
    (
        "compute.v1.SnapshotService.CreateSnapshot",
        Admin,
        |it| json!({"parent": it.running, "snapshot": {"displayName": "another"}}),
        |it| json!({"parent": it.deleted, "snapshot": {"displayName": "another"}}),
    ),
    (
        "compute.v1.SnapshotService.DeleteSnapshot",
        Admin,
        |it| json!({"name": it.snapshot}),
        |it| json!({"name": it.snapshot, "etag": "\"old\""}),
    ),
    (
        "compute.v1.SnapshotService.RevertSnapshot",
        Admin,
        |it| json!({"name": it.snapshot}),
        |it| json!({"name": format!("{}/snapshots/{}", it.running, Uuid::nil())}),
    ),
    (
        "compute.v1.QuotaService.UpdateTenantQuota",
        Operator,
        |it| json!({"quota": {"name": format!("{}/quota", it.tenant), "limits": {"vms": 7}}}),
        |it| json!({"quota": {"name": format!("{}/quota", it.tenant), "limits": {"vms": 7}, "etag": "\"old\""}}),
    ),
    (
        "support.v1.TicketService.CreateTicket",
        Admin,
        |it| json!({"ticket": {"subject": "It hangs", "description": "since noon", "vm": it.running}}),
        |it| json!({"ticket": {"subject": "It hangs", "description": "since noon", "vm": it.own_template.replace("templates", "vms")}}),
    ),
    (
        "support.v1.TicketService.UpdateTicket",
        Admin,
        |it| json!({"ticket": {"name": it.ticket, "subject": "changed"}}),
        |it| json!({"ticket": {"name": it.ticket, "subject": "changed", "etag": "\"old\""}}),
    ),
    (
        "support.v1.TicketService.CloseTicket",
        Admin,
        |it| json!({"name": it.ticket}),
        |it| json!({"name": it.closed_ticket}),
    ),
    (
        "support.v1.TicketService.ReopenTicket",
        Admin,
        |it| json!({"name": it.closed_ticket}),
        |it| json!({"name": it.ticket}),
    ),
    (
        "support.v1.TicketService.CreateTicketComment",
        Admin,
        |it| json!({"parent": it.ticket, "comment": {"body": "more"}}),
        |it| json!({"parent": it.closed_ticket, "comment": {"body": "more"}}),
    ),
    (
        "support.v1.TenantTicketService.UpdateTenantTicket",
        Operator,
        |it| json!({"ticket": {"name": format!("{}/{}", it.tenant, it.ticket), "priority": "HIGH"}}),
        |it| json!({"ticket": {"name": format!("{}/{}", it.tenant, it.closed_ticket), "state": "OPEN"}}),
    ),
    (
        "support.v1.TenantTicketService.CloseTenantTicket",
        Operator,
        |it| json!({"name": format!("{}/{}", it.tenant, it.ticket)}),
        |it| json!({"name": format!("{}/{}", it.tenant, it.closed_ticket)}),
    ),
    (
        "support.v1.TenantTicketService.ReopenTenantTicket",
        Operator,
        |it| json!({"name": format!("{}/{}", it.tenant, it.closed_ticket)}),
        |it| json!({"name": format!("{}/{}", it.tenant, it.ticket)}),
    ),
    (
        "support.v1.TenantTicketService.SyncTenantTicket",
        Operator,
        |it| json!({"name": format!("{}/{}", it.tenant, it.ticket)}),
        |it| json!({"name": format!("{}/{}", it.tenant, it.running.replace("vms", "tickets"))}),
    ),
    (
        "support.v1.TenantTicketService.CreateTenantTicketComment",
        Operator,
        |it| json!({"parent": format!("{}/{}", it.tenant, it.ticket), "comment": {"body": "a note", "internal": true}}),
        |it| json!({"parent": format!("{}/{}", it.tenant, it.closed_ticket), "comment": {"body": "an answer"}}),
    ),
    (
        "support.v1.TicketAttachmentService.UploadTicketAttachment",
        Admin,
        |it| json!({"parent": it.ticket, "fileName": "log.txt", "body": {"data": "aGVsbG8="}}),
        |it| json!({"parent": it.closed_ticket, "fileName": "log.txt", "body": {"data": "aGVsbG8="}}),
    ),
    (
        "support.v1.TicketAttachmentService.DeleteTicketAttachment",
        Admin,
        |it| json!({"name": it.attachment}),
        |it| json!({"name": it.attachment.replace(&it.ticket, &it.closed_ticket)}),
    ),
    (
        "support.v1.TenantTicketAttachmentService.UploadTenantTicketAttachment",
        Operator,
        |it| json!({"parent": format!("{}/{}", it.tenant, it.ticket), "fileName": "log.txt", "body": {"data": "aGVsbG8="}}),
        |it| json!({"parent": format!("{}/{}", it.tenant, it.closed_ticket), "fileName": "log.txt", "body": {"data": "aGVsbG8="}}),
    ),
    (
        "support.v1.TenantTicketAttachmentService.DeleteTenantTicketAttachment",
        Operator,
        |it| json!({"name": format!("{}/{}", it.tenant, it.attachment)}),
        |it| json!({"name": format!("{}/{}", it.tenant, it.attachment.replace(&it.ticket, &it.closed_ticket))}),
    ),
    (
        "compute.v1.TemplateService.CreateTemplate",
        Admin,
        |_| json!({"template": {"displayName": "new", "kind": "OVA"}}),
        |it| json!({"template": {"displayName": it.own_template, "kind": "OVA"}}),
    ),
    (
        "compute.v1.TemplateService.UpdateTemplate",
        Admin,
        |it| json!({"template": {"name": it.own_template, "description": "changed"}}),
        |it| json!({"template": {"name": it.own_template, "description": "changed", "etag": "\"old\""}}),
    ),
    (
        "compute.v1.TemplateService.UploadTemplate",
        Admin,
        |it| json!({"name": it.own_template}),
        |it| json!({"name": it.own_template, "contentRange": "bytes 5-9/20"}),
    ),
    (
        "compute.v1.TemplateService.ImportTemplate",
        Admin,
        |it| json!({"name": it.own_template, "sha256": "0".repeat(64)}),
        |_| json!({"name": format!("templates/{}", Uuid::nil()), "sha256": "0".repeat(64)}),
    ),
    (
        "compute.v1.TemplateService.DeleteTemplate",
        Admin,
        |it| json!({"name": it.own_template}),
        |it| json!({"name": it.own_template, "etag": "\"old\""}),
    ),
    (
        "compute.v1.ProviderTemplateService.UpdateProviderTemplate",
        Operator,
        |it| json!({"providerTemplate": {"name": of_provider(it), "audience": "TENANTS", "tenants": [it.tenant]}}),
        |it| json!({"providerTemplate": {"name": of_provider(it), "audience": "TENANTS", "tenants": ["tenants/nowhere"]}}),
    ),
    (
        "notifications.v1.BroadcastService.CreateBroadcast",
        Operator,
        |it| json!({"broadcast": {"title": "Work", "body": "It will be slow.", "audience": {"tenants": [it.tenant]}}}),
        |_| json!({"broadcast": {"title": "Work", "body": "It will be slow.", "audience": {"tenants": ["tenants/nowhere"]}}}),
    ),
    (
        "notifications.v1.TenantBroadcastService.CreateTenantBroadcast",
        Admin,
        |it| json!({"broadcast": {"title": "Work", "body": "It will be slow.", "audience": {"users": [it.user]}}}),
        |it| json!({"broadcast": {"title": "Work", "body": "It will be slow.", "audience": {"tenants": [it.tenant]}}}),
    ),
    (
        "iam.v1.ApiKeyService.CreateApiKey",
        Admin,
        |_| json!({"apiKey": {"displayName": "ci", "permissions": ["vm:read"]}}),
        |_| json!({"apiKey": {"displayName": "ci", "permissions": ["vm:fly"]}}),
    ),
    (
        "iam.v1.ApiKeyService.UpdateApiKey",
        Admin,
        |it| json!({"apiKey": {"name": it.api_key, "displayName": "changed"}}),
        |it| json!({"apiKey": {"name": it.api_key, "displayName": "changed", "etag": "\"old\""}}),
    ),
    (
        "iam.v1.InvitationService.CreateInvitation",
        Admin,
        |_| json!({"invitation": {"email": "guest@example.com", "role": "roles/viewer"}}),
        |_| json!({"invitation": {"email": "admin@acme.example.com", "role": "roles/viewer"}}),
    ),
    (
        "iam.v1.MeService.UpdateMe",
        Admin,
        |_| json!({"user": {"displayName": "Somebody"}}),
        |_| json!({"user": {"displayName": ""}, "updateMask": "displayName"}),
    ),
    (
        "iam.v1.RoleService.CreateRole",
        Admin,
        |_| json!({"role": {"displayName": "new", "permissions": ["vm:read"]}}),
        |_| json!({"role": {"displayName": "viewer"}}),
    ),
    (
        "iam.v1.RoleService.UpdateRole",
        Admin,
        |it| json!({"role": {"name": it.role, "permissions": ["vm:read"]}}),
        |it| json!({"role": {"name": it.role, "permissions": ["vm:fly"]}}),
    ),
    (
        "iam.v1.TenantService.CreateTenant",
        Operator,
        |_| json!({"tenant": {"slug": "new", "displayName": "New"}, "adminEmail": "new@example.com", "adminPassword": PASSWORD}),
        |_| json!({"tenant": {"slug": "acme", "displayName": "New"}, "adminEmail": "new@example.com"}),
    ),
    (
        "iam.v1.TenantService.UpdateCurrentTenant",
        Admin,
        |_| json!({"tenant": {"displayName": "Renamed"}}),
        |_| json!({"tenant": {"displayName": "Renamed", "etag": "\"old\""}}),
    ),
    (
        "iam.v1.TenantService.UpdateTenant",
        Operator,
        |it| json!({"tenant": {"name": it.tenant, "settings": {"invitationDays": 3}}}),
        |_| json!({"tenant": {"name": "tenants/nowhere", "displayName": "Renamed"}}),
    ),
    (
        "iam.v1.UserService.CreateUser",
        Admin,
        |_| json!({"user": {"email": "one@example.com", "displayName": "One", "password": PASSWORD, "roles": ["roles/viewer"]}}),
        |_| json!({"user": {"email": "one@example.com", "displayName": "One", "roles": ["roles/nowhere"]}}),
    ),
    (
        "iam.v1.UserService.UpdateUser",
        Admin,
        |it| json!({"user": {"name": it.user, "displayName": "changed"}}),
        |it| json!({"user": {"name": it.user, "displayName": "changed", "etag": "\"old\""}}),
    ),
];

fn of_provider(things: &Things) -> String {
    things.template.replace("templates/", "providerTemplates/")
}

/// The rpcs that take validateOnly.
fn validating() -> Vec<MethodDescriptor> {
    rpcs().into_iter().filter(|rpc| rpc.input().get_field_by_name("validate_only").is_some()).collect()
}

#[test]
fn every_rpc_that_takes_it_has_a_sample() {
    let rpcs: BTreeSet<_> = validating().iter().map(|rpc| rpc.full_name().to_owned()).collect();
    let samples: BTreeSet<_> = SAMPLES.iter().map(|(name, ..)| format!("virtualstack.{name}")).collect();
    assert_eq!(rpcs, samples, "SAMPLES has a line for each rpc whose request has validate_only");
}

/// A tenant with a VM, a member and a role, and nobody at work on jobs.
struct World {
    plane: ControlPlane,
    admin: Session,
    operator: Session,
    template: String,
}

impl World {
    async fn new() -> Self {
        let plane = ControlPlane::with_another_desk().await;
        let worker = plane.work(Arc::new(NoProbe)).await;
        let template = format!("templates/{}", plane.templates().await.trim_start_matches("templates/"));
        let admin = plane.tenant("acme").await;
        admin.running("web-1").await;
        plane.idle().await;
        plane.mailed().await;
        worker.drain().await;
        let operator = plane.operator().await;
        Self { plane, admin, operator, template }
    }

    /// Copies of the VM in several states and what else a request can name.
    async fn things(&self) -> Things {
        let tenant = self.admin.tokens.tenant.clone();
        let of = tenant.trim_start_matches("tenants/").to_owned();
        let ids: Vec<_> = (0..9).map(|_| Uuid::now_v7()).collect();
        let [running, stopped, deleted, snapshot, user, role, api_key, ticket, closed] = ids[..] else {
            panic!("nine")
        };
        let copy = |change: Value| {
            format!(
                "INSERT INTO compute.virtual_machines SELECT (jsonb_populate_record(t, '{change}')).* \
                 FROM compute.virtual_machines t WHERE tenant_id = '{of}' AND display_name = 'web-1';"
            )
        };
        let vm = |id: Uuid, state: &str| json!({"id": id, "display_name": format!("copy-{id}"), "state": state});
        let mut gone = vm(deleted, "DELETED");
        gone["deleted_at"] = json!("2026-01-01T00:00:00Z");
        gone["purge_at"] = json!("2099-01-01T00:00:00Z");
        let template = Uuid::now_v7();
        let vms = [vm(running, "RUNNING"), vm(stopped, "STOPPED"), gone].map(copy).concat();
        let others = format!(
            "INSERT INTO compute.snapshots (tenant_id, id, vm_id, display_name, state, cpu_count, memory_mib, creator) \
                 VALUES ('{of}', '{snapshot}', '{running}', 'before', 'READY', 1, 1024, 'system'); \
             INSERT INTO compute.user_templates (tenant_id, id, display_name, name_key, description, labels, kind, state, \
                 size_bytes, uploaded_bytes, owner_id) SELECT tenant_id, '{template}', 'templates/{template}', \
                 'templates/{template}', '', '{{}}', 'OVA', 'UPLOADING', 1, 1, owner_id \
                 FROM compute.virtual_machines WHERE tenant_id = '{of}' AND id = '{running}'; \
             UPDATE compute.quotas SET templates = templates + 1, template_bytes = template_bytes + 1 WHERE tenant_id = '{of}'; \
             INSERT INTO iam.users (id, email, display_name) VALUES ('{user}', '{user}@example.com', 'Copy'); \
             INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) \
                 VALUES ('{of}', '{user}', '{user}', '{user}@example.com', 'Copy', 'ACTIVE'); \
             INSERT INTO iam.tenant_roles (tenant_id, id, display_name) VALUES ('{of}', '{role}', 'copy-{role}'); \
             INSERT INTO iam.api_keys (tenant_id, id, owner_id, display_name, public_id, permissions, digest) \
                 SELECT tenant_id, '{api_key}', id, 'ci', right(replace('{api_key}', '-', ''), 16), '{{vm:read}}', '\\x' \
                 FROM iam.memberships WHERE tenant_id = '{of}' AND email = 'admin@acme.example.com'; \
             INSERT INTO support.ticket_usage VALUES ('{of}', 2, 1) ON CONFLICT (tenant_id) DO UPDATE SET \
                 last_number = ticket_usage.last_number + 2, open_tickets = ticket_usage.open_tickets + 1; \
             INSERT INTO support.tickets (tenant_id, id, number, subject, description, category, priority, state, requester_id, facts, \
                 closed_at) SELECT u.tenant_id, t.id, u.last_number - t.back, 'Help', 'Help', 'QUESTION', 'LOW', t.state, v.owner_id, \
                 '{{}}', t.closed_at FROM support.ticket_usage u JOIN compute.virtual_machines v ON v.tenant_id = u.tenant_id, \
                 (VALUES ('{ticket}'::uuid, 0, 'OPEN', NULL), ('{closed}', 1, 'CLOSED', now())) t (id, back, state, closed_at) \
                 WHERE v.id = '{running}'; \
             INSERT INTO support.ticket_attachments (tenant_id, id, ticket_id, file_name, size_bytes, content_type, sha256, author_id, \
                 author_name) SELECT tenant_id, id, id, 'log', 3, 'text/plain', '', requester_id, 'me' FROM support.tickets WHERE id = '{ticket}'; \
             UPDATE support.ticket_usage SET attachment_bytes = attachment_bytes + 3 WHERE tenant_id = '{of}'"
        );
        self.plane.database.execute(&(vms + &others)).await;
        Things {
            tenant,
            template: self.template.clone(),
            own_template: format!("templates/{template}"),
            running: format!("vms/{running}"),
            stopped: format!("vms/{stopped}"),
            deleted: format!("vms/{deleted}"),
            snapshot: format!("vms/{running}/snapshots/{snapshot}"),
            user: format!("users/{user}"),
            role: format!("roles/{role}"),
            api_key: format!("apiKeys/{api_key}"),
            ticket: format!("tickets/{ticket}"),
            closed_ticket: format!("tickets/{closed}"),
            attachment: format!("tickets/{ticket}/attachments/{ticket}"),
        }
    }

    /// Everything there is, a digest for each table; but for how often somebody has called.
    async fn all(&self) -> Vec<String> {
        let tables = texts(
            &self.plane.database,
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables \
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'rate_limits' ORDER BY 1",
        )
        .await;
        assert!(tables.len() > 20, "{tables:?}");
        let digest = |table: &String| {
            format!(
                "SELECT '{table} ' || count(*) || ' ' || coalesce(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '-') FROM {table} t"
            )
        };
        texts(&self.plane.database, &tables.iter().map(digest).collect::<Vec<_>>().join(" UNION ALL ")).await
    }
}

fn only_validated(mut request: Value) -> Value {
    request["validateOnly"] = json!(true);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_validated_changes_nothing() {
    let world = World::new().await;
    for rpc in validating() {
        let name = rpc.full_name().trim_start_matches("virtualstack.");
        let (_, who, good, bad) = SAMPLES.iter().find(|(sample, ..)| *sample == name).expect(name);
        let session = if *who == Admin { &world.admin } else { &world.operator };
        let ask = async |request| call(&session.channel, Some(&session.tokens.access_token), &rpc, request).await;
        let things = world.things().await;

        let before = world.all().await;
        let answer = ask(only_validated(good(&things))).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(world.all().await, before, "{name} has changed something");
        if rpc.output().full_name() == "google.longrunning.Operation" {
            assert_eq!((&answer["name"], &answer["done"]), (&Value::Null, &json!(true)), "{name}: {answer}");
            assert!(answer["metadata"]["plan"].is_object(), "{name}: {answer}");
        }
        assert_eq!(answer["secret"], Value::Null, "{name}");

        let refusal = ask(only_validated(bad(&things))).await.expect_err(name);
        assert_eq!(world.all().await, before, "{name} has changed something when it refused");
        let in_earnest = ask(bad(&things)).await.expect_err(name);
        assert_eq!(told(&refusal), told(&in_earnest), "{name}");

        // The request was one that does something, and the digests see it.
        ask(good(&things)).await.unwrap_or_else(|error| panic!("{name}, in earnest: {error}"));
        assert_ne!(world.all().await, before, "{name} does nothing in earnest either");
    }
}
