//! What members are told: there is no log of it, so what is so now is compared with what a client was told.

use serde_json::{Value, json};
use tonic::Code;
use virtualstack_proto::virtualstack::notifications::v1::Notification;
use virtualstack_proto::virtualstack::watch::v1::watch_message::{Resource, Type};
use virtualstack_proto::virtualstack::watch::v1::{WatchMessage, WatchNotificationsRequest};
use virtualstack_server::Config;

use super::rest::{EVENTS, Lines};
use super::{Watch, client, settings};
use crate::support::{ControlPlane, Rest, Session, reason};

fn notification(message: &WatchMessage) -> &Notification {
    match &message.resource {
        Some(Resource::Notification(notification)) => notification,
        other => panic!("a notification, not {other:?}"),
    }
}

async fn watch(session: &Session, token: &str) -> Result<Watch, tonic::Status> {
    let request = session.request(WatchNotificationsRequest { resume_token: token.to_owned() });
    Ok(Watch(client(session).watch_notifications(request).await?.into_inner()))
}

/// What is told until now, and the last token.
async fn heard(watch: &mut Watch) -> (Vec<String>, String) {
    let told = watch.caught_up().await;
    let token = told.last().expect("a bookmark").resume_token.clone();
    let line = |message: &WatchMessage| {
        let Notification { title, read_time, .. } = notification(message);
        format!("{:?} {title}{}", message.r#type(), if read_time.is_some() { ", read" } else { "" })
    };
    (told.iter().filter(|message| message.resource.is_some()).map(line).collect(), token)
}

async fn call(rest: &Rest, method: &str, path: &str, body: Value) -> Value {
    let (status, reply) = rest.call(method, &format!("/v1/{path}"), Some(body)).await;
    assert_eq!(status, 200, "{path}: {reply}");
    reply
}

async fn told(staff: &Rest, title: &str, more: Value) -> String {
    let mut broadcast = json!({"title": title, "body": "Slow.", "audience": {"tenants": ["tenants/acme"]}});
    for (field, value) in more.as_object().expect("fields") {
        broadcast[field] = value.clone();
    }
    let name = call(staff, "POST", "broadcasts", broadcast).await["name"].as_str().expect("a name").to_owned();
    call(staff, "POST", &format!("{name}:activate"), json!({})).await;
    name
}

/// The name of the only notification that somebody is told.
async fn only(rest: &Rest) -> String {
    let (_, listed) = rest.call("GET", "/v1/notifications", None).await;
    assert_eq!(listed["notifications"].as_array().map(Vec::len), Some(1), "{listed}");
    listed["notifications"][0]["name"].as_str().expect("a name").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_hears_what_they_are_told() {
    let plane = ControlPlane::start_with(settings()).await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let (staff, mine) = (plane.operator().await.rest(), acme.rest());
    let mut hears = watch(&acme, "").await.expect("a watch");
    let mut foreign = watch(&rival, "").await.expect("a watch");
    assert_eq!(hears.told().await.r#type(), Type::Synced);

    let first = told(&staff, "first", json!({})).await;
    let seen = hears.told().await;
    assert_eq!((seen.r#type(), &*notification(&seen).title), (Type::Created, "first"));
    let name = only(&mine).await;
    assert_eq!(notification(&seen).name, name);
    call(&staff, "PATCH", &first, json!({"title": "corrected"})).await;
    assert_eq!(heard(&mut hears).await.0, ["Updated corrected"]);
    call(&mine, "POST", &format!("{name}:markRead"), json!({})).await;
    assert_eq!(heard(&mut hears).await.0, ["Updated corrected, read"]);
    // Nobody hears it who would not see it in the list, and what ends by itself is heard by nobody, and told.
    let soon = (chrono::Utc::now() + chrono::TimeDelta::seconds(2)).to_rfc3339();
    told(&staff, "short", json!({"endTime": soon})).await;
    assert_eq!(notification(&hears.told().await).title, "short");
    let ended = hears.told().await;
    assert_eq!((ended.r#type(), &*notification(&ended).title), (Type::Deleted, ""));

    // Who was cut off is told what is different, and no more.
    let (none, token) = heard(&mut hears).await;
    assert_eq!(none, [""; 0]);
    drop(hears);
    call(&mine, "POST", &format!("{name}:dismiss"), json!({})).await;
    let second = told(&staff, "second", json!({})).await;
    told(&staff, "third", json!({})).await;
    let gone = told(&staff, "gone", json!({})).await;
    call(&staff, "POST", &format!("{gone}:deactivate"), json!({})).await;
    let mut again = watch(&acme, &token).await.expect("a watch");
    let (lines, later) = heard(&mut again).await;
    assert_eq!(lines, ["Deleted ", "Created second", "Created third"]);
    assert_eq!(staff.call("DELETE", &format!("/v1/{second}"), None).await.0, 200);
    assert_eq!(heard(&mut again).await.0, ["Deleted "]);
    assert_eq!(heard(&mut watch(&acme, &later).await.expect("a watch")).await.0, ["Deleted "]);
    assert_eq!(heard(&mut foreign).await.0, [""; 0], "another tenant's members hear nothing");

    // A token is its member's, and a key reads nothing.
    let member = plane.member("user@example.com", "acme", "user").await;
    for (session, token) in [(&member, &*token), (&rival, &token), (&acme, "abc")] {
        let refused = watch(session, token).await.err().expect("refused");
        assert_eq!((refused.code(), &*reason(&refused)), (Code::FailedPrecondition, "RESUME_TOKEN_INVALID"));
    }
    let key = call(&mine, "POST", "apiKeys", json!({"displayName": "ci", "permissions": ["vm:read"]})).await;
    let by_key = Rest::with_key(&plane.http, key["secret"].as_str().expect("a secret"));
    assert_eq!(by_key.call("GET", "/v1/notifications:watch", None).await.0, 403);

    // As server-sent events, which go on by Last-Event-ID.
    let mut events = Lines::open(&mine, "/v1/notifications:watch", &[EVENTS]).await;
    let (_, kind, third) = events.event().await;
    assert_eq!((&*kind, &third["notification"]["title"]), ("snapshot", &json!("third")));
    let (id, kind, _) = events.event().await;
    assert_eq!(kind, "synced");
    drop(events);
    told(&staff, "fourth", json!({})).await;
    let id = id.expect("a token");
    let mut events = Lines::open(&mine, "/v1/notifications:watch", &[EVENTS, ("last-event-id", &id)]).await;
    let (_, kind, fourth) = events.event().await;
    assert_eq!((&*kind, &fourth["notification"]["title"]), ("created", &json!("fourth")));

    // Who is no member any more hears no more.
    plane
        .database
        .execute("UPDATE iam.memberships SET state = 'INACTIVE' WHERE email = 'admin@acme.example.com'")
        .await;
    assert_eq!(again.end(super::SOON).await.code(), Code::PermissionDenied);
}

/// Of more than a hundred, the newest are watched, whichever these are.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_hundred_are_watched() {
    let plane = ControlPlane::start_with(settings()).await;
    let acme = plane.tenant("acme").await;
    let (staff, mine) = (plane.operator().await.rest(), acme.rest());
    let many: Vec<_> = (0..120)
        .map(|number| {
            format!(
                "((SELECT id FROM iam.tenants WHERE slug = 'acme'), gen_random_uuid(), 'old {number}', '{}')",
                uuid::Uuid::now_v7()
            )
        })
        .collect();
    let many = format!(
        "INSERT INTO notifications.broadcasts (tenant_id, id, platform, title, body, severity, audience, active, notice_id, told_at) \
         SELECT t, id, false, title, 'Slow', 'INFO', 'ALL', true, notice::uuid, now() FROM (VALUES {}) v (t, id, title, notice)",
        many.join(", ")
    );
    plane.database.execute(&many).await;
    let mut hears = watch(&acme, "").await.expect("a watch");
    let snapshot = hears.until(Type::Synced).await;
    let titles: Vec<_> = snapshot[..snapshot.len() - 1].iter().map(|one| notification(one).title.clone()).collect();
    assert_eq!((titles.len(), &*titles[0], &*titles[99]), (100, "old 20", "old 119"));
    let token = snapshot.last().expect("synced").resume_token.clone();
    told(&staff, "new", json!({})).await;
    assert_eq!(heard(&mut hears).await.0, ["Deleted ", "Created new"], "the oldest is not among them any more");
    let (_, page) = mine.call("GET", "/v1/notifications?pageSize=2", None).await;
    let last = page["notifications"][1]["name"].as_str().expect("a name").to_owned();
    call(&mine, "POST", &format!("{last}:dismiss"), json!({})).await;
    assert_eq!(heard(&mut hears).await.0, ["Deleted ", "Created old 20"], "and is again");
    assert_eq!(heard(&mut watch(&acme, &token).await.expect("a watch")).await.0, ["Deleted ", "Created new"]);
    let few = "UPDATE notifications.broadcasts SET active = false, version = version + 1 WHERE title LIKE 'old %' AND title <> 'old 3'";
    plane.database.execute(few).await;
    let (lines, _) = heard(&mut hears).await;
    assert_eq!(lines.iter().filter(|line| *line == "Deleted ").count(), 99, "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("Created old 3"), "{lines:?}");
}

/// Without a word from the database, nothing would be heard before the heartbeat, which is far away here.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_another_wakes_the_watch() {
    let plane = ControlPlane::start_with(Config { watch_heartbeat_ms: 60_000, ..settings() }).await;
    let acme = plane.tenant("acme").await;
    let (staff, mine) = (plane.operator().await.rest(), acme.rest());
    let mut hears = watch(&acme, "").await.expect("a watch");
    assert_eq!(hears.told().await.r#type(), Type::Synced);
    let mut next = async || {
        let told = hears.told().await;
        format!("{:?} {}", told.r#type(), notification(&told).title)
    };
    let name = told(&staff, "first", json!({})).await;
    assert_eq!(next().await, "Created first");
    let notice = only(&mine).await;
    call(&mine, "POST", &format!("{notice}:markRead"), json!({})).await;
    assert_eq!(next().await, "Updated first");
    call(&staff, "PATCH", &name, json!({"title": "second"})).await;
    assert_eq!(next().await, "Updated second");
    assert_eq!(staff.call("DELETE", &format!("/v1/{name}"), None).await.0, 200);
    assert_eq!(next().await, "Deleted ");
    plane
        .database
        .execute(
            "INSERT INTO notifications.notices (account_id, id, tenant_id, user_id, kind, source, title, body, severity, resource, in_app, \
                mail_due) SELECT account_id, gen_random_uuid(), tenant_id, id, 'TICKET_ANSWERED', 'x', 'answered', 'x', 'INFO', 'x', true, \
                false FROM iam.memberships WHERE email = 'admin@acme.example.com'",
        )
        .await;
    assert_eq!(next().await, "Created answered");
    let notice = only(&mine).await;
    call(&mine, "POST", &format!("{notice}:dismiss"), json!({})).await;
    assert_eq!(next().await, "Deleted ");
}

/// One that was planned long ago is new when it begins.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_is_new_when_it_begins() {
    let plane = ControlPlane::start_with(settings()).await;
    plane.tenant("acme").await;
    let member = plane.member("user@example.com", "acme", "user").await;
    let staff = plane.operator().await.rest();
    let soon = (chrono::Utc::now() + chrono::TimeDelta::seconds(2)).to_rfc3339();
    told(&staff, "planned", json!({"startTime": soon})).await;
    told(&staff, "later", json!({})).await;
    let mut hears = watch(&member, "").await.expect("a watch");
    assert_eq!(notification(&hears.told().await).title, "later");
    assert_eq!(hears.told().await.r#type(), Type::Synced);
    let began = hears.told().await;
    assert_eq!((began.r#type(), &*notification(&began).title), (Type::Created, "planned"));
    let (_, listed) = member.rest().call("GET", "/v1/notifications", None).await;
    let titles: Vec<_> = listed["notifications"].as_array().expect("some").iter().map(|one| &one["title"]).collect();
    assert_eq!(titles, ["planned", "later"], "newest first");
    let created = listed["notifications"][0]["createTime"].as_str().expect("a time");
    let time = |text: &str| chrono::DateTime::parse_from_rfc3339(text).expect("a time");
    assert!(time(created) >= time(&soon) - chrono::TimeDelta::milliseconds(1), "{created}");
}
