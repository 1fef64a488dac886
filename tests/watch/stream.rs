//! What a stream tells, where it goes on, and how many there may be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;
use tonic_types::StatusExt as _;
use virtualstack_proto::google::longrunning::DeleteOperationRequest;
use virtualstack_proto::google::longrunning::operation::Result as Outcome;
use virtualstack_proto::virtualstack::compute::v1::Vm;
use virtualstack_proto::virtualstack::compute::v1::vm::State;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Type;
use virtualstack_server::Config;
use virtualstack_worker::NoProbe;

use super::{SOON, Watch, describe, flood, operation, settings, state, vm};
use crate::support::{ControlPlane, Session, reason};
use crate::tenancy::calls::texts;

/// A control plane with a worker at work.
async fn working_plane(server: Config) -> ControlPlane {
    let plane = ControlPlane::start_with(server).await;
    plane.work(Arc::new(NoProbe)).await.detach();
    plane.templates().await;
    plane
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_there_is_and_then_a_whole_life() {
    let plane = working_plane(settings()).await;
    let admin = plane.admin().await;
    let old = admin.running("old").await;
    let gone = admin.running("gone").await;
    let kept = admin.running("kept").await;
    let delete = admin.delete(&gone.name, true).await.expect("accepted");
    admin.wait(&delete).await;
    let delete = admin.delete(&kept.name, false).await.expect("accepted");
    admin.wait(&delete).await;

    let mut watch = Watch::vms(&admin, "").await.expect("a watch");
    let snapshot = watch.until(Type::Synced).await;
    let (synced, there) = snapshot.split_last().expect("messages");
    let told: Vec<_> = there.iter().map(|one| (one.r#type(), vm(one).name.as_str(), state(vm(one)))).collect();
    let expected =
        [(Type::Snapshot, old.name.as_str(), State::Running), (Type::Snapshot, kept.name.as_str(), State::Deleted)];
    assert_eq!(told, expected, "purged ones are left out, deleted ones are not");
    assert_eq!(vm(&there[0]), &admin.get(&old.name).await.expect("a VM"), "as any other call tells it");
    assert!(there.iter().all(|one| one.resume_token.is_empty() && one.change_time.is_some()), "{there:?}");
    assert!(synced.resource.is_none() && !synced.resume_token.is_empty() && synced.change_time.is_some());

    let new = admin.running("new").await;
    for act in ["stop", "start", "describe", "delete"] {
        let operation = match act {
            "stop" => admin.stop(&new.name).await,
            "start" => admin.start(&new.name).await,
            "describe" => describe(&admin, &new.name, "front").await,
            _ => admin.delete(&new.name, true).await,
        };
        admin.wait(&operation.expect(act)).await;
    }
    let mut told: Vec<(Type, State, Vm)> = Vec::new();
    while told.last().is_none_or(|(kind, ..)| *kind != Type::Deleted) {
        let message = watch.told().await;
        assert!(!message.resume_token.is_empty() && message.change_time.is_some(), "{message:?}");
        assert_eq!(vm(&message).name, new.name);
        told.push((message.r#type(), state(vm(&message)), vm(&message).clone()));
    }
    let query = format!(
        "SELECT kind || ' ' || state || ' \"' || (after ->> 'version') || '\"' FROM audit.changes \
         WHERE resource = '{}' AND kind IS NOT NULL ORDER BY position",
        new.name
    );
    let short: Vec<_> = told
        .iter()
        .map(|(kind, state, vm)| format!("{} {} {}", kind.as_str_name(), state.as_str_name(), vm.etag))
        .collect();
    assert_eq!(short, texts(&plane.database, &query).await, "each change once and in order");
    let mut states: Vec<_> = told.iter().map(|(_, state, _)| *state).collect();
    states.dedup();
    let life = [
        State::Provisioning,
        State::Running,
        State::Stopping,
        State::Stopped,
        State::Starting,
        State::Running,
        State::Deleting,
        State::Deleted,
    ];
    assert_eq!(states, life);
    let described = told.iter().position(|(.., vm)| vm.description == "front").expect("told");
    assert!(told[..described].iter().all(|(.., vm)| vm.description.is_empty()), "each as it was after its change");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_told_with_what_came_of_them() {
    let plane = working_plane(settings()).await;
    let admin = plane.admin().await;
    admin.running("before").await;
    let mut watch = Watch::operations(&admin, "").await.expect("a watch");
    assert_eq!(watch.until(Type::Synced).await.len(), 1, "those that are done are not in the snapshot");

    let made = admin.create("web-1").await.expect("accepted");
    let mut second = Watch::operations(&admin, "").await.expect("a watch");
    let created = watch.told().await;
    assert_eq!((created.r#type(), operation(&created).done), (Type::Created, false));
    assert_eq!(operation(&created).name, made.name);
    let mut last = created;
    while !operation(&last).done {
        last = watch.told().await;
        assert_eq!((last.r#type(), &operation(&last).name), (Type::Updated, &made.name));
    }
    let done = admin.wait(&made).await;
    let Some(Outcome::Response(response)) = &operation(&last).result else { panic!("{last:?}") };
    assert_eq!(response.type_url, "type.googleapis.com/virtualstack.compute.v1.Vm");
    assert_eq!(operation(&last), &done, "as any other call tells it");

    let request = DeleteOperationRequest { name: made.name.clone() };
    admin.operations().delete_operation(admin.request(request)).await.expect("deleted");
    let deleted = watch.told().await;
    assert_eq!((deleted.r#type(), &operation(&deleted).name), (Type::Deleted, &made.name));

    // One that began while it was open has it in its snapshot, or sees it end.
    let told = second.until(Type::Deleted).await;
    assert!(told.iter().any(|one| one.r#type() == Type::Updated && operation(one).done), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_goes_on_where_they_were() {
    let plane = working_plane(settings()).await;
    let admin = plane.admin().await;
    let name = admin.running("web-1").await.name;
    let mut watch = Watch::vms(&admin, "").await.expect("a watch");
    let mut token = watch.until(Type::Synced).await.pop().expect("synced").resume_token;
    drop(watch);
    for text in ["one", "two", "three"] {
        describe(&admin, &name, text).await.expect("a change");
    }
    // A message at a time, each by the token of the one before.
    for text in ["one", "two", "three"] {
        let mut watch = Watch::vms(&admin, &token).await.expect("a watch");
        let message = watch.told().await;
        assert_eq!((message.r#type(), vm(&message).description.as_str()), (Type::Updated, text));
        token = message.resume_token;
    }
    // Where nothing happens there are bookmarks, and so there are where only other things do.
    let mut watch = Watch::vms(&admin, &token).await.expect("a watch");
    let bookmark = watch.next().await.expect("a message");
    assert_eq!((bookmark.r#type(), &bookmark.resource), (Type::Bookmark, &None));
    assert_ne!(bookmark.resume_token, token);
    let role = "INSERT INTO audit.changes (tenant_id, position, actor, resource, reason, message, state) \
        SELECT tenant_id, position, '', 'roles/1', 'X', '', '' FROM heads";
    let others = format!("WITH heads AS (UPDATE audit.change_heads SET position = position + 1 RETURNING *) {role}");
    for _ in 0..30 {
        plane.database.execute(&others).await;
    }
    let bookmark = watch.caught_up().await.pop().expect("a bookmark");
    // What went by is behind it: even where that is forgotten, the bookmark is good.
    plane.database.execute("DELETE FROM audit.changes").await;
    let mut watch = Watch::vms(&admin, &bookmark.resume_token).await.expect("a watch");
    describe(&admin, &name, "four").await.expect("a change");
    assert_eq!(vm(&watch.told().await).description, "four");
}

async fn refused(session: &Session, token: &str) -> String {
    let status = Watch::vms(session, token).await.err().expect("refused");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().starts_with("resumeToken: "), "{status:?}");
    reason(&status)
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_good_for_their_watch_only() {
    let plane = working_plane(Config { watch_resume_seconds: 3600, ..settings() }).await;
    let (admin, acme) = (plane.admin().await, plane.tenant("acme").await);
    let name = admin.running("web-1").await.name;
    let token = async |session: &Session| {
        let mut watch = Watch::vms(session, "").await.expect("a watch");
        watch.until(Type::Synced).await.pop().expect("synced").resume_token
    };
    let (own, foreign) = (token(&admin).await, token(&acme).await);
    let mut watch = Watch::operations(&admin, "").await.expect("a watch");
    let other = watch.until(Type::Synced).await.pop().expect("synced").resume_token;
    let first = if own.starts_with('A') { "B" } else { "A" };
    let tampered = format!("{first}{}", &own[1..]);
    for wrong in [&foreign, &other, &tampered, "nonsense", "é", &own[..20], &format!("{own}A")] {
        assert_eq!(refused(&admin, wrong).await, "RESUME_TOKEN_INVALID", "{wrong}");
    }
    Watch::vms(&admin, &own).await.expect("its own");

    // Other servers take it as well.
    let there = ControlPlane::on_with(plane.database.clone(), settings()).await;
    Watch::vms(&there.admin().await, &own).await.expect("its own, elsewhere");

    // Behind what is kept, and ahead of what there is.
    describe(&admin, &name, "one").await.expect("a change");
    let newer = token(&admin).await;
    let older = "DELETE FROM audit.changes c USING audit.change_heads h WHERE h.tenant_id = c.tenant_id AND c.position < h.position";
    plane.database.execute(older).await;
    assert_eq!(refused(&admin, &own).await, "RESUME_TOKEN_EXPIRED");
    Watch::vms(&admin, &newer).await.expect("nothing behind it is missing");
    plane.database.execute("UPDATE audit.change_heads SET position = 1").await;
    assert_eq!(refused(&admin, &newer).await, "RESUME_TOKEN_INVALID");

    let long = Watch::vms(&admin, &"x".repeat(5000)).await.err().expect("refused");
    assert_eq!((long.code(), reason(&long).as_str()), (Code::InvalidArgument, "INVALID_FIELDS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_old() {
    let plane = ControlPlane::start_with(Config { watch_resume_seconds: 3, ..settings() }).await;
    let admin = plane.admin().await;
    let mut watch = Watch::vms(&admin, "").await.expect("a watch");
    let token = watch.until(Type::Synced).await.pop().expect("synced").resume_token;
    Watch::vms(&admin, &token).await.expect("young enough");
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert_eq!(refused(&admin, &token).await, "RESUME_TOKEN_EXPIRED");
    loop {
        // The stream itself goes on for ever, with tokens that are new.
        let bookmark = watch.until(Type::Bookmark).await.pop().expect("a bookmark");
        if Watch::vms(&admin, &bookmark.resume_token).await.is_ok() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_see_nothing_of_each_other() {
    let plane = working_plane(settings()).await;
    let (demo, acme) = (plane.admin().await, plane.tenant("acme").await);
    let mut streams = Vec::new();
    for session in [&demo, &acme] {
        let mut watches =
            [Watch::vms(session, "").await, Watch::operations(session, "").await].map(|one| one.expect("a watch"));
        for watch in &mut watches {
            assert_eq!(watch.until(Type::Synced).await.len(), 1);
        }
        streams.push(watches);
    }
    let (ours, theirs) = tokio::join!(demo.running("ours"), acme.running("theirs"));
    for (watches, name) in streams.iter_mut().zip([&ours.name, &theirs.name]) {
        let [vms, operations] = watches;
        let changes = async |watch: &mut Watch| {
            let told = watch.caught_up().await.into_iter();
            told.filter(|message| message.r#type() != Type::Bookmark).collect::<Vec<_>>()
        };
        let told = changes(vms).await;
        assert!(!told.is_empty() && told.iter().all(|message| vm(message).name == *name), "{told:?}");
        let mut operation_names: Vec<_> =
            changes(operations).await.iter().map(|message| operation(message).name.clone()).collect();
        operation_names.dedup();
        assert_eq!(operation_names.len(), 1, "one operation, all of it its own: {operation_names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_slows_only_itself() {
    const FLOOD: usize = 1_500;
    let plane = working_plane(settings()).await;
    let admin = plane.admin().await;
    let name = admin.running("web-1").await.name;
    let version: usize = admin.get(&name).await.expect("a VM").etag.trim_matches('"').parse().expect("a version");
    // Each on a connection of its own; and one on that of the slow one.
    let (slow, quick) = (plane.admin().await, plane.admin().await);
    let mut behind = Watch::vms(&slow, "").await.expect("a watch");
    let mut beside = Watch::vms(&slow, "").await.expect("a watch");
    let mut ahead = Watch::vms(&quick, "").await.expect("a watch");
    for watch in [&mut behind, &mut beside, &mut ahead] {
        watch.until(Type::Synced).await;
    }
    // 30 MB, more than the connection holds for a client that does not read.
    flood(&plane, &name, FLOOD, 20_000).await;
    let start = Instant::now();
    for watch in [&mut ahead, &mut beside] {
        for number in 1..=FLOOD {
            assert_eq!(vm(&watch.told().await).etag, format!("\"{}\"", version + number));
        }
    }
    assert!(start.elapsed() < 2 * SOON, "{:?}", start.elapsed());
    describe(&admin, &name, "still working").await.expect("a change");
    assert_eq!(vm(&ahead.told().await).description, "still working");

    // It waits without a transaction, however long.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let mut seen = 0;
    for _ in 0..10 {
        seen += plane.database.count(waiting).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen < 10, "a transaction is open all the time");
    for number in 1..=FLOOD {
        assert_eq!(vm(&behind.told().await).etag, format!("\"{}\"", version + number), "nothing is lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_are_open_at_once() {
    let plane = ControlPlane::start_with(Config { max_watches: 3, max_watches_per_principal: 2, ..settings() }).await;
    let one = plane.admin().await;
    let other = plane.member("ada@example.com", "demo", "user").await;
    let refused = async |session: &Session| {
        let status = Watch::vms(session, "").await.err().expect("refused");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "WATCHES_EXHAUSTED"));
        let retry = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
        assert!(retry.is_some_and(|delay| delay >= Duration::from_secs(1)), "{status:?}");
    };
    let first = Watch::vms(&one, "").await.expect("a watch");
    let _second = Watch::operations(&one, "").await.expect("a watch");
    refused(&one).await;
    let _third = Watch::vms(&other, "").await.expect("a watch");
    refused(&other).await;
    drop(first);
    let start = Instant::now();
    while Watch::vms(&other, "").await.is_err() {
        assert!(start.elapsed() < SOON, "its place is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What is refused takes no place.
    for _ in 0..5 {
        Watch::vms(&other, "nonsense").await.err().expect("refused");
    }
}
