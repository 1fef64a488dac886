//! When things are said to have happened: as exactly as it is kept, and never before what happened earlier.

use std::sync::Arc;

use diesel_async::SimpleAsyncConnection as _;
use serde_json::{Value, json};
use virtualstack_proto::virtualstack::watch::v1::watch_message::Type;
use virtualstack_worker::NoProbe;

use super::rest::Lines;
use super::{Watch, describe, settings};
use crate::support::ControlPlane;

/// Every time that stands in JSON.
fn times(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::String(text) if chrono::DateTime::parse_from_rfc3339(text).is_ok() => found.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|inner| times(inner, found)),
        Value::Object(fields) => fields.values().for_each(|inner| times(inner, found)),
        _ => {}
    }
}

/// A change that is told while its transaction's values are still in memory says the same as a read of what was kept.
#[tokio::test(flavor = "multi_thread")]
async fn times_are_as_exact_as_they_are_kept() {
    let plane = ControlPlane::start_with(settings()).await;
    plane.work(Arc::new(NoProbe)).await.detach();
    let rest = plane.admin().await.rest();
    let template = plane.templates().await;
    let mut watches =
        [Lines::open(&rest, "/v1/vms:watch", &[]).await, Lines::open(&rest, "/v1/operations:watch", &[]).await];
    let body = json!({"displayName": "web", "template": template});
    let (status, operation) = rest.call("POST", "/v1/vms", Some(body)).await;
    assert_eq!(status, 200, "{operation}");
    let mut told = vec![operation];
    for (watch, is_over) in watches
        .iter_mut()
        .zip([(|message: &Value| message["vm"]["state"] == "RUNNING") as fn(&Value) -> bool, |message: &Value| {
            message["operation"]["done"] == true
        }])
    {
        while !told.last().is_some_and(is_over) {
            told.push(watch.line().await);
        }
    }
    let mut found = Vec::new();
    told.iter().for_each(|message| times(message, &mut found));
    assert!(found.len() > 20, "{found:?}");
    for time in found {
        let digits = time.split_once('.').map_or(0, |(_, rest)| rest.trim_end_matches('Z').len());
        assert!(digits <= 6, "{time} is more exact than what is kept");
    }
    for (kind, message) in ["vm", "operation"].iter().flat_map(|kind| told.iter().rev().map(move |told| (kind, told))) {
        let Some(name) = message[kind]["name"].as_str() else { continue };
        let (_, read) = rest.call("GET", &format!("/v1/{name}"), None).await;
        if read["etag"] == message[kind]["etag"] && message[kind]["done"] != false {
            assert_eq!(read, message[kind]);
        }
    }
}

/// Changes that stand in the log with a time before that of the change before them.
const BACKWARDS: &str = "SELECT count(*) FROM (SELECT created_at - lag(created_at) OVER \
    (PARTITION BY tenant_id ORDER BY position) AS step FROM audit.changes) told WHERE step < interval '0'";

#[tokio::test(flavor = "multi_thread")]
async fn times_never_run_backwards() {
    let plane = ControlPlane::start_with(settings()).await;
    plane.work(Arc::new(NoProbe)).await.detach();
    plane.templates().await;
    let session = plane.admin().await;
    let (early, late) = (session.running("early").await.name, session.running("late").await.name);
    plane.idle().await;

    // A transaction that begins first and has to wait, and one that begins later and is through.
    let mut keeper = plane.database.admin().await;
    let keep = format!("BEGIN; SELECT 1 FROM compute.virtual_machines WHERE id = '{}' FOR UPDATE", &early[4..]);
    keeper.batch_execute(&keep).await.expect("a lock");
    let waiting = tokio::spawn({
        let (session, early) = (session.clone(), early.clone());
        async move { describe(&session, &early, "first to begin").await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let mut looks = 0..2_000;
    while plane.database.count(waits).await == 0 {
        looks.next().expect("it waits for the lock");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    describe(&session, &late, "first to end").await.expect("a change");
    keeper.batch_execute("ROLLBACK").await.expect("a rollback");
    waiting.await.expect("no panic").expect("a change");
    assert_eq!(plane.database.count(BACKWARDS).await, 0, "whatever waits");

    // The clock was an hour ahead.
    let ahead = "UPDATE audit.change_heads SET changed_at = now() + interval '1 hour' WHERE changed_at IS NOT NULL; \
        UPDATE audit.changes c SET created_at = h.changed_at FROM audit.change_heads h \
        WHERE h.tenant_id = c.tenant_id AND h.position = c.position; \
        UPDATE compute.virtual_machines SET updated_at = now() + interval '1 hour'";
    plane.database.execute(ahead).await;
    let before = session.get(&early).await.expect("a VM").update_time;
    let mut watch = Watch::vms(&session, "").await.expect("a watch");
    let synced = watch.until(Type::Synced).await.pop().and_then(|synced| synced.change_time).expect("a time");
    describe(&session, &early, "after the clock was set").await.expect("a change");
    let told = watch.told().await;
    let bookmark = watch.until(Type::Bookmark).await.pop().and_then(|bookmark| bookmark.change_time).expect("a time");
    let order = [synced, told.change_time.expect("a time"), bookmark].map(|time| (time.seconds, time.nanos));
    assert!(order.is_sorted(), "what a watch tells: {order:?}");
    assert_eq!(plane.database.count(BACKWARDS).await, 0, "whatever the clock does");
    let after = session.get(&early).await.expect("a VM").update_time;
    let at = |time: Option<prost_types::Timestamp>| time.map(|time| (time.seconds, time.nanos)).expect("a time");
    assert!(at(after) >= at(before), "{after:?} {before:?}");
}
