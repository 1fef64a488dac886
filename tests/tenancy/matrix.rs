//! The authorization matrix: who may call what, from calls that were made, as one text that a reviewer reads.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test it matrix` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use prost::bytes::Bytes;
use prost_reflect::MethodDescriptor;
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;

use super::calls::{call_raw, call_with, member, path, rpcs};
use crate::support::{ControlPlane, Session, reason};

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/authorization.txt");

const HEAD: &str = "\
# Who may call which rpc, as calls of the running server gave it. Made by tests/tenancy/matrix.rs;
# UPDATE_SNAPSHOTS=1 cargo test --test it matrix writes it anew. A changed line is a changed access: review it.
";

/// Callers: name, tenant and role; the first is nobody.
const CALLERS: [(&str, &str); 5] = [
    ("acme", "viewer"),
    ("acme", "user"),
    ("acme", "tenant_admin"),
    ("provider", "platform_support"),
    ("provider", "platform_admin"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_matrix_is_as_reviewed() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    let mut sessions = Vec::new();
    for (tenant, role) in CALLERS {
        sessions.push(member(&plane, &format!("{role}@example.com"), tenant, role).await);
    }
    let keys = Keys::new(&plane).await;
    let mut names = vec!["nobody"];
    names.extend(CALLERS.iter().map(|(_, role)| *role));
    let mut text = format!("{HEAD}\n{:<54}{}  key with  key without\n", "rpc", names.join("  "));
    let mut rpcs = rpcs();
    rpcs.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    for rpc in rpcs {
        let mut line = format!("{:<54}", rpc.full_name().trim_start_matches("virtualstack."));
        for (index, name) in names.iter().enumerate() {
            let allowed = match index.checked_sub(1) {
                None => may(&plane, None, &path(&rpc)).await,
                Some(_) if rpc.name() == "Logout" => {
                    let session = plane.login(&format!("{name}@example.com"), "").await;
                    may(&plane, Some(&session), &path(&rpc)).await
                }
                Some(caller) => may(&plane, Some(&sessions[caller]), &path(&rpc)).await,
            };
            write!(line, "{:<width$}", if allowed { "yes" } else { "-" }, width = name.len() + 2).expect("a string");
        }
        for (with, name) in [(true, "key with"), (false, "key without")] {
            let allowed = keys.may(&rpc, with).await;
            write!(line, "{:<width$}", if allowed { "yes" } else { "-" }, width = name.len() + 2).expect("a string");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    #[expect(clippy::disallowed_methods, reason = "asks this run of the tests to write")]
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(Path::new(SNAPSHOT).parent().expect("a folder")).expect("a folder");
        std::fs::write(SNAPSHOT, &text).expect("written");
    }
    let reviewed = std::fs::read_to_string(SNAPSHOT).expect("tests/snapshots/authorization.txt");
    for (was, is) in reviewed.lines().zip(text.lines()) {
        assert_eq!(was, is, "the access has changed; if that is meant, run with UPDATE_SNAPSHOTS=1 and commit");
    }
    assert_eq!(reviewed, text, "rpcs came or went; if that is meant, run with UPDATE_SNAPSHOTS=1 and commit");
}

/// API keys of somebody who may everything: one for each permission, and so for each also one without it.
struct Keys {
    channel: Channel,
    /// By the permission that is the key's only one.
    secrets: BTreeMap<String, String>,
}

impl Keys {
    async fn new(plane: &ControlPlane) -> Self {
        let operator = plane.operator().await;
        let mut secrets = BTreeMap::new();
        for permission in virtualstack_proto::permissions() {
            let body = json!({"displayName": permission.code, "permissions": [permission.code]});
            let (status, key) = operator.rest().call("POST", "/v1/apiKeys", Some(body)).await;
            assert_eq!(status, 200, "{key}");
            secrets.insert(permission.code.to_owned(), key["secret"].as_str().expect("a secret").to_owned());
        }
        Self { channel: operator.channel, secrets }
    }

    /// Whether a key that lists the permission of an rpc is let through, or one that lists another.
    async fn may(&self, rpc: &MethodDescriptor, with: bool) -> bool {
        let path = path(rpc);
        let permission = virtualstack_proto::policy(&path).expect("a policy").permission;
        let mut fitting =
            self.secrets.iter().filter(|(code, _)| (*code == permission) == (with && !permission.is_empty()));
        let (_, secret) = fitting.next().expect("a key");
        let credential = Some(("x-api-key", secret.clone()));
        let Err(status) = call_with(&self.channel, credential, &path, Bytes::new()).await else { return true };
        match (status.code(), reason(&status).as_str()) {
            (Code::PermissionDenied, "KEY_RESTRICTED" | "SESSION_NEEDED") => false,
            (_, reason) if is_public(&path) => !reason.starts_with("KEY"),
            (Code::Unauthenticated | Code::PermissionDenied, reason) => panic!("{path}: refused, but for {reason}"),
            _ => true,
        }
    }
}

fn is_public(path: &str) -> bool {
    virtualstack_proto::policy(path).is_some_and(|policy| policy.scope == virtualstack_proto::Scope::Public)
}

/// Whether the authorization lets a call through. The request is empty: what an rpc does with it comes after.
async fn may(plane: &ControlPlane, session: Option<&Session>, path: &str) -> bool {
    let channel = match session {
        Some(session) => session.channel.clone(),
        None => plane.admin().await.channel,
    };
    let token = session.map(|session| session.tokens.access_token.as_str());
    let Err(status) = call_raw(&channel, token, path, Bytes::new()).await else { return true };
    match (status.code(), reason(&status).as_str()) {
        (Code::PermissionDenied, "PERMISSION_MISSING") => false,
        (Code::Unauthenticated, "CREDENTIALS_MISSING") if session.is_none() => false,
        (Code::Unauthenticated | Code::PermissionDenied, reason) => panic!("{path}: refused, but for {reason}"),
        _ => true,
    }
}
