//! Tickets: each hears of those that the list would show, and nobody of what staff note among themselves.

use serde_json::{Value, json};
use tonic::Code;
use virtualstack_proto::virtualstack::support::v1::Ticket;
use virtualstack_proto::virtualstack::watch::v1::watch_message::{Resource, Type};
use virtualstack_proto::virtualstack::watch::v1::{WatchMessage, WatchTicketsRequest};

use super::{Watch, client, settings};
use crate::support::{ControlPlane, Rest, Session, reason};

fn ticket(message: &WatchMessage) -> &Ticket {
    match &message.resource {
        Some(Resource::Ticket(ticket)) => ticket,
        other => panic!("a ticket, not {other:?}"),
    }
}

async fn watch(session: &Session, token: &str) -> Watch {
    let request = session.request(WatchTicketsRequest { resume_token: token.to_owned() });
    Watch(client(session).watch_tickets(request).await.expect("a watch").into_inner())
}

/// Subjects and states that are told until now.
async fn heard(watch: &mut Watch) -> Vec<String> {
    let told = watch.caught_up().await;
    let told = told.iter().filter(|message| message.resource.is_some());
    told.map(|message| format!("{} {}", ticket(message).subject, ticket(message).comment_count)).collect()
}

async fn post(rest: &Rest, path: &str, body: Value) -> Value {
    let (status, reply) = rest.call("POST", &format!("/v1/{path}"), Some(body)).await;
    assert_eq!(status, 200, "{reply}");
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_hears_of_their_own_and_a_manager_of_all() {
    let plane = ControlPlane::start_with(settings()).await;
    let admin = plane.tenant("acme").await;
    let (mine, other) =
        (plane.member("a@example.com", "acme", "user").await, plane.member("b@example.com", "acme", "user").await);
    let rival = plane.tenant("rival").await;
    let write = async |session: &Session, subject: &str| {
        post(&session.rest(), "tickets", json!({"subject": subject, "description": "Help"})).await
    };
    write(&other, "theirs").await;
    let written = write(&mine, "mine").await;
    let mut watches =
        [watch(&admin, "").await, watch(&mine, "").await, watch(&other, "").await, watch(&rival, "").await];
    let mut snapshots = Vec::new();
    for watch in &mut watches {
        let mut subjects: Vec<_> =
            watch.until(Type::Synced).await.iter().rev().skip(1).map(|m| ticket(m).subject.clone()).collect();
        subjects.sort();
        snapshots.push(subjects.join(" "));
    }
    assert_eq!(snapshots, ["mine theirs", "mine", "theirs", ""]);

    let path = written["name"].as_str().expect("a name");
    let long = format!("{}/{path}/comments", admin.tokens.tenant);
    let staff = plane.operator().await.rest();
    post(&staff, &long, json!({"body": "PLANTED", "internal": true})).await;
    post(&staff, &long, json!({"body": "An answer"})).await;
    write(&other, "theirs, too").await;
    let [all, own, others, foreign] = &mut watches;
    assert_eq!(heard(all).await, ["mine 1", "theirs, too 0"], "nothing of the note");
    assert_eq!(heard(own).await, ["mine 1"]);
    assert_eq!(heard(others).await, ["theirs, too 0"]);
    assert_eq!(heard(foreign).await, [""; 0]);

    // A token is its member's.
    let token = own.until(Type::Bookmark).await.pop().expect("a bookmark").resume_token;
    watch(&mine, &token).await.until(Type::Bookmark).await;
    for session in [&other, &admin] {
        let request = session.request(WatchTicketsRequest { resume_token: token.clone() });
        let refused = client(session).watch_tickets(request).await.map(|_| ()).expect_err("refused");
        assert_eq!((refused.code(), &*reason(&refused)), (Code::FailedPrecondition, "RESUME_TOKEN_INVALID"));
    }
}

/// A watch that goes on shows less from the moment on in which its caller may see less.
#[tokio::test(flavor = "multi_thread")]
async fn who_manages_no_more_hears_of_their_own_only() {
    let plane = ControlPlane::start_with(settings()).await;
    let admin = plane.tenant("acme").await;
    let (manager, other) = (
        plane.member("a@example.com", "acme", "tenant_admin").await,
        plane.member("b@example.com", "acme", "user").await,
    );
    let mut watch = watch(&manager, "").await;
    watch.until(Type::Synced).await;
    let write = async |session: &Session, subject: &str| {
        post(&session.rest(), "tickets", json!({"subject": subject, "description": "Help"})).await;
    };
    write(&other, "before").await;
    assert_eq!(heard(&mut watch).await, ["before 0"]);
    let me = manager.rest().call("GET", "/v1/users/me", None).await.1["name"].as_str().expect("a name").to_owned();
    let rest = admin.rest();
    post(&rest, &format!("{me}:assignRole"), json!({"role": "roles/user"})).await;
    post(&rest, &format!("{me}:unassignRole"), json!({"role": "roles/tenant_admin"})).await;
    write(&other, "after").await;
    write(&manager, "mine").await;
    assert_eq!(heard(&mut watch).await, ["mine 0"]);
}
