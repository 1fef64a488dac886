//! Signing keys: rotated on the command line, taken up by every server without a restart.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::virtualstack;
use crate::support::{ControlPlane, Rest};

async fn rotate(plane: &ControlPlane, arguments: &[&str]) {
    let arguments = [&["admin", "keys", "rotate"], arguments].concat();
    let output =
        virtualstack(&arguments, &plane.database, &[]).stdout(Stdio::piped()).output().await.expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header")).expect("base64");
    serde_json::from_slice::<Value>(&header).expect("JSON")["kid"].as_str().expect("a kid").to_owned()
}

/// Ids of the keys that a server publishes, newest first.
async fn published(plane: &ControlPlane) -> Vec<String> {
    let (_, jwks) = Rest::new(&plane.http, None).call("GET", "/.well-known/jwks.json", None).await;
    jwks["keys"].as_array().expect("keys").iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

/// Status and reason of a request with a token.
async fn with(plane: &ControlPlane, token: &str) -> (u16, Value) {
    let (status, body) = Rest::new(&plane.http, Some(token)).call("GET", "/v1/sessions/current", None).await;
    (status, body["error"]["details"][0]["reason"].clone())
}

/// Waits until a server knows what is in the database.
async fn until(what: &str, done: impl AsyncFn() -> bool) {
    for _ in 0..300 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 15 s: {what}")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_under_running_servers() {
    let first = ControlPlane::without_worker().await;
    let second = ControlPlane::on(first.database.clone()).await;
    let planes = [&first, &second];
    let token = async |plane: &ControlPlane| plane.admin().await.tokens.access_token;
    let refused = (401, Value::from("TOKEN_INVALID"));
    let old = token(&first).await;

    // With an overlap: both are published, what the old one signed stays good, the new one signs.
    rotate(&first, &[]).await;
    let left = "SELECT count(*) FROM iam.signing_keys WHERE retired_at BETWEEN now() + interval '19 minutes' AND now() + interval '20 minutes'";
    assert_eq!(first.database.count(left).await, 1, "15 minutes of a token, and 5 more");
    for plane in planes {
        until("the new key signs", async || kid(&token(plane).await) != kid(&old)).await;
        let keys = published(plane).await;
        assert_eq!((keys.len(), &keys[1]), (2, &kid(&old)), "{keys:?}");
        assert_eq!(with(plane, &old).await.0, 200);
    }
    let new = token(&second).await;
    assert_eq!(kid(&new), kid(&token(&first).await));
    assert_eq!((with(&first, &new).await.0, with(&second, &new).await.0), (200, 200));

    // The overlap ends.
    first.database.execute("UPDATE iam.signing_keys SET retired_at = now() WHERE retired_at IS NOT NULL").await;
    for plane in planes {
        until("the old key is retired", async || with(plane, &old).await == refused).await;
        assert_eq!(published(plane).await, [kid(&new)]);
        assert_eq!(with(plane, &new).await.0, 200);
    }

    // Without one: what was signed is good no more. Sessions go on by a refresh.
    let session = first.admin().await;
    rotate(&first, &["--revoke-old"]).await;
    for plane in planes {
        until("the old key is revoked", async || with(plane, &session.tokens.access_token).await == refused).await;
        assert_eq!(with(plane, &new).await, refused);
        assert_eq!(published(plane).await.len(), 1);
    }
    let refresh = serde_json::json!({"refreshToken": session.tokens.refresh_token});
    let (status, fresh) = Rest::new(&second.http, None).call("POST", "/v1/auth:refresh", Some(refresh)).await;
    assert_eq!(status, 200, "{fresh}");
    let fresh = fresh["accessToken"].as_str().expect("a token");
    assert_eq!((with(&first, fresh).await.0, with(&second, fresh).await.0), (200, 200));
    assert_eq!(first.database.count("SELECT count(*) FROM audit.logs WHERE action = 'admin.keys.rotate'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_needs_the_master_key_of_the_servers() {
    let plane = ControlPlane::without_worker().await;
    let other = [("VIRTUALSTACK_MASTER_KEY", "08".repeat(32))];
    let other: Vec<_> = other.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let output = virtualstack(&["admin", "keys", "rotate"], &plane.database, &other).output().await.expect("a process");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("signing keys"), "{text}");
    assert_eq!(plane.database.count("SELECT count(*) FROM iam.signing_keys").await, 1);
    let none =
        virtualstack(&["admin", "keys", "rotate"], &plane.database, &[]).env_remove("VIRTUALSTACK_MASTER_KEY").output();
    let none = none.await.expect("a process");
    assert_eq!(none.status.code(), Some(64), "{}", String::from_utf8_lossy(&none.stderr));
}
