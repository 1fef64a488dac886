//! Members of a tenant: how they come in, what they hold, and how they go.

use serde_json::{Value, json};

use crate::api::{Reply, refused};
use crate::support::{ControlPlane, PASSWORD, Rest, Session};

const NOWHERE: &str = "0199a000-0000-7000-8000-000000000000";

async fn add(rest: &Rest, user: Value) -> Reply {
    rest.call("POST", "/v1/users", Some(user)).await
}

async fn verb(rest: &Rest, name: &str, verb: &str, body: Value) -> Reply {
    rest.call("POST", &format!("/v1/{name}:{verb}"), Some(body)).await
}

async fn get(rest: &Rest, name: &str) -> Reply {
    rest.call("GET", &format!("/v1/{name}"), None).await
}

#[track_caller]
fn ok(reply: Reply) -> Value {
    assert_eq!(reply.0, 200, "{}", reply.1);
    reply.1
}

fn name(resource: &Value) -> &str {
    resource["name"].as_str().expect("a name")
}

/// A new account as an active member with these roles, signed in; and its full name.
async fn member(plane: &ControlPlane, admin: &Session, email: &str, roles: &[&str]) -> (Session, String) {
    let user = json!({"email": email, "displayName": email, "password": PASSWORD, "roles": roles});
    let added = ok(add(&admin.rest(), user).await);
    (plane.login(email, &admin.tokens.tenant).await, name(&added).to_owned())
}

/// A custom role with these permissions.
async fn role(admin: &Session, display_name: &str, permissions: &[&str]) -> String {
    let role = json!({"displayName": display_name, "permissions": permissions});
    name(&ok(admin.rest().call("POST", "/v1/roles", Some(role)).await)).to_owned()
}

/// Why a login is refused.
async fn kept_out(plane: &ControlPlane, email: &str, password: &str, tenant: &str) -> String {
    let refused = Session::login(plane, email, password, tenant).await.err().expect("no login");
    crate::support::reason(&refused)
}

/// Code and reason of what a member gets who looks at the VMs.
async fn looks(session: &Session) -> (u16, Value) {
    let (status, body) = session.rest().call("GET", "/v1/vms", None).await;
    let reason = body["error"]["details"].as_array().into_iter().flatten().find_map(|detail| detail.get("reason"));
    (status, reason.cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_comes_works_and_goes() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let desired =
        json!({"email": "Ada@Example.COM", "displayName": "Ada", "password": PASSWORD, "roles": ["roles/viewer"]});
    let path = "/v1/users?requestId=6f9f2f1e-43f2-4b44-9a57-6a2bb4d1b1c5";
    let made = ok(rest.call("POST", path, Some(desired.clone())).await);
    let ada = name(&made).to_owned();
    let viewer = ok(rest.call("GET", "/v1/roles/viewer", None).await)["name"].clone();
    assert_eq!(
        (&made["email"], &made["displayName"], &made["state"], &made["roles"], made.get("password")),
        (&json!("ada@example.com"), &json!("Ada"), &json!("INVITED"), &json!([viewer]), Some(&json!("")))
    );
    assert_eq!(plane.database.count("SELECT count(*) FROM iam.invitations WHERE state = 'PENDING'").await, 1);

    // The same request again gets the same answer; another one with its id does not; nor does a second of the address.
    assert_eq!(ok(rest.call("POST", path, Some(desired.clone())).await), made);
    let mut other = desired.clone();
    other["password"] = json!("of the password nothing is kept to tell");
    assert_eq!(ok(rest.call("POST", path, Some(other.clone())).await), made);
    other["displayName"] = json!("Eve");
    let other = rest.call("POST", path, Some(other)).await;
    assert_eq!(refused(&other, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["requestId"]);
    refused(&add(&rest, desired).await, 409, "ALREADY_EXISTS", "USER_EXISTS");

    // The first login makes her active.
    let session = plane.login("ada@example.com", "acme").await;
    assert_eq!(ok(get(&rest, &ada).await)["state"], "ACTIVE");
    assert_eq!(looks(&session).await.0, 200);

    // Pages, newest first.
    let page = ok(rest.call("GET", "/v1/users?pageSize=1", None).await);
    assert_eq!(page["users"][0]["name"], ada.as_str());
    let token = page["nextPageToken"].as_str().expect("a second page");
    let page = ok(rest.call("GET", &format!("/v1/users?pageSize=1&pageToken={token}"), None).await);
    assert_eq!((&page["users"][0]["email"], &page["nextPageToken"]), (&json!("admin@acme.example.com"), &json!("")));
    assert_eq!(page["users"][0]["roles"].as_array().map(Vec::len), Some(1));

    // The tenant's name for her, with and without an etag.
    let before = ok(get(&rest, &ada).await);
    let rename =
        async |user: Value, mask: &str| rest.call("PATCH", &format!("/v1/{ada}?updateMask={mask}"), Some(user)).await;
    let renamed = ok(rename(json!({"displayName": "Countess", "etag": before["etag"]}), "displayName").await);
    assert_eq!(renamed["displayName"], "Countess");
    assert_ne!(renamed["etag"], before["etag"]);
    let stale = rename(json!({"displayName": "Late", "etag": before["etag"]}), "displayName").await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    let empty = rename(json!({"displayName": ""}), "displayName").await;
    assert_eq!(refused(&empty, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["user.displayName"]);
    let email = rename(json!({"email": "eve@example.com"}), "email").await;
    assert_eq!(refused(&email, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["updateMask"]);
    let account = "SELECT count(*) FROM iam.users WHERE email = 'ada@example.com' AND display_name = 'Ada'";
    assert_eq!(plane.database.count(account).await, 1, "the account is hers");

    // Out and in again, each from the next request on, and twice is as good as once.
    let inactive = ok(verb(&rest, &ada, "deactivate", json!({})).await);
    assert_eq!(inactive["state"], "INACTIVE");
    assert_eq!(ok(verb(&rest, &ada, "deactivate", json!({})).await), inactive);
    assert_eq!(looks(&session).await, (403, json!("MEMBERSHIP_INACTIVE")));
    assert_eq!(ok(verb(&rest, &ada, "activate", json!({})).await)["state"], "ACTIVE");
    assert_eq!(ok(verb(&rest, &ada, "activate", json!({})).await)["state"], "ACTIVE");
    assert_eq!(looks(&session).await.0, 200);

    // Gone, with what was theirs.
    let id = ada.trim_start_matches("users/");
    plane
        .database
        .execute(&format!(
            "INSERT INTO iam.api_keys (tenant_id, id, owner_id, display_name, public_id, permissions, digest) \
             SELECT tenant_id, gen_random_uuid(), id, 'key', '0123456789abcdef', '{{vm:read}}', '' \
             FROM iam.memberships WHERE id = '{id}'"
        ))
        .await;
    let stale = rest.call("DELETE", &format!("/v1/{ada}?etag=%221%22"), None).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    assert_eq!(rest.call("DELETE", &format!("/v1/{ada}"), None).await, (200, json!({})));
    refused(&get(&rest, &ada).await, 404, "NOT_FOUND", "USER_NOT_FOUND");
    for (method, path) in [("DELETE", ada.clone()), ("POST", format!("{ada}:activate"))] {
        let body = (method == "POST").then(|| json!({}));
        refused(&rest.call(method, &format!("/v1/{path}"), body).await, 404, "NOT_FOUND", "USER_NOT_FOUND");
    }
    assert_eq!(looks(&session).await, (403, json!("MEMBERSHIP_INACTIVE")));
    let users = ok(rest.call("GET", "/v1/users", None).await)["users"].as_array().map(Vec::len);
    assert_eq!(users, Some(1), "who was taken out is not listed");
    let left = "SELECT (SELECT count(*) FROM iam.api_keys) + (SELECT count(*) FROM iam.user_tenant_roles WHERE membership_id = ";
    assert_eq!(plane.database.count(&format!("{left}'{id}')")).await, 0);

    // Who comes back is who they were, with new roles, and must agree: the account is theirs by now.
    let again = json!({"email": "ada@example.com", "displayName": "Ada L.", "password": "another password"});
    let again = ok(add(&rest, again).await);
    assert_eq!(
        (&again["name"], &again["state"], &again["displayName"], &again["roles"]),
        (&json!(ada), &json!("INVITED"), &json!("Ada L."), &json!([]))
    );
    let open = format!("SELECT count(*) FROM iam.invitations WHERE user_id = '{id}' AND state = ");
    assert_eq!(plane.database.count(&format!("{open}'PENDING'")).await, 1);
    ok(rest.call("DELETE", &format!("/v1/{ada}"), None).await);
    assert_eq!(plane.database.count(&format!("{open}'REVOKED'")).await, 1);

    let reasons = format!(
        "SELECT count(*) FROM audit.changes WHERE resource = '{ada}' AND reason IN ('USER_CREATED', 'USER_UPDATED', \
         'USER_DEACTIVATED', 'USER_ACTIVATED', 'USER_DELETED')"
    );
    assert_eq!(plane.database.count(&reasons).await, 7, "each change once");
    let secrets = "SELECT count(*) FROM audit.logs WHERE fields::text LIKE '%battery%'";
    assert_eq!(plane.database.count(secrets).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reply_does_not_tell_whether_there_is_an_account() {
    let plane = ControlPlane::without_worker().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let rest = acme.rest();
    let known = "admin@rival.example.com";
    let mut told = Vec::new();
    for (email, password) in
        [("new@example.com", ""), ("newer@example.com", "a password of theirs"), (known, "a password of ours")]
    {
        let user = json!({"email": email, "displayName": "Somebody", "password": password, "roles": ["roles/user"]});
        let mut made = ok(add(&rest, user).await);
        assert_eq!(made["email"], email);
        for field in ["name", "email", "createTime", "updateTime"] {
            made.as_object_mut().expect("an object").remove(field);
        }
        told.push(made);
    }
    assert!(told.iter().all(|made| *made == told[0] && made["state"] == "INVITED"), "{told:?}");
    // Nor do the invitations that the tenant can read.
    let invitations = ok(rest.call("GET", "/v1/invitations", None).await);
    let states: Vec<_> =
        invitations["invitations"].as_array().expect("a list").iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["PENDING"; 3], "{invitations}");
    let mails = "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'invitation_mail'";
    assert_eq!(plane.database.count(mails).await, 3);

    // The account that was there keeps its password and its name, and is a member when it agrees and not before.
    assert_eq!(kept_out(&plane, known, "a password of ours", "acme").await, "CREDENTIALS_WRONG");
    assert_eq!(kept_out(&plane, known, PASSWORD, "acme").await, "MEMBERSHIP_INACTIVE");
    let me = ok(rival.rest().call("GET", "/v1/users/me", None).await);
    assert_ne!(me["displayName"], "Somebody");
    Session::login(&plane, "newer@example.com", "a password of theirs", "acme").await.expect("a first login");
    // What another tenant gave an account for is no account of its own to come in by.
    let member =
        ok(add(&rival.rest(), json!({"email": "newer@example.com", "displayName": "N", "password": PASSWORD})).await);
    assert_eq!(member["state"], "INVITED");
    assert_eq!(kept_out(&plane, "newer@example.com", PASSWORD, "rival").await, "CREDENTIALS_WRONG");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invited_member_is_not_activated_by_others() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let user =
        json!({"email": "ada@example.com", "displayName": "Ada", "password": PASSWORD, "roles": ["roles/viewer"]});
    let ada = name(&ok(add(&rest, user).await)).to_owned();
    refused(&verb(&rest, &ada, "activate", json!({})).await, 400, "FAILED_PRECONDITION", "USER_INVITED");
    assert_eq!(ok(verb(&rest, &ada, "deactivate", json!({})).await)["state"], "INACTIVE");
    assert_eq!(kept_out(&plane, "ada@example.com", PASSWORD, "acme").await, "MEMBERSHIP_INACTIVE");
    assert_eq!(ok(verb(&rest, &ada, "activate", json!({})).await)["state"], "INVITED", "nobody has agreed yet");
    plane.login("ada@example.com", "acme").await;
    assert_eq!(ok(get(&rest, &ada).await)["state"], "ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_and_missing_rights_are_refused() {
    let plane = ControlPlane::without_worker().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let rest = acme.rest();
    let fields = |reply: &Reply| refused(reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
    assert_eq!(
        fields(&add(&rest, json!({"email": "nobody", "roles": ["viewer"]})).await),
        ["user.displayName", "user.roles[0]", "user.email"]
    );
    let short = json!({"email": "ada@example.com", "displayName": "Ada", "password": "too short"});
    assert_eq!(fields(&add(&rest, short).await), ["user.password"]);

    // Roles and members of others are as those that are nowhere.
    let (theirs, them) =
        (role(&rival, "theirs", &["vm:read"]).await, member(&plane, &rival, "eve@example.com", &[]).await.1);
    let (_, us) = member(&plane, &acme, "us@example.com", &[]).await;
    for unknown in [theirs.as_str(), &format!("roles/{NOWHERE}"), "roles/nobodys", "roles/theirs"] {
        let user = json!({"email": "ada@example.com", "displayName": "Ada", "roles": ["roles/viewer", unknown]});
        for reply in [
            add(&rest, user).await,
            verb(&rest, &us, "assignRole", json!({"role": unknown})).await,
            verb(&rest, &us, "unassignRole", json!({"role": unknown})).await,
        ] {
            refused(&reply, 404, "NOT_FOUND", "ROLE_NOT_FOUND");
            assert!(reply.1.to_string().contains(unknown), "{}", reply.1);
        }
    }
    for unknown in [them.as_str(), &format!("users/{NOWHERE}")] {
        refused(&get(&rest, unknown).await, 404, "NOT_FOUND", "USER_NOT_FOUND");
        let reply = verb(&rest, unknown, "assignRole", json!({"role": "roles/viewer"})).await;
        refused(&reply, 404, "NOT_FOUND", "USER_NOT_FOUND");
    }
    assert_eq!(plane.database.count("SELECT count(*) FROM iam.users WHERE email = 'ada@example.com'").await, 0);

    // Each right by itself, and nobody gives what they do not hold.
    let adds = role(&acme, "adds", &["user:create", "vm:read"]).await;
    let assigns = role(&acme, "assigns", &["role:assign", "user:create", "vm:read"]).await;
    let (adder, _) = member(&plane, &acme, "adder@example.com", &[&adds]).await;
    let (assigner, _) = member(&plane, &acme, "assigner@example.com", &[&assigns]).await;
    let user = |email: &str, roles: &[&str]| json!({"email": email, "displayName": "X", "roles": roles});
    let denied = add(&adder.rest(), user("one@example.com", &[&adds])).await;
    refused(&denied, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    ok(add(&adder.rest(), user("one@example.com", &[])).await);
    let denied = add(&assigner.rest(), user("two@example.com", &[&adds, "roles/user"])).await;
    refused(&denied, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
    ok(add(&assigner.rest(), user("two@example.com", &[&adds])).await);
    let denied = verb(&assigner.rest(), &us, "assignRole", json!({"role": "roles/tenant_admin"})).await;
    refused(&denied, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
    for reply in [
        get(&adder.rest(), &us).await,
        verb(&adder.rest(), &us, "deactivate", json!({})).await,
        verb(&adder.rest(), &us, "assignRole", json!({"role": adds})).await,
        adder.rest().call("DELETE", &format!("/v1/{us}"), None).await,
        adder.rest().call("PATCH", &format!("/v1/{us}"), Some(json!({"displayName": "U"}))).await,
    ] {
        refused(&reply, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_given_and_taken_from_the_next_request_on() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let (ada, name) = member(&plane, &acme, "ada@example.com", &[]).await;
    assert_eq!(looks(&ada).await, (403, json!("PERMISSION_MISSING")));
    let viewer = json!({"role": "roles/viewer"});
    let held = ok(verb(&rest, &name, "assignRole", viewer.clone()).await);
    assert_eq!(held["roles"].as_array().map(Vec::len), Some(1));
    assert_eq!(ok(verb(&rest, &name, "assignRole", viewer.clone()).await), held, "twice is as good as once");
    assert_eq!(looks(&ada).await.0, 200);
    let free = ok(verb(&rest, &name, "unassignRole", viewer.clone()).await);
    assert_eq!(free["roles"], json!([]));
    assert_ne!(free["etag"], held["etag"]);
    assert_eq!(ok(verb(&rest, &name, "unassignRole", viewer).await), free);
    assert_eq!(looks(&ada).await, (403, json!("PERMISSION_MISSING")));
    let changes = "SELECT count(*) FROM audit.changes WHERE reason IN ('ROLE_ASSIGNED', 'ROLE_UNASSIGNED')";
    assert_eq!(plane.database.count(changes).await, 2, "what changes nothing says nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_stays() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let me = ok(rest.call("GET", "/v1/users/me", None).await)["name"].as_str().expect("a name").to_owned();
    let admin = json!({"role": "roles/tenant_admin"});
    // Who is invited only is no admin yet.
    let other = json!({"email": "other@example.com", "displayName": "Other", "password": PASSWORD, "roles": ["roles/tenant_admin"]});
    let other = name(&ok(add(&rest, other).await)).to_owned();
    let alone = async || {
        for reply in [
            verb(&rest, &me, "deactivate", json!({})).await,
            verb(&rest, &me, "unassignRole", admin.clone()).await,
            rest.call("DELETE", &format!("/v1/{me}"), None).await,
            verb(&rest, "roles/tenant_admin", "setUsers", json!({"users": []})).await,
            verb(&rest, "roles/tenant_admin", "setUsers", json!({"users": [other]})).await,
        ] {
            refused(&reply, 400, "FAILED_PRECONDITION", "LAST_ADMIN");
        }
    };
    alone().await;
    let session = plane.login("other@example.com", "acme").await;
    ok(verb(&rest, &other, "deactivate", json!({})).await);
    alone().await;
    ok(verb(&rest, &other, "activate", json!({})).await);
    // One of two may go, by themselves too.
    ok(verb(&rest, &me, "deactivate", json!({})).await);
    let reply = verb(&session.rest(), &other, "deactivate", json!({})).await;
    refused(&reply, 400, "FAILED_PRECONDITION", "LAST_ADMIN");
    ok(session.rest().call("DELETE", &format!("/v1/{me}"), None).await);

    // The platform's, too.
    let operator = plane.operator().await.rest();
    let me = ok(operator.call("GET", "/v1/users/me", None).await)["name"].as_str().expect("a name").to_owned();
    let reply = verb(&operator, &me, "unassignRole", json!({"role": "roles/platform_admin"})).await;
    refused(&reply, 400, "FAILED_PRECONDITION", "LAST_ADMIN");
    assert!(reply.1.to_string().contains("roles/platform_admin"), "{}", reply.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_filtered_ordered_and_counted() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let mut names = Vec::new();
    for (email, display_name) in [
        ("ada@example.com", "Ada Lovelace"),
        ("bob@example.com", "bob"),
        ("adam@example.com", "Adam Smith"),
        ("eve@example.com", "Eve of Lovelace"),
        ("carol@example.com", "Carol"),
        ("dan@example.com", "dan"),
        ("gone@example.com", "Gone"),
    ] {
        names.push(name(&ok(add(&rest, json!({"email": email, "displayName": display_name})).await)).to_owned());
    }
    let [ada, bob, adam, _, carol, dan, gone] = [0, 1, 2, 3, 4, 5, 6].map(|index: usize| names[index].as_str());
    let list = async |query: &str| ok(rest.call("GET", &format!("/v1/users?{query}"), None).await);
    let found = async |filter: &str| first_names(&list(&format!("showTotal=true&filter={filter}")).await);

    // Who is inactive stands between those who are not: pages are full all the same, and the total counts the inactive.
    for inactive in [ada, adam, carol, gone] {
        ok(verb(&rest, inactive, "deactivate", json!({})).await);
    }
    ok(rest.call("DELETE", &format!("/v1/{gone}"), None).await);
    let inactive = "pageSize=2&showTotal=true&filter=state = \"INACTIVE\"";
    let first = list(inactive).await;
    assert_eq!(first_names(&first), ["carol", "adam"]);
    assert_eq!(first["totalSize"], 3);
    let token = first["nextPageToken"].as_str().expect("a second page");
    let second = list(&format!("{inactive}&pageToken={token}")).await;
    assert_eq!(first_names(&second), ["ada"]);
    assert_eq!(second["totalSize"], 3);
    assert_eq!(second["nextPageToken"], "");
    assert!(second["users"][0]["roles"].is_array(), "{second}");

    // The token is good for that question only.
    for other in ["", "filter=state = \"INVITED\"&", "filter=state = \"INACTIVE\"&orderBy=email&"] {
        let reply = rest.call("GET", &format!("/v1/users?{other}pageToken={token}"), None).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["pageToken"], "{other}");
    }

    for (filter, expected) in [
        ("email = \"ada*\"", vec!["adam", "ada"]),
        ("lovelace", vec!["eve", "ada"]),
        ("EXAMPLE.com AND NOT state = INACTIVE", vec!["dan", "eve", "bob", "admin"]),
        ("NOT (email = ada* OR lovelace) state = INVITED", vec!["dan", "bob"]),
        ("-displayName:a state != ACTIVE", vec!["bob"]),
        ("state = ACTIVE", vec!["admin"]),
        ("gone", vec![]),
        ("createTime < \"2020-01-01T00:00:00Z\"", vec![]),
    ] {
        assert_eq!(found(filter).await, expected, "{filter}");
    }
    let counted = list("pageSize=1&showTotal=true").await;
    assert_eq!(first_names(&counted), ["dan"]);
    assert_eq!(counted["totalSize"], 7, "who is gone is not counted");
    assert!(list("").await.get("totalSize").is_none(), "only if asked for");

    // By name, falling and without case, page by page.
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let query = format!("pageSize=2&orderBy=displayName desc&filter=state != ACTIVE&pageToken={token}");
        let page = list(&query).await;
        all.extend(first_names(&page));
        page["nextPageToken"].as_str().expect("a token").clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(all, ["eve", "dan", "carol", "bob", "adam", "ada"]);

    // Those who hold a role are listed in the same way; a token of one role is none of another.
    let holders = json!({"users": [ada, bob, dan]});
    let viewer = ok(rest.call("GET", "/v1/roles/viewer", None).await)["name"].as_str().expect("a name").to_owned();
    for role in [&viewer, "roles/user"] {
        ok(verb(&rest, role, "setUsers", holders.clone()).await);
    }
    let query = "pageSize=1&showTotal=true&orderBy=email&filter=state = INVITED";
    let page = ok(rest.call("GET", &format!("/v1/{viewer}/users?{query}"), None).await);
    assert_eq!(first_names(&page), ["bob"]);
    assert_eq!(page["totalSize"], 2);
    let token = page["nextPageToken"].as_str().expect("a second page");
    let page = ok(rest.call("GET", &format!("/v1/roles/viewer/users?{query}&pageToken={token}"), None).await);
    assert_eq!(first_names(&page), ["dan"]);
    assert_eq!(page["nextPageToken"], "");
    for path in ["/v1/roles/user/users", "/v1/users"] {
        let reply = rest.call("GET", &format!("{path}?{query}&pageToken={token}"), None).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["pageToken"], "{path}");
    }

    for (query, field) in [
        ("filter=password = x", "filter"),
        ("filter=state = SLEEPING", "filter"),
        ("filter=(state = ACTIVE", "filter"),
        ("orderBy=roles", "orderBy"),
    ] {
        for path in ["users", "roles/viewer/users"] {
            let reply = rest.call("GET", &format!("/v1/{path}?{query}"), None).await;
            assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{query}");
        }
    }
}

/// What stands before the @ of those on a page.
fn first_names(page: &Value) -> Vec<String> {
    let users = page["users"].as_array().expect("users").iter();
    users
        .map(|user| user["email"].as_str().expect("an address").split('@').next().unwrap_or_default().to_owned())
        .collect()
}
