//! What members are told of what has happened: each once, whatever restarts.

use std::sync::Arc;

use serde_json::{Value, json};
use virtualstack_model::notifications::jobs::Notify;
use virtualstack_store::notifications::mails;
use virtualstack_store::{SystemPurpose, SystemTx};
use virtualstack_worker::NoProbe;
use virtualstack_worker::adapters::hypervisor::FaultClass;

use super::tasks::becomes;
use super::{behind, quick};
use crate::api::refused;
use crate::support::{ADMIN, Call, ControlPlane, Crash, CrashProbe, DEMO, Rest, When, system, test_fault};

async fn get(rest: &Rest, path: &str) -> Value {
    let (status, reply) = rest.call("GET", &format!("/v1/{path}"), None).await;
    assert_eq!(status, 200, "{reply}");
    reply
}

async fn post(rest: &Rest, path: &str, body: Value) -> Value {
    let (status, reply) = rest.call("POST", &format!("/v1/{path}"), Some(body)).await;
    assert_eq!(status, 200, "{path}: {reply}");
    reply
}

async fn wait(rest: &Rest, operation: &Value) -> Value {
    let name = operation["name"].as_str().expect("a name");
    post(rest, &format!("{name}:wait"), json!({"timeout": "60s"})).await
}

/// Kinds of what somebody was told, newest first.
async fn kinds(rest: &Rest) -> Vec<String> {
    let listed = get(rest, "notifications").await["notifications"].clone();
    let all = listed.as_array().expect("notifications").clone();
    all.iter().map(|one| one["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// Has the task run once more, to its end.
async fn run_again(plane: &ControlPlane) {
    let runs = plane.database.count("SELECT fencing_token FROM background_jobs.jobs WHERE kind = 'notify'").await;
    let signal = plane.store.system(system(SystemPurpose::Reconcile), async |tx| tx.activate::<Notify>().await);
    signal.await.expect("activated");
    let done = format!(
        "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'notify' AND state = 'available' AND fencing_token > {runs}"
    );
    becomes(plane, &done, 1).await;
}

fn count(kind: &str) -> String {
    format!("SELECT count(*) FROM notifications.notices WHERE kind = '{kind}'")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_told_to_who_asked_and_read_once() {
    let (plane, tenant) = behind(quick(), |_, _| Ok(())).await;
    let member = plane.member("user@example.com", DEMO, "user").await;
    let (rest, staff) = (member.rest(), plane.operator().await.rest());
    let ticket = post(&rest, "tickets", json!({"subject": "It hangs", "description": "Help"})).await;
    let name = ticket["name"].as_str().expect("a name");
    let long = format!("{}/{name}/comments", tenant.tokens.tenant);
    post(&staff, &long, json!({"body": "PLANTED", "internal": true})).await;
    post(&staff, &long, json!({"body": "An answer"})).await;
    becomes(&plane, &count("TICKET_ANSWERED"), 1).await;
    run_again(&plane).await;
    let listed = get(&rest, "notifications").await;
    assert_eq!(listed["unreadCount"], 1, "once, and nothing of the note: {listed}");
    let told = &listed["notifications"][0];
    assert_eq!((&told["title"], &told["body"]), (&json!("Ticket 1 was answered"), &json!("It hangs")));
    assert_eq!((&told["resource"], &told["severity"]), (&json!(name), &json!("INFO")));
    let path = told["name"].as_str().expect("a name");

    // It is this member's, in this tenant, and no key's.
    let nothing = get(&tenant.rest(), "notifications").await;
    assert_eq!((&nothing["unreadCount"], &nothing["notifications"]), (&json!(0), &json!([])));
    for rest in [tenant.rest(), staff] {
        refused(&rest.call("GET", &format!("/v1/{path}"), None).await, 404, "NOT_FOUND", "NOTIFICATION_NOT_FOUND");
        let mark = rest.call("POST", &format!("/v1/{path}:markRead"), Some(json!({}))).await;
        refused(&mark, 404, "NOT_FOUND", "NOTIFICATION_NOT_FOUND");
    }
    let key = post(&rest, "apiKeys", json!({"displayName": "ci", "permissions": ["ticket:read"]})).await;
    let by_key = Rest::with_key(&plane.http, key["secret"].as_str().expect("a secret"));
    assert_eq!(by_key.call("GET", "/v1/notifications", None).await.0, 403);

    let read = post(&rest, &format!("{path}:markRead"), json!({})).await;
    assert!(read["readTime"].is_string(), "{read}");
    assert_eq!(get(&rest, "notifications").await["unreadCount"], 0);
    assert_eq!(post(&rest, &format!("{path}:markRead"), json!({})).await["readTime"], read["readTime"]);
    let gone = post(&rest, &format!("{path}:dismiss"), json!({})).await;
    assert!(gone["dismissTime"].is_string(), "{gone}");
    assert_eq!(kinds(&rest).await, [""; 0]);
    let all = get(&rest, "notifications?showDismissed=true").await;
    assert_eq!(all["notifications"][0], gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_keys_quotas_and_guests_are_told() {
    let (plane, tenant) = behind(quick(), |call, when| match (call, when) {
        (Call::PowerOff, When::Before) => Err(test_fault(FaultClass::Permanent)),
        _ => Ok(()),
    })
    .await;
    let rest = tenant.rest();
    // An operation that fails, told to who asked for it.
    let template = plane.templates().await;
    let created = post(&rest, "vms", json!({"displayName": "web-1", "template": template})).await;
    let vm = created["metadata"]["target"].as_str().expect("a VM").to_owned();
    wait(&rest, &created).await;
    let stopping = post(&rest, &format!("{vm}:stop"), json!({})).await;
    let failed = wait(&rest, &stopping).await;
    becomes(&plane, &count("OPERATION_FAILED"), 1).await;
    let told = get(&rest, "notifications").await["notifications"][0].clone();
    assert_eq!((&told["resource"], &told["body"]), (&failed["name"], &failed["error"]["message"]), "{told}");
    assert!(told["body"].as_str().is_some_and(|body| !body.is_empty()), "{told}");

    // A key a week before its end, and once more when that is put off.
    let soon = (chrono::Utc::now() + chrono::TimeDelta::days(6)).to_rfc3339();
    let key = json!({"displayName": "ci", "permissions": ["vm:read"], "expireTime": soon});
    post(&rest, "apiKeys", key).await;
    let late = (chrono::Utc::now() + chrono::TimeDelta::days(8)).to_rfc3339();
    let key = json!({"displayName": "later", "permissions": ["vm:read"], "expireTime": late});
    post(&rest, "apiKeys", key).await;
    becomes(&plane, &count("KEY_EXPIRING"), 1).await;
    run_again(&plane).await;
    assert_eq!(plane.database.count(&count("KEY_EXPIRING")).await, 1);

    // A quota: at nine tenths, and again only after it has fallen below eight.
    let used = async |used: u32| {
        let set = format!("UPDATE compute.quotas SET max_memory_mib = 100, memory_mib = {used} WHERE memory_mib > 0");
        plane.database.execute(&set).await;
        run_again(&plane).await;
        plane.database.count(&count("QUOTA_NEARLY_USED")).await
    };
    assert_eq!((used(89).await, used(90).await, used(95).await), (0, 1, 1));
    assert_eq!((used(85).await, used(92).await), (1, 1), "it has not fallen far enough");
    assert_eq!((used(79).await, used(91).await), (1, 2));
    let told = get(&rest, "notifications").await["notifications"][0].clone();
    assert_eq!(told["body"], "91 of 100 memoryMib are used.");

    // Who has invited is told that somebody came, and by mail.
    let roles = get(&rest, "roles").await["roles"].clone();
    let user =
        roles.as_array().expect("roles").iter().find(|role| role["displayName"] == "user").expect("a role")["name"]
            .clone();
    post(&rest, "invitations", json!({"email": "guest@example.com", "role": user})).await;
    let invitation = plane.next_mail_to("guest@example.com").await;
    let token = invitation.lines().find(|line| line.starts_with("vsi_")).expect("a token");
    let accept = json!({"token": token, "password": "correct horse battery staple", "displayName": "Guest"});
    let accepted = Rest::new(&plane.http, None).call("POST", "/v1/invitations:accept", Some(accept)).await;
    assert_eq!(accepted.0, 200, "{}", accepted.1);
    becomes(&plane, &count("INVITATION_ACCEPTED"), 1).await;
    // Each of them by mail, once.
    let to = ADMIN;
    for said in ["ends on", "An invitation was accepted", "90 of 100 memoryMib", "failed"] {
        let begun = std::time::Instant::now();
        while !plane.mail_to(to).iter().any(|mail| mail.contains(said)) {
            assert!(begun.elapsed().as_secs() < 30, "no mail says {said}: {:?}", plane.mail_to(to));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(plane.mail_to(to).iter().filter(|mail| mail.contains(said)).count(), 1, "{said}");
    }

    let before = kinds(&rest).await.len();
    post(&rest, "notifications:markAllRead", json!({})).await;
    let after = get(&rest, "notifications").await;
    assert_eq!((after["unreadCount"].clone(), kinds(&rest).await.len()), (json!(0), before));
}

/// Who tells dies at each point in turn: each thing is told once all the same.
#[tokio::test(flavor = "multi_thread")]
async fn who_tells_may_die_at_every_point() {
    let mut plane = ControlPlane::without_worker().await;
    plane.lease_ms = 400;
    let tenant = plane.tenant("acme").await;
    let (rest, staff) = (tenant.rest(), plane.operator().await.rest());
    let ticket = post(&rest, "tickets", json!({"subject": "It hangs", "description": "Help"})).await;
    let long = format!("{}/{}/comments", tenant.tokens.tenant, ticket["name"].as_str().expect("a name"));
    let noting = Arc::new(CrashProbe::new([]));
    let worker = plane.work(Arc::clone(&noting) as _).await;
    post(&staff, &long, json!({"body": "answer 0"})).await;
    becomes(&plane, &count("TICKET_ANSWERED"), 1).await;
    let mailed = "SELECT count(*) FROM notifications.mails WHERE sent_at IS NOT NULL";
    becomes(&plane, mailed, 1).await;
    worker.drain().await;
    let mut points: Vec<Crash> = Vec::new();
    for passed in noting.passed() {
        let is_ours = passed.step.starts_with("notify.") || passed.step.starts_with("notification_mail.");
        if is_ours && !points.contains(&passed) {
            points.push(passed);
        }
    }
    assert!(points.len() >= 6, "{points:?}");
    for (number, point) in points.into_iter().enumerate() {
        plane.database.execute("UPDATE notifications.mails SET created_at = created_at - interval '1 hour'").await;
        post(&staff, &long, json!({"body": format!("answer {}", number + 1)})).await;
        let probe = Arc::new(CrashProbe::new([point]));
        let victim = plane.work(Arc::clone(&probe) as _).await;
        probe.crashed().await;
        victim.kill().await;
        let survivor = plane.work(Arc::new(NoProbe)).await;
        let expected = i64::try_from(number + 2).expect("few");
        becomes(&plane, &count("TICKET_ANSWERED"), expected).await;
        becomes(&plane, mailed, expected).await;
        run_again(&plane).await;
        // One that was handed over twice is the same file.
        assert_eq!(i64::try_from(plane.mail_to("admin@acme.example.com").len()), Ok(expected));
        assert_eq!(plane.database.count(&count("TICKET_ANSWERED")).await, expected);
        survivor.drain().await;
    }
}

/// Mails go to whom it concerns, in their language, one for a burst; and end with a click.
#[tokio::test(flavor = "multi_thread")]
async fn mails_tell_of_it_until_their_reader_wants_no_more() {
    let (plane, tenant) = behind(quick(), |_, _| Ok(())).await;
    let member = plane.member("user@example.com", DEMO, "user").await;
    let (rest, staff) = (member.rest(), plane.operator().await.rest());
    let path = "users/me/notificationPreferences";
    let before = get(&rest, path).await;
    assert_eq!((&before["language"], before["preferences"].as_array().expect("kinds").len()), (&json!("en"), 6));
    for (body, field) in [
        (json!({"language": "tlh"}), "notificationPreferences.language"),
        (
            json!({"preferences": [{"kind": "BROADCAST", "channels": ["EMAIL"]}]}),
            "notificationPreferences.preferences[0].channels",
        ),
        (
            json!({"preferences": [{"kind": "KEY_EXPIRING"}, {"kind": "KEY_EXPIRING"}]}),
            "notificationPreferences.preferences[1].kind",
        ),
    ] {
        let (status, reply) = rest.call("PATCH", &format!("/v1/{path}"), Some(body)).await;
        assert_eq!(
            (status, reply["error"]["details"][1]["fieldViolations"][0]["field"].as_str()),
            (400, Some(field)),
            "{reply}"
        );
    }
    let off = json!({"language": "de", "preferences": [{"kind": "TICKET_ANSWERED", "channels": ["EMAIL"]}]});
    let (status, changed) = rest.call("PATCH", &format!("/v1/{path}"), Some(off)).await;
    assert_eq!((status, &changed["language"]), (200, &json!("de")), "{changed}");
    let stale = json!({"language": "en", "etag": before["etag"]});
    assert_eq!(rest.call("PATCH", &format!("/v1/{path}"), Some(stale)).await.0, 409);
    let others = tenant.rest().call("GET", &format!("/v1/{}", changed["name"].as_str().expect("a name")), None).await;
    refused(&others, 404, "NOT_FOUND", "USER_NOT_FOUND");

    let ticket = post(&rest, "tickets", json!({"subject": "Es h\u{e4}ngt <b>", "description": "Hilfe"})).await;
    let name = ticket["name"].as_str().expect("a name");
    let long = format!("{}/{name}/comments", tenant.tokens.tenant);
    post(&staff, &long, json!({"body": "PLANTED", "internal": true})).await;
    post(&staff, &long, json!({"body": "first"})).await;
    let mail = plane.next_mail_to("user@example.com").await;
    assert!(mail.contains("* Ticket 1 wurde beantwortet\n  Es h\u{e4}ngt <b>\n"), "{mail}");
    assert_eq!(get(&rest, "notifications").await["unreadCount"], 0, "it is not told in the product");

    // A burst is one mail, once the pause is over.
    for number in 0..5 {
        post(&staff, &long, json!({"body": format!("more {number}")})).await;
    }
    becomes(&plane, &count("TICKET_ANSWERED"), 6).await;
    assert_eq!(plane.mail_to("user@example.com").len(), 1, "not before the pause is over");
    let earlier = "UPDATE notifications.mails SET created_at = created_at - interval '1 hour'";
    plane.database.execute(earlier).await;
    let digest = plane.next_mail_to("user@example.com").await;
    assert_eq!(digest.matches("Ticket 1 wurde beantwortet").count(), 5, "{digest}");
    assert!(!digest.contains("PLANTED"));
    assert_eq!(plane.mail_to("user@example.com").len(), 2);

    // To open the link changes nothing; the button, or the program of the reader, does.
    let link = digest.lines().find(|line| line.contains(":unsubscribe?token=")).expect("a link");
    let at = link.split_once("/v1/").expect("a path").1.to_owned();
    let stranger = Rest::new(&plane.http, None);
    let page = stranger.request("GET", &format!("/v1/{at}")).send().await.expect("a reply");
    assert_eq!(
        (page.status().as_u16(), &page.headers()["content-type"]),
        (200, &"text/html; charset=utf-8".parse().expect("a value"))
    );
    assert!(page.text().await.expect("text").contains("<form method=\"post\""));
    assert_eq!(get(&rest, path).await["etag"], changed["etag"]);
    let click =
        stranger.request("POST", &format!("/v1/{at}")).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(click.body("List-Unsubscribe=One-Click").send().await.expect("a reply").status(), 200);
    let after = get(&rest, path).await;
    let kind = |of: &Value| {
        of["preferences"].as_array().expect("kinds").iter().find(|one| one["kind"] == "TICKET_ANSWERED").cloned()
    };
    assert_eq!(kind(&after).expect("listed")["channels"], json!([]));
    let wrong = stranger.call("POST", "/v1/notifications:unsubscribe?token=abc", None).await;
    refused(&wrong, 400, "FAILED_PRECONDITION", "UNSUBSCRIBE_TOKEN_INVALID");
    plane.database.execute(earlier).await;
    post(&staff, &long, json!({"body": "last"})).await;
    becomes(&plane, &count("TICKET_ANSWERED"), 7).await;
    run_again(&plane).await;
    assert_eq!(plane.mail_to("user@example.com").len(), 2, "no more of them");
}

/// A broadcast comes by mail where it is to: once an account, in its reader's language, and not after it was taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_is_mailed_once_an_account() {
    let plane = ControlPlane::without_worker().await;
    let worker = plane.work(Arc::new(NoProbe)).await;
    let member = plane.member("user@example.com", DEMO, "user").await;
    let deaf = plane.member("deaf@example.com", DEMO, "user").await;
    let (rest, staff) = (member.rest(), plane.operator().await.rest());
    let path = "/v1/users/me/notificationPreferences";
    assert_eq!(rest.call("PATCH", path, Some(json!({"language": "de"}))).await.0, 200);
    let off = json!({"preferences": [{"kind": "BROADCAST", "channels": ["IN_APP"]}]});
    assert_eq!(deaf.rest().call("PATCH", path, Some(off.clone())).await.0, 200);
    // Who wants none in one tenant gets theirs by the other.
    let acme = plane.tenant("acme").await;
    let both =
        [plane.member("both@example.com", DEMO, "user").await, plane.member("both@example.com", "acme", "user").await];
    assert_eq!(both[1].rest().call("PATCH", path, Some(off.clone())).await.0, 200);
    let text = json!({"title": "Work <tonight>", "body": "It will be slow.", "link": "https://status.example.com/1",
        "audience": {"all": true}, "channels": ["EMAIL"]});
    let draft = post(&staff, "broadcasts", text.clone()).await;
    let name = draft["name"].as_str().expect("a name");
    assert_eq!(draft["channels"], json!(["IN_APP", "EMAIL"]));
    post(&staff, &format!("{name}:activate"), json!({})).await;
    let mail = plane.next_mail_to("user@example.com").await;
    for said in
        ["Guten Tag", "* Work <tonight>\n  It will be slow.\n  https://status.example.com/1\n", ":unsubscribe?token="]
    {
        assert!(mail.contains(said), "{said}: {mail}");
    }
    // The admin is a member of two tenants.
    for address in [ADMIN, "both@example.com", "admin@acme.example.com"] {
        plane.next_mail_to(address).await;
    }
    post(&staff, &format!("{name}:deactivate"), json!({})).await;
    post(&staff, &format!("{name}:activate"), json!({})).await;
    run_again(&plane).await;
    plane.mailed().await;
    let mailed = |address: &str| plane.mail_to(address).len();
    assert_eq!(
        (mailed("user@example.com"), mailed(ADMIN), mailed("deaf@example.com"), mailed("both@example.com")),
        (1, 1, 0, 1)
    );
    let (_, told) = staff.call("GET", &format!("/v1/{name}"), None).await;
    assert_eq!(told["reach"]["mailed"], 4, "{told}");
    // Who comes later gets theirs, whatever their id.
    plane.member("late@example.com", DEMO, "user").await;
    plane.database.execute("UPDATE notifications.broadcasts SET mailed_at = mailed_at - interval '1 hour'").await;
    plane.next_mail_to("late@example.com").await;

    // A tenant's admin has no more said in the provider's name than that there is something to read.
    let own = json!({"title": "Your password ends: evil.example", "body": "Sign in at https://evil.example", "link": "https://evil.example/",
        "audience": {"all": true}, "channels": ["EMAIL"]});
    let own = post(&acme.rest(), "tenants/current/broadcasts", own).await;
    post(&acme.rest(), &format!("{}:activate", own["name"].as_str().expect("a name")), json!({})).await;
    let mail = plane.next_mail_to("admin@acme.example.com").await;
    assert!(
        mail.contains("An admin of “acme” has announced “Your password ends: evil. example”. Sign in to read it."),
        "{mail}"
    );
    assert!(!mail.contains("evil.example"), "{mail}");

    // What is taken back while its mails wait is not mailed; and it is when it is told again.
    let second = post(&staff, "broadcasts", text).await;
    let name = second["name"].as_str().expect("a name");
    worker.drain().await;
    post(&staff, &format!("{name}:activate"), json!({})).await;
    let begin = async |tx: &mut SystemTx| {
        for (owner, broadcast) in mails::broadcasts_to_mail(tx, 0).await? {
            mails::begin_broadcast(tx, owner, broadcast, 100).await?;
        }
        Ok(())
    };
    plane.store.system(system(SystemPurpose::Reconcile), begin).await.expect("begun");
    let waiting = "SELECT count(*) FROM notifications.mails WHERE kind = 'BROADCAST' AND sent_at IS NULL";
    assert!(plane.database.count(waiting).await > 2);
    post(&staff, &format!("{name}:deactivate"), json!({})).await;
    plane.work(Arc::new(NoProbe)).await.detach();
    plane.mailed().await;
    assert_eq!((mailed("user@example.com"), mailed(ADMIN)), (1, 1));
    post(&staff, &format!("{name}:activate"), json!({})).await;
    for address in ["user@example.com", ADMIN, "late@example.com", "both@example.com"] {
        plane.next_mail_to(address).await;
    }
    run_again(&plane).await;
    plane.mailed().await;
    assert_eq!((mailed("user@example.com"), mailed(ADMIN), mailed("deaf@example.com")), (2, 2, 0));
}
