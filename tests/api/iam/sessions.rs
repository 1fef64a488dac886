//! Sessions of an account, its password, and why somebody may do something.

use serde_json::{Value, json};

use crate::api::{Reply, refused};
use crate::support::{ControlPlane, PASSWORD, Rest, Session};

const NOWHERE: &str = "0199a000-0000-7000-8000-000000000000";

async fn current(session: &Session) -> Reply {
    session.rest().call("GET", "/v1/sessions/current", None).await
}

async fn name(session: &Session) -> String {
    current(session).await.1["name"].as_str().expect("a name").to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    let sessions = list["sessions"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
    sessions.iter().map(|session| session["name"].as_str().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_sees_and_ends_its_sessions() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    plane.tenant("rival").await;
    let first = plane.member("ada@example.com", "acme", "viewer").await;
    let second = plane.member("ada@example.com", "rival", "viewer").await;
    let third = plane.login("ada@example.com", "acme").await;
    let stranger = plane.member("bob@example.com", "acme", "tenant_admin").await;
    let (one, two, three) = (name(&first).await, name(&second).await, name(&third).await);
    let list = async |query: &str| {
        let (status, list) = first.rest().call("GET", &format!("/v1/sessions{query}"), None).await;
        assert_eq!(status, 200, "{list}");
        list
    };

    // All of them, whatever tenant they are in, newest first; only this one says more.
    let all = list("").await;
    assert_eq!(names(&all), [&three, &two, &one]);
    let sessions = all["sessions"].as_array().expect("a list");
    let (_, this) = current(&first).await;
    assert_eq!(sessions[2], this);
    assert_eq!((&this["current"], &this["clientAddress"]), (&json!(true), &json!("127.0.0.1")), "{this}");
    assert_eq!(this["tenant"], first.tokens.tenant.as_str());
    let other = &sessions[0];
    assert_eq!((&other["current"], &other["user"], &other["permissions"]), (&json!(false), &json!(""), &json!([])));
    assert_eq!((&other["credential"], &other["clientAddress"]), (&json!("access_token"), &json!("127.0.0.1")));
    assert_eq!(first.rest().call("GET", &format!("/v1/{three}"), None).await, (200, other.clone()));
    let page = list("?pageSize=2").await;
    assert_eq!(names(&page), [&three, &two]);
    let token = page["nextPageToken"].as_str().expect("a token");
    assert_eq!(names(&list(&format!("?pageSize=2&pageToken={token}")).await), [&one]);
    assert_eq!(names(&list("?orderBy=expireTime").await), [&one, &two, &three]);
    let since = other["createTime"].as_str().expect("a time");
    let counted = list(&format!("?showTotal=true&filter=createTime < \"{since}\"")).await;
    assert_eq!((names(&counted), &counted["totalSize"]), (vec![two.as_str(), &one], &json!(2)), "of the account's own");
    let unknown = first.rest().call("GET", "/v1/sessions?filter=account:*", None).await;
    assert_eq!(refused(&unknown, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["filter"]);
    let foreign = stranger.rest().call("GET", &format!("/v1/sessions?pageToken={token}"), None).await;
    assert_eq!(refused(&foreign, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["pageToken"]);

    // Another account's is as one that does not exist, for an admin of the tenant too.
    for method in ["GET", "DELETE"] {
        for name in [&one, &format!("sessions/{NOWHERE}")] {
            let reply = stranger.rest().call(method, &format!("/v1/{name}"), None).await;
            refused(&reply, 404, "NOT_FOUND", "SESSION_NOT_FOUND");
        }
        let reply = first.rest().call(method, "/v1/sessions/x", None).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["name"]);
    }
    assert_eq!(names(&stranger.rest().call("GET", "/v1/sessions", None).await.1), [name(&stranger).await]);

    // One that is ended is gone at once, with its refresh token.
    assert_eq!(first.rest().call("DELETE", &format!("/v1/{two}"), None).await, (200, json!({})));
    refused(&current(&second).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    let refresh = json!({"refreshToken": second.tokens.refresh_token});
    assert_eq!(Rest::new(&plane.http, None).call("POST", "/v1/auth:refresh", Some(refresh)).await.0, 401);
    assert_eq!(names(&list("").await), [&three, &one]);
    for method in ["GET", "DELETE"] {
        let reply = first.rest().call(method, &format!("/v1/{two}"), None).await;
        refused(&reply, 404, "NOT_FOUND", "SESSION_NOT_FOUND");
    }
    let audited = format!("SELECT count(*) FROM audit.logs WHERE action LIKE '%DeleteSession' AND resource = '{two}'");
    assert_eq!(plane.database.count(&audited).await, 1, "and what was refused is not");

    // One that has run out is not listed either; and ending one's own is logging out.
    let id = three.trim_start_matches("sessions/");
    plane.database.execute(&format!("UPDATE iam.sessions SET expires_at = now() WHERE id = '{id}'")).await;
    assert_eq!(names(&list("").await), [&one]);
    assert_eq!(first.rest().call("DELETE", &format!("/v1/{one}"), None).await.0, 200);
    refused(&current(&first).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    assert_eq!(current(&stranger).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_all_other_sessions() {
    const NEW: &str = "another horse battery";
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    let (this, other) =
        (plane.member("ada@example.com", "acme", "viewer").await, plane.login("ada@example.com", "acme").await);
    let stranger = plane.admin().await;
    let change = async |session: &Session, old: &str, new: &str| {
        let body = json!({"oldPassword": old, "newPassword": new});
        session.rest().call("POST", "/v1/users/me:changePassword", Some(body)).await
    };
    refused(&change(&this, "not the password", NEW).await, 403, "PERMISSION_DENIED", "PASSWORD_WRONG");
    for short in ["elevenchars", "", &"x".repeat(129)] {
        let reply = change(&this, PASSWORD, short).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["newPassword"], "{short}");
    }
    assert_eq!(current(&other).await.0, 200, "nothing has happened yet");
    let reset =
        "INSERT INTO iam.password_resets SELECT id, sha256(id::text::bytea), now() + interval '1 hour' FROM iam.users";
    plane.database.execute(reset).await;

    assert_eq!(change(&this, PASSWORD, NEW).await, (200, json!({})));
    assert_eq!(current(&this).await.0, 200, "this session goes on");
    refused(&current(&other).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    assert_eq!(current(&stranger).await.0, 200, "somebody else's too");
    let refresh = async |session: &Session| {
        let body = json!({"refreshToken": session.tokens.refresh_token});
        Rest::new(&plane.http, None).call("POST", "/v1/auth:refresh", Some(body)).await.0
    };
    assert_eq!((refresh(&this).await, refresh(&other).await), (200, 401));
    assert!(Session::login(&plane, "ada@example.com", PASSWORD, "acme").await.is_err());
    assert!(Session::login(&plane, "ada@example.com", NEW, "acme").await.is_ok());
    let left = "SELECT count(*) FROM iam.password_resets r JOIN iam.users u ON u.id = r.account_id WHERE u.email = 'ada@example.com'";
    assert_eq!(plane.database.count(left).await, 0, "a reset that was asked for before is void");
    let audited = "SELECT count(*) FROM audit.logs WHERE action LIKE '%ChangePassword' AND result = 'OK'";
    assert_eq!(plane.database.count(audited).await, 1);

    // Of several at once, one is taken: the others have checked a password that is not the password any more.
    let news = ["first horse battery", "second horse battery", "third horse battery"];
    let replies = futures::future::join_all(news.map(|new| change(&this, NEW, new))).await;
    let taken: Vec<_> =
        replies.iter().zip(news).filter(|((status, _), _)| *status == 200).map(|(_, new)| new).collect();
    assert_eq!(taken.len(), 1, "{replies:?}");
    for reply in replies.iter().filter(|(status, _)| *status != 200) {
        match reply.0 {
            409 => _ = refused(reply, 409, "ABORTED", "PASSWORD_CHANGED"),
            _ => _ = refused(reply, 403, "PERMISSION_DENIED", "PASSWORD_WRONG"),
        }
    }
    assert!(Session::login(&plane, "ada@example.com", taken[0], "acme").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_a_call_would_meet() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let ada = plane.member("ada@example.com", "acme", "viewer").await;
    let rival = plane.tenant("rival").await;
    let (vm, theirs) = (acme.running("web-1").await.name, rival.running("web-1").await.name);
    let user = async |session: &Session| current(session).await.1["user"].as_str().expect("a name").to_owned();
    let (admin, viewer, foreign) = (user(&acme).await, user(&ada).await, user(&rival).await);
    let explain =
        async |session: &Session, body: Value| session.rest().call("POST", "/v1/auth:explain", Some(body)).await;
    let verdict = async |session: &Session, body: Value| {
        let (status, told) = explain(session, body).await;
        assert_eq!(status, 200, "{told}");
        assert_eq!(told["allowed"], told["reason"] == "ROLE_GRANTS", "{told}");
        assert!(told["message"].as_str().is_some_and(|message| !message.is_empty()), "{told}");
        (told["reason"].as_str().expect("a reason").to_owned(), told["decidedBy"].as_str().expect("a name").to_owned())
    };
    let is = |reason: &str, by: &str| (reason.to_owned(), by.to_owned());

    // Oneself.
    let (reason, by) = verdict(&ada, json!({"permission": "vm:read"})).await;
    assert!(reason == "ROLE_GRANTS" && by.starts_with("roles/"), "{reason} {by}");
    for me in ["users/me", &viewer] {
        let asked = verdict(&ada, json!({"permission": "vm:create", "user": me})).await;
        assert_eq!(asked, is("PERMISSION_MISSING", &viewer));
    }
    let platform = verdict(&acme, json!({"permission": "platform:tenant:read"})).await;
    assert_eq!(platform, is("PERMISSION_MISSING", &admin));
    for wrong in ["vm:fly", "everything", "VM:READ", ""] {
        let reply = explain(&ada, json!({"permission": wrong})).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["permission"], "{wrong}");
    }

    // Another member, for who may ask.
    let reply = explain(&ada, json!({"permission": "vm:read", "user": admin})).await;
    refused(&reply, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    let of_ada = |permission: &str| json!({"permission": permission, "user": viewer});
    assert_eq!(verdict(&acme, of_ada("vm:read")).await, (reason, by));
    assert_eq!(verdict(&acme, of_ada("vm:create")).await, is("PERMISSION_MISSING", &viewer));
    for nobody in [foreign.as_str(), &format!("users/{NOWHERE}")] {
        let reply = explain(&acme, json!({"permission": "vm:read", "user": nobody})).await;
        refused(&reply, 404, "NOT_FOUND", "USER_NOT_FOUND");
    }
    let reply = explain(&acme, json!({"permission": "vm:read", "user": "ada"})).await;
    assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["user"]);

    // What it is about: of every collection, there or not.
    let key = |permissions: Value| json!({"displayName": "ci", "permissions": permissions});
    let (_, key) = acme.rest().call("POST", "/v1/apiKeys", Some(key(json!(["vm:read", "vm:create"])))).await;
    let (_, operations) = acme.rest().call("GET", "/v1/operations", None).await;
    let operation = operations["operations"][0]["name"].as_str().expect("an operation").to_owned();
    let (template, session) = (plane.templates().await, name(&acme).await);
    let invitation = format!(
        "INSERT INTO iam.invitations (tenant_id, id, email, user_id, expires_at) SELECT tenant_id, '{NOWHERE}', 'x@example.com', id, now() \
         FROM iam.memberships WHERE id = '{}'",
        viewer.trim_start_matches("users/")
    );
    plane.database.execute(&invitation).await;
    let role = verdict(&acme, json!({"permission": "vm:read"})).await.1;
    let key_name = key["name"].as_str().expect("a name");
    let invitation = format!("invitations/{NOWHERE}");
    let tenant = acme.tokens.tenant.clone();
    for there in [
        vm.as_str(),
        &viewer,
        &role,
        "roles/viewer",
        key_name,
        &invitation,
        &operation,
        &template,
        &tenant,
        "tenants/acme",
        &session,
    ] {
        let (reason, _) = verdict(&acme, json!({"permission": "vm:stop", "resource": there})).await;
        assert_eq!(reason, "ROLE_GRANTS", "{there}");
        let collection = there.split('/').next().expect("a collection");
        let elsewhere = verdict(&rival, json!({"permission": "vm:stop", "resource": there})).await;
        let shared = ["templates", "roles/viewer"].iter().any(|shared| there.starts_with(shared));
        assert_eq!(elsewhere.0, if shared { "ROLE_GRANTS" } else { "RESOURCE_NOT_FOUND" }, "{there}");
        let none = format!("{collection}/{}", uuid::Uuid::now_v7());
        let asked = verdict(&acme, json!({"permission": "vm:stop", "resource": none})).await;
        assert_eq!(asked, is("RESOURCE_NOT_FOUND", &none));
    }
    for nothing in [theirs.as_str(), "vms", "vms/", "vms/x", "disks/1", "/", "' OR true --", "roles/nobody", "vms/a\0b"]
    {
        let asked = verdict(&acme, json!({"permission": "vm:stop", "resource": nothing})).await;
        assert_eq!(asked, is("RESOURCE_NOT_FOUND", nothing));
    }
    let asked = verdict(&acme, json!({"permission": "vm:create", "resource": theirs, "user": viewer})).await;
    assert_eq!(asked, is("PERMISSION_MISSING", &viewer), "as a call, which would not come to look");

    // By an API key, for itself.
    let secret = key["secret"].as_str().expect("a secret");
    let by_key = async |body: Value| {
        let request = Rest::new(&plane.http, None).request("POST", "/v1/auth:explain").header("x-api-key", secret);
        crate::api::send(request.json(&body)).await
    };
    let (_, told) = by_key(json!({"permission": "vm:stop"})).await;
    assert_eq!((&told["reason"], &told["decidedBy"]), (&json!("KEY_RESTRICTED"), &key["name"]));
    let (_, told) = by_key(json!({"permission": "vm:create"})).await;
    assert_eq!(told["allowed"], true, "{told}");
    let other = by_key(json!({"permission": "vm:read", "user": viewer})).await;
    refused(&other, 403, "PERMISSION_DENIED", "KEY_RESTRICTED");

    // States that keep a member out of everything.
    let id = viewer.trim_start_matches("users/");
    plane.database.execute(&format!("UPDATE iam.memberships SET state = 'INACTIVE' WHERE id = '{id}'")).await;
    assert_eq!(verdict(&acme, of_ada("vm:read")).await, is("MEMBERSHIP_INACTIVE", &viewer));
    plane.database.execute("UPDATE iam.users SET state = 'INACTIVE' WHERE email = 'ada@example.com'").await;
    let (reason, by) = verdict(&acme, of_ada("vm:read")).await;
    assert!(reason == "ACCOUNT_INACTIVE" && by.starts_with("accounts/"), "{reason} {by}");
    plane.database.execute(&format!("UPDATE iam.memberships SET state = 'REMOVED' WHERE id = '{id}'")).await;
    refused(&explain(&acme, of_ada("vm:read")).await, 404, "NOT_FOUND", "USER_NOT_FOUND");
}
