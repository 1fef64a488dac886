//! Two servers on one database: what one takes away is gone at the other from the next request on, whether it has heard
//! of it (LISTEN) or has to find out.

use std::time::Duration;

use serde_json::{Value, json};
use virtualstack_server::Config;

use super::calls::member;
use crate::support::{ControlPlane, PASSWORD, Rest, rounds};

/// Revocations of a round; each is also taken back, so that the next one has something to take.
const REVOCATIONS: usize = 100;

/// One caller, as both servers know them.
struct Caller {
    /// Where access is taken away.
    here: Rest,
    /// Where it was used before, and is used again.
    there: Rest,
}

impl Caller {
    async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.here.call(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }
}

async fn expect(rest: &Rest, path: &str, desired: (u16, &str), what: &str) {
    let (status, answer) = rest.call("GET", path, None).await;
    let reason = answer["error"]["details"][0]["reason"].as_str().unwrap_or_default();
    assert_eq!((status, reason), desired, "{what}: {answer}");
}

async fn a_revocation_holds_everywhere(listen_for_access: bool) {
    let settings = || Config {
        listen_for_access,
        auth_per_minute: 10_000,
        auth_per_address_per_minute: 10_000,
        calls_per_second: 100_000,
        calls_burst: 100_000,
        ..Config::default()
    };
    let here = ControlPlane::start_with(settings()).await;
    let there = ControlPlane::on_with(here.database.clone(), settings()).await;
    let admin = here.tenant("acme").await;
    let user = member(&here, "user@example.com", "acme", "user").await;
    let caller = Caller { here: admin.rest(), there: Rest::new(&there.http, Some(&user.tokens.access_token)) };
    let current = user.rest().call("GET", "/v1/sessions/current", None).await.1;
    let name = current["user"].as_str().expect("a user").to_owned();
    let users = format!("/v1/{name}");
    let role = json!({"role": "roles/user"});

    for number in 0..REVOCATIONS * rounds(2) {
        let what = format!("revocation {number}, listening: {listen_for_access}");
        match number % 4 {
            0 => {
                expect(&caller.there, "/v1/vms", (200, ""), &what).await;
                caller.admin("POST", &format!("{users}:unassignRole"), Some(role.clone())).await;
                expect(&caller.there, "/v1/vms", (403, "PERMISSION_MISSING"), &what).await;
                caller.admin("POST", &format!("{users}:assignRole"), Some(role.clone())).await;
            }
            1 => {
                expect(&caller.there, "/v1/vms", (200, ""), &what).await;
                caller.admin("POST", &format!("{users}:deactivate"), Some(json!({}))).await;
                expect(&caller.there, "/v1/vms", (403, "MEMBERSHIP_INACTIVE"), &what).await;
                caller.admin("POST", &format!("{users}:activate"), Some(json!({}))).await;
            }
            2 => {
                let own = user.rest();
                let body = json!({"displayName": "robot", "permissions": ["vm:read"]});
                let (status, key) = own.call("POST", "/v1/apiKeys", Some(body)).await;
                assert_eq!(status, 200, "{what}: {key}");
                let robot = Rest::with_key(&there.http, key["secret"].as_str().expect("a secret"));
                expect(&robot, "/v1/vms", (200, ""), &what).await;
                let path = format!("/v1/{}", key["name"].as_str().expect("a name"));
                assert_eq!(own.call("DELETE", &path, None).await.0, 200, "{what}");
                expect(&robot, "/v1/vms", (401, "KEY_INVALID"), &what).await;
            }
            _ => {
                let login = json!({"email": "user@example.com", "password": PASSWORD, "tenant": "acme"});
                let (_, other) = Rest::new(&here.http, None).call("POST", "/v1/auth:login", Some(login)).await;
                let token = other["accessToken"].as_str().expect("a token");
                let second = Rest::new(&there.http, Some(token));
                expect(&second, "/v1/vms", (200, ""), &what).await;
                let there = second.call("GET", "/v1/sessions/current", None).await.1;
                let session = format!("/v1/{}", there["name"].as_str().expect("a session"));
                assert_eq!(user.rest().call("DELETE", &session, None).await.0, 200, "{what}");
                expect(&second, "/v1/vms", (401, "SESSION_ENDED"), &what).await;
            }
        }
    }

    // And all at once: nobody is left in a suspended tenant, nor kept out of one that is active again.
    let operator = here.operator().await.rest();
    for _ in 0..10 {
        expect(&caller.there, "/v1/vms", (200, ""), "active").await;
        assert_eq!(operator.call("POST", "/v1/tenants/acme:suspend", Some(json!({}))).await.0, 200);
        expect(&caller.there, "/v1/vms", (403, "TENANT_SUSPENDED"), "suspended").await;
        assert_eq!(operator.call("POST", "/v1/tenants/acme:activate", Some(json!({}))).await.0, 200);
    }
    let listeners = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN virtualstack_access%' \
        AND datname = current_database()";
    let desired = if listen_for_access { 2 } else { 0 };
    for _ in 0..600 {
        if here.database.count(listeners).await == desired {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("servers listen where they should not, or do not where they should");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_holds_everywhere_when_it_is_heard() {
    a_revocation_holds_everywhere(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_holds_everywhere_when_it_is_not_heard() {
    a_revocation_holds_everywhere(false).await;
}

/// While the master key is being changed, servers with the new one know what those with the old one made.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_is_changed_while_servers_run() {
    let key = |byte: &str| virtualstack_server::MasterKey::parse(&byte.repeat(32)).expect("a key");
    let before = ControlPlane::without_worker().await;
    let admin = before.tenant("acme").await;
    let path = "/v1/roles?requestId=6f9f2f1e-43f2-4b44-9a57-6a2bb4d1b1cb";
    let role = json!({"displayName": "one"});
    let (status, made) = admin.rest().call("POST", path, Some(role.clone())).await;
    assert_eq!(status, 200, "{made}");
    let (_, page) = admin.rest().call("GET", "/v1/roles?pageSize=1", None).await;
    let token = page["nextPageToken"].as_str().expect("a token");
    let next = format!("/v1/roles?pageSize=1&pageToken={token}");
    let second = async |rest: &Rest| {
        let (status, page) = rest.call("GET", &next, None).await;
        (status, page["roles"].clone())
    };

    let after = ControlPlane::on_with_key(before.database.clone(), key("08").with_previous(&key("07"))).await;
    let there = Rest::new(&after.http, Some(&admin.tokens.access_token));
    assert_eq!(second(&there).await, second(&admin.rest()).await);
    assert_eq!(second(&there).await.0, 200);
    assert_eq!(there.call("POST", path, Some(role.clone())).await, (200, made.clone()));
    assert_eq!(admin.rest().call("POST", path, Some(role)).await, (200, made));
    let other = there.call("POST", path, Some(json!({"displayName": "two"}))).await;
    assert_eq!(other.0, 400, "{}", other.1);
    let (_, page) = there.call("GET", "/v1/roles?pageSize=1", None).await;
    assert_ne!(page["nextPageToken"].as_str(), Some(token), "what is made now is made with the new key");
}

/// No digest in a table is one that can be found by trying what it may be of.
#[tokio::test(flavor = "multi_thread")]
async fn digests_in_tables_are_keyed() {
    use prost::Message as _;
    use sha2::{Digest as _, Sha256};
    use virtualstack_proto::virtualstack::iam::v1::{CreateRoleRequest, Role};

    let plane = ControlPlane::without_worker().await;
    let admin = plane.tenant("acme").await;
    let id = "6f9f2f1e-43f2-4b44-9a57-6a2bb4d1b1cc";
    let role = json!({"displayName": "one"});
    assert_eq!(admin.rest().call("POST", &format!("/v1/roles?requestId={id}"), Some(role)).await.0, 200);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let plain = |bytes: &[u8]| hex(&Sha256::digest(bytes));
    let role = Role { display_name: "one".to_owned(), ..Default::default() };
    let request = |request_id: &str| CreateRoleRequest {
        role: Some(role.clone()),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let mut tries = vec![plain(&request(id).encode_to_vec()), plain(&request("").encode_to_vec())];
    for address in ["127.0.0.1", ""] {
        tries.push(plain(format!("address||{address}").as_bytes()));
        tries.push(plain(format!("login|admin@acme.example.com|{address}").as_bytes()));
    }
    let kept =
        "SELECT encode(body_digest, 'hex') FROM iam.request_ids UNION SELECT encode(key, 'hex') FROM iam.rate_limits";
    let kept = super::calls::texts(&plane.database, kept).await;
    assert!(kept.len() >= 3, "{kept:?}");
    assert!(!kept.iter().any(|digest| tries.contains(digest)), "{kept:?}");
    // With the master key they are what they are, whichever server makes them.
    let same = ControlPlane::on(plane.database.clone()).await;
    assert_eq!(same.login("admin@acme.example.com", "acme").await.tokens.tenant, admin.tokens.tenant);
    let count = "SELECT count(*) FROM iam.rate_limits";
    let before = plane.database.count(count).await;
    plane.login("admin@acme.example.com", "acme").await;
    assert_eq!(plane.database.count(count).await, before, "the same buckets");
}
