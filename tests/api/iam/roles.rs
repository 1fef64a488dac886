//! Roles, who holds them, and the catalogue of permissions.

use serde_json::{Value, json};

use crate::api::{Reply, refused};
use crate::support::{ControlPlane, PASSWORD, Rest, Session};

#[track_caller]
fn ok(reply: Reply) -> Value {
    assert_eq!(reply.0, 200, "{}", reply.1);
    reply.1
}

async fn create(rest: &Rest, display_name: &str, permissions: &[&str]) -> Reply {
    let role = json!({"displayName": display_name, "permissions": permissions});
    rest.call("POST", "/v1/roles", Some(role)).await
}

async fn made(rest: &Rest, display_name: &str, permissions: &[&str]) -> String {
    name(&ok(create(rest, display_name, permissions).await)).to_owned()
}

async fn patch(rest: &Rest, name: &str, mask: &str, role: Value) -> Reply {
    rest.call("PATCH", &format!("/v1/{name}?updateMask={mask}"), Some(role)).await
}

async fn delete(rest: &Rest, name: &str) -> Reply {
    rest.call("DELETE", &format!("/v1/{name}"), None).await
}

async fn set_users(rest: &Rest, name: &str, users: &[&str]) -> Reply {
    rest.call("POST", &format!("/v1/{name}:setUsers"), Some(json!({"users": users}))).await
}

fn name(resource: &Value) -> &str {
    resource["name"].as_str().expect("a name")
}

/// A new account as an active member with these roles, signed in; and its full name.
async fn member(plane: &ControlPlane, admin: &Session, email: &str, roles: &[&str]) -> (Session, String) {
    let user = json!({"email": email, "displayName": email, "password": PASSWORD, "roles": roles});
    let added = ok(admin.rest().call("POST", "/v1/users", Some(user)).await);
    (plane.login(email, &admin.tokens.tenant).await, name(&added).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_role_is_made_changed_and_deleted() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let path = "/v1/roles?requestId=6f9f2f1e-43f2-4b44-9a57-6a2bb4d1b1c5";
    let desired =
        json!({"displayName": "Night shift", "description": "At night", "permissions": ["vm:stop", "vm:read"]});
    let role = ok(rest.call("POST", path, Some(desired.clone())).await);
    let night = name(&role).to_owned();
    assert_eq!((&role["permissions"], &role["system"]), (&json!(["vm:read", "vm:stop"]), &json!(false)));
    assert_eq!(ok(rest.call("POST", path, Some(desired.clone())).await), role);
    for taken in ["Night shift", "viewer", "platform_admin"] {
        refused(&create(&rest, taken, &[]).await, 409, "ALREADY_EXISTS", "ROLE_NAME_TAKEN");
    }
    assert_eq!(ok(rest.call("GET", &format!("/v1/{night}"), None).await), role);
    let listed = ok(rest.call("GET", "/v1/roles?pageSize=2", None).await);
    assert_eq!(listed["roles"][0], role);
    let token = listed["nextPageToken"].as_str().expect("a second page");
    let rest_of_them = ok(rest.call("GET", &format!("/v1/roles?pageToken={token}"), None).await);
    let system: Vec<_> =
        listed["roles"].as_array().into_iter().chain(rest_of_them["roles"].as_array()).flatten().skip(1).collect();
    assert!(system.len() == 3 && system.iter().all(|role| role["system"] == true), "{system:?}");

    let query = "/v1/roles?showTotal=true&orderBy=displayName&filter=system = true AND NOT view*";
    let ordered = ok(rest.call("GET", query, None).await);
    let keys: Vec<_> = ordered["roles"].as_array().expect("roles").iter().map(|role| &role["displayName"]).collect();
    assert_eq!((keys, &ordered["totalSize"]), (vec![&json!("tenant_admin"), &json!("user")], &json!(2)));
    assert_eq!(ok(rest.call("GET", "/v1/roles?filter=night", None).await)["roles"], json!([role]));
    let unknown = rest.call("GET", "/v1/roles?filter=permissions:x", None).await;
    assert_eq!(refused(&unknown, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["filter"]);

    // What holders may do follows from the next request on.
    let (ada, ada_name) = member(&plane, &acme, "ada@example.com", &[&night]).await;
    assert_eq!(ada.rest().call("GET", "/v1/vms", None).await.0, 200);
    let fewer = ok(patch(&rest, &night, "permissions", json!({"permissions": ["template:read"]})).await);
    assert_eq!(fewer["permissions"], json!(["template:read"]));
    let denied = ada.rest().call("GET", "/v1/vms", None).await;
    refused(&denied, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    assert_eq!(ada.rest().call("GET", "/v1/templates", None).await.0, 200);

    let renamed = ok(patch(&rest, &night, "", json!({"displayName": "Late shift", "etag": fewer["etag"]})).await);
    assert_eq!((&renamed["displayName"], &renamed["description"]), (&json!("Late shift"), &json!("At night")));
    assert_eq!(renamed["permissions"], fewer["permissions"], "what is not named stays");
    let stale = patch(&rest, &night, "", json!({"description": "Late", "etag": fewer["etag"]})).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    let empty = patch(&rest, &night, "displayName", json!({})).await;
    assert_eq!(refused(&empty, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["role.displayName"]);
    let taken = patch(&rest, &night, "displayName", json!({"displayName": "user"})).await;
    refused(&taken, 409, "ALREADY_EXISTS", "ROLE_NAME_TAKEN");

    // A role in use stays: by a holder, whatever their state, and by an invitation while it can be accepted.
    ok(rest.call("POST", &format!("/v1/{ada_name}:deactivate"), Some(json!({}))).await);
    refused(&delete(&rest, &night).await, 400, "FAILED_PRECONDITION", "ROLE_IN_USE");
    ok(delete(&rest, &ada_name).await);
    let id = night.trim_start_matches("roles/");
    plane
        .database
        .execute(&format!(
            "INSERT INTO iam.invitations (tenant_id, id, email, role_id, expires_at) \
             SELECT tenant_id, gen_random_uuid(), 'eve@example.com', id, now() + interval '1 day' \
             FROM iam.tenant_roles WHERE id = '{id}'"
        ))
        .await;
    refused(&delete(&rest, &night).await, 400, "FAILED_PRECONDITION", "ROLE_IN_USE");
    plane.database.execute("UPDATE iam.invitations SET expires_at = now() - interval '1 second'").await;
    let stale = rest.call("DELETE", &format!("/v1/{night}?etag=%221%22"), None).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    assert_eq!(delete(&rest, &night).await, (200, json!({})));
    refused(&delete(&rest, &night).await, 404, "NOT_FOUND", "ROLE_NOT_FOUND");
    let kept = "SELECT count(*) FROM iam.invitations WHERE state = 'REVOKED' AND role_id IS NULL";
    assert_eq!(plane.database.count(kept).await, 1, "that somebody was invited is not forgotten");
    let reasons = format!("SELECT count(*) FROM audit.changes WHERE resource = '{night}' AND reason LIKE 'ROLE\\_%'");
    assert_eq!(plane.database.count(&reasons).await, 4, "created, updated twice, deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_role_that_is_more_than_they_are() {
    let plane = ControlPlane::without_worker().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let rest = acme.rest();
    let unknown = create(&rest, "r", &["vm:read", "vm:fly", "x:y"]).await;
    assert_eq!(
        refused(&unknown, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"),
        ["role.permissions[1]", "role.permissions[2]"]
    );
    let malformed = create(&rest, "r", &["vm:read", "vm:read"]).await;
    assert_eq!(refused(&malformed, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["role.permissions"]);
    let denied = create(&rest, "r", &["platform:tenant:read"]).await;
    refused(&denied, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
    made(&plane.operator().await.rest(), "auditors", &["platform:tenant:read"]).await;

    let big = made(&rest, "big", &["vm:read", "vm:delete"]).await;
    let names = made(&rest, "names roles", &["role:create", "role:update", "role:delete", "vm:read"]).await;
    let (namer, _) = member(&plane, &acme, "namer@example.com", &[&names]).await;
    let namer = namer.rest();
    let missing = |reply: &Reply| _ = refused(reply, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    missing(&create(&namer, "r", &["vm:read"]).await);
    missing(&patch(&namer, &big, "permissions", json!({"permissions": ["vm:read"]})).await);
    missing(&namer.call("GET", "/v1/roles", None).await);
    missing(&namer.call("GET", "/v1/permissions", None).await);
    missing(&set_users(&namer, &big, &[]).await);
    let same = json!({"displayName": "bigger", "permissions": ["vm:delete", "vm:read"]});
    ok(patch(&namer, &big, "displayName,permissions", same).await);
    made(&namer, "empty", &[]).await;

    let fills = made(&rest, "fills roles", &["role:update", "permission:assign", "vm:read", "vm:delete"]).await;
    let (filler, _) = member(&plane, &acme, "filler@example.com", &[&fills]).await;
    let filler = filler.rest();
    let more = json!({"permissions": ["vm:read", "vm:delete", "vm:create"]});
    refused(&patch(&filler, &big, "permissions", more).await, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
    ok(patch(&filler, &big, "permissions", json!({"permissions": ["vm:read"]})).await);
    let unknown = patch(&filler, &big, "permissions", json!({"permissions": ["vm:fly"]})).await;
    assert_eq!(refused(&unknown, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["role.permissions[0]"]);

    // System roles never change, by whatever name; roles of others are as those that are nowhere.
    let viewer = ok(rest.call("GET", "/v1/roles/viewer", None).await);
    assert_eq!((&viewer["displayName"], &viewer["system"]), (&json!("viewer"), &json!(true)));
    for viewer in [name(&viewer), "roles/viewer"] {
        let changed = patch(&rest, viewer, "description", json!({"description": "mine"})).await;
        refused(&changed, 403, "PERMISSION_DENIED", "SYSTEM_ROLE");
        refused(&delete(&rest, viewer).await, 403, "PERMISSION_DENIED", "SYSTEM_ROLE");
    }
    let theirs = made(&rival.rest(), "theirs", &[]).await;
    for unknown in [theirs.as_str(), "roles/platform_admin", "roles/big", "roles/0199a000-0000-7000-8000-000000000000"]
    {
        for reply in [
            rest.call("GET", &format!("/v1/{unknown}"), None).await,
            rest.call("GET", &format!("/v1/{unknown}/users"), None).await,
            patch(&rest, unknown, "description", json!({"description": "mine"})).await,
            delete(&rest, unknown).await,
            set_users(&rest, unknown, &[]).await,
        ] {
            refused(&reply, 404, "NOT_FOUND", "ROLE_NOT_FOUND");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holders_of_a_role_are_set_at_once() {
    let plane = ControlPlane::without_worker().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let rest = acme.rest();
    let shift = made(&rest, "shift", &["vm:read"]).await;
    let mut names = Vec::new();
    for index in 0..3 {
        let user = json!({"email": format!("m{index}@example.com"), "displayName": "M"});
        names.push(name(&ok(rest.call("POST", "/v1/users", Some(user)).await)).to_owned());
    }
    let [a, b, c] = [0, 1, 2].map(|index: usize| names[index].as_str());
    let holders = async || {
        let listed = ok(rest.call("GET", &format!("/v1/{shift}/users"), None).await);
        listed["users"].as_array().expect("users").iter().map(|user| name(user).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ok(set_users(&rest, &shift, &[b, a]).await), json!({"users": [b, a]}));
    assert_eq!(holders().await, [b, a], "newest first");
    let version = ok(rest.call("GET", &format!("/v1/{b}"), None).await)["etag"].clone();
    assert_eq!(ok(set_users(&rest, &shift, &[b, c]).await), json!({"users": [b, c]}));
    assert_eq!(holders().await, [c, b]);
    assert_eq!(ok(rest.call("GET", &format!("/v1/{b}"), None).await)["etag"], version, "who held it is as before");
    let page = ok(rest.call("GET", &format!("/v1/{shift}/users?pageSize=1"), None).await);
    assert_eq!(name(&page["users"][0]), c);
    assert_ne!(page["nextPageToken"], "");

    // All or nothing.
    let (_, theirs) = member(&plane, &rival, "eve@example.com", &[]).await;
    ok(delete(&rest, a).await);
    for unknown in [theirs.as_str(), a, "users/0199a000-0000-7000-8000-000000000000"] {
        let reply = set_users(&rest, &shift, &[b, unknown]).await;
        refused(&reply, 404, "NOT_FOUND", "USER_NOT_FOUND");
        assert!(reply.1.to_string().contains(unknown), "{}", reply.1);
    }
    assert_eq!(holders().await, [c, b]);
    // Taking away needs the permissions as giving does.
    let assigns = made(&rest, "assigns", &["role:assign"]).await;
    let (assigner, _) = member(&plane, &acme, "assigner@example.com", &[&assigns]).await;
    let reply = set_users(&assigner.rest(), &shift, &[b]).await;
    refused(&reply, 403, "PERMISSION_DENIED", "TARGET_EXCEEDS_OWN");
    ok(set_users(&rest, &shift, &[b]).await);
    let reply = set_users(&assigner.rest(), &shift, &[b, c]).await;
    refused(&reply, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
    assert_eq!(ok(set_users(&rest, &shift, &[]).await), json!({"users": []}));
    assert!(holders().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_is_listed_by_code() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.tenant("acme").await.rest();
    let (mut codes, mut token) = (Vec::new(), String::new());
    loop {
        let page = ok(rest.call("GET", &format!("/v1/permissions?pageSize=7&pageToken={token}"), None).await);
        for permission in page["permissions"].as_array().expect("permissions") {
            for field in ["code", "title", "description", "module"] {
                assert!(permission[field].as_str().is_some_and(|text| !text.is_empty()), "{permission}");
            }
            codes.push(permission["code"].as_str().expect("a code").to_owned());
        }
        token = page["nextPageToken"].as_str().expect("a token").to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert!(codes.is_sorted(), "{codes:?}");
    let all = plane.database.count("SELECT count(*) FROM iam.permissions").await;
    assert_eq!(i64::try_from(codes.len()).expect("a number"), all);
    assert!(codes.iter().any(|code| code == "vm:read"));
}

/// A request id is a UUID, however it is written, and none is not one. What it says besides decides what is a repeat.
#[tokio::test(flavor = "multi_thread")]
async fn request_ids_are_uuids() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.tenant("acme").await.rest();
    let create = async |id: &str, name: &str| {
        let role = json!({"displayName": name});
        rest.call("POST", &format!("/v1/roles?requestId={id}"), Some(role)).await
    };
    let id = "6f9f2f1e-43f2-4b44-9a57-6a2bb4d1b1ca";
    let first = ok(create(id, "one").await);
    assert_eq!(ok(create(&id.to_uppercase(), "one").await), first, "the same id in other letters");
    let other = create(&id.to_uppercase(), "two").await;
    assert_eq!(refused(&other, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["requestId"]);
    let nil = create("00000000-0000-0000-0000-000000000000", "three").await;
    assert_eq!(refused(&nil, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["requestId"]);
}
