//! API keys: what they are good for, whose they are, and how they end.

use std::time::Duration;

use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tonic::Request;
use tonic_web::GrpcWebClientLayer;
use uuid::Uuid;
use virtualstack_proto::GATEWAY_SECRET;
use virtualstack_proto::virtualstack::compute::v1::ListVmsRequest;
use virtualstack_proto::virtualstack::compute::v1::vm_service_client::VmServiceClient;
use virtualstack_proto::{POLICIES, vendored};

use crate::api::{Reply, refused, send};
use crate::support::{ControlPlane, Rest, SECRET, Session, reason, system};
use crate::tenancy::calls::call_with;

const NOWHERE: &str = "apiKeys/0199a000-0000-7000-8000-000000000000";

/// Makes a key; the whole reply.
async fn create(rest: &Rest, permissions: &[&str], more: Value) -> Value {
    let (status, key) = try_create(rest, permissions, more).await;
    assert_eq!(status, 200, "{key}");
    key
}

async fn try_create(rest: &Rest, permissions: &[&str], more: Value) -> Reply {
    let mut key = json!({"displayName": "ci", "permissions": permissions});
    key.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    rest.call("POST", "/v1/apiKeys", Some(key)).await
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field}: {value}"))
}

fn path(key: &Value) -> String {
    format!("/v1/{}", text(key, "name"))
}

/// A call over REST that a key authenticates.
async fn by_key(plane: &ControlPlane, secret: &str, method: &str, path: &str) -> Reply {
    send(Rest::new(&plane.http, None).request(method, path).header("x-api-key", secret)).await
}

async fn works(plane: &ControlPlane, secret: &str) -> bool {
    let reply = by_key(plane, secret, "GET", "/v1/vms").await;
    if reply.0 != 200 {
        refused(&reply, 401, "UNAUTHENTICATED", "KEY_INVALID");
    }
    reply.0 == 200
}

/// A request with metadata.
fn with<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().expect("metadata"));
    }
    request
}

/// Code and reason of a gRPC call, or none where it is let in.
async fn listed(session: &Session, metadata: &[(&'static str, &str)]) -> Option<(tonic::Code, String)> {
    let reply = session.vms().list_vms(with(ListVmsRequest::default(), metadata)).await;
    reply.err().map(|status| (status.code(), reason(&status)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_do_what_it_and_its_owner_may() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    let ada = plane.member("ada@example.com", "acme", "user").await;
    let key = create(&ada.rest(), &["vm:read", "vm:create"], json!({})).await;
    let secret = text(&key, "secret");
    let public = text(&key, "prefix");
    assert!(secret.starts_with(&format!("{public}_")) && secret.len() == 70 && public.len() == 20, "{key}");
    let read = ada.rest().call("GET", &path(&key), None).await;
    let (_, list) = ada.rest().call("GET", "/v1/apiKeys", None).await;
    let mut shown = key.clone();
    shown["secret"] = json!("");
    assert_eq!(read, (200, shown.clone()), "the same without the secret");
    assert_eq!(list, json!({"apiKeys": [shown], "nextPageToken": ""}));

    // By header over REST, by metadata over gRPC, and from a browser.
    assert_eq!(by_key(&plane, secret, "GET", "/v1/vms").await.0, 200);
    assert_eq!(listed(&ada, &[("x-api-key", secret)]).await, None);
    let http = Client::builder(TokioExecutor::new()).build_http();
    let browser = tower::ServiceBuilder::new().layer(GrpcWebClientLayer::new()).service(http);
    let mut vms = VmServiceClient::with_origin(browser, plane.grpc.parse().expect("a URL"));
    vms.list_vms(with(ListVmsRequest::default(), &[("x-api-key", secret)])).await.expect("a list");
    let bad = vms.list_vms(with(ListVmsRequest::default(), &[("x-api-key", "vsk_x")])).await.expect_err("refused");
    assert_eq!(reason(&bad), "KEY_INVALID");

    // One credential, in its own place.
    let token = format!("Bearer {}", ada.tokens.access_token);
    let unauthenticated = |reason: &str| Some((tonic::Code::Unauthenticated, reason.to_owned()));
    let both = listed(&ada, &[("authorization", &token), ("x-api-key", secret)]).await;
    assert_eq!(both, unauthenticated("CREDENTIALS_AMBIGUOUS"));
    let twice = listed(&ada, &[("x-api-key", secret), ("x-api-key", secret)]).await;
    assert_eq!(twice, unauthenticated("CREDENTIALS_AMBIGUOUS"));
    let both = send(ada.rest().request("GET", "/v1/vms").header("x-api-key", secret)).await;
    refused(&both, 401, "UNAUTHENTICATED", "CREDENTIALS_AMBIGUOUS");
    let as_token = listed(&ada, &[("authorization", &format!("Bearer {secret}"))]).await;
    assert_eq!(as_token, unauthenticated("TOKEN_INVALID"));
    let in_query = Rest::new(&plane.http, None).call("GET", &format!("/v1/vms?x-api-key={secret}"), None).await;
    refused(&in_query, 400, "INVALID_ARGUMENT", "CREDENTIAL_IN_QUERY");

    // Who it is.
    let (_, current) = by_key(&plane, secret, "GET", "/v1/sessions/current").await;
    assert_eq!((&current["name"], &current["credential"]), (&key["name"], &json!("api_key")), "{current}");
    assert_eq!((&current["user"], &current["tenant"]), (&key["owner"], &json!(ada.tokens.tenant)));
    assert_eq!(current["permissions"], json!(["vm:create", "vm:read"]));
    assert_eq!(current["current"], true);

    // Less than its owner, and never more.
    let stop = by_key(&plane, secret, "POST", &format!("/v1/vms/{}:stop", Uuid::now_v7())).await;
    refused(&stop, 403, "PERMISSION_DENIED", "KEY_RESTRICTED");
    let change = |what: &str| {
        format!(
            "{what}; UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE slug = 'acme'",
            what = what.replace("{ada}", "(SELECT id FROM iam.memberships WHERE email = 'ada@example.com')")
        )
    };
    let role = "SELECT t.id, {ada}, r.id FROM iam.tenants t JOIN iam.tenant_roles r ON r.tenant_id = t.id \
        WHERE t.slug = 'acme' AND r.display_name = 'viewer'";
    plane.database.execute(&change("DELETE FROM iam.user_tenant_roles WHERE membership_id = {ada}")).await;
    let none = by_key(&plane, secret, "GET", "/v1/vms").await;
    refused(&none, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    plane.database.execute(&change(&format!("INSERT INTO iam.user_tenant_roles {role}"))).await;
    assert!(works(&plane, secret).await);
    let (_, current) = by_key(&plane, secret, "GET", "/v1/sessions/current").await;
    assert_eq!(current["permissions"], json!(["vm:read"]), "what both have");

    // It ends with its owner and with its tenant, and comes back with them.
    for (off, on, reason) in [
        (
            "UPDATE iam.memberships SET state = 'INACTIVE' WHERE id = {ada}",
            "UPDATE iam.memberships SET state = 'ACTIVE' WHERE id = {ada}",
            "MEMBERSHIP_INACTIVE",
        ),
        (
            "UPDATE iam.memberships SET state = 'REMOVED' WHERE id = {ada}",
            "UPDATE iam.memberships SET state = 'ACTIVE' WHERE id = {ada}",
            "MEMBERSHIP_INACTIVE",
        ),
        (
            "UPDATE iam.tenants SET state = 'SUSPENDED' WHERE slug = 'acme'",
            "UPDATE iam.tenants SET state = 'ACTIVE' WHERE slug = 'acme'",
            "TENANT_SUSPENDED",
        ),
    ] {
        plane.database.execute(&change(off)).await;
        for path in ["/v1/vms", "/v1/sessions/current"] {
            refused(&by_key(&plane, secret, "GET", path).await, 403, "PERMISSION_DENIED", reason);
        }
        plane.database.execute(&change(on)).await;
        assert!(works(&plane, secret).await);
    }
    plane.database.execute("UPDATE iam.users SET state = 'INACTIVE' WHERE email = 'ada@example.com'").await;
    assert!(!works(&plane, secret).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_what_is_wrong_with_a_key() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.admin().await.rest();
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(create(&rest, &["vm:read"], json!({})).await);
    }
    let secret = |index: usize| text(&keys[index], "secret").to_owned();
    assert_eq!(rest.call("DELETE", &path(&keys[0]), None).await, (200, json!({})));
    let id = text(&keys[1], "name").trim_start_matches("apiKeys/").to_owned();
    plane.database.execute(&format!("UPDATE iam.api_keys SET expires_at = now() WHERE id = '{id}'")).await;
    let good = secret(2);
    // Another key's secret below this key's id, and this secret below an id of nobody's: the check digits are right.
    let swap = |text: &str, range: std::ops::Range<usize>, other: &str| {
        let body = format!("{}{}{}", &text[..range.start], &other[range.clone()], &text[range.end..64]);
        let mut rest = crc32(body.as_bytes());
        let mut check = String::new();
        for _ in 0..6 {
            let digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(rest % 62) as usize];
            check.insert(0, digit.into());
            rest /= 62;
        }
        format!("{body}{check}")
    };
    assert_eq!(swap(&good, 0..4, &good), good, "the test makes check digits as the server does");
    let unknown = "vsk_0000000000000000";
    let wrong = [
        secret(0),
        secret(1),
        swap(&good, 21..64, &secret(1)),
        swap(&good, 4..20, unknown),
        format!("{}{}", &good[..69], if good.ends_with('0') { '1' } else { '0' }),
        good.replace("vsk_", "VSK_"),
        "vsk_".to_owned(),
        "nonsense' OR true --".to_owned(),
    ];
    let first = by_key(&plane, &wrong[0], "GET", "/v1/vms").await;
    refused(&first, 401, "UNAUTHENTICATED", "KEY_INVALID");
    for wrong in &wrong {
        assert_eq!(by_key(&plane, wrong, "GET", "/v1/vms").await, first, "{wrong}");
    }
    assert!(works(&plane, &good).await, "else this shows nothing");

    // What the database has is the digest alone.
    let rows = "SELECT count(*) FROM iam.api_keys WHERE digest = sha256(convert_to('SECRET', 'UTF8'))";
    assert_eq!(plane.database.count(&rows.replace("SECRET", &good[21..64])).await, 1);
    plane.database.execute("CREATE TABLE public.hits (name text)").await;
    let find = format!(
        "DO $$ DECLARE t regclass; BEGIN \
         FOR t IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
            AND n.nspname NOT IN ('pg_catalog', 'information_schema') LOOP \
            EXECUTE format('INSERT INTO public.hits SELECT %L FROM %s r WHERE position(''{}'' in r::text) > 0', t, t); \
         END LOOP; END $$",
        &good[21..64]
    );
    plane.database.execute(&find).await;
    assert_eq!(plane.database.count("SELECT count(*) FROM public.hits").await, 0);
}

/// CRC32 (IEEE), bit by bit, so that the test does not ask the code that it tests.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_in_its_tenant() {
    let plane = ControlPlane::start().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let (vm, theirs) = (acme.running("web-1").await, rival.running("web-1").await);
    // Its owner is a member of both.
    let ada = plane.member("ada@example.com", "acme", "tenant_admin").await;
    plane.member("ada@example.com", "rival", "tenant_admin").await;
    let all: Vec<_> = virtualstack_proto::permissions().map(|permission| permission.code).collect();
    let all: Vec<_> = all.into_iter().filter(|code| !code.starts_with("platform:")).collect();
    let key = create(&ada.rest(), &all, json!({})).await;
    let get = async |path: &str| by_key(&plane, text(&key, "secret"), "GET", path).await;
    let slugs =
        |list: &Value| list["tenants"].as_array().expect("a list").iter().map(|one| one["slug"].clone()).collect();
    let by_session: Vec<_> = slugs(&ada.rest().call("GET", "/v1/tenants", None).await.1);
    assert_eq!(by_session, ["rival", "acme"]);
    let by_key: Vec<_> = slugs(&get("/v1/tenants").await.1);
    assert_eq!(by_key, ["acme"]);
    for own in ["acme", "current", acme.tokens.tenant.trim_start_matches("tenants/")] {
        let reply = get(&format!("/v1/tenants/{own}")).await;
        assert_eq!((reply.0, &reply.1["slug"]), (200, &json!("acme")), "{reply:?}");
    }
    for other in ["rival", "provider", "nowhere", rival.tokens.tenant.trim_start_matches("tenants/")] {
        refused(&get(&format!("/v1/tenants/{other}")).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
    }
    let (_, list) = get("/v1/vms").await;
    assert_eq!(
        list["vms"].as_array().map(|vms| vms.iter().map(|vm| &vm["name"]).collect::<Vec<_>>()),
        Some(vec![&json!(vm.name)])
    );
    refused(&get(&format!("/v1/{}", theirs.name)).await, 404, "NOT_FOUND", "VM_NOT_FOUND");
    let (_, me) = get("/v1/users/me").await;
    assert_eq!(me["name"], key["owner"]);
    // Another tenant's keys are as keys that do not exist.
    let theirs = create(&rival.rest(), &["vm:read"], json!({})).await;
    let acme = acme.rest();
    let body = json!({"displayName": "mine"});
    for (method, suffix, body) in
        [("GET", "", None), ("PATCH", "", Some(body)), ("DELETE", "", None), ("POST", ":rotate", Some(json!({})))]
    {
        for name in [text(&theirs, "name"), NOWHERE] {
            let reply = acme.call(method, &format!("/v1/{name}{suffix}"), body.clone()).await;
            refused(&reply, 404, "NOT_FOUND", "API_KEY_NOT_FOUND");
        }
    }
    assert!(works(&plane, text(&theirs, "secret")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_do_nothing_that_needs_a_session() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.operator().await;
    let all: Vec<_> = virtualstack_proto::permissions().map(|permission| permission.code).collect();
    let key = create(&admin.rest(), &all, json!({})).await;
    let needs_a_session = POLICIES.iter().chain(vendored::POLICIES).filter(|(_, policy)| policy.session_only);
    let mut methods = Vec::new();
    for (path, _) in needs_a_session {
        let credential = Some(("x-api-key", text(&key, "secret").to_owned()));
        let refused = call_with(&admin.channel, credential, path, Bytes::new()).await.expect_err(path);
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (tonic::Code::PermissionDenied, "SESSION_NEEDED"),
            "{path}"
        );
        methods.push(path.rsplit('/').next().expect("a method"));
    }
    for method in ["CreateApiKey", "RotateApiKey", "ChangePassword", "SwitchTenant", "ListSessions", "DeleteSession"] {
        assert!(methods.contains(&method), "{method}");
    }
    // What it may: its owner's keys, its own end.
    let end = by_key(&plane, text(&key, "secret"), "DELETE", &path(&key)).await;
    assert_eq!(end, (200, json!({})));
    assert!(!works(&plane, text(&key, "secret")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_their_owners() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.tenant("acme").await.rest();
    let ada = plane.member("ada@example.com", "acme", "user").await.rest();
    let bob = plane.member("bob@example.com", "acme", "user").await.rest();
    let viewer = plane.member("eve@example.com", "acme", "viewer").await.rest();
    let key = create(&ada, &["vm:read"], json!({})).await;
    let other = create(&bob, &["vm:read"], json!({"displayName": "of bob"})).await;
    let names = async |rest: &Rest, query: &str| {
        let (status, list) = rest.call("GET", &format!("/v1/apiKeys{query}"), None).await;
        assert_eq!(status, 200, "{list}");
        let names: Vec<_> = list["apiKeys"].as_array().expect("keys").iter().map(|key| key["name"].clone()).collect();
        (names, text(&list, "nextPageToken").to_owned())
    };
    let (mine, his) = (key["name"].clone(), other["name"].clone());
    assert_eq!(names(&ada, "").await.0, std::slice::from_ref(&mine));
    assert_eq!(names(&bob, "").await.0, std::slice::from_ref(&his));
    assert_eq!(names(&admin, "").await.0, [his.clone(), mine.clone()], "newest first");
    let (first, token) = names(&admin, "?pageSize=1").await;
    assert_eq!(first, std::slice::from_ref(&his));
    assert_eq!(names(&admin, &format!("?pageSize=1&pageToken={token}")).await, (vec![mine.clone()], String::new()));
    let owned = format!("?filter=owner = \"{}\" NOT lastUseTime:* NOT expireTime:*", text(&key, "owner"));
    assert_eq!(names(&admin, &owned).await.0, std::slice::from_ref(&mine));
    assert!(names(&bob, &owned).await.0.is_empty(), "a filter shows nobody more");
    assert_eq!(names(&admin, "?orderBy=displayName").await.0, [mine, his.clone()]);
    assert_eq!(names(&admin, "?filter=\"of bob\"").await.0, [his]);
    let counted = ada.call("GET", "/v1/apiKeys?showTotal=true", None).await.1;
    assert_eq!(counted["totalSize"], 1, "of those that she sees");
    let foreign = bob.call("GET", &format!("/v1/apiKeys?pageToken={token}"), None).await;
    assert_eq!(refused(&foreign, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["pageToken"], "of another question");
    for method in ["GET", "POST"] {
        let body = (method == "POST").then(|| json!({"displayName": "x", "permissions": ["vm:read"]}));
        let reply = viewer.call(method, "/v1/apiKeys", body).await;
        refused(&reply, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    }

    let rename = || Some(json!({"displayName": "renamed"}));
    let calls = [("PATCH", "", rename()), ("POST", ":rotate", Some(json!({}))), ("DELETE", "", None)];
    for (method, suffix, body) in calls {
        let at = format!("{}{suffix}", path(&key));
        refused(&bob.call(method, &at, body.clone()).await, 404, "NOT_FOUND", "API_KEY_NOT_FOUND");
        // The admin sees it, and may only end it.
        if method != "DELETE" {
            refused(&admin.call(method, &at, body).await, 403, "PERMISSION_DENIED", "NOT_YOUR_KEY");
        }
    }
    refused(&bob.call("GET", &path(&key), None).await, 404, "NOT_FOUND", "API_KEY_NOT_FOUND");
    assert_eq!(admin.call("GET", &path(&key), None).await.1["owner"], key["owner"]);

    // The owner changes it, from the next request on.
    let patch = async |query: &str, body: Value| ada.call("PATCH", &format!("{}{query}", path(&key)), Some(body)).await;
    let secret = text(&key, "secret");
    let (status, changed) =
        patch("", json!({"displayName": "renamed", "permissions": ["vm:create"], "allowedCidrs": ["2001:db8::/32"]}))
            .await;
    assert_eq!((status, &changed["displayName"]), (200, &json!("renamed")), "{changed}");
    assert_eq!((&changed["permissions"], &changed["allowedCidrs"]), (&json!(["vm:create"]), &json!(["2001:db8::/32"])));
    assert_ne!(changed["etag"], key["etag"]);
    assert_eq!(changed["secret"], "");
    let reply = by_key(&plane, secret, "GET", "/v1/vms").await;
    refused(&reply, 403, "PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED");
    let reply = patch("?updateMask=allowedCidrs", json!({})).await;
    assert_eq!((reply.0, &reply.1["allowedCidrs"]), (200, &json!([])), "{reply:?}");
    refused(&by_key(&plane, secret, "GET", "/v1/vms").await, 403, "PERMISSION_DENIED", "KEY_RESTRICTED");
    let stale = patch("", json!({"displayName": "late", "etag": key["etag"]})).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    let stale = ada.call("DELETE", &format!("{}?etag=%22a%22", path(&key)), None).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    let unchanged = patch("", json!({"displayName": "renamed"})).await;
    assert_eq!(unchanged.1["etag"], reply.1["etag"], "a change that changes nothing is none");
    let log = "SELECT count(*) FROM audit.changes WHERE resource = 'KEY' AND reason IN ('API_KEY_CREATED', 'API_KEY_UPDATED')";
    assert_eq!(plane.database.count(&log.replace("KEY'", &format!("{}'", text(&key, "name")))).await, 3);

    // An admin ends any.
    assert_eq!(admin.call("DELETE", &path(&key), None).await.0, 200);
    assert!(!works(&plane, secret).await);
    refused(&ada.call("GET", &path(&key), None).await, 404, "NOT_FOUND", "API_KEY_NOT_FOUND");
    refused(&admin.call("DELETE", &path(&key), None).await, 404, "NOT_FOUND", "API_KEY_NOT_FOUND");
    assert!(works(&plane, text(&other, "secret")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_break_a_rule() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await.rest();
    let ada = plane.member("ada@example.com", "acme", "user").await.rest();
    let key = create(&ada, &["vm:read"], json!({})).await;
    let past = "2020-01-01T00:00:00Z";
    for (more, field) in [
        (json!({"displayName": ""}), "apiKey.displayName"),
        (json!({"displayName": "a\u{7}"}), "apiKey.displayName"),
        (json!({"displayName": "x".repeat(101)}), "apiKey.displayName"),
        (json!({"permissions": []}), "apiKey.permissions"),
        (json!({"permissions": ["vm:read", "vm:read"]}), "apiKey.permissions"),
        (json!({"permissions": ["vm:read", "everything"]}), "apiKey.permissions[1]"),
        (json!({"permissions": ["vm:read", "vm:fly"]}), "apiKey.permissions[1]"),
        (json!({"allowedCidrs": ["192.0.2.0/24", "192.0.2.1/24"]}), "apiKey.allowedCidrs[1]"),
        (json!({"allowedCidrs": ["192.0.2.1"]}), "apiKey.allowedCidrs[0]"),
        (json!({"allowedCidrs": ["192.0.2.0/33"]}), "apiKey.allowedCidrs[0]"),
        (json!({"allowedCidrs": ["2001:db8::1/32"]}), "apiKey.allowedCidrs[0]"),
        (json!({"allowedCidrs": ["::ffff:192.0.2.0/120"]}), "apiKey.allowedCidrs[0]"),
        (json!({"allowedCidrs": ["example.com"]}), "apiKey.allowedCidrs[0]"),
        (json!({"expireTime": past}), "apiKey.expireTime"),
    ] {
        let made = try_create(&ada, &["vm:read"], more.clone()).await;
        assert_eq!(refused(&made, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{more}");
        let mask = more.as_object().expect("an object").keys().next().expect("a field").clone();
        let changed = ada.call("PATCH", &format!("{}?updateMask={mask}", path(&key)), Some(more.clone())).await;
        assert_eq!(refused(&changed, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{more}");
    }
    let mask = ada.call("PATCH", &format!("{}?updateMask=owner", path(&key)), Some(json!({}))).await;
    assert_eq!(refused(&mask, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["updateMask"]);
    for (query, field) in
        [("filter=secret = x", "filter"), ("filter=owner = ada", "filter"), ("orderBy=secret", "orderBy")]
    {
        let list = ada.call("GET", &format!("/v1/apiKeys?{query}"), None).await;
        assert_eq!(refused(&list, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{query}");
    }
    assert_eq!(ada.call("GET", &path(&key), None).await.1["etag"], key["etag"], "nothing has changed");

    // Nobody grants what they do not hold.
    for code in ["user:read", "platform:tenant:read"] {
        let made = try_create(&ada, &["vm:read", code], json!({})).await;
        refused(&made, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
        let body = json!({"permissions": ["vm:read", code]});
        let changed = ada.call("PATCH", &path(&key), Some(body)).await;
        refused(&changed, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
    }
    let platform = try_create(&acme, &["platform:tenant:read"], json!({})).await;
    refused(&platform, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
    assert_eq!(plane.database.count("SELECT count(*) FROM iam.api_keys").await, 1);

    // What the key has already may stay when its owner has lost it: it is worth nothing then.
    plane.database.execute("UPDATE iam.api_keys SET permissions = '{vm:read,user:read}'").await;
    let body = json!({"permissions": ["user:read", "vm:stop"]});
    assert_eq!(ada.call("PATCH", &path(&key), Some(body)).await.0, 200);

    // A repeat gets the key, and not its secret.
    let id = Uuid::now_v7();
    let body = json!({"displayName": "once", "permissions": ["vm:read"]});
    let again =
        async |body: &Value| ada.call("POST", &format!("/v1/apiKeys?requestId={id}"), Some(body.clone())).await.1;
    let (first, second) = (again(&body).await, again(&body).await);
    assert_eq!((&first["name"], &second["secret"]), (&second["name"], &json!("")));
    assert!(works(&plane, text(&first, "secret")).await);
    let other = again(&json!({"displayName": "twice", "permissions": ["vm:read"]})).await;
    refused(&(400, other), 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
    assert_eq!(plane.database.count("SELECT count(*) FROM iam.api_keys").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_bounds_how_long_keys_are_good() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.tenant("acme").await.rest();
    let in_days = |days: i64| json!({"expireTime": (chrono::Utc::now() + chrono::TimeDelta::days(days)).to_rfc3339()});
    let days = |key: &Value| {
        let end: chrono::DateTime<chrono::Utc> = text(key, "expireTime").parse().expect("a time");
        (end - chrono::Utc::now()).num_minutes().div_euclid(24 * 60) + 1
    };
    let endless = create(&rest, &["vm:read"], json!({})).await;
    assert_eq!(endless["expireTime"], Value::Null);
    let far = create(&rest, &["vm:read"], in_days(5000)).await;
    assert_eq!(days(&far), 5000);
    let patch = async |key: &Value, body: Value| {
        rest.call("PATCH", &format!("{}?updateMask=expireTime", path(key)), Some(body)).await
    };
    assert_eq!(patch(&far, json!({})).await.1["expireTime"], Value::Null, "cleared");

    plane.database.execute(r#"UPDATE iam.tenants SET settings = '{"apiKeyMaxDays": 30}' WHERE slug = 'acme'"#).await;
    assert_eq!(days(&create(&rest, &["vm:read"], json!({})).await), 30, "the longest there is");
    let near = create(&rest, &["vm:read"], in_days(29)).await;
    assert_eq!(days(&near), 29);
    let late = try_create(&rest, &["vm:read"], in_days(31)).await;
    assert_eq!(refused(&late, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["apiKey.expireTime"]);
    let late = patch(&near, in_days(31)).await;
    assert_eq!(refused(&late, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["apiKey.expireTime"]);
    assert_eq!(days(&patch(&near, json!({})).await.1), 30);
    let renamed = rest.call("PATCH", &path(&endless), Some(json!({"displayName": "older"}))).await;
    assert_eq!((renamed.0, &renamed.1["expireTime"]), (200, &Value::Null), "older keys stay as they were: {renamed:?}");
    assert!(works(&plane, text(&endless, "secret")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_has_two_secrets_for_a_while() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.admin().await.rest();
    let key = create(&rest, &["vm:read"], json!({})).await;
    let rotate = async |body: Value| {
        let (status, rotated) = rest.call("POST", &format!("{}:rotate", path(&key)), Some(body)).await;
        assert_eq!((status, &rotated["name"], &rotated["prefix"]), (200, &key["name"], &key["prefix"]), "{rotated}");
        rotated
    };
    let second = rotate(json!({})).await;
    let (one, two) = (text(&key, "secret"), text(&second, "secret"));
    assert_ne!(one, two);
    assert_ne!(key["etag"], second["etag"]);
    let end: chrono::DateTime<chrono::Utc> = text(&second, "previousSecretExpireTime").parse().expect("a time");
    assert!(((end - chrono::Utc::now()).num_minutes() - 24 * 60).abs() <= 1, "a day: {second}");
    assert!(works(&plane, one).await && works(&plane, two).await);
    assert_eq!(rest.call("GET", &path(&key), None).await.1["secret"], "");

    // The overlap ends.
    plane.database.execute("UPDATE iam.api_keys SET previous_expires_at = now() - interval '1 second'").await;
    assert!(!works(&plane, one).await && works(&plane, two).await);

    // A second rotation ends the secret before at once, and none at all is left where there is no overlap.
    let third = rotate(json!({"overlap": "3600s"})).await;
    let fourth = rotate(json!({"overlap": "604800s"})).await;
    let (three, four) = (text(&third, "secret"), text(&fourth, "secret"));
    assert!(!works(&plane, two).await && works(&plane, three).await && works(&plane, four).await);
    let fifth = rotate(json!({"overlap": "0s"})).await;
    assert_eq!(fifth["previousSecretExpireTime"], Value::Null);
    assert!(!works(&plane, three).await && !works(&plane, four).await && works(&plane, text(&fifth, "secret")).await);
    for overlap in ["-1s", "604801s"] {
        let reply = rest.call("POST", &format!("{}:rotate", path(&key)), Some(json!({"overlap": overlap}))).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["overlap"]);
    }

    // The end of the key is the end of all its secrets, and it is not rotated then.
    let sixth = rotate(json!({})).await;
    plane.database.execute("UPDATE iam.api_keys SET expires_at = now() - interval '1 second'").await;
    assert!(!works(&plane, text(&fifth, "secret")).await && !works(&plane, text(&sixth, "secret")).await);
    let ended = rest.call("POST", &format!("{}:rotate", path(&key)), Some(json!({}))).await;
    refused(&ended, 400, "FAILED_PRECONDITION", "API_KEY_EXPIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_bound_to_networks() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.admin().await;
    let networks = json!({"allowedCidrs": ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"]});
    let key = create(&admin.rest(), &["vm:read"], networks).await;
    let secret = text(&key, "secret");
    let denied = Some((tonic::Code::PermissionDenied, "ADDRESS_NOT_ALLOWED".to_owned()));
    // The server believes who holds the secret of its gateways, as this test does.
    for (client, desired) in [
        ("192.0.2.0", &None),
        ("192.0.2.255", &None),
        ("::ffff:192.0.2.9", &None),
        ("198.51.100.7", &None),
        ("2001:db8:1::1", &None),
        ("192.0.3.0", &denied),
        ("198.51.100.8", &denied),
        ("2001:db9::1", &denied),
        ("192.0.2.1, 203.0.113.5", &denied),
    ] {
        let got = listed(&admin, &[("x-api-key", secret), ("x-forwarded-for", client), (GATEWAY_SECRET, SECRET)]).await;
        assert_eq!(&got, desired, "{client}");
    }
    assert_eq!(listed(&admin, &[("x-api-key", secret)]).await, denied);
    // Nobody else is believed, wherever they call from, and of several headers the last one is the gateway's.
    let forged = [("x-api-key", secret), ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(listed(&admin, &forged).await, denied);
    for wrong in ["", "a-secret-that-server-and-gateway-shar", "A-SECRET-THAT-SERVER-AND-GATEWAY-SHARE"] {
        assert_eq!(listed(&admin, &[forged.as_slice(), &[(GATEWAY_SECRET, wrong)]].concat()).await, denied, "{wrong}");
    }
    let several = |last| [forged.as_slice(), &[("x-forwarded-for", last), (GATEWAY_SECRET, SECRET)]].concat();
    assert_eq!(listed(&admin, &several("203.0.113.5")).await, denied);
    assert_eq!(listed(&admin, &several("203.0.113.5, 192.0.2.1")).await, None);
    // The gateway believes no client, only its socket.
    let request = Rest::new(&plane.http, None).request("GET", "/v1/vms").header("x-api-key", secret);
    let reply = send(request.header("x-forwarded-for", "192.0.2.1")).await;
    refused(&reply, 403, "PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED");
    let here = admin.rest().call("PATCH", &path(&key), Some(json!({"allowedCidrs": ["127.0.0.0/8"]}))).await;
    assert_eq!(here.0, 200, "{here:?}");
    assert_eq!(by_key(&plane, secret, "GET", "/v1/vms").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_is_noted() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.admin().await;
    let key = create(&admin.rest(), &["vm:read"], json!({})).await;
    let (used, idle) = (text(&key, "secret"), create(&admin.rest(), &["vm:read"], json!({})).await);
    assert_eq!((&key["lastUseTime"], &key["lastUseAddress"]), (&Value::Null, &json!("")));
    let read = async || admin.rest().call("GET", &path(&key), None).await.1;
    // A call that is not let in is no use.
    refused(&by_key(&plane, used, "GET", "/v1/operations").await, 403, "PERMISSION_DENIED", "KEY_RESTRICTED");
    let start = chrono::Utc::now();
    for _ in 0..20 {
        assert_eq!(
            listed(&admin, &[("x-api-key", used), ("x-forwarded-for", "192.0.2.7"), (GATEWAY_SECRET, SECRET)]).await,
            None
        );
    }
    let mut noted = read().await;
    for _ in 0..200 {
        if !noted["lastUseTime"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
        noted = read().await;
    }
    let at: chrono::DateTime<chrono::Utc> = text(&noted, "lastUseTime").parse().expect("a time");
    assert!(start <= at && at <= chrono::Utc::now(), "{noted}");
    assert_eq!((&noted["lastUseAddress"], &noted["etag"]), (&json!("192.0.2.7"), &key["etag"]));
    let (_, idle) = admin.rest().call("GET", &path(&idle), None).await;
    assert_eq!(idle["lastUseTime"], Value::Null);

    // What another server would write within the minute is not written, and later it is.
    let id = text(&key, "name").trim_start_matches("apiKeys/").parse().expect("an id");
    let note = async |later: i64| {
        let at = at + chrono::TimeDelta::seconds(later);
        let uses = [virtualstack_store::iam::api_keys::Use { key: id, at, from: None }];
        let purpose = system(virtualstack_store::SystemPurpose::KeyUse);
        let noted =
            plane.store.system(purpose, async |tx| virtualstack_store::iam::api_keys::note_uses(tx, &uses).await);
        noted.await.expect("noted");
        read().await["lastUseAddress"].clone()
    };
    assert_eq!(note(59).await, "192.0.2.7");
    assert_eq!(note(60).await, "");
}

/// Asked with a key, explain tells of each permission what a call by that key would be told.
#[tokio::test(flavor = "multi_thread")]
async fn explain_knows_what_is_for_sessions_only() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let codes: Vec<_> = virtualstack_proto::permissions()
        .filter(|permission| permission.roles.contains(&"tenant_admin"))
        .map(|permission| permission.code)
        .collect();
    let made = json!({"displayName": "all", "permissions": codes});
    let (status, key) = acme.rest().call("POST", "/v1/apiKeys", Some(made)).await;
    assert_eq!(status, 200, "{key}");
    let by_key = Rest::with_key(&plane.http, key["secret"].as_str().expect("a secret"));
    let mut for_sessions = 0;
    for code in codes {
        let explain = Some(json!({"permission": code}));
        let (status, told) = by_key.call("POST", "/v1/auth:explain", explain.clone()).await;
        assert_eq!(status, 200, "{told}");
        let mut rpcs = virtualstack_proto::POLICIES.iter().filter(|(_, policy)| policy.permission == code).peekable();
        let session_only = rpcs.peek().is_some() && rpcs.all(|(_, policy)| policy.session_only);
        for_sessions += u32::from(session_only);
        let expected = if session_only {
            (&json!(false), &json!("SESSION_NEEDED"))
        } else {
            (&json!(true), &json!("ROLE_GRANTS"))
        };
        assert_eq!((&told["allowed"], &told["reason"]), expected, "{told}");
        if session_only {
            assert_eq!(told["decidedBy"], key["name"], "{told}");
        }
        let (_, told) = acme.rest().call("POST", "/v1/auth:explain", explain).await;
        assert_eq!(told["allowed"], true, "a session may: {told}");
    }
    assert!(for_sessions >= 3, "{for_sessions}");
}
