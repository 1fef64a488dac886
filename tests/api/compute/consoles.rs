//! Tickets for consoles: told once, to who asked, and to nobody else.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use virtualstack_model::id::{OperationId, TenantId};
use virtualstack_store::SystemPurpose;
use virtualstack_store::compute::console_tickets;
use virtualstack_store::operations::{self, End};

use crate::api::{idle_plane, rows_with, settle, settled_vm};
use crate::support::{ControlPlane, Rest, Session, master_key, system};
use crate::tenancy::calls::texts;

const TICKET: &str = "the-ticket-4711";

/// Asks for the console of a VM.
async fn open(rest: &Rest, vm: &str, body: Value) -> Value {
    let (status, operation) = rest.call("POST", &format!("/v1/{vm}:openConsole"), Some(body)).await;
    assert_eq!(status, 200, "{operation}");
    operation
}

/// Ends the operation with a ticket, as the worker does.
async fn give(plane: &ControlPlane, session: &Session, operation: &Value, valid: TimeDelta) {
    let tenant: TenantId = session.tokens.tenant.trim_start_matches("tenants/").parse().expect("an id");
    let id = OperationId::parse("name", operation["name"].as_str().expect("a name")).expect("an operation");
    let expires_at = Utc::now() + valid;
    let ticket = json!({"url": "wss://esx.example.com/console", "ticket": TICKET, "protocol": "webmks", "expires_at": expires_at});
    let sealed = master_key().seal(&console_tickets::purpose(id), ticket.to_string().as_bytes()).expect("sealed");
    plane
        .store
        .write_as_system(&system(SystemPurpose::Reconcile), tenant, "vm_console", async |tx| {
            console_tickets::put(tx, id, &sealed, expires_at).await?;
            operations::end(tx, id, &End::Succeeded(None)).await
        })
        .await
        .expect("written");
}

async fn read(rest: &Rest, operation: &Value) -> Value {
    let path = format!("/v1/{}", operation["name"].as_str().expect("a name"));
    let (status, read) = rest.call("GET", &path, None).await;
    assert_eq!(status, 200, "{read}");
    read
}

/// A done operation whose response tells nothing but the VM.
#[track_caller]
fn untold(operation: &Value, vm: &str) {
    let response = &operation["response"];
    assert_eq!(response["@type"], "type.googleapis.com/virtualstack.compute.v1.ConsoleTicket", "{operation}");
    assert_eq!((&response["vm"], &response["url"], &response["ticket"]), (&json!(vm), &json!(""), &json!("")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_told_once_to_who_asked() {
    let plane = idle_plane().await;
    let admin = plane.admin().await;
    let rest = admin.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    let other = plane.member("bob@example.com", "demo", "tenant_admin").await.rest();
    let viewer = plane.member("eve@example.com", "demo", "viewer").await.rest();
    let key = json!({"displayName": "ci", "permissions": ["operation:read", "vm:read"]});
    let (_, key) = rest.call("POST", "/v1/apiKeys", Some(key)).await;
    let key = Rest::with_key(&plane.http, key["secret"].as_str().expect("a secret"));

    let body = json!({"requestId": "0199a000-0000-7000-8000-000000000001"});
    let operation = open(&rest, &vm, body.clone()).await;
    assert_eq!((&operation["done"], operation.get("response")), (&json!(false), None), "{operation}");
    give(&plane, &admin, &operation, TimeDelta::seconds(30)).await;
    // The database has it, and nobody can read it there.
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.console_tickets").await, 1);
    let plain =
        format!("SELECT count(*) FROM compute.console_tickets WHERE position('{TICKET}'::bytea IN sealed_ticket) > 0");
    assert_eq!(plane.database.count(&plain).await, 0);

    // Another user, one who may only look, and the same user by a key that may not: all see that it is done.
    for somebody in [&other, &viewer, &key] {
        untold(&read(somebody, &operation).await, &vm);
    }
    // Nor do lists and repeats tell it, to whomever.
    let (_, list) = rest.call("GET", "/v1/operations", None).await;
    let listed = list["operations"].as_array().expect("operations").iter().find(|it| it["name"] == operation["name"]);
    untold(listed.expect("the operation"), &vm);
    let repeated = open(&rest, &vm, body).await;
    assert_eq!(repeated["name"], operation["name"]);
    untold(&repeated, &vm);

    let told = read(&rest, &operation).await;
    let response = &told["response"];
    assert_eq!(response["@type"], "type.googleapis.com/virtualstack.compute.v1.ConsoleTicket", "{told}");
    assert_eq!(
        (&response["vm"], &response["url"], &response["ticket"], &response["protocol"]),
        (&json!(vm), &json!("wss://esx.example.com/console"), &json!(TICKET), &json!("webmks"))
    );
    assert!(response["expireTime"].is_string(), "{told}");
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.console_tickets").await, 0, "it is gone with that");
    untold(&read(&rest, &operation).await, &vm);
    assert_eq!(rows_with(&plane, TICKET).await, 0);
    let audited = "SELECT count(*) FROM audit.logs WHERE action LIKE '%GetOperation' AND resource LIKE 'vms/%'";
    assert_eq!(plane.database.count(audited).await, 1, "that it was told is on record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_tells_it_too() {
    let plane = idle_plane().await;
    let admin = plane.admin().await;
    let rest = admin.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    let operation = open(&rest, &vm, json!({})).await;
    let path = format!("/v1/{}:wait", operation["name"].as_str().expect("a name"));
    let waiting = rest.call("POST", &path, Some(json!({"timeout": "20s"})));
    let giving = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        give(&plane, &admin, &operation, TimeDelta::seconds(30)).await;
    };
    let ((status, done), ()) = tokio::join!(waiting, giving);
    assert_eq!((status, &done["response"]["ticket"]), (200, &json!(TICKET)), "{done}");
    untold(&rest.call("POST", &path, Some(json!({}))).await.1, &vm);

    // Of many who read at once with the same token, one is told.
    settle(&plane, "RUNNING").await;
    let operation = open(&rest, &vm, json!({})).await;
    give(&plane, &admin, &operation, TimeDelta::seconds(30)).await;
    let replies = futures::future::join_all((0..8).map(|_| read(&rest, &operation))).await;
    assert_eq!(replies.iter().filter(|reply| reply["response"]["ticket"] == TICKET).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_is_too_old_or_of_another_operation_is_not_told() {
    let plane = idle_plane().await;
    let admin = plane.admin().await;
    let rest = admin.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    let operation = open(&rest, &vm, json!({})).await;
    give(&plane, &admin, &operation, TimeDelta::seconds(-1)).await;
    untold(&read(&rest, &operation).await, &vm);

    // An operation that is not done has nothing to tell.
    settle(&plane, "RUNNING").await;
    plane.database.execute("DELETE FROM compute.console_tickets").await;
    let operation = open(&rest, &vm, json!({})).await;
    give(&plane, &admin, &operation, TimeDelta::seconds(30)).await;
    plane
        .database
        .execute("UPDATE compute.operations SET state = 'FAILED', error_code = 9 WHERE state = 'SUCCEEDED'")
        .await;
    assert_eq!(read(&rest, &operation).await.get("response"), None);
    plane.database.execute("UPDATE compute.operations SET state = 'SUCCEEDED', error_code = NULL").await;

    // Who has lost the right since is not told.
    let bob = plane.member("bob@example.com", "demo", "tenant_admin").await;
    let role = "(SELECT id FROM iam.tenant_roles r WHERE r.tenant_id = m.tenant_id AND r.display_name = 'viewer')";
    settle(&plane, "RUNNING").await;
    let of_bob = open(&bob.rest(), &vm, json!({})).await;
    give(&plane, &bob, &of_bob, TimeDelta::seconds(30)).await;
    let set = |role: &str| {
        format!(
            "UPDATE iam.user_tenant_roles u SET role_id = {role} FROM iam.memberships m WHERE m.id = u.membership_id \
             AND m.email = 'bob@example.com'; UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE slug = 'demo'"
        )
    };
    plane.database.execute(&set(role)).await;
    untold(&read(&bob.rest(), &of_bob).await, &vm);
    plane.database.execute(&set(&role.replace("viewer", "tenant_admin"))).await;
    assert_eq!(read(&bob.rest(), &of_bob).await["response"]["ticket"], TICKET, "nobody has taken it meanwhile");

    // A sealed ticket opens for the operation that it was sealed for.
    settle(&plane, "RUNNING").await;
    let (_, later) = (settle(&plane, "RUNNING").await, open(&rest, &vm, json!({})).await);
    give(&plane, &admin, &later, TimeDelta::seconds(30)).await;
    let swap = "UPDATE compute.console_tickets t SET sealed_ticket = (SELECT sealed_ticket FROM compute.console_tickets \
        WHERE operation_id <> t.operation_id LIMIT 1)";
    assert_eq!(texts(&plane.database, "SELECT count(*) FROM compute.console_tickets").await, ["2"]);
    plane.database.execute(swap).await;
    let path = format!("/v1/{}", later["name"].as_str().expect("a name"));
    let (status, reply) = rest.call("GET", &path, None).await;
    assert_eq!(status, 500, "{reply}");
    assert!(!reply.to_string().contains(TICKET));
}
