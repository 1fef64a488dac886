//! Today's API answers what the release's API answered, and everybody who could get in still can.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{Release, text};
use crate::support::{ControlPlane, PASSWORD, Rest, Session};

/// Whether today's value stands for the old one.
type Equal = fn(&Value, &Value) -> bool;

/// Fields that may have another value today, and why: the end of a path, and when the values are equal enough.
const MAY_DIFFER: &[(&str, Equal)] = &[
    // System roles get what later releases add.
    (".permissions", |old, new| {
        let (old, new) = (old.as_array(), new.as_array());
        old.zip(new).is_some_and(|(old, new)| old.iter().all(|permission| new.contains(permission)))
    }),
    // Times that were kept as JSON had nanoseconds once; all are told in microseconds.
    ("Time", |old, new| {
        let micros = |time: &Value| Some(time.as_str()?.parse::<DateTime<Utc>>().ok()?.timestamp_micros());
        micros(old).is_some() && micros(old) == micros(new)
    }),
];

/// Notes each field of the old answer that today's answer has not, or has with another value. Today's answer may have more
/// fields. Times may be later by as much as those of the rows; times that are kept as JSON stay as they were written.
fn compare(old: &Value, new: &Value, by: TimeDelta, path: &str, wrong: &mut Vec<String>) {
    if MAY_DIFFER.iter().any(|(end, equal)| path.ends_with(end) && equal(old, new)) {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, old) in old {
                compare(old, new.get(key).unwrap_or(&Value::Null), by, &format!("{path}.{key}"), wrong);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (number, (old, new)) in old.iter().zip(new).enumerate() {
                compare(old, new, by, &format!("{path}[{number}]"), wrong);
            }
        }
        _ if old == new || later(old, new, by) => {}
        _ => wrong.push(format!("{path}: {old}, today {new}")),
    }
}

fn later(old: &Value, new: &Value, by: TimeDelta) -> bool {
    let time = |value: &Value| value.as_str()?.parse::<DateTime<Utc>>().ok();
    time(old).zip(time(new)).is_some_and(|(old, new)| old + by == new)
}

async fn post(rest: &Rest, path: &str, body: Value) -> (u16, Value) {
    rest.call("POST", &format!("/v1/{path}"), Some(body)).await
}

fn reason(reply: &(u16, Value)) -> &str {
    text(&reply.1["error"]["details"][0]["reason"])
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_before_and_everybody_gets_in() {
    for release in Release::all() {
        let (plane, by) = release.upgraded().await;
        answers_as_before(&release, &plane, by).await;
        repeats_are_known(&release, &plane).await;
        credentials_are_good(&release, &plane).await;
        tokens_are_good(&release, &plane).await;
    }
}

async fn answers_as_before(release: &Release, plane: &ControlPlane, by: TimeDelta) {
    let acme = plane.login("admin@acme.example.com", "acme").await;
    let mut wrong = Vec::new();
    for (who, session) in [("admin", plane.admin().await), ("operator", plane.operator().await), ("acme", acme)] {
        let rest = session.rest();
        for (path, old) in release.facts["answers"][who].as_object().expect("answers") {
            let (status, new) = rest.call("GET", &format!("/v1/{path}"), None).await;
            if status == 200 {
                compare(old, &new, by, &format!("{who} {path} "), &mut wrong);
            } else {
                wrong.push(format!("{who} {path}: {status} {new}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {} differences: {wrong:#?}", release.name, wrong.len());
}

/// Releases whose requests have other field numbers than today's.
const RENUMBERED: &[&str] = &["0.1.0-whole-life"];

/// A request that is repeated after the upgrade is not done twice.
async fn repeats_are_known(release: &Release, plane: &ControlPlane) {
    let rest = plane.admin().await.rest();
    let path = format!("vms?requestId={}", release.text("requestId"));
    let repeat = post(&rest, &path, release.facts["request"].clone()).await;
    if repeat.0 == 400 && RENUMBERED.contains(&release.name.as_str()) {
        // Its bytes differ, so it counts as another request with the same id: it is refused, and not done.
        assert_eq!(reason(&repeat), "INVALID_FIELDS", "{repeat:?}");
        assert_eq!(repeat.1["error"]["details"][1]["fieldViolations"][0]["field"], "requestId", "{repeat:?}");
    } else {
        assert_eq!((repeat.0, &repeat.1["name"]), (200, &release.facts["requestOperation"]), "{repeat:?}");
    }

    // A page token may be refused, so that clients begin anew. It never leads to another page.
    let path = format!("/v1/vms?pageSize=2&pageToken={}", release.text("page"));
    let page = rest.call("GET", &path, None).await;
    let all = &release.facts["answers"]["admin"]["vms?showDeleted=true&pageSize=1000"]["vms"];
    let all: Vec<_> = all.as_array().expect("VMs").iter().filter(|vm| vm["state"] != "DELETED").collect();
    let names = |vms: &[&Value]| vms.iter().map(|vm| vm["name"].clone()).collect::<Vec<_>>();
    match page.0 {
        200 => {
            let vms: Vec<_> = page.1["vms"].as_array().expect("VMs").iter().collect();
            assert_eq!(names(&vms), names(&all[2..4]));
        }
        _ => assert_eq!((page.0, reason(&page)), (400, "INVALID_FIELDS"), "{page:?}"),
    }
}

async fn credentials_are_good(release: &Release, plane: &ControlPlane) {
    let facts = &release.facts;
    for (name, good) in [("reader", true), ("rotated", true), ("second", true), ("deleted", false)] {
        let rest = Rest::with_key(&plane.http, text(&facts["keys"][name]));
        let reply = rest.call("GET", "/v1/vms", None).await;
        assert_eq!(reply.0, if good { 200 } else { 401 }, "key {name}: {reply:?}");
        let denied = rest.call("GET", "/v1/users", None).await;
        assert_eq!(denied.0, if good { 403 } else { 401 }, "key {name}: {denied:?}");
    }
    let anybody = Rest::new(&plane.http, None);
    for (session, path) in [("member", "/v1/users/me"), ("support", "/v1/vms")] {
        let refresh = json!({"refreshToken": facts["refresh"][session]});
        let (status, tokens) = post(&anybody, "auth:refresh", refresh.clone()).await;
        assert_eq!(status, 200, "{session}: {tokens}");
        let rest = Rest::new(&plane.http, tokens["accessToken"].as_str());
        let (status, seen) = rest.call("GET", path, None).await;
        assert_eq!(status, 200, "{session}: {seen}");
        if session == "support" {
            let vms = &facts["answers"]["acme"]["vms"]["vms"];
            assert_eq!(
                (&seen["vms"][0]["name"], &seen["vms"][1]),
                (&vms[0]["name"], &Value::Null),
                "those of its tenant"
            );
        }
    }
    for login in facts["logins"].as_array().expect("logins") {
        let [email, tenant, expected] = [0, 1, 2].map(|at| text(&login[at]));
        let refused = Session::login(plane, email, PASSWORD, tenant).await.err();
        assert_eq!(
            refused.map(|status| crate::support::reason(&status)).unwrap_or_default(),
            expected,
            "{email} {tenant}"
        );
    }
    // The custom role lets her do what it says.
    let ada = plane.login("ada@example.com", "demo").await.rest();
    assert_eq!(ada.call("GET", "/v1/vms", None).await.0, 200);
    assert_eq!(ada.call("GET", "/v1/roles", None).await.0, 403);
}

/// Tokens of mails that somebody has not read yet. This comes last, since a password changes.
async fn tokens_are_good(release: &Release, plane: &ControlPlane) {
    const NEW: &str = "battery staple correct";
    let (anybody, token) = (Rest::new(&plane.http, None), |name: &str| &release.facts["tokens"][name]);
    let body = |name: &str| json!({"token": token(name), "password": NEW, "displayName": "Erin"});
    let revoked = post(&anybody, "invitations:accept", body("dave")).await;
    assert_ne!(revoked.0, 200, "{revoked:?}");
    let accepted = post(&anybody, "invitations:accept", body("erin")).await;
    assert_eq!(accepted.0, 200, "{accepted:?}");
    let reset = post(&anybody, "auth:resetPassword", json!({"token": token("reset"), "password": NEW})).await;
    assert_eq!(reset.0, 200, "{reset:?}");
    for email in ["erin@example.com", "ada@example.com"] {
        Session::login(plane, email, NEW, "demo").await.unwrap_or_else(|status| panic!("{email}: {status}"));
    }
}
