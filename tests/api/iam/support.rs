//! Operators in tenants that are not theirs: how they get in, what they may do there, and how it is told.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::api::{Reply, refused};
use crate::support::{ControlPlane, PASSWORD, Rest, Session};
use crate::tenancy::calls::{member, texts};

const REASON: &str = "Ticket 4711: the VM does not start";

async fn switch(rest: &Rest, tenant: &str, reason: &str) -> Reply {
    let body = json!({"tenant": tenant, "reason": reason});
    rest.call("POST", "/v1/auth:switchTenant", Some(body)).await
}

/// Tokens of an operator in a tenant that is not theirs.
async fn entered(operator: &Session, tenant: &str) -> Value {
    let (status, tokens) = switch(&operator.rest(), tenant, REASON).await;
    assert_eq!(status, 200, "{tokens}");
    tokens
}

fn rest_of(plane: &ControlPlane, tokens: &Value) -> Rest {
    Rest::new(&plane.http, tokens["accessToken"].as_str())
}

fn claims(tokens: &Value) -> Value {
    let claims = tokens["accessToken"].as_str().and_then(|token| token.split('.').nth(1)).expect("claims");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_enters_with_a_reason() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let operator = member(&plane, "helper@example.com", "provider", "platform_support").await;
    let last = "SELECT coalesce(t.slug, '') FROM iam.users u LEFT JOIN iam.tenants t ON t.id = u.last_tenant_id \
        WHERE u.email = 'helper@example.com'";
    for reason in ["", "short", "a reason\nwith control"] {
        let reply = switch(&operator.rest(), "acme", reason).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["reason"], "{reason:?}");
    }

    let tokens = entered(&operator, "acme").await;
    assert_eq!(tokens["tenant"], acme.tokens.tenant.as_str());
    let (_, own) = operator.rest().call("GET", "/v1/sessions/current", None).await;
    let (status, current) = rest_of(&plane, &tokens).call("GET", "/v1/sessions/current", None).await;
    assert_eq!(status, 200, "{current}");
    assert_ne!(current["name"], own["name"], "a session of its own");
    assert_eq!((&current["tenant"], &current["user"]), (&tokens["tenant"], &own["user"]));
    assert_eq!((&current["credential"], &current["roles"]), (&json!("support_token"), &json!(["support"])));
    assert_eq!(current["supportReason"], REASON);
    let time =
        |field: &str| chrono::DateTime::parse_from_rfc3339(current[field].as_str().expect("a time")).expect("RFC 3339");
    assert_eq!((time("expireTime") - time("createTime")).num_minutes(), 8 * 60, "{current}");
    assert_eq!(texts(&plane.database, last).await, ["provider"], "the next login is at home");

    // The token says who really acts, and so does the one that a refresh gives; the end stays where it was.
    let expected = claims(&tokens);
    assert_eq!((&expected["role"], &expected["act"]["sub"]), (&json!("support"), &expected["sub"]));
    let refresh = json!({"refreshToken": tokens["refreshToken"]});
    let (status, refreshed) = Rest::new(&plane.http, None).call("POST", "/v1/auth:refresh", Some(refresh)).await;
    assert_eq!(status, 200, "{refreshed}");
    for claim in ["sub", "act", "role", "sid", "tid"] {
        assert_eq!(claims(&refreshed)[claim], expected[claim], "{claim}");
    }
    let (_, later) = rest_of(&plane, &refreshed).call("GET", "/v1/sessions/current", None).await;
    assert_eq!(later["expireTime"], current["expireTime"]);
    assert_eq!(claims(&serde_json::json!({"accessToken": operator.tokens.access_token}))["act"], Value::Null);

    // Both tenants' logs tell it.
    let told = texts(
        &plane.database,
        "SELECT t.slug || ' ' || regexp_replace(actor, '[^/]*$', '') || ' ' || support_reason || ' ' || resource || ' ' || credential \
         FROM audit.logs l JOIN iam.tenants t ON t.id = l.tenant_id WHERE action LIKE '%SwitchTenant' ORDER BY t.slug",
    )
    .await;
    let (tenant, session) = (&acme.tokens.tenant, current["name"].as_str().expect("a name"));
    let row = |slug: &str| format!("{slug} platform/users/ {REASON} {tenant} {session}");
    assert_eq!(told, [row("acme"), row("provider")]);

    // Such a session goes nowhere else, not even home.
    for elsewhere in ["demo", "provider", "acme"] {
        let reply = switch(&rest_of(&plane, &tokens), elsewhere, REASON).await;
        refused(&reply, 403, "PERMISSION_DENIED", "SUPPORT_SESSION");
    }
    // It ends like any other.
    assert_eq!(rest_of(&plane, &tokens).call("POST", "/v1/auth:logout", Some(json!({}))).await.0, 200);
    let ended = rest_of(&plane, &tokens).call("GET", "/v1/vms", None).await;
    refused(&ended, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    assert_eq!(operator.rest().call("GET", "/v1/sessions/current", None).await.0, 200, "the operator's own goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_enters_and_not_everywhere() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    let operator = plane.operator().await;
    let rest = operator.rest();

    // The right counts in the provider's tenant, for who is there now and holds it.
    let at_home = plane.admin().await.rest();
    let viewer = member(&plane, "viewer@example.com", "provider", "viewer").await.rest();
    let rival = plane.tenant("rival").await.rest();
    for outsider in [&at_home, &viewer, &rival] {
        refused(&switch(outsider, "acme", REASON).await, 403, "PERMISSION_DENIED", "TENANT_NOT_YOURS");
    }
    // A member goes on in their session, whatever reason they give.
    let (status, tokens) = switch(&rest, "demo", REASON).await;
    assert_eq!((status, &claims(&tokens)["act"]), (200, &Value::Null), "{tokens}");
    // One whose membership is not active enters as any operator does.
    plane
        .database
        .execute("UPDATE iam.memberships SET state = 'INACTIVE' WHERE tenant_id = (SELECT id FROM iam.tenants WHERE slug = 'demo')")
        .await;
    assert_eq!(claims(&entered(&operator, "demo").await)["role"], "support");

    for nowhere in ["nowhere", "tenants/0199a000-0000-7000-8000-000000000000", "a\0b"] {
        refused(&switch(&rest, nowhere, REASON).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
    }
    let act = async |action: &str| rest.call("POST", &format!("/v1/tenants/acme:{action}"), Some(json!({}))).await;
    act("suspend").await;
    refused(&switch(&rest, "acme", REASON).await, 403, "PERMISSION_DENIED", "TENANT_SUSPENDED");
    rest.call("DELETE", "/v1/tenants/acme", None).await;
    refused(&switch(&rest, "acme", REASON).await, 400, "FAILED_PRECONDITION", "TENANT_DELETED");
}

#[tokio::test(flavor = "multi_thread")]
async fn support_sees_and_runs_what_is_there_and_changes_nothing() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let vm = acme.running("web-1").await;
    let operator = plane.operator().await;
    let rest = rest_of(&plane, &entered(&operator, "acme").await);

    for path in ["/v1/vms", &format!("/v1/{}", vm.name), "/v1/operations", "/v1/tenants/current", "/v1/templates"] {
        let (status, reply) = rest.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {reply}");
    }
    assert_eq!(rest.call("GET", "/v1/tenants/current", None).await.1["slug"], "acme");
    let me = rest.call("GET", "/v1/users/me", None).await;
    refused(&me, 404, "NOT_FOUND", "USER_NOT_FOUND");
    let refused_here = [
        ("POST", "/v1/vms".to_owned(), json!({"displayName": "mine", "template": vm.template})),
        ("PATCH", format!("/v1/{}", vm.name), json!({"description": "changed"})),
        ("DELETE", format!("/v1/{}", vm.name), Value::Null),
        ("PATCH", "/v1/tenants/current".to_owned(), json!({"displayName": "changed"})),
        ("PATCH", "/v1/users/0199a000-0000-7000-8000-000000000000".to_owned(), json!({"displayName": "changed"})),
        ("POST", "/v1/apiKeys".to_owned(), json!({"displayName": "mine", "permissions": ["vm:read"]})),
        // Nor what the operator may do at home.
        ("POST", "/v1/tenants/acme:suspend".to_owned(), json!({})),
    ];
    for (method, path, body) in refused_here {
        let reply = rest.call(method, &path, (!body.is_null()).then_some(body)).await;
        refused(&reply, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    }

    let (status, operation) = rest.call("POST", &format!("/v1/{}:stop", vm.name), Some(json!({}))).await;
    assert_eq!(status, 200, "{operation}");
    plane.idle().await;
    let (_, events) = acme.rest().call("GET", &format!("/v1/{}/events", vm.name), None).await;
    let stop =
        events["vmEvents"].as_array().expect("events").iter().find(|event| event["reason"] == "VM_STOP_REQUESTED");
    let actor = stop.expect("the stop")["actor"].as_str().expect("an actor");
    let (_, me) = operator.rest().call("GET", "/v1/users/me", None).await;
    assert_eq!(
        actor,
        format!("platform/{}", me["name"].as_str().expect("a name")),
        "the tenant sees that it was not one of its own"
    );
    let told = texts(
        &plane.database,
        "SELECT l.support_reason || ' ' || (credential = 'sessions/' || session_id) || ' ' || (s.support_tenant_id = l.tenant_id) \
         FROM audit.logs l JOIN iam.sessions s ON s.id = l.session_id WHERE action LIKE '%StopVm'",
    )
    .await;
    assert_eq!(told, [format!("{REASON} true true")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_loses_the_right_loses_the_session() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    let operator = member(&plane, "helper@example.com", "provider", "platform_support").await;
    let tokens = entered(&operator, "acme").await;
    let rest = rest_of(&plane, &tokens);
    let all = async |code: u16, status: &str, reason: &str| {
        for path in ["/v1/vms", "/v1/sessions/current", "/v1/tenants/current"] {
            refused(&rest.call("GET", path, None).await, code, status, reason);
        }
        let refresh = json!({"refreshToken": tokens["refreshToken"]});
        let refresh = Rest::new(&plane.http, None).call("POST", "/v1/auth:refresh", Some(refresh)).await;
        refused(&refresh, code, status, reason);
    };
    let works = async || assert_eq!(rest.call("GET", "/v1/vms", None).await.0, 200);
    let helper = "(SELECT id FROM iam.memberships WHERE email = 'helper@example.com')";
    works().await;

    let raise = "UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE slug = 'provider'";
    for (state, denied) in [("INACTIVE", true), ("ACTIVE", false)] {
        let change = format!("UPDATE iam.memberships SET state = '{state}' WHERE id = {helper}; {raise}");
        plane.database.execute(&change).await;
        if denied {
            all(403, "PERMISSION_DENIED", "MEMBERSHIP_INACTIVE").await;
        } else {
            works().await;
        }
    }
    let admin = plane.operator().await.rest();
    let act = async |action: &str| admin.call("POST", &format!("/v1/tenants/acme:{action}"), Some(json!({}))).await;
    act("suspend").await;
    all(403, "PERMISSION_DENIED", "TENANT_SUSPENDED").await;
    act("activate").await;
    works().await;
    let role = format!("DELETE FROM iam.user_tenant_roles WHERE membership_id = {helper}; {raise}");
    plane.database.execute(&role).await;
    all(401, "UNAUTHENTICATED", "SESSION_ENDED").await;
}

/// A support session ends whenever and however the session that it was begun from ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_support_session_ends_with_the_one_that_it_was_begun_from() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    member(&plane, "helper@example.com", "provider", "platform_support").await;
    let mut password = PASSWORD.to_owned();
    for end in
        ["logout", "delete", "reuse", "password", "other password", "reset", "time", "by the system", "forgotten"]
    {
        let operator = Session::login(&plane, "helper@example.com", &password, "provider").await.expect("a login");
        let other = Session::login(&plane, "helper@example.com", &password, "provider").await.expect("a login");
        let rest = rest_of(&plane, &entered(&operator, "acme").await);
        assert_eq!(rest.call("GET", "/v1/vms", None).await.0, 200, "{end}");
        let (_, own) = operator.rest().call("GET", "/v1/sessions/current", None).await;
        let own = own["name"].as_str().expect("a name").to_owned();
        let of_own = format!("WHERE 'sessions/' || id = '{own}'");
        let change = async |session: &Session, from: &str, to: &str| {
            let body = json!({"oldPassword": from, "newPassword": to});
            session.rest().call("POST", "/v1/users/me:changePassword", Some(body)).await
        };
        let reply = match end {
            "logout" => operator.rest().call("POST", "/v1/auth:logout", Some(json!({}))).await,
            "delete" => other.rest().call("DELETE", &format!("/v1/{own}"), None).await,
            "reuse" => {
                plane
                    .database
                    .execute("UPDATE iam.refresh_tokens SET used_at = now() - interval '1 hour', repeated = true")
                    .await;
                let used = json!({"refreshToken": operator.tokens.refresh_token});
                let reply = Rest::new(&plane.http, None).call("POST", "/v1/auth:refresh", Some(used)).await;
                refused(&reply, 401, "UNAUTHENTICATED", "REFRESH_TOKEN_INVALID");
                (200, reply.1)
            }
            "password" => {
                // Changed in another session, which goes on.
                let reply = change(&other, &password, "a longer horse battery 1").await;
                password = "a longer horse battery 1".to_owned();
                reply
            }
            "other password" => {
                // Changed in the session itself, which goes on: what was begun from it does not.
                let reply = change(&operator, &password, "a longer horse battery 2").await;
                password = "a longer horse battery 2".to_owned();
                reply
            }
            "reset" => {
                let hash = "SELECT password_hash FROM iam.users WHERE email = 'helper@example.com'";
                let hash = texts(&plane.database, hash).await.remove(0);
                // As the redemption of a reset does.
                let all = format!(
                    "UPDATE iam.sessions SET ended_at = now() WHERE account_id = (SELECT id FROM iam.users WHERE password_hash = '{hash}')"
                );
                plane.database.execute(&all).await;
                (200, Value::Null)
            }
            "time" => {
                plane.database.execute(&format!("UPDATE iam.sessions SET expires_at = now() {of_own}")).await;
                (200, Value::Null)
            }
            "by the system" => {
                plane.database.execute(&format!("UPDATE iam.sessions SET ended_at = now() {of_own}")).await;
                (200, Value::Null)
            }
            _ => {
                let forget = format!(
                    "DELETE FROM iam.refresh_tokens WHERE 'sessions/' || session_id = '{own}'; DELETE FROM iam.sessions {of_own}"
                );
                plane.database.execute(&forget).await;
                (200, Value::Null)
            }
        };
        assert_eq!(reply.0, 200, "{end}: {}", reply.1);
        for path in ["/v1/vms", "/v1/sessions/current"] {
            refused(&rest.call("GET", path, None).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
        }
    }
}

/// Which of two tokens is later, the database's clock says, whatever a server's says.
#[tokio::test(flavor = "multi_thread")]
async fn one_clock_stamps_refresh_tokens() {
    let plane = ControlPlane::without_worker().await;
    let session = plane.admin().await;
    let rest = Rest::new(&plane.http, None);
    let refresh = json!({"refreshToken": session.tokens.refresh_token});
    assert_eq!(rest.call("POST", "/v1/auth:refresh", Some(refresh)).await.0, 200);
    // The new token is made in the transaction that uses the old one up: at the very same time by one clock, never by two.
    let same = "SELECT count(*) FROM iam.refresh_tokens used JOIN iam.refresh_tokens made \
        ON made.session_id = used.session_id AND made.created_at = used.used_at";
    assert_eq!(plane.database.count(same).await, 1);
}
