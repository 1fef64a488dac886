//! Broadcasts: who may tell whom, when each is told, and what its readers may do.

use serde_json::{Value, json};
use virtualstack_proto::virtualstack::notifications::v1::tenant_broadcast_service_client::TenantBroadcastServiceClient;
use virtualstack_proto::virtualstack::notifications::v1::{Broadcast, CreateTenantBroadcastRequest, broadcast};

use crate::api::refused;
use crate::support::{ControlPlane, Database, Rest, Session};

pub(super) async fn call(rest: &Rest, method: &str, path: &str, body: Value) -> Value {
    let body = Some(body).filter(|body| !body.is_null());
    let (status, reply) = rest.call(method, &format!("/v1/{path}"), body).await;
    assert_eq!(status, 200, "{method} {path}: {reply}");
    reply
}

pub(super) async fn get(rest: &Rest, path: &str) -> Value {
    call(rest, "GET", path, Value::Null).await
}

async fn post(rest: &Rest, path: &str, body: Value) -> Value {
    call(rest, "POST", path, body).await
}

pub(super) fn name(of: &Value) -> &str {
    of["name"].as_str().expect("a name")
}

/// Writes a broadcast and activates it.
async fn told(rest: &Rest, collection: &str, title: &str, more: Value) -> String {
    let mut broadcast = json!({"title": title, "body": "It will be slow.", "audience": {"all": true}});
    for (field, value) in more.as_object().expect("fields") {
        broadcast[field] = value.clone();
    }
    let draft = post(rest, collection, broadcast).await;
    post(rest, &format!("{}:activate", name(&draft)), json!({})).await;
    name(&draft).to_owned()
}

/// Titles that somebody is told, in their order.
async fn titles(rest: &Rest) -> Vec<String> {
    let mut titles: Vec<_> = get(rest, "notifications").await["notifications"]
        .as_array()
        .expect("notifications")
        .iter()
        .map(|one| one["title"].as_str().expect("a title").to_owned())
        .collect();
    titles.sort();
    titles
}

async fn world() -> (ControlPlane, Session, Session, Session) {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.tenant("acme").await;
    let member = plane.member("user@example.com", "acme", "user").await;
    let operator = plane.operator().await;
    (plane, admin, member, operator)
}

/// The tenant's own collection, as its admins name it.
const OWN: &str = "tenants/current/broadcasts";

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_is_drafted_told_read_and_taken_back() {
    let (plane, admin, member, operator) = world().await;
    let (staff, mine) = (operator.rest(), member.rest());
    let draft = json!({"title": "Work on the storage", "body": "It will be slow.", "severity": "MAINTENANCE",
        "link": "https://status.example.com/1", "audience": {"tenants": [admin.tokens.tenant]}});
    let draft = post(&staff, "broadcasts", draft).await;
    let path = name(&draft).to_owned();
    assert_eq!(
        (&draft["state"], &draft["active"], &draft["dismissible"]),
        (&json!("DRAFT"), &json!(false), &json!(true))
    );
    assert_eq!(
        (&draft["channels"], &draft["audience"]["tenants"]),
        (&json!(["IN_APP"]), &json!([admin.tokens.tenant]))
    );
    assert_eq!(post(&staff, &format!("{path}:preview"), json!({})).await, json!({"addressed": 2}));
    assert_eq!(get(&mine, "notifications").await["unreadCount"], 0, "nobody is told of a draft");

    let active = post(&staff, &format!("{path}:activate"), json!({})).await;
    assert_eq!((&active["state"], &active["active"]), (&json!("ACTIVE"), &json!(true)));
    let listed = get(&mine, "notifications").await;
    let notice = &listed["notifications"][0];
    assert_eq!((&listed["unreadCount"], &notice["kind"]), (&json!(1), &json!("BROADCAST")));
    assert_eq!(notice["resource"], path.as_str());
    for field in ["title", "body", "severity", "link"] {
        assert_eq!(notice[field], draft[field], "{field}");
    }
    assert_eq!(titles(&plane.admin().await.rest()).await, [""; 0], "another tenant is not told");
    let again = staff.call("POST", &format!("/v1/{path}:activate"), Some(json!({}))).await;
    refused(&again, 400, "FAILED_PRECONDITION", "BROADCAST_STATE");

    // What is told may be corrected, but not whom it is told.
    let change = json!({"title": "Work on the network"});
    let changed = call(&staff, "PATCH", &path, change).await;
    assert_eq!((&changed["title"], &changed["body"]), (&json!("Work on the network"), &draft["body"]));
    assert_eq!(get(&mine, name(notice)).await["title"], "Work on the network");
    let widened = staff.call("PATCH", &format!("/v1/{path}"), Some(json!({"audience": {"all": true}}))).await;
    refused(&widened, 400, "FAILED_PRECONDITION", "BROADCAST_AUDIENCE_FIXED");
    let asking = staff.call("PATCH", &format!("/v1/{path}"), Some(json!({"requireAcknowledgement": true}))).await;
    refused(&asking, 400, "FAILED_PRECONDITION", "BROADCAST_STATE");
    let stale = json!({"title": "Old", "etag": draft["etag"]});
    assert_eq!(staff.call("PATCH", &format!("/v1/{path}"), Some(stale)).await.0, 409);

    // Who comes later is told, too.
    let later = plane.member("later@example.com", "acme", "viewer").await;
    assert_eq!(titles(&later.rest()).await, ["Work on the network"]);
    let read = post(&mine, &format!("{}:markRead", name(notice)), json!({})).await;
    assert!(read["readTime"].is_string(), "{read}");
    post(&later.rest(), &format!("{}:dismiss", name(notice)), json!({})).await;
    assert_eq!(titles(&later.rest()).await, [""; 0]);
    let reach = json!({"addressed": 3, "read": 1, "dismissed": 1, "mailed": 0});
    assert_eq!(get(&staff, &path).await["reach"], reach);

    // What was read stays so, and its name stays, when it is told once more.
    let off = post(&staff, &format!("{path}:deactivate"), json!({})).await;
    assert_eq!(off["state"], "DRAFT");
    assert_eq!(titles(&mine).await, [""; 0]);
    refused(
        &mine.call("GET", &format!("/v1/{}", name(notice)), None).await,
        404,
        "NOT_FOUND",
        "NOTIFICATION_NOT_FOUND",
    );
    post(&staff, &format!("{path}:activate"), json!({})).await;
    let listed = get(&mine, "notifications").await;
    assert_eq!((&listed["unreadCount"], &listed["notifications"][0]["name"]), (&json!(0), &notice["name"]));
    assert_eq!(listed["notifications"][0]["readTime"], read["readTime"]);
    call(&staff, "DELETE", &path, Value::Null).await;
    assert_eq!(titles(&mine).await, [""; 0]);
    refused(&staff.call("GET", &format!("/v1/{path}"), None).await, 404, "NOT_FOUND", "BROADCAST_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_within_its_window() {
    let (plane, _admin, member, operator) = world().await;
    let (staff, mine) = (operator.rest(), member.rest());
    let at = |minutes| (chrono::Utc::now() + chrono::TimeDelta::minutes(minutes)).to_rfc3339();
    let path = told(&staff, "broadcasts", "Soon", json!({"startTime": at(10), "endTime": at(20)})).await;
    assert_eq!(get(&staff, &path).await["state"], "SCHEDULED");
    assert_eq!(titles(&mine).await, [""; 0], "its time is to come");
    let earlier = json!({"startTime": at(-10)});
    assert_eq!(call(&staff, "PATCH", &path, earlier).await["state"], "ACTIVE");
    assert_eq!(titles(&mine).await, ["Soon"]);
    plane.database.execute("UPDATE notifications.broadcasts SET end_time = now() - interval '1 minute'").await;
    assert_eq!(get(&staff, &path).await["state"], "ENDED");
    assert_eq!(titles(&mine).await, [""; 0], "its time is over");
    post(&staff, &format!("{path}:deactivate"), json!({})).await;
    let over = staff.call("POST", &format!("/v1/{path}:activate"), Some(json!({}))).await;
    refused(&over, 400, "FAILED_PRECONDITION", "BROADCAST_ENDED");
    let text = json!({"title": "x", "body": "x", "audience": {"all": true}});
    for (field, more) in [
        ("broadcast.endTime", json!({"startTime": at(20), "endTime": at(10)})),
        ("broadcast.startTime", json!({"startTime": "1970-01-01T00:00:00Z"})),
        ("broadcast.title", json!({"title": ""})),
        ("broadcast.title", json!({"title": "a\u{202e}b"})),
        ("broadcast.body", json!({"body": "x".repeat(10_001)})),
        ("broadcast.body", json!({"body": "a\u{0}b"})),
        ("broadcast.link", json!({"link": "javascript:alert(1)"})),
        ("broadcast.link", json!({"link": "https://a.example/\" onclick=x"})),
        ("broadcast.link", json!({"link": "https://bank.example@evil.example/"})),
        ("broadcast.link", json!({"link": "https://a.example/\u{202e}gpj"})),
        ("broadcast.link", json!({"link": "https://?"})),
        (
            "broadcast.endTime",
            json!({"startTime": "2027-01-01T00:00:00.000000100Z", "endTime": "2027-01-01T00:00:00.000000900Z"}),
        ),
        ("broadcast.severity", json!({"severity": 77})),
        ("broadcast.channels[0]", json!({"channels": ["CHANNEL_UNSPECIFIED"]})),
        ("broadcast.audience", json!({"audience": {}})),
        ("broadcast.audience", json!({"audience": {"all": true, "users": ["users/x"]}})),
        ("broadcast.audience.tenants[1]", json!({"audience": {"tenants": ["tenants/acme", "tenants/nowhere"]}})),
        ("broadcast.audience.roles[0]", json!({"audience": {"roles": ["captain"]}})),
        ("broadcast.audience.users[0]", json!({"audience": {"users": ["users/x"]}})),
        ("broadcast.audience.users[0]", json!({"audience": {"users": [format!("users/{}", uuid::Uuid::nil())]}})),
        ("broadcast.audience.users", json!({"audience": {"users": vec!["users/x"; 1001]}})),
    ] {
        let mut broadcast = text.clone();
        for (field, value) in more.as_object().expect("fields") {
            broadcast[field] = value.clone();
        }
        let fields = refused(
            &staff.call("POST", "/v1/broadcasts", Some(broadcast)).await,
            400,
            "INVALID_ARGUMENT",
            "INVALID_FIELDS",
        );
        assert_eq!(fields, [field], "{more}");
        let mut change = more.clone();
        change["name"] = json!(path);
        let reply = staff
            .call(
                "PATCH",
                &format!(
                    "/v1/{path}?updateMask={}",
                    more.as_object().expect("a field").keys().cloned().collect::<Vec<_>>().join(",")
                ),
                Some(change),
            )
            .await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{more}, by an update");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_audience_is_told_and_nobody_else() {
    let (plane, admin, member, operator) = world().await;
    let other = plane.tenant("rival").await;
    let staff = operator.rest();
    let user = get(&member.rest(), "users/me").await;
    for (title, audience) in [
        ("all", json!({"all": true})),
        ("rival", json!({"tenants": [other.tokens.tenant, "tenants/rival"]})),
        ("admins", json!({"roles": ["tenant_admin"]})),
        ("one", json!({"users": [name(&user)]})),
    ] {
        told(&staff, "broadcasts", title, json!({"audience": audience})).await;
    }
    assert_eq!(titles(&member.rest()).await, ["all", "one"]);
    assert_eq!(titles(&admin.rest()).await, ["admins", "all"]);
    assert_eq!(titles(&other.rest()).await, ["admins", "all", "rival"]);
    // Who has two of the roles is told once; who is not active any more, never.
    post(&admin.rest(), &format!("{}:deactivate", name(&user)), json!({})).await;
    let roles = get(&admin.rest(), "roles").await["roles"].clone();
    let is = |key: &str| roles.as_array().expect("roles").iter().find(|role| role["displayName"] == key).cloned();
    let listed = get(&staff, "broadcasts?orderBy=title&filter=active%20=%20true&showTotal=true").await;
    assert_eq!(listed["totalSize"], 4, "{listed}");
    let one = listed["broadcasts"][2].clone();
    assert_eq!((&one["title"], &one["reach"]), (&json!("one"), &Value::Null));
    assert_eq!(
        post(&staff, &format!("{}:preview", name(&one)), json!({})).await["addressed"],
        0,
        "they are not active"
    );

    // What is read can be written back, though one of those whom it is for has gone.
    assert_eq!(admin.rest().call("DELETE", &format!("/v1/{}", name(&user)), None).await.0, 200);
    let mut whole = get(&staff, name(&one)).await;
    whole["body"] = json!("It is slow.");
    let written = call(&staff, "PATCH", name(&one), whole.clone()).await;
    assert_eq!((&written["body"], &written["audience"]), (&json!("It is slow."), &whole["audience"]));

    // A tenant's admins tell their tenant, by its own roles and members.
    let viewers = name(&is("viewer").expect("a role")).to_owned();
    let viewer = plane.member("viewer@example.com", "acme", "viewer").await;
    let own = told(&admin.rest(), OWN, "viewers", json!({"audience": {"roles": [viewers]}})).await;
    assert!(own.starts_with(&format!("{}/broadcasts/", admin.tokens.tenant)), "{own}");
    assert_eq!(titles(&viewer.rest()).await, ["all", "viewers"]);
    assert_eq!(titles(&admin.rest()).await, ["admins", "all"]);
    assert_eq!(get(&admin.rest(), &own).await["reach"]["addressed"], 1);
    assert_eq!(get(&admin.rest(), OWN).await["broadcasts"].as_array().map(Vec::len), Some(1));
    assert_eq!(get(&other.rest(), OWN).await["broadcasts"], json!([]));
    let operators = get(&staff, "broadcasts?showTotal=true").await;
    assert_eq!(operators["totalSize"], 4, "those of tenants are not the provider's");
}

/// What a delegated admin with bad intent would try.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_admin_tells_nobody_else() {
    let (plane, admin, member, operator) = world().await;
    let other = plane.tenant("rival").await;
    let (rest, staff) = (admin.rest(), operator.rest());
    let stranger = get(&other.rest(), "users/me").await;
    let foreign = get(&other.rest(), "roles").await["roles"][0].clone();
    let text = |audience: Value| json!({"title": "Pay here", "body": "Now", "audience": audience});
    for (field, audience) in [
        ("broadcast.audience.tenants", json!({"tenants": [admin.tokens.tenant]})),
        ("broadcast.audience.users[0]", json!({"users": [name(&stranger)]})),
        ("broadcast.audience.roles[0]", json!({"roles": [name(&foreign)]})),
        ("broadcast.audience.roles[0]", json!({"roles": ["tenant_admin"]})),
    ] {
        let reply = rest.call("POST", &format!("/v1/{OWN}"), Some(text(audience.clone()))).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{audience}");
    }
    let everybody = Some(text(json!({"all": true})));
    refused(
        &rest.call("POST", "/v1/broadcasts", everybody.clone()).await,
        403,
        "PERMISSION_DENIED",
        "PERMISSION_MISSING",
    );
    let theirs = rest.call("POST", &format!("/v1/{}/broadcasts", other.tokens.tenant), everybody.clone()).await;
    assert_eq!(theirs.0, 404, "{}", theirs.1);
    let member = member.rest().call("POST", &format!("/v1/{OWN}"), everybody).await;
    refused(&member, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    // Another tenant's, and the provider's, are not theirs to change.
    let rivals = told(&other.rest(), OWN, "mine", json!({})).await;
    let providers = told(&staff, "broadcasts", "ours", json!({})).await;
    let disguised = format!("{}/{providers}", admin.tokens.tenant);
    for path in [&rivals, &disguised] {
        for (method, path, body) in [
            ("GET", path.clone(), None),
            ("PATCH", path.clone(), Some(json!({"title": "x"}))),
            ("POST", format!("{path}:deactivate"), Some(json!({}))),
            ("POST", format!("{path}:preview"), Some(json!({}))),
            ("DELETE", path.clone(), None),
        ] {
            refused(&rest.call(method, &format!("/v1/{path}"), body).await, 404, "NOT_FOUND", "BROADCAST_NOT_FOUND");
        }
    }
    assert_eq!(titles(&other.rest()).await, ["mine", "ours"]);
    // However often it is done, members are not flooded.
    let own = told(&rest, OWN, "own", json!({})).await;
    for _ in 1..50 {
        post(&rest, &format!("{own}:deactivate"), json!({})).await;
        post(&rest, &format!("{own}:activate"), json!({})).await;
    }
    post(&rest, &format!("{own}:deactivate"), json!({})).await;
    let flood = rest.call("POST", &format!("/v1/{own}:activate"), Some(json!({}))).await;
    refused(&flood, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_BROADCASTS");
    // Nor is the list: so many may be active, and so many be written and never be told.
    let copies = async |count: i32, active: bool| {
        let copies = format!(
            "INSERT INTO notifications.broadcasts (tenant_id, id, platform, title, body, severity, audience, active, notice_id) \
             SELECT tenant_id, gen_random_uuid(), false, title, body, severity, audience, {active}, \
                CASE WHEN {active} THEN gen_random_uuid() END FROM notifications.broadcasts, generate_series(1, {count}) \
                WHERE title = 'mine'"
        );
        plane.database.execute(&copies).await;
    };
    let (rivals_rest, draft) = (other.rest(), text(json!({"all": true})));
    let ended = told(&rivals_rest, OWN, "ended", json!({})).await;
    plane
        .database
        .execute("UPDATE notifications.broadcasts SET end_time = now() - interval '1 day' WHERE title = 'ended'")
        .await;
    copies(199, true).await;
    // One that is over does not begin again by another end.
    let later = (chrono::Utc::now() + chrono::TimeDelta::days(1)).to_rfc3339();
    let revived = rivals_rest.call("PATCH", &format!("/v1/{ended}"), Some(json!({"endTime": later}))).await;
    refused(&revived, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_BROADCASTS");
    let one = post(&rivals_rest, OWN, draft.clone()).await;
    let last = rivals_rest.call("POST", &format!("/v1/{}:activate", name(&one)), Some(json!({}))).await;
    refused(&last, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_BROADCASTS");
    plane
        .database
        .execute("UPDATE notifications.broadcasts SET title = title || id WHERE active AND title = 'mine'")
        .await;
    plane
        .database
        .execute("UPDATE notifications.broadcasts SET title = 'mine' WHERE NOT active AND title = 'Pay here'")
        .await;
    copies(999, false).await;
    let more = rivals_rest.call("POST", &format!("/v1/{OWN}"), Some(draft)).await;
    refused(&more, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_BROADCASTS");
}

#[tokio::test(flavor = "multi_thread")]
async fn some_are_to_be_acknowledged_and_some_stay() {
    let (_plane, _admin, member, operator) = world().await;
    let (staff, mine) = (operator.rest(), member.rest());
    told(&staff, "broadcasts", "stays", json!({"dismissible": false})).await;
    told(&staff, "broadcasts", "acknowledge", json!({"requireAcknowledgement": true})).await;
    told(&staff, "broadcasts", "plain", json!({})).await;
    let listed = get(&mine, "notifications").await["notifications"].clone();
    let find = |title: &str| {
        let found = listed.as_array().expect("notifications").iter().find(|one| one["title"] == title);
        name(found.expect("told")).to_owned()
    };
    let (stays, acknowledge) = (find("stays"), find("acknowledge"));
    let dismiss = async |path: &str| mine.call("POST", &format!("/v1/{path}:dismiss"), Some(json!({}))).await;
    refused(&dismiss(&stays).await, 400, "FAILED_PRECONDITION", "NOT_DISMISSIBLE");
    refused(&dismiss(&acknowledge).await, 400, "FAILED_PRECONDITION", "NOT_ACKNOWLEDGED");
    post(&mine, "notifications:markAllRead", json!({})).await;
    let after = get(&mine, "notifications").await;
    assert_eq!(after["unreadCount"], 1, "what is to be acknowledged is not read with the others: {after}");
    assert_eq!(get(&mine, &acknowledge).await["readTime"], Value::Null);
    post(&mine, &format!("{acknowledge}:markRead"), json!({})).await;
    assert_eq!(dismiss(&acknowledge).await.0, 200);
    assert_eq!(titles(&mine).await, ["plain", "stays"]);
}

/// A time that JSON cannot show would take the list away from all who are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_leap_second_is_no_time() {
    let (_plane, admin, ..) = world().await;
    let mut client = TenantBroadcastServiceClient::new(admin.channel.clone());
    for (seconds, nanos) in [(253_402_300_799, 1_999_999_999), (1_800_000_000, 1_000_000_000), (253_402_300_800, 0)] {
        let time = prost_types::Timestamp { seconds, nanos };
        for (field, start_time, end_time) in
            [("broadcast.startTime", Some(time), None), ("broadcast.endTime", None, Some(time))]
        {
            let broadcast = Broadcast {
                title: "late".to_owned(),
                body: "late".to_owned(),
                audience: Some(broadcast::Audience { all: true, ..Default::default() }),
                start_time,
                end_time,
                ..Default::default()
            };
            let request = CreateTenantBroadcastRequest { broadcast: Some(broadcast), ..Default::default() };
            let refused = client.create_tenant_broadcast(admin.request(request)).await.expect_err("refused");
            assert!(refused.code() == tonic::Code::InvalidArgument && refused.message().contains(field), "{refused:?}");
        }
    }
}

/// Operators at work in a tenant are told nothing there, and have nothing to choose.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_in_a_tenant_has_no_notifications() {
    let (plane, _admin, _member, operator) = world().await;
    told(&operator.rest(), "broadcasts", "for members", json!({"audience": {"tenants": ["tenants/acme"]}})).await;
    let switch = json!({"tenant": "acme", "reason": "they asked for help"});
    let session = post(&operator.rest(), "auth:switchTenant", switch).await;
    let there = Rest::new(&plane.http, session["accessToken"].as_str());
    assert_eq!(titles(&there).await, [""; 0]);
    let language = Some(json!({"language": "de"}));
    let change = there.call("PATCH", "/v1/users/me/notificationPreferences", language).await;
    refused(&change, 404, "NOT_FOUND", "USER_NOT_FOUND");
}

/// What is deleted meanwhile keeps nobody from marking the rest, and tokens of pages are their member's.
#[tokio::test(flavor = "multi_thread")]
async fn marking_all_and_deleting_do_not_meet() {
    let (plane, _admin, member, operator) = world().await;
    let (staff, mine) = (operator.rest(), member.rest());
    let other = plane.member("other@example.com", "acme", "user").await;
    for round in 0..10 {
        let mut names = Vec::new();
        for number in 0..3 {
            names.push(told(&staff, "broadcasts", &format!("{round}.{number}"), json!({})).await);
        }
        let page = get(&mine, "notifications?pageSize=1").await;
        let token = page["nextPageToken"].as_str().expect("a token");
        let foreign = other.rest().call("GET", &format!("/v1/notifications?pageSize=1&pageToken={token}"), None).await;
        refused(&foreign, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        let path = format!("/v1/{}", names[1]);
        let (marked, deleted) = tokio::join!(
            mine.call("POST", "/v1/notifications:markAllRead", Some(json!({}))),
            staff.call("DELETE", &path, None),
        );
        assert_eq!((marked.0, deleted.0), (200, 200), "{} {}", marked.1, deleted.1);
        assert_eq!(get(&mine, "notifications").await["unreadCount"], 0);
    }
}

/// Who changes a broadcast and who activates it wait for each other, and neither for good.
#[tokio::test(flavor = "multi_thread")]
async fn changes_and_activations_meet() {
    let database = Database::bootstrapped().await;
    // A deadlock is not found and tried again here: whoever waits for one is told that the database did not answer.
    let patient =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 3600000', current_database()); END $$";
    database.execute(patient).await;
    let plane = ControlPlane::on(database).await;
    let rest = plane.tenant("acme").await.rest();
    let draft = post(&rest, OWN, json!({"title": "0", "body": "x", "audience": {"all": true}})).await;
    let path = name(&draft);
    let write = async |title: &str| {
        let whole = json!({"title": title, "audience": {"all": true}});
        rest.call("PATCH", &format!("/v1/{path}"), Some(whole)).await
    };
    for round in 0..10 {
        let verb = if round % 2 == 0 { "activate" } else { "deactivate" };
        let url = format!("/v1/{path}:{verb}");
        let turn = rest.call("POST", &url, Some(json!({})));
        let (a, b, c, turned) = tokio::join!(write("a"), write("b"), write("c"), turn);
        for (status, reply) in [a, b, c, turned] {
            assert_eq!(status, 200, "{round}: {reply}");
        }
    }
}
