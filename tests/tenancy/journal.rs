//! What no transaction of its own writes into the audit log: who was turned away, and what operators read in a tenant.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use virtualstack_proto::Scope;

use super::calls::{member, path, rpcs};
use crate::support::{ControlPlane, PASSWORD, Rest};

const REASON: &str = "Ticket 4711: the VM does not start";

/// A row, as tests look at it.
#[derive(Debug, PartialEq, Deserialize)]
struct Row {
    /// Slug of the tenant in whose log it stands; "" for the platform's.
    log: String,
    result: String,
    reason: String,
    resource: String,
    count: i64,
    counted: bool,
}

/// Rows of an rpc; waits until all of these calls are counted.
async fn rows(plane: &ControlPlane, action: &str, calls: i64) -> Vec<Row> {
    let query = format!(
        "SELECT coalesce(t.slug, '') AS log, result, reason, resource, count, \
            CASE WHEN count = 1 THEN last_time IS NULL ELSE last_time >= l.created_at END AS counted \
         FROM audit.logs l LEFT JOIN iam.tenants t ON t.id = l.tenant_id \
         WHERE action LIKE '%{action}' ORDER BY slug, reason, resource, l.id"
    );
    let mut found = Vec::new();
    for _ in 0..600 {
        found = plane.database.rows::<Row>(&query).await;
        if found.iter().map(|row| row.count).sum::<i64>() >= calls {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    found
}

fn row(log: &str, result: &str, reason: &str, resource: &str, count: i64) -> Row {
    let text = str::to_owned;
    Row { log: text(log), result: text(result), reason: text(reason), resource: text(resource), count, counted: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_refusals_are_one_row_that_counts() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    let viewer = member(&plane, "viewer@example.com", "acme", "viewer").await.rest();
    for _ in 0..7 {
        viewer.call("GET", "/v1/roles", None).await;
    }
    viewer.call("GET", "/v1/invitations", None).await;
    let denied = |count| row("acme", "DENIED", "PERMISSION_MISSING", "", count);
    assert_eq!(rows(&plane, "ListRoles", 7).await, [denied(7)]);
    assert_eq!(rows(&plane, "ListInvitations", 1).await, [denied(1)]);
    // A row counts for a minute: afterwards nobody changes it any more.
    plane.database.execute("UPDATE audit.logs SET created_at = created_at - interval '2 minutes'").await;
    viewer.call("GET", "/v1/roles", None).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(rows(&plane, "ListRoles", 7).await, [denied(7)]);
}

/// Every rpc that only reads, by an operator who has entered the tenant, stands in the tenant's log with what it read.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_reads_in_a_tenant_stands_in_its_log() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let vm = acme.running("web-1").await;
    let operator = plane.operator().await;
    let enter = json!({"tenant": "acme", "reason": REASON});
    let (status, tokens) = operator.rest().call("POST", "/v1/auth:switchTenant", Some(enter)).await;
    assert_eq!(status, 200, "{tokens}");
    let support = Rest::new(&plane.http, tokens["accessToken"].as_str());
    let (tenant, vm) = (&acme.tokens.tenant, &vm.name);
    let id = |collection: &str| format!("{collection}/0199a000-0000-7000-8000-000000000000");
    let explain = json!({"permission": "vm:read"});
    // By rpc: what is asked for, and the collection that is told. What is not there tells nothing.
    let reads = [
        ("ListVms", "GET", "/v1/vms".to_owned(), Value::Null, "vms"),
        ("GetVm", "GET", format!("/v1/{vm}"), Value::Null, "vms"),
        ("ListVmEvents", "GET", format!("/v1/{vm}/events"), Value::Null, "events"),
        ("ListSnapshots", "GET", format!("/v1/{vm}/snapshots"), Value::Null, "snapshots"),
        ("GetQuota", "GET", "/v1/quota".to_owned(), Value::Null, "quota"),
        ("ListOperations", "GET", "/v1/operations".to_owned(), Value::Null, "operations"),
        ("ListUsers", "GET", "/v1/users".to_owned(), Value::Null, "users"),
        ("ListRoleUsers", "GET", "/v1/roles/viewer/users".to_owned(), Value::Null, "users"),
        ("GetRole", "GET", "/v1/roles/viewer".to_owned(), Value::Null, "roles"),
        ("ListApiKeys", "GET", "/v1/apiKeys".to_owned(), Value::Null, "apiKeys"),
        ("Explain", "POST", "/v1/auth:explain".to_owned(), explain, "auth"),
    ];
    for (rpc, method, path, body, collection) in reads {
        for _ in 0..2 {
            let (status, reply) = support.call(method, &path, (!body.is_null()).then(|| body.clone())).await;
            assert_eq!(status, 200, "{rpc}: {reply}");
        }
        assert_eq!(rows(&plane, &format!(".{rpc}"), 2).await, [row("acme", "OK", "", collection, 2)], "{rpc}");
    }
    support.call("GET", &format!("/v1/{}", id("apiKeys")), None).await;
    // Members read without a row, and so do operators at home.
    for rest in [acme.rest(), operator.rest()] {
        rest.call("GET", "/v1/templates", None).await;
    }
    assert_eq!(rows(&plane, "ListTemplates", 0).await, []);
    assert_eq!(rows(&plane, "GetApiKey", 0).await, []);

    // From outside, by a name of the tenant: every rpc of the platform's that only reads has a sample here.
    let ticket = Some(json!({"subject": "Help", "description": "It hangs"}));
    let (_, ticket) = acme.rest().call("POST", "/v1/tickets", ticket).await;
    let ticket = ticket["name"].as_str().expect("a name");
    let comment = Some(json!({"body": "more"}));
    let (_, comment) = acme.rest().call("POST", &format!("/v1/{ticket}/comments"), comment).await;
    let comment = comment["name"].as_str().expect("a name");
    let upload = acme.rest().request("POST", &format!("/v1/{ticket}/attachments:upload?fileName=log.json"));
    let file: Value = upload.body("{}").send().await.expect("a reply").json().await.expect("JSON");
    let file = file["name"].as_str().expect("a name");
    let samples = [
        ("GetTenantQuota", format!("/v1/{tenant}/quota"), format!("{tenant}/quota")),
        ("ListTenantTickets", format!("/v1/{tenant}/tickets"), format!("{tenant}/tickets")),
        ("GetTenantTicket", format!("/v1/{tenant}/{ticket}"), ticket.to_owned()),
        ("ListTenantTicketComments", format!("/v1/{tenant}/{ticket}/comments"), ticket.to_owned()),
        ("ListTenantTicketAttachments", format!("/v1/{tenant}/{ticket}/attachments"), ticket.to_owned()),
        ("GetTenantTicketAttachment", format!("/v1/{tenant}/{file}"), ticket.to_owned()),
        ("DownloadTenantTicketAttachment", format!("/v1/{tenant}/{file}:download"), ticket.to_owned()),
        ("GetTenantTicketComment", format!("/v1/{tenant}/{comment}"), ticket.to_owned()),
    ];
    for rpc in rpcs() {
        let policy = virtualstack_proto::policy(&path(&rpc)).expect("a policy");
        // The provider's own.
        let is_of_a_tenant = !["providerTemplates", "broadcasts"].contains(&policy.collection);
        if policy.scope == Scope::Platform && policy.reads && is_of_a_tenant {
            let (name, path, resource) = samples
                .iter()
                .find(|(name, ..)| *name == rpc.name())
                .unwrap_or_else(|| panic!("no sample of {}", rpc.name()));
            assert_eq!(operator.rest().call("GET", path, None).await.0, 200, "{path}");
            assert_eq!(rows(&plane, &format!(".{name}"), 1).await, [row("acme", "OK", "", resource, 1)]);
        }
    }
    assert_eq!(operator.rest().call("GET", "/v1/tenants/acme", None).await.0, 200);
    assert_eq!(rows(&plane, ".GetTenant", 1).await, [row("acme", "OK", "", tenant, 1)]);
}

/// Whoever shows a credential that is wrong is told to those whom it concerns.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_stand_in_the_logs_of_those_whom_they_concern() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let made = json!({"displayName": "key", "permissions": ["vm:read"]});
    let (status, key) = acme.rest().call("POST", "/v1/apiKeys", Some(made)).await;
    assert_eq!(status, 200, "{key}");
    let (name, secret) = (key["name"].as_str().expect("a name"), key["secret"].as_str().expect("a secret"));
    let nobody = Rest::new(&plane.http, None);
    let post = async |path: &str, body: Value| nobody.call("POST", path, Some(body)).await.0;

    // A key that is rotated is wrong, one that is deleted is gone: both are the tenant's.
    let rotate = json!({"overlap": "0s"});
    let (status, rotated) = acme.rest().call("POST", &format!("/v1/{name}:rotate"), Some(rotate)).await;
    assert_eq!(status, 200, "{rotated}");
    assert_eq!(Rest::with_key(&plane.http, secret).call("GET", "/v1/vms", None).await.0, 401);
    assert_eq!(acme.rest().call("DELETE", &format!("/v1/{name}"), None).await.0, 200);
    let fresh = rotated["secret"].as_str().expect("a secret");
    assert_eq!(Rest::with_key(&plane.http, fresh).call("GET", "/v1/quota", None).await.0, 401);
    for rpc in [".ListVms", ".GetQuota"] {
        assert_eq!(rows(&plane, rpc, 1).await, [row("acme", "FAILED", "KEY_INVALID", name, 1)], "{rpc}");
    }
    // One that nobody ever had, and a token that we did not sign, are nobody's.
    assert_eq!(Rest::with_key(&plane.http, "vsk_nonsense").call("GET", "/v1/roles", None).await.0, 401);
    assert_eq!(rows(&plane, ".ListRoles", 1).await, [row("", "FAILED", "KEY_INVALID", "", 1)]);
    assert_eq!(Rest::new(&plane.http, Some("a.b.c")).call("GET", "/v1/users", None).await.0, 401);
    assert_eq!(rows(&plane, ".ListUsers", 1).await, [row("", "FAILED", "TOKEN_INVALID", "", 1)]);

    // Tokens of mails.
    for (rpc, path, body, reason) in [
        ("VerifyInvitation", "/v1/invitations:verify", json!({"token": "vsi_x"}), "INVITATION_INVALID"),
        (
            "AcceptInvitation",
            "/v1/invitations:accept",
            json!({"token": "vsi_x", "password": PASSWORD}),
            "INVITATION_INVALID",
        ),
        (
            "ResetPassword",
            "/v1/auth:resetPassword",
            json!({"token": "vsp_x", "password": PASSWORD}),
            "RESET_TOKEN_INVALID",
        ),
    ] {
        assert_eq!(post(path, body).await, 400, "{rpc}");
        assert_eq!(rows(&plane, &format!(".{rpc}"), 1).await, [row("", "FAILED", reason, "", 1)], "{rpc}");
    }

    // Logins and refreshes: the tenant that is named, or all of the account's; an account that nobody has is the platform's.
    let both = member(&plane, "both@example.com", "acme", "viewer").await;
    member(&plane, "both@example.com", "demo", "viewer").await;
    let account = plane.database.rows::<Value>("SELECT id FROM iam.users WHERE email = 'both@example.com'").await;
    let account = format!("accounts/{}", account[0]["id"].as_str().expect("an id"));
    let wrong = |email: &str, tenant: &str| json!({"email": email, "password": "not the password", "tenant": tenant});
    for (email, tenant) in [("both@example.com", "acme"), ("both@example.com", ""), ("nobody@example.com", "")] {
        assert_eq!(post("/v1/auth:login", wrong(email, tenant)).await, 401);
    }
    let failed = |log, resource| row(log, "FAILED", "CREDENTIALS_WRONG", resource, 1);
    let told: Vec<_> = rows(&plane, ".Login", 8).await.into_iter().filter(|row| row.result == "FAILED").collect();
    let expected = [failed("acme", &account), failed("acme", &account), failed("demo", &account), failed("", "")];
    assert!(told.len() == 4 && expected.iter().all(|row| told.contains(row)), "{told:?}");
    assert_eq!(post("/v1/auth:refresh", json!({"refreshToken": "nonsense"})).await, 401);
    let used = json!({"refreshToken": both.tokens.refresh_token});
    plane.database.execute("UPDATE iam.refresh_tokens SET used_at = now() - interval '1 hour', repeated = true").await;
    assert_eq!(post("/v1/auth:refresh", used).await, 401);
    let told = rows(&plane, ".Refresh", 3).await;
    let reused = |log| row(log, "FAILED", "REFRESH_TOKEN_REUSED", &account, 1);
    let expected = [reused("acme"), reused("demo"), row("", "FAILED", "REFRESH_TOKEN_INVALID", "", 1)];
    assert!(told.len() == 3 && expected.iter().all(|row| told.contains(row)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_too_many_are_one_row() {
    let few = virtualstack_server::Config { calls_per_second: 1, calls_burst: 20, ..Default::default() };
    let plane = ControlPlane::start_with(few).await;
    let admin = plane.admin().await.rest();
    let mut refused = 0;
    for _ in 0..40 {
        refused += i64::from(admin.call("GET", "/v1/roles", None).await.0 == 429);
    }
    assert!(refused > 5, "{refused}");
    assert_eq!(rows(&plane, ".ListRoles", refused).await, [row("demo", "DENIED", "RATE_LIMITED", "", refused)]);
    let few = virtualstack_server::Config { auth_per_minute: 3, ..Default::default() };
    let plane = ControlPlane::start_with(few).await;
    let nobody = Rest::new(&plane.http, None);
    let reset = || Some(json!({"email": "nobody@example.com"}));
    let mut refused = 0;
    for _ in 0..8 {
        refused += i64::from(nobody.call("POST", "/v1/auth:requestPasswordReset", reset()).await.0 == 429);
    }
    let told = rows(&plane, ".RequestPasswordReset", 8).await;
    assert!(told.contains(&row("", "FAILED", "RATE_LIMITED", "", refused)), "{refused}: {told:?}");
}
