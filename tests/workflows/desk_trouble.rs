//! A desk that fails, refuses, or is changed at the same time: nothing is there twice, nothing later is undone, and nobody waits for what
//! cannot be done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use virtualstack_server::Config;
use virtualstack_worker::NoProbe;

use super::desk::{PLANTED, SOON, Staff, World};
use super::tasks::becomes;
use crate::support::{ControlPlane, DeskStandIn, HOOK, Rest};

impl World {
    fn desk(&self) -> &DeskStandIn {
        match &self.staff {
            Staff::There(desk) => desk,
            Staff::Here(_) => panic!("staff work here"),
        }
    }

    /// The name of a ticket for operators, and who they are.
    async fn operator(&self, ticket: &str) -> (String, Rest) {
        (format!("{}/{ticket}", self.tenant.tokens.tenant), self.plane.operator().await.rest())
    }

    async fn get(&self, path: &str) -> Value {
        self.call("GET", path, Value::Null).await
    }

    /// Waits until what operators are told of a ticket's desk has something in it.
    async fn operators_are_told(&self, ticket: &str, part: &str) {
        let (name, staff) = self.operator(ticket).await;
        let begun = Instant::now();
        loop {
            let error = staff.call("GET", &format!("/v1/{name}"), None).await.1["desk"]["error"].clone();
            if error.as_str().is_some_and(|error| error.contains(part)) {
                return;
            }
            assert!(begun.elapsed() < SOON, "operators are told {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_again_puts_nothing_there_twice() {
    let world = World::new(true).await;
    world.desk().control("faults", json!({"lost_replies": 1.0})).await;
    let ticket = world.write("It hangs").await;
    let (name, staff) = world.operator(&ticket).await;
    let sync = async || {
        let (status, reply) = staff.call("POST", &format!("/v1/{name}:sync"), Some(json!({}))).await;
        assert_eq!(status, 200, "{reply}");
    };
    let begun = Instant::now();
    while world.desk().twins(&ticket).await.is_empty() {
        assert!(begun.elapsed() < SOON, "the ticket does not come");
        sync().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..10 {
        sync().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.desk().control("faults", json!({})).await;
    world.tenant_sees(&ticket, |found, _| found["desk"]["state"] == "SYNCED").await;
    assert_eq!(world.desk().twins(&ticket).await.len(), 1);

    world.desk().control("faults", json!({"lost_replies": 1.0})).await;
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "once"})).await;
    for _ in 0..20 {
        sync().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.desk().control("faults", json!({})).await;
    world.tenant_sees(&ticket, |found, _| found["desk"]["state"] == "SYNCED").await;
    assert_eq!(world.seen(&ticket).await.said, ["once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_of_a_state_the_later_one_stays() {
    let world = World::new(true).await;
    let ticket = world.write("It hangs").await;
    world.set_state(&ticket, "PENDING").await;
    world.tenant_sees(&ticket, |found, _| found["state"] == "PENDING").await;

    // Neither side hears of the other meanwhile. Staff are later.
    let tick = async || tokio::time::sleep(Duration::from_millis(2100)).await;
    world.desk().control("faults", json!({"errors": 1.0})).await;
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "Done"})).await;
    tick().await;
    world.set_state(&ticket, "RESOLVED").await;
    tick().await;
    world.desk().control("faults", json!({})).await;
    world.staff_see(&ticket, |seen| seen.said == ["Done"]).await;
    world.tenant_sees(&ticket, |found, _| found["state"] == "RESOLVED" && found["desk"]["state"] == "SYNCED").await;
    assert_eq!(world.seen(&ticket).await.state, "RESOLVED");

    // The member is later, by a word alone: here the ticket is open all the time.
    world.call("POST", &format!("{ticket}:reopen"), json!({})).await;
    world.staff_see(&ticket, |seen| seen.state == "OPEN").await;
    world.desk().control("faults", json!({"errors": 1.0})).await;
    world.set_state(&ticket, "RESOLVED").await;
    tick().await;
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "It hangs again"})).await;
    tick().await;
    world.desk().control("faults", json!({})).await;
    world.staff_see(&ticket, |seen| seen.state == "OPEN" && seen.said.len() == 2).await;
    world.tenant_sees(&ticket, |found, _| found["state"] == "OPEN" && found["desk"]["state"] == "SYNCED").await;
}

/// What staff say among themselves moves nothing that the tenant sees, and its log does not tell of it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_tells_of_what_is_internal() {
    let world = World::new(true).await;
    let ticket = world.write("It hangs").await;
    world.tenant_sees(&ticket, |found, _| found["desk"]["state"] == "SYNCED").await;
    let before = world.get(&ticket).await;
    let (name, staff) = world.operator(&ticket).await;
    let body = json!({"body": PLANTED, "internal": true});
    let (status, note) = staff.call("POST", &format!("/v1/{name}/comments"), Some(body)).await;
    assert_eq!(status, 200, "{note}");
    let upload = staff.request("POST", &format!("/v1/{name}/attachments:upload?fileName=a.txt&internal=true"));
    let file: Value = upload.body("a").send().await.expect("a reply").json().await.expect("JSON");
    world.staff_see(&ticket, |seen| seen.said == [PLANTED] && seen.files == 1).await;
    // Refused ones, too.
    world.desk().control("refusals", json!({"words": ["never"]})).await;
    let body = json!({"body": format!("never {PLANTED}"), "internal": true});
    assert_eq!(staff.call("POST", &format!("/v1/{name}/comments"), Some(body)).await.0, 200);
    world.operators_are_told(&ticket, "refused").await;
    assert_eq!(world.get(&ticket).await, before);

    let logged = async || {
        let logs = "SELECT count(*) FROM audit.logs l JOIN iam.tenants t ON t.id = l.tenant_id WHERE t.slug = 'acme'";
        world.plane.database.count(logs).await
    };
    let rows = logged().await;
    for read in [
        note["name"].clone(),
        file["name"].clone(),
        json!(format!("{}:download", file["name"].as_str().expect("a name"))),
    ] {
        let read = read.as_str().expect("a name");
        assert_eq!(staff.request("GET", &format!("/v1/{read}")).send().await.expect("a reply").status(), 200, "{read}");
    }
    let in_provider =
        "SELECT count(*) FROM audit.logs WHERE action LIKE '%TicketAttachment' AND resource LIKE 'tenants/%'";
    let begun = Instant::now();
    while world.plane.database.count(in_provider).await < 3 {
        assert!(begun.elapsed() < SOON, "the provider's log does not tell of it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(logged().await, rows);
}

/// Many tickets change in one second, most of which are nobody's here; one cannot be read; an item is refused.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_what_cannot_be_done() {
    let world = World::new(true).await;
    let (broken, sound) = (world.write("broken").await, world.write("sound").await);
    let at = world.theirs(&broken).await;
    world.theirs(&sound).await;
    world.tenant_sees(&broken, |found, _| found["desk"]["state"] == "SYNCED").await;
    world.desk().control(&format!("tickets/{at}/break"), json!({})).await;
    world.answer(&broken, "not read yet", false).await;
    world.desk().others(250).await;
    world.answer(&sound, "read at once", false).await;
    world.tenant_sees(&sound, |_, said| said == ["read at once"]).await;
    world.operators_are_told(&broken, "cannot be read").await;
    assert!(world.bodies(&broken).await.is_empty());
    world.desk().control(&format!("tickets/{at}/break"), json!({"broken": false})).await;
    world.tenant_sees(&broken, |_, said| said == ["not read yet"]).await;

    world.desk().control("refusals", json!({"words": ["forbidden"]})).await;
    for body in ["forbidden", "allowed"] {
        world.call("POST", &format!("{sound}/comments"), json!({"body": body})).await;
    }
    world.staff_see(&sound, |seen| seen.said == ["read at once", "allowed"]).await;
    world.tenant_sees(&sound, |found, _| found["desk"]["state"] == "FAILED").await;
    world.operators_are_told(&sound, "refused").await;
    world.desk().control("refusals", json!({"words": []})).await;
    let (name, staff) = world.operator(&sound).await;
    assert_eq!(staff.call("POST", &format!("/v1/{name}:sync"), Some(json!({}))).await.0, 200);
    world.staff_see(&sound, |seen| seen.said == ["read at once", "allowed", "forbidden"]).await;
    world.tenant_sees(&sound, |found, _| found["desk"]["state"] == "SYNCED").await;
}

/// A quote of what we have put there is somebody's own words; mail is from whom it is.
#[tokio::test(flavor = "multi_thread")]
async fn who_says_something_is_told_as_it_is() {
    let world = World::new(true).await;
    let ticket = world.write("It hangs").await;
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "Help"})).await;
    world.staff_see(&ticket, |seen| seen.said == ["Help"]).await;
    let at = world.theirs(&ticket).await;
    let twin = world.desk().twins(&ticket).await.remove(0);
    let quoted = twin["conversations"][0]["body"].as_str().expect("text").to_owned();
    let quote = json!({"body": format!("<div>Restart it.</div>{quoted}")});
    world.desk().control(&format!("tickets/{at}/reply"), quote).await;
    let mail = json!({"body": format!("<p>I did.</p><div>{quoted}</div>"), "incoming": true});
    world.desk().control(&format!("tickets/{at}/reply"), mail).await;
    world.tenant_sees(&ticket, |_, said| said.len() == 3).await;
    let comments = world.get(&format!("{ticket}/comments?orderBy=createTime")).await["comments"].clone();
    let requester = world.get(&ticket).await["requester"].clone();
    let by: Vec<_> = comments.as_array().expect("comments").iter().map(|comment| comment["author"].clone()).collect();
    assert_eq!(by, [requester.clone(), json!("provider"), requester]);
    assert_eq!(comments[2]["authorDisplayName"], comments[0]["authorDisplayName"]);
}

/// The numbers of one desk mean nothing in another.
#[tokio::test(flavor = "multi_thread")]
async fn another_desk_has_twins_of_its_own() {
    let config = Config { desk_is_local: false, ..Config::default() };
    let mut plane = ControlPlane::start_with(config).await;
    let tenant = plane.tenant("acme").await;
    let (first, second) = (DeskStandIn::start(1000, 1).await, DeskStandIn::start(1000, 2).await);
    second.others(5).await;
    plane.desk = Some(first.adapter());
    let worker = plane.work(Arc::new(NoProbe)).await;
    let mut world = World { rest: tenant.rest(), plane, tenant, staff: Staff::There(first) };
    let ticket = world.write("It hangs").await;
    world.tenant_sees(&ticket, |found, _| found["desk"]["state"] == "SYNCED").await;
    world.answer(&ticket, "from the first", false).await;
    world.tenant_sees(&ticket, |_, said| said == ["from the first"]).await;
    worker.drain().await;
    world.plane.desk = Some(second.adapter());
    world.staff = Staff::There(second);
    world.desk().control("tickets/1/reply", json!({"body": "for somebody else"})).await;
    world.plane.work(Arc::new(NoProbe)).await.detach();
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "Thanks"})).await;
    world.staff_see(&ticket, |seen| seen.said == ["from the first", "Thanks"]).await;
    world.answer(&ticket, "from the second", false).await;
    world.tenant_sees(&ticket, |_, said| said == ["from the first", "Thanks", "from the second"]).await;
    let read = "SELECT count(*) FROM support.desk_cursors";
    becomes(&world.plane, read, 2).await;
}

/// What the desk says is a hint, twice or out of order: with it answers come long before the desk is read by the timer.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_when_the_desk_says_so() {
    let world = World::reading_every(3_600, true).await;
    let ticket = world.write("It hangs").await;
    world.theirs(&ticket).await;
    let (path, header, secret) = HOOK;
    let url = format!("{}/v1/deskWebhooks/{path}", world.plane.http);
    let hook =
        |secret: &str| json!({"url": url, "secret_header": header, "secret": secret, "twice": 1, "reorder": 0.3});
    // Somebody else's hints are none.
    world.desk().control("webhook", hook("a-secret-that-somebody-else-shows")).await;
    world.answer(&ticket, "An answer", false).await;
    let comments = format!("{ticket}/comments");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.get(&comments).await["comments"], json!([]));
    world.desk().control("webhook", hook(secret)).await;
    world.answer(&ticket, "Another one", false).await;
    world.answer(&ticket, "A third one", false).await;
    let begun = Instant::now();
    loop {
        let said = world.get(&comments).await["comments"].clone();
        let bodies: Vec<_> = said.as_array().expect("comments").iter().map(|one| one["body"].clone()).collect();
        if bodies.len() == 3 {
            assert_eq!(bodies, ["A third one", "Another one", "An answer"], "newest first");
            break;
        }
        assert!(begun.elapsed() < SOON, "{bodies:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
