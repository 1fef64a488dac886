//! Each change once and in order, whatever happens to the connection, and whoever else is at work on the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection as _;
use virtualstack_proto::virtualstack::watch::v1::WatchMessage;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Type;
use virtualstack_worker::NoProbe;

use super::{SOON, Watch, describe, settings, vm};
use crate::support::{ControlPlane, Seed, Session};
use crate::tenancy::calls::texts;

const CUTS: usize = 50;
const VMS: usize = 5;

/// What a client has been told, over all its connections.
#[derive(Default)]
struct Client {
    /// Where it goes on; nothing before the end of a snapshot.
    token: String,
    /// Version of each VM as last told.
    versions: BTreeMap<String, i64>,
    /// Every change: "<name> <type> <version>".
    changes: Vec<String>,
}

impl Client {
    /// Takes a message in; whether it was a change.
    fn take(&mut self, message: &WatchMessage) -> bool {
        if !message.resume_token.is_empty() {
            self.token.clone_from(&message.resume_token);
        }
        let kind = message.r#type();
        if matches!(kind, Type::Synced | Type::Bookmark) {
            return false;
        }
        let vm = vm(message);
        let version: i64 = vm.etag.trim_matches('"').parse().expect("a version");
        let before = self.versions.insert(vm.name.clone(), version);
        if kind == Type::Snapshot {
            assert_eq!(before, None, "{} stands twice in the snapshot", vm.name);
            return false;
        }
        let next = before.map_or(1, |before| before + 1);
        assert_eq!((version, kind == Type::Created), (next, before.is_none()), "{} after {before:?}", vm.name);
        self.changes.push(format!("{} {} {version}", vm.name, kind.as_str_name()));
        true
    }
}

/// Changes VMs one after the other until it is told to stop.
async fn write(session: Session, vms: Vec<String>, mut seed: Seed, stop: Arc<AtomicBool>) -> usize {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let vm = &vms[seed.below(vms.len())];
        describe(&session, vm, &format!("{written}")).await.expect("a change");
        written += 1;
        tokio::time::sleep(seed.millis(15)).await;
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_cuts_lose_nothing_and_repeat_nothing() {
    let mut seed = Seed::new();
    let here = ControlPlane::start_with(settings()).await;
    let there = ControlPlane::on_with(here.database.clone(), settings()).await;
    here.work(Arc::new(NoProbe)).await.detach();
    here.templates().await;
    here.tenant("acme").await;
    let sessions = [here.admin().await, there.admin().await];
    let mut vms = Vec::new();
    for number in 0..VMS {
        vms.push(sessions[0].running(&format!("web-{number}")).await.name);
    }

    // One transaction has its number since before all that follows, and has written; one keeps a row that nobody here
    // waits for. Both stay open to the end.
    let (mut early, mut keeper) = (here.database.admin().await, here.database.admin().await);
    let begin = "CREATE TABLE public.of_a_long_transaction (number integer); BEGIN; \
        INSERT INTO public.of_a_long_transaction VALUES (1); SELECT pg_current_xact_id()";
    early.batch_execute(begin).await.expect("a transaction");
    let keep = "BEGIN; UPDATE audit.change_heads SET position = position \
        WHERE tenant_id = (SELECT id FROM iam.tenants WHERE slug = 'acme'); SELECT pg_current_xact_id()";
    keeper.batch_execute(keep).await.expect("a transaction");

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = sessions
        .iter()
        .chain(&sessions)
        .enumerate()
        .map(|(number, session)| {
            let seed = seed.split(number);
            tokio::spawn(write(session.clone(), vms.clone(), seed, Arc::clone(&stop)))
        })
        .collect();

    let start = Instant::now();
    let mut client = Client::default();
    let mut cut_in_snapshot = 0;
    for cut in 0..CUTS {
        let mut watch = Watch::vms(&sessions[cut % 2], &client.token).await.expect("a watch");
        if cut == 10 {
            // What comes to be, the worker at work on it, and what ceases to be.
            sessions[0].create("late").await.expect("accepted");
        }
        // Cut after so many messages, or so much time, whatever comes first: also before the first message.
        let (messages, time) = (seed.below(12), seed.millis(150));
        let listening = async {
            for _ in 0..messages {
                client.take(&watch.next().await.expect("a message"));
            }
        };
        let _ = tokio::time::timeout(time, listening).await;
        if client.token.is_empty() {
            // A snapshot that was cut off begins anew.
            client.versions.clear();
            cut_in_snapshot += 1;
        }
    }
    let cuts_took = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    let written: usize =
        futures::future::join_all(writers).await.into_iter().map(|writer| writer.expect("no panic")).sum();

    // The transaction that has had its number all the time writes a change only now: it comes last, not first.
    let last = format!(
        "UPDATE audit.change_heads SET position = position + 1 WHERE tenant_id = {DEMO}; \
        INSERT INTO audit.changes (tenant_id, position, actor, resource, reason, message, state, kind, after) \
            SELECT tenant_id, (SELECT position FROM audit.change_heads h WHERE h.tenant_id = c.tenant_id), actor, resource, \
                reason, message, state, 'UPDATED', jsonb_set(after, '{{version}}', to_jsonb((after ->> 'version')::bigint + 1)) \
            FROM audit.changes c WHERE tenant_id = {DEMO} AND resource = '{}' ORDER BY c.position DESC LIMIT 1",
        vms[0]
    );
    let mut watch = Watch::vms(&sessions[1], &client.token).await.expect("a watch");
    let late = sessions[0].get(&vms[0]).await.expect("a VM");
    let late: i64 = late.etag.trim_matches('"').parse().expect("a version");
    early.batch_execute(&format!("{last}; COMMIT")).await.expect("a commit");
    let committed = Instant::now();
    while client.versions.get(&vms[0]) != Some(&(late + 1)) || here.database.count(OPEN).await > 0 {
        assert!(committed.elapsed() < SOON, "the last change was not told");
        client.take(&watch.next().await.expect("a message"));
    }
    for message in watch.caught_up().await {
        client.take(&message);
    }
    keeper.batch_execute("ROLLBACK").await.expect("a rollback");

    let all = format!(
        "SELECT resource || ' ' || kind || ' ' || (after ->> 'version') FROM audit.changes \
        WHERE tenant_id = {DEMO} AND kind IS NOT NULL AND resource LIKE 'vms/%' ORDER BY position"
    );
    let all = texts(&here.database, &all).await;
    let told = &client.changes;
    assert!(told.len() <= all.len() && told[..] == all[all.len() - told.len()..], "told {told:#?} of {all:#?}");
    let now = format!(
        "SELECT 'vms/' || id || ' ' || version + (id::text = substr('{}', 5))::int FROM compute.virtual_machines \
        WHERE tenant_id = {DEMO} ORDER BY id",
        vms[0]
    );
    let known: Vec<_> = client.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    assert_eq!(known, texts(&here.database, &now).await, "nothing is missing at the beginning either");
    assert!(written > CUTS && told.len() > CUTS, "{written} changes were written, {} told", told.len());
    println!(
        "{} of {} changes told over {CUTS} cuts ({cut_in_snapshot} of them in the snapshot) in {cuts_took:?}",
        told.len(),
        all.len()
    );
    assert!(cuts_took < Duration::from_secs(60), "{cuts_took:?}");
}

const DEMO: &str = "(SELECT id FROM iam.tenants WHERE slug = 'demo')";

/// Operations of the worker that are not done.
const OPEN: &str = "SELECT count(*) FROM compute.operations WHERE state IN ('OPEN', 'QUEUED')";
