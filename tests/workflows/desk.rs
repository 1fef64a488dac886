//! Tickets and the provider's staff, who answer them here or in a desk of their own: the same is true of both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use virtualstack_server::Config;
use virtualstack_worker::NoProbe;

use crate::support::{ControlPlane, DeskStandIn, Rest, Session};
use crate::tenancy::calls::texts;

/// What no tenant may ever see.
pub(super) const PLANTED: &str = "PLANTED-among-staff";

/// How long anything may take that happens by itself.
pub(super) const SOON: Duration = Duration::from_secs(40);

/// Where staff work.
pub(super) enum Staff {
    Here(Rest),
    There(DeskStandIn),
}

/// What staff see of a ticket.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) subject: String,
    pub(super) state: String,
    pub(super) priority: String,
    /// What each of the public and internal comments has in it, in order.
    pub(super) said: Vec<String>,
    pub(super) files: usize,
}

pub(super) struct World {
    pub(super) plane: ControlPlane,
    pub(super) tenant: Session,
    pub(super) rest: Rest,
    pub(super) staff: Staff,
}

impl World {
    pub(super) async fn new(there: bool) -> Self {
        Self::reading_every(1, there).await
    }

    /// Where staff work elsewhere, that is read so often.
    pub(super) async fn reading_every(seconds: u32, there: bool) -> Self {
        let config =
            Config { desk_is_local: !there, calls_per_second: 100_000, calls_burst: 100_000, ..Config::default() };
        let mut plane = ControlPlane::start_with(config).await;
        plane.desk_poll_seconds = seconds;
        let tenant = plane.tenant("acme").await;
        let staff = if there {
            let desk = DeskStandIn::start(1000, 7).await;
            plane.desk = Some(desk.adapter());
            Staff::There(desk)
        } else {
            Staff::Here(plane.operator().await.rest())
        };
        plane.work(Arc::new(NoProbe)).await.detach();
        Self { rest: tenant.rest(), plane, tenant, staff }
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let body = Some(body).filter(|body| !body.is_null());
        let (status, reply) = self.rest.call(method, &format!("/v1/{path}"), body).await;
        assert_eq!(status, 200, "{method} {path}: {reply}");
        reply
    }

    pub(super) async fn write(&self, subject: &str) -> String {
        let body = json!({"subject": subject, "description": "a < b & <script>", "priority": "HIGH"});
        self.call("POST", "tickets", body).await["name"].as_str().expect("a name").to_owned()
    }

    /// The name or the number of a ticket where staff work.
    pub(super) async fn theirs(&self, ticket: &str) -> String {
        match &self.staff {
            Staff::Here(_) => format!("{}/{ticket}", self.tenant.tokens.tenant),
            Staff::There(desk) => {
                let begun = Instant::now();
                loop {
                    let twins = desk.twins(ticket).await;
                    assert!(twins.len() < 2, "twice: {twins:?}");
                    if let Some(twin) = twins.first() {
                        return twin["id"].to_string();
                    }
                    assert!(begun.elapsed() < SOON, "{ticket} does not come to the desk");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    pub(super) async fn answer(&self, ticket: &str, text: &str, internal: bool) {
        let at = self.theirs(ticket).await;
        match &self.staff {
            Staff::Here(rest) => {
                let body = json!({"body": text, "internal": internal});
                assert_eq!(rest.call("POST", &format!("/v1/{at}/comments"), Some(body)).await.0, 200);
            }
            Staff::There(desk) => {
                let html = format!("<div>{}</div>", text.replace('&', "&amp;").replace('<', "&lt;"));
                let path = if internal { "note" } else { "reply" };
                desk.control(&format!("tickets/{at}/{path}"), json!({"body": html})).await;
            }
        }
    }

    pub(super) async fn set_state(&self, ticket: &str, state: &str) {
        let at = self.theirs(ticket).await;
        match &self.staff {
            Staff::Here(rest) => {
                assert_eq!(rest.call("PATCH", &format!("/v1/{at}"), Some(json!({"state": state}))).await.0, 200);
            }
            Staff::There(desk) => desk.control(&format!("tickets/{at}/status"), json!({"status": number(state)})).await,
        }
    }

    /// What staff see, of what both sides have.
    pub(super) async fn seen(&self, ticket: &str) -> Seen {
        let at = self.theirs(ticket).await;
        match &self.staff {
            Staff::Here(rest) => {
                let get = async |path: &str| rest.call("GET", &format!("/v1/{path}"), None).await.1;
                let found = get(&at).await;
                let comments =
                    get(&format!("{at}/comments?orderBy=createTime&pageSize=1000")).await["comments"].clone();
                let files = get(&format!("{at}/attachments")).await["attachments"].as_array().map_or(0, Vec::len);
                let text = |value: &Value| value.as_str().expect("text").to_owned();
                let said =
                    comments.as_array().expect("comments").iter().map(|comment| text(&comment["body"])).collect();
                let (subject, state) = (text(&found["subject"]), text(&found["state"]));
                Seen { subject, state, priority: text(&found["priority"]), said, files }
            }
            Staff::There(desk) => {
                let twin = desk.twins(ticket).await.remove(0);
                let words = ["", "", "OPEN", "PENDING", "RESOLVED", "CLOSED"];
                let number = |field: &str| usize::try_from(twin[field].as_u64().expect("a number")).expect("small");
                let said = twin["conversations"].as_array().expect("conversations");
                let files = said.iter().map(|said| said["attachments"].as_array().map_or(0, Vec::len)).sum();
                let said = said.iter().filter(|said| said["attachments"].as_array().is_none_or(Vec::is_empty));
                let text = |said: &Value| {
                    let text = said["body_text"].as_str().expect("text");
                    let text = text.split("VirtualStack ref").next().unwrap_or_default().trim();
                    text.rsplit("\n").next().unwrap_or_default().to_owned()
                };
                Seen {
                    subject: twin["subject"].as_str().expect("text").to_owned(),
                    state: words.get(number("status")).unwrap_or(&"").to_string(),
                    priority: ["", "LOW", "MEDIUM", "HIGH", "URGENT"][number("priority")].to_owned(),
                    said: said.map(text).collect(),
                    files,
                }
            }
        }
    }

    /// Waits until staff see something.
    pub(super) async fn staff_see(&self, ticket: &str, is: impl Fn(&Seen) -> bool) {
        let begun = Instant::now();
        loop {
            let seen = self.seen(ticket).await;
            if is(&seen) {
                return;
            }
            assert!(begun.elapsed() < SOON, "staff see {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the tenant sees something of a ticket and its comments.
    pub(super) async fn tenant_sees(&self, ticket: &str, is: impl Fn(&Value, &[String]) -> bool) {
        let begun = Instant::now();
        loop {
            let found = self.call("GET", ticket, Value::Null).await;
            let said = self.bodies(ticket).await;
            if is(&found, &said) {
                return;
            }
            assert!(begun.elapsed() < SOON, "the tenant sees {found} {said:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn bodies(&self, ticket: &str) -> Vec<String> {
        let comments =
            self.call("GET", &format!("{ticket}/comments?orderBy=createTime&pageSize=1000"), Value::Null).await;
        let comments = comments["comments"].as_array().expect("comments").clone();
        comments.iter().map(|comment| comment["body"].as_str().expect("text").to_owned()).collect()
    }
}

fn number(state: &str) -> u32 {
    match state {
        "OPEN" => 2,
        "PENDING" => 3,
        "RESOLVED" => 4,
        _ => 5,
    }
}

/// What is true wherever staff work.
async fn conforms(there: bool) {
    let world = World::new(there).await;
    let ticket = world.write("It hangs").await;
    world
        .staff_see(&ticket, |seen| {
            (&*seen.subject, &*seen.state, &*seen.priority) == ("It hangs", "OPEN", "HIGH") && seen.said.is_empty()
        })
        .await;

    // What each says, the other sees, in order and once.
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "first & <b>"})).await;
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "second"})).await;
    world.staff_see(&ticket, |seen| seen.said == ["first & <b>", "second"]).await;
    world.answer(&ticket, "an answer & <i>", false).await;
    world.answer(&ticket, PLANTED, true).await;
    world.tenant_sees(&ticket, |_, said| said == ["first & <b>", "second", "an answer & <i>"]).await;
    world.staff_see(&ticket, |seen| seen.said.len() == 4).await;
    for path in &[ticket.clone(), format!("{ticket}/comments"), "tickets".to_owned()] {
        assert!(!world.call("GET", path, Value::Null).await.to_string().contains(PLANTED), "{path}");
    }
    let kept = format!("SELECT count(*) FROM support.internal_comments WHERE body = '{PLANTED}'");
    super::tasks::becomes(&world.plane, &kept, 1).await;

    // States go both ways.
    world.set_state(&ticket, "PENDING").await;
    world.tenant_sees(&ticket, |found, _| found["state"] == "PENDING").await;
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "third"})).await;
    world.staff_see(&ticket, |seen| seen.state == "OPEN" && seen.said.last().is_some_and(|said| said == "third")).await;
    world.set_state(&ticket, "RESOLVED").await;
    world.tenant_sees(&ticket, |found, _| found["state"] == "RESOLVED" && found["resolveTime"].is_string()).await;
    world.call("POST", &format!("{ticket}:close"), json!({})).await;
    world.staff_see(&ticket, |seen| seen.state == "CLOSED").await;
    world.call("POST", &format!("{ticket}:reopen"), json!({})).await;
    world.call("PATCH", &ticket, json!({"subject": "It hangs again", "priority": "URGENT"})).await;
    world
        .staff_see(&ticket, |seen| {
            (&*seen.subject, &*seen.state, &*seen.priority) == ("It hangs again", "OPEN", "URGENT")
        })
        .await;

    // Files, too.
    let upload = world.rest.request("POST", &format!("/v1/{ticket}/attachments:upload?fileName=log.txt"));
    assert_eq!(upload.body("a log").send().await.expect("a reply").status(), 200);
    world.staff_see(&ticket, |seen| seen.files == 1).await;

    let at = world.theirs(&ticket).await;
    match &world.staff {
        Staff::Here(rest) => {
            let upload = rest.request("POST", &format!("/v1/{at}/attachments:upload?fileName=fix.txt"));
            assert_eq!(upload.body("a fix").send().await.expect("a reply").status(), 200);
        }
        Staff::There(desk) => {
            let file = json!({"name": "fix.txt", "content_type": "text/html", "content": "YSBmaXg="});
            let body = json!({"body": "See the file", "private": false, "attachments": [file]});
            desk.control(&format!("tickets/{at}/note"), body).await;
        }
    }
    let there_is = "SELECT count(*) FROM support.ticket_attachments WHERE file_name = 'fix.txt' AND author_id IS NULL";
    super::tasks::becomes(&world.plane, there_is, 1).await;
    let files = world.call("GET", &format!("{ticket}/attachments?filter=fileName%3Dfix.txt"), Value::Null).await;
    let fix = &files["attachments"][0];
    assert_eq!((&fix["contentType"], &fix["author"]), (&json!("text/plain"), &json!("provider")));
    let fix = format!("/v1/{}:download", fix["name"].as_str().expect("a name"));
    let got = world.rest.request("GET", &fix).send().await.expect("a reply").bytes().await.expect("bytes");
    assert_eq!(&got[..], b"a fix");

    let desk = world.call("GET", &ticket, Value::Null).await["desk"].clone();
    assert_eq!(desk["error"], "");
    if there {
        world.tenant_sees(&ticket, |found, _| found["desk"]["state"] == "SYNCED").await;
    } else {
        assert_eq!(desk["state"], "LOCAL");
    }
    // Nothing comes back as an echo.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut said = vec!["first & <b>", "second", "an answer & <i>", "third"];
    said.extend(there.then_some("See the file"));
    assert_eq!(world.bodies(&ticket).await, said);
    assert_eq!(world.seen(&ticket).await.files, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_who_work_here_and_tenants_see_the_same() {
    conforms(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn staff_who_work_in_freshservice_and_tenants_see_the_same() {
    conforms(true).await;
}

/// What the desk refuses is told to operators, and sent when they ask for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_desk_refuses_is_told_and_sent_again() {
    let world = World::new(true).await;
    let Staff::There(desk) = &world.staff else { panic!("a desk") };
    let ticket = world.write("first").await;
    let at = world.theirs(&ticket).await;
    desk.control(&format!("tickets/{at}/delete"), json!({})).await;
    world.call("POST", &format!("{ticket}/comments"), json!({"body": "still there?"})).await;
    world.tenant_sees(&ticket, |found, _| found["desk"]["state"] == "FAILED").await;
    let seen = world.call("GET", &ticket, Value::Null).await;
    assert_eq!(seen["desk"]["error"], "", "for operators only");
    let staff = world.plane.operator().await.rest();
    let long = format!("/v1/{}/{ticket}", world.tenant.tokens.tenant);
    let error = staff.call("GET", &long, None).await.1["desk"]["error"].as_str().expect("text").to_owned();
    assert!(!error.is_empty());
    desk.control(&format!("tickets/{at}/restore"), json!({})).await;
    let (status, reply) = staff.call("POST", &format!("{long}:sync"), Some(json!({}))).await;
    assert_eq!((status, &reply["desk"]["error"]), (200, &json!("")), "{reply}");
    world.tenant_sees(&ticket, |found, _| found["desk"]["state"] == "SYNCED").await;
    world.staff_see(&ticket, |seen| seen.said == ["still there?"]).await;
}

/// Random actions on both sides, while replies are lost, calls are refused and workers die: at the end both have the same.
#[tokio::test(flavor = "multi_thread")]
async fn both_sides_agree_after_everything_that_can_happen() {
    let seed = crate::support::setting("VIRTUALSTACK_TEST_SEED", fastrand::u64(..));
    eprintln!("VIRTUALSTACK_TEST_SEED={seed}");
    let actions = crate::support::setting("VIRTUALSTACK_TEST_ACTIONS", 60);
    let mut random = fastrand::Rng::with_seed(seed);
    let config = Config {
        desk_is_local: false,
        calls_per_second: 100_000,
        calls_burst: 100_000,
        ticket_comments_per_tenant_per_hour: 100_000,
        ..Config::default()
    };
    let mut plane = ControlPlane::start_with(config).await;
    plane.lease_ms = 400;
    let tenant = plane.tenant("acme").await;
    let desk = DeskStandIn::start(400, seed).await;
    plane.desk = Some(desk.adapter());
    let faults = json!({"lost_replies": 0.1, "errors": 0.05, "resets": 0.05, "rate_limited": 0.03,
        "slow": {"p": 0.05, "seconds": 0.2}});
    desk.control("faults", faults).await;
    let mut worker = plane.work(Arc::new(NoProbe)).await;
    let world = World { rest: tenant.rest(), plane, tenant, staff: Staff::There(desk) };
    let Staff::There(desk) = &world.staff else { panic!("a desk") };
    let mut tickets: Vec<String> = Vec::new();
    let (mut said, mut answered) = (0, 0);
    for action in 0..actions {
        if tickets.len() < 3 {
            tickets.push(world.write(&format!("ticket {}", tickets.len())).await);
            continue;
        }
        let ticket = tickets[random.usize(..tickets.len())].clone();
        match random.u32(..10) {
            0..4 => {
                let body = json!({"body": format!("said {action}")});
                let (status, _) = world.rest.call("POST", &format!("/v1/{ticket}/comments"), Some(body)).await;
                said += u32::from(status == 200);
            }
            4..6 => {
                world.answer(&ticket, &format!("answered {action}"), false).await;
                answered += 1;
            }
            6 => world.answer(&ticket, &format!("{PLANTED} {action}"), true).await,
            7 => world.set_state(&ticket, ["OPEN", "PENDING", "RESOLVED"][random.usize(..3)]).await,
            8 => {
                let priority = ["LOW", "MEDIUM", "HIGH", "URGENT"][random.usize(..4)];
                let body = Some(json!({"priority": priority}));
                world.rest.call("PATCH", &format!("/v1/{ticket}"), body).await;
            }
            _ => {
                worker.kill().await;
                worker = world.plane.work(Arc::new(NoProbe)).await;
            }
        }
    }
    desk.control("faults", json!({})).await;
    for ticket in &tickets {
        let begun = Instant::now();
        loop {
            let found = world.call("GET", ticket, Value::Null).await;
            let (ours, theirs) = (world.bodies(ticket).await, world.seen(ticket).await);
            let public: Vec<_> = theirs.said.iter().filter(|said| !said.contains(PLANTED)).cloned().collect();
            let sorted = |mut of: Vec<String>| {
                of.sort();
                of
            };
            let same = sorted(ours.clone()) == sorted(public)
                && found["state"] == json!(theirs.state)
                && found["priority"] == json!(theirs.priority);
            if same {
                break;
            }
            assert!(begun.elapsed() < SOON, "{found} {ours:?}\n{theirs:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(desk.twins(ticket).await.len(), 1, "{ticket} is there once");
    }
    let all: Vec<String> = texts(&world.plane.database, "SELECT body FROM support.all_comments").await;
    let count = |what: &str| u32::try_from(all.iter().filter(|body| body.starts_with(what)).count()).expect("few");
    assert_eq!((count("said"), count("answered")), (said, answered), "no comment is lost, and none is there twice");
    let leaked = format!("SELECT count(*) FROM support.ticket_comments WHERE body LIKE '%{PLANTED}%'");
    assert_eq!(world.plane.database.count(&leaked).await, 0);
    worker.drain().await;
}
