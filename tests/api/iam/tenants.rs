//! Tenants: how they are made, changed, suspended, deleted and purged.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use virtualstack_worker::NoProbe;

use crate::api::{Reply, refused};
use crate::support::{ControlPlane, PASSWORD, Rest};
use crate::tenancy::calls::{member, texts};

async fn create(rest: &Rest, slug: &str, more: Value) -> Reply {
    let mut body = json!({"tenant": {"slug": slug, "displayName": "A Tenant"}});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    rest.call("POST", "/v1/tenants", Some(body)).await
}

async fn login(plane: &ControlPlane, email: &str, tenant: &str) -> Reply {
    let body = json!({"email": email, "password": PASSWORD, "tenant": tenant});
    Rest::new(&plane.http, None).call("POST", "/v1/auth:login", Some(body)).await
}

async fn post(rest: &Rest, tenant: &str, action: &str) -> Reply {
    rest.call("POST", &format!("/v1/tenants/{tenant}:{action}"), Some(json!({}))).await
}

/// Action, actor, fields of a tenant's audit log, oldest first.
async fn logged(plane: &ControlPlane, slug: &str) -> Vec<String> {
    let query = format!(
        "SELECT split_part(action, '.', -1) || ' ' || regexp_replace(actor, '[^/]*$', '') || ' ' || l.fields FROM audit.logs l \
         JOIN iam.tenants t ON t.id = l.tenant_id WHERE t.slug = '{slug}' AND action NOT LIKE '%Login' ORDER BY l.id"
    );
    texts(&plane.database, &query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_admin_is_made_or_invited() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.operator().await.rest();
    let settings = json!({"slug": "acme", "displayName": "Acme", "settings": {"invitationDays": 3}});
    let more = json!({"tenant": settings, "adminEmail": "Ada@Example.com", "adminPassword": PASSWORD, "adminDisplayName": "Ada"});
    let (status, acme) = create(&rest, "acme", more).await;
    assert_eq!((status, &acme["settings"]["invitationDays"]), (200, &json!(3)), "{acme}");
    let (status, tokens) = login(&plane, "ada@example.com", "acme").await;
    assert_eq!(status, 200, "the account is there at once: {tokens}");
    let (_, session) =
        Rest::new(&plane.http, tokens["accessToken"].as_str()).call("GET", "/v1/sessions/current", None).await;
    assert_eq!(session["roles"], json!(["tenant_admin"]));

    // No password, or an address that has an account: an invitation, and nothing tells which.
    let (_, without) = create(&rest, "without", json!({"adminEmail": "bob@example.com"})).await;
    let known = json!({"adminEmail": "ada@example.com", "adminPassword": "another password"});
    let (_, known) = create(&rest, "known", known).await;
    for (tenant, slug) in [(&without, "without"), (&known, "known"), (&acme, "acme")] {
        assert_eq!((&tenant["slug"], &tenant["state"]), (&json!(slug), &json!("ACTIVE")), "{tenant}");
    }
    assert_eq!(
        texts(
            &plane.database,
            "SELECT t.slug || ' ' || i.email || ' ' || r.display_name || ' ' || i.state || ' ' || (i.inviter_id IS NULL) || ' ' || \
             (SELECT count(*) FROM background_jobs.jobs j WHERE j.kind = 'invitation_mail' AND j.payload->>'invitation' = i.id::text) \
             FROM iam.invitations i JOIN iam.tenants t ON t.id = i.tenant_id \
             JOIN iam.tenant_roles r ON r.tenant_id = t.id AND r.id = i.role_id ORDER BY i.id"
        )
        .await,
        ["without bob@example.com tenant_admin PENDING true 1", "known ada@example.com tenant_admin PENDING true 1"]
    );
    refused(&login(&plane, "ada@example.com", "known").await, 403, "PERMISSION_DENIED", "TENANT_NOT_YOURS");
    assert_eq!(plane.database.count("SELECT count(*) FROM iam.users WHERE email = 'bob@example.com'").await, 0);

    // The tenant's own log says that it was the platform.
    let log = logged(&plane, "acme").await;
    assert!(log[0].starts_with("CreateTenant platform/users/ "), "{log:?}");
    let log = logged(&plane, "known").await;
    assert_eq!(log.len(), 1, "one row for one call: {log:?}");
    assert!(log[0].contains("invitations/") && !log[0].contains("another password"), "{log:?}");

    for slug in ["current", "provider"] {
        let reply = create(&rest, slug, json!({"adminEmail": "b@example.com", "adminPassword": PASSWORD})).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["tenant.slug"]);
    }
    let long = json!({"tenant": {"slug": "beta", "displayName": "Beta", "settings": {"invitationDays": 91}}, "adminEmail": "b@example.com"});
    let fields = refused(&create(&rest, "beta", long).await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
    assert_eq!(fields, ["tenant.settings.invitationDays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_makes_one_tenant() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.operator().await.rest();
    let id = "6f9f2f1e-43f2-4b44-9a57-6a2bb4d1b1c5";
    let admin = json!({"adminEmail": "ada@example.com", "adminPassword": PASSWORD, "requestId": id});
    let at_once = futures::future::join_all((0..4).map(|_| create(&rest, "acme", admin.clone()))).await;
    for reply in &at_once {
        assert_eq!(reply, &at_once[0], "all get the one tenant");
    }
    assert_eq!(at_once[0].0, 200, "{at_once:?}");
    // A repeat gives it as it is now.
    post(&rest, "acme", "suspend").await;
    let (status, again) = create(&rest, "acme", admin.clone()).await;
    assert_eq!((status, &again["state"], &again["name"]), (200, &json!("SUSPENDED"), &at_once[0].1["name"]));
    let other = create(&rest, "beta", admin).await;
    assert_eq!(refused(&other, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["requestId"]);
    // Somebody else's request ids are others.
    let (_, second) = create(&rest, "second", json!({"adminEmail": "bob@example.com"})).await;
    assert_eq!(second["slug"], "second");
    assert_eq!(plane.database.count("SELECT count(*) FROM iam.tenants WHERE slug IN ('acme', 'beta')").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_changed_by_its_admin_and_by_operators() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.operator().await.rest();
    let acme = plane.tenant("acme").await;
    let own = acme.rest();
    let (_, before) = own.call("GET", "/v1/tenants/current", None).await;

    let (status, renamed) = own.call("PATCH", "/v1/tenants/current", Some(json!({"displayName": "Acme Inc."}))).await;
    assert_eq!((status, &renamed["displayName"]), (200, &json!("Acme Inc.")), "{renamed}");
    assert_ne!(renamed["etag"], before["etag"]);
    let stale = json!({"displayName": "Late", "etag": before["etag"]});
    for path in ["/v1/tenants/current", "/v1/tenants/acme"] {
        let rest = if path.ends_with("acme") { &rest } else { &own };
        refused(&rest.call("PATCH", path, Some(stale.clone())).await, 409, "ABORTED", "ETAG_MISMATCH");
        let wrong = json!({"displayName": "a\u{7}b", "settings": {"apiKeyMaxDays": -1}});
        let mut fields =
            refused(&rest.call("PATCH", path, Some(wrong)).await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        fields.sort();
        assert_eq!(fields, ["tenant.displayName", "tenant.settings.apiKeyMaxDays"]);
        let masked = format!("{path}?updateMask=slug");
        let reply = rest.call("PATCH", &masked, Some(json!({"slug": "other"}))).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["updateMask"]);
    }
    let good = json!({"settings": {"invitationDays": 5, "apiKeyMaxDays": 90}, "etag": renamed["etag"]});
    let (status, set) = rest.call("PATCH", "/v1/tenants/acme", Some(good)).await;
    assert_eq!((status, &set["settings"]), (200, &json!({"invitationDays": 5, "apiKeyMaxDays": 90})), "{set}");
    assert_eq!(set["displayName"], "Acme Inc.", "what was not sent stays");
    let path = "/v1/tenants/acme?updateMask=settings.invitationDays";
    let (_, set) = rest.call("PATCH", path, Some(json!({"settings": {"apiKeyMaxDays": 1}}))).await;
    assert_eq!(set["settings"], json!({"invitationDays": 0, "apiKeyMaxDays": 90}), "only what the mask names");
    let (status, same) = rest.call("PATCH", "/v1/tenants/acme", Some(json!({"displayName": "Acme Inc."}))).await;
    assert_eq!((status, &same["etag"]), (200, &set["etag"]), "nothing has changed");

    let log = logged(&plane, "acme").await;
    assert!(
        log[1].starts_with("UpdateCurrentTenant users/ ") && log[1].contains(r#"["acme", "Acme Inc."]"#),
        "{log:?}"
    );
    assert!(log[2].starts_with("UpdateTenant platform/users/ "), "{log:?}");
    assert!(log[2].contains(r#""settings.apiKeyMaxDays": [0, 90]"#) && !log[2].contains("displayName"), "{log:?}");
    let changes = "SELECT reason || ' ' || regexp_replace(actor, '[^/]*$', '') FROM audit.changes c JOIN iam.tenants t ON t.id = c.tenant_id \
        WHERE t.slug = 'acme' AND resource LIKE 'tenants/%' ORDER BY position";
    let changes = texts(&plane.database, changes).await;
    let expected = [
        "TENANT_CREATED platform/users/",
        "TENANT_UPDATED users/",
        "TENANT_UPDATED platform/users/",
        "TENANT_UPDATED platform/users/",
    ];
    assert_eq!(changes, expected);

    // Who may not.
    let viewer = member(&plane, "viewer@example.com", "acme", "viewer").await.rest();
    let patch = Some(json!({"displayName": "Mine"}));
    for (rest, path) in [(&viewer, "/v1/tenants/current"), (&own, "/v1/tenants/acme"), (&own, "/v1/tenants/demo")] {
        refused(&rest.call("PATCH", path, patch.clone()).await, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    }
    for nowhere in ["nowhere", "0199a000-0000-7000-8000-000000000000"] {
        let path = format!("/v1/tenants/{nowhere}");
        refused(&rest.call("PATCH", &path, patch.clone()).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
        refused(&rest.call("DELETE", &path, None).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
        for action in ["suspend", "activate", "undelete"] {
            refused(&post(&rest, nowhere, action).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
            refused(&post(&own, nowhere, action).await, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
        }
    }
    let support = member(&plane, "support@example.com", "provider", "platform_support").await.rest();
    for action in ["suspend", "activate", "undelete"] {
        refused(&post(&support, "acme", action).await, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    }
}

/// An API key of the tests' own, and the SHA-256 of its secret.
const KEY: &str = "vsk_SuspendedTenant0_aSecretThatIsOfTestsaSecretThatIsOfTestsaSe29hLFC";
const KEY_DIGEST: &str = "11ce6c916578435a68e636a26e77797096199c6231fd22fdceb65122d440583a";

/// Status and JSON of a read by that key.
async fn by_key(plane: &ControlPlane, path: &str) -> Reply {
    let response = Rest::new(&plane.http, None).request("GET", path).header("x-api-key", KEY).send().await;
    let response = response.expect("a response");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

async fn add_key(plane: &ControlPlane, email: &str, tenant: &str) {
    let key = format!(
        "INSERT INTO iam.api_keys (tenant_id, id, owner_id, display_name, public_id, permissions, digest) \
         SELECT t.id, gen_random_uuid(), m.id, 'key', 'SuspendedTenant0', '{{vm:read}}', '\\x{KEY_DIGEST}' \
         FROM iam.memberships m JOIN iam.tenants t ON t.id = m.tenant_id WHERE m.email = '{email}' AND t.slug = '{tenant}'"
    );
    plane.database.execute(&key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_holds_from_the_next_request_on() {
    let plane = ControlPlane::start().await;
    let operator = plane.operator().await.rest();
    let acme = plane.tenant("acme").await;
    let vm = acme.running("web-1").await;
    add_key(&plane, "admin@acme.example.com", "acme").await;
    // An admin of two tenants, who was in this one last.
    let both = member(&plane, "both@example.com", "acme", "tenant_admin").await;
    plane
        .database
        .execute(
            "INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) SELECT t.id, gen_random_uuid(), \
             u.id, u.email, u.display_name, 'ACTIVE' FROM iam.tenants t, iam.users u WHERE t.slug = 'demo' AND u.email = 'both@example.com'",
        )
        .await;
    let stopping = acme.stop(&vm.name).await.expect("accepted");

    let (status, suspended) = post(&operator, "acme", "suspend").await;
    assert_eq!((status, &suspended["state"]), (200, &json!("SUSPENDED")), "{suspended}");
    assert_eq!(post(&operator, "acme", "suspend").await, (200, suspended.clone()), "a repeat changes nothing");
    let denied = |reply: &Reply| _ = refused(reply, 403, "PERMISSION_DENIED", "TENANT_SUSPENDED");
    let all_denied = async |reason: &str| {
        let rest = acme.rest();
        for path in
            ["/v1/vms", "/v1/operations", "/v1/sessions/current", "/v1/users/me", "/v1/tenants", "/v1/tenants/current"]
        {
            refused(&rest.call("GET", path, None).await, 403, "PERMISSION_DENIED", reason);
        }
        let create = rest.call("POST", "/v1/vms", Some(json!({"displayName": "x", "template": vm.template}))).await;
        refused(&create, 403, "PERMISSION_DENIED", reason);
        refused(&by_key(&plane, "/v1/vms").await, 403, "PERMISSION_DENIED", reason);
        let refresh = json!({"refreshToken": acme.tokens.refresh_token});
        let refresh = Rest::new(&plane.http, None).call("POST", "/v1/auth:refresh", Some(refresh)).await;
        refused(&refresh, 403, "PERMISSION_DENIED", reason);
        refused(&login(&plane, "admin@acme.example.com", "acme").await, 403, "PERMISSION_DENIED", reason);
        refused(&login(&plane, "admin@acme.example.com", "").await, 403, "PERMISSION_DENIED", reason);
        let (status, elsewhere) = login(&plane, "both@example.com", "").await;
        assert_eq!((status, elsewhere["tenants"].as_array().map(Vec::len)), (200, Some(1)), "{elsewhere}");
        assert_eq!(elsewhere["tenants"][0]["slug"], "demo");
        let rest = Rest::new(&plane.http, elsewhere["accessToken"].as_str());
        let back = rest.call("POST", "/v1/auth:switchTenant", Some(json!({"tenant": "acme"}))).await;
        refused(&back, 403, "PERMISSION_DENIED", reason);
    };
    all_denied("TENANT_SUSPENDED").await;
    denied(&both.rest().call("GET", "/v1/vms", None).await);
    // Operators still see it, and what was begun ends.
    assert_eq!(operator.call("GET", "/v1/tenants/acme", None).await, (200, suspended));
    plane.idle().await;

    let (_, active) = post(&operator, "acme", "activate").await;
    assert_eq!(active["state"], "ACTIVE", "{active}");
    assert_eq!(post(&operator, "acme", "activate").await, (200, active));
    let stopped = acme.vm_of(stopping).await;
    assert_eq!(stopped.state().as_str_name(), "STOPPED");
    assert_eq!(by_key(&plane, "/v1/vms").await.0, 200);

    let (status, deleted) = operator.call("DELETE", "/v1/tenants/acme", None).await;
    assert_eq!((status, &deleted["state"]), (200, &json!("DELETED")), "{deleted}");
    all_denied("TENANT_DELETED").await;
    assert_eq!(post(&operator, "acme", "undelete").await.1["state"], "ACTIVE");
    assert_eq!(acme.get(&vm.name).await.expect("as it was").name, vm.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_can_be_taken_back_until_the_purge() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.operator().await.rest();
    let acme = plane.tenant("acme").await;
    let delete = async |query: &str| rest.call("DELETE", &format!("/v1/tenants/acme{query}"), None).await;
    let slugs = async |rest: &Rest, query: &str| {
        let (status, list) = rest.call("GET", &format!("/v1/tenants{query}"), None).await;
        assert_eq!(status, 200, "{list}");
        let tenants = list["tenants"].as_array().expect("tenants").clone();
        tenants.iter().map(|tenant| tenant["slug"].as_str().expect("a slug").to_owned()).collect::<Vec<_>>()
    };

    refused(&post(&rest, "acme", "undelete").await, 409, "ALREADY_EXISTS", "TENANT_NOT_DELETED");
    refused(&delete("?etag=%22999%22").await, 409, "ABORTED", "ETAG_MISMATCH");
    for wrong in
        ["DELETE /v1/tenants/provider", "DELETE /v1/tenants/provider?force=true", "POST /v1/tenants/provider:suspend"]
    {
        let (method, path) = wrong.split_once(' ').expect("a path");
        let reply = rest.call(method, path, (method == "POST").then(|| json!({}))).await;
        refused(&reply, 400, "FAILED_PRECONDITION", "PROVIDER_TENANT");
    }

    // What it was before, it is again.
    post(&rest, "acme", "suspend").await;
    let (_, suspended) = rest.call("GET", "/v1/tenants/acme", None).await;
    let etag = suspended["etag"].as_str().expect("an etag").replace('"', "%22");
    let (status, deleted) = delete(&format!("?etag={etag}")).await;
    assert_eq!((status, &deleted["state"]), (200, &json!("DELETED")), "{deleted}");
    let time =
        |field: &str| chrono::DateTime::parse_from_rfc3339(deleted[field].as_str().expect("a time")).expect("RFC 3339");
    assert_eq!((time("purgeTime") - time("deleteTime")).num_days(), 30, "{deleted}");
    refused(&delete("").await, 400, "FAILED_PRECONDITION", "TENANT_DELETED");
    for action in ["suspend", "activate"] {
        refused(&post(&rest, "acme", action).await, 400, "FAILED_PRECONDITION", "TENANT_DELETED");
    }
    let patch = rest.call("PATCH", "/v1/tenants/acme", Some(json!({"displayName": "x"}))).await;
    refused(&patch, 400, "FAILED_PRECONDITION", "TENANT_DELETED");
    assert_eq!(slugs(&rest, "").await, ["demo", "provider"]);
    assert_eq!(slugs(&rest, "?showDeleted=true").await, ["acme", "demo", "provider"]);
    let demo = plane.admin().await.rest();
    refused(
        &demo.call("GET", "/v1/tenants?showDeleted=true", None).await,
        403,
        "PERMISSION_DENIED",
        "PERMISSION_MISSING",
    );
    refused(&demo.call("GET", "/v1/tenants/acme", None).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
    let again = create(&rest, "acme", json!({"adminEmail": "b@example.com"})).await;
    refused(&again, 409, "ALREADY_EXISTS", "TENANT_SLUG_TAKEN");
    let (_, undeleted) = post(&rest, "acme", "undelete").await;
    assert_eq!((&undeleted["state"], &undeleted["purgeTime"]), (&json!("SUSPENDED"), &Value::Null), "{undeleted}");
    assert_eq!(undeleted["deleteTime"], Value::Null);
    post(&rest, "acme", "activate").await;
    assert_eq!(acme.rest().call("GET", "/v1/vms", None).await.0, 200, "the session has outlived it");

    // With force, and once the time has come, nobody takes it back.
    let (_, forced) = delete("?force=true").await;
    assert_eq!(forced["state"], "DELETED", "{forced}");
    refused(&post(&rest, "acme", "undelete").await, 400, "FAILED_PRECONDITION", "TENANT_PURGED");
    assert_eq!(delete("?force=true").await.0, 200, "force again is the same");
    let log = logged(&plane, "acme").await;
    let last = log.last().expect("rows");
    assert!(last.starts_with("DeleteTenant platform/users/ "), "{log:?}");
}

/// Lets the purge run until a tenant is gone.
async fn purged(plane: &ControlPlane, name: &str) {
    let id = name.trim_start_matches("tenants/");
    let state = format!("SELECT count(*) FROM iam.tenants WHERE id = '{id}' AND state = 'PURGED'");
    for _ in 0..200 {
        let due =
            "UPDATE background_jobs.jobs SET available_at = now() WHERE kind = 'tenant_purge' AND state = 'available'";
        plane.database.execute(due).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if plane.database.count(&state).await == 1 {
            return;
        }
    }
    panic!("{name} is not purged after 20 s")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_all_but_the_audit_log() {
    let plane = ControlPlane::start().await;
    // A second worker at the same work.
    plane.work(Arc::new(NoProbe)).await.detach();
    let operator = plane.operator().await.rest();
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let theirs = rival.running("web-1").await;
    for name in ["web-1", "web-2"] {
        acme.running(name).await;
    }
    let gone = acme.running("web-3").await;
    acme.wait(&acme.delete(&gone.name, false).await.expect("accepted")).await;
    acme.create("web-4").await.expect("begun, and not waited for");
    add_key(&plane, "admin@acme.example.com", "acme").await;
    member(&plane, "ada@example.com", "acme", "user").await;
    let tenant = acme.tokens.tenant.clone();
    let id = tenant.trim_start_matches("tenants/").to_owned();
    plane
        .database
        .execute(&format!(
            "INSERT INTO iam.invitations (tenant_id, id, email, user_id, expires_at) SELECT tenant_id, gen_random_uuid(), \
             'x@example.com', id, now() FROM iam.memberships WHERE tenant_id = '{id}' LIMIT 1; \
             INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) SELECT t.id, gen_random_uuid(), u.id, \
             u.email, u.display_name, 'ACTIVE' FROM iam.tenants t, iam.users u WHERE t.slug = 'rival' AND u.email = 'ada@example.com'"
        ))
        .await;
    let logs = format!("SELECT count(*) FROM audit.logs WHERE tenant_id = '{id}'");

    // It is due by the time, not only by force.
    assert_eq!(operator.call("DELETE", "/v1/tenants/acme", None).await.0, 200);
    let before = plane.database.count(&logs).await;
    plane.database.execute(&format!("UPDATE iam.tenants SET purge_at = now() WHERE id = '{id}'")).await;
    refused(&post(&operator, "acme", "undelete").await, 400, "FAILED_PRECONDITION", "TENANT_PURGED");
    purged(&plane, &tenant).await;

    for table in [
        "iam.memberships",
        "iam.tenant_roles",
        "iam.tenant_role_permissions",
        "iam.user_tenant_roles",
        "iam.api_keys",
        "iam.invitations",
        "iam.request_ids",
        "iam.refresh_tokens",
        "compute.operations",
        "compute.virtual_machines",
        "audit.changes",
    ] {
        let left = format!("SELECT count(*) FROM {table} WHERE tenant_id = '{id}'");
        assert_eq!(plane.database.count(&left).await, 0, "{table}");
    }
    let on_hypervisor = plane.hypervisor(Default::default()).vms().await.expect("a list");
    assert_eq!(on_hypervisor.len(), 1, "the rival's: {on_hypervisor:?}");
    assert!(plane.database.count(&logs).await > before, "the audit log stays, and tells the purge");
    assert_eq!(rival.get(&theirs.name).await.expect("as before"), theirs);

    // It is nowhere, its slug is free, and its members' accounts are theirs.
    for path in ["/v1/tenants/acme".to_owned(), format!("/v1/{tenant}")] {
        refused(&operator.call("GET", &path, None).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
        refused(&operator.call("DELETE", &path, None).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
    }
    let (_, list) = operator.call("GET", "/v1/tenants?showDeleted=true", None).await;
    assert!(!list.to_string().contains(&id), "{list}");
    refused(&acme.rest().call("GET", "/v1/vms", None).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    refused(&by_key(&plane, "/v1/vms").await, 401, "UNAUTHENTICATED", "KEY_INVALID");
    assert_eq!(login(&plane, "ada@example.com", "").await.1["tenant"], rival.tokens.tenant.as_str());
    refused(&login(&plane, "admin@acme.example.com", "").await, 403, "PERMISSION_DENIED", "NO_TENANT");
    assert_eq!(
        create(&operator, "acme", json!({"adminEmail": "new@example.com", "adminPassword": PASSWORD})).await.0,
        200
    );
    virtualstack_server::update_permissions(&plane.store).await.expect("an upgrade");
    let roles = format!("SELECT count(*) FROM iam.tenant_roles WHERE tenant_id = '{id}'");
    assert_eq!(plane.database.count(&roles).await, 0, "an upgrade brings nothing back");
    plane.idle().await;
}
