//! Who gets a job, for how long, and what is left to who had it before.

use std::collections::BTreeSet;

use futures::future::join_all;
use virtualstack_queue::{Lease, Outcome, insert, release, renew};

use crate::support::{LONG, Queue, connect};

#[tokio::test]
async fn what_is_due_longest_is_claimed_first_and_no_more_than_is_asked_for() {
    let mut queue = Queue::new().await;
    let (young, old, middle) = (queue.put().await, queue.put().await, queue.put().await);
    for (job, seconds) in [(young, 10), (old, 30), (middle, 20)] {
        queue.due_since(job, seconds).await;
    }
    let first = queue.claim(2).await;
    assert_eq!(first.iter().map(|lease| lease.id).collect::<BTreeSet<_>>(), BTreeSet::from([old, middle]));
    for lease in &first {
        let overdue = if lease.id == old { 30.0 } else { 20.0 };
        assert!((overdue..overdue + 10.0).contains(&lease.overdue_seconds), "{lease:?}");
        assert_eq!((lease.attempt, lease.token, &lease.progress), (1, 1, &None), "{lease:?}");
        assert_eq!((lease.kind.as_str(), lease.group_key.as_str(), lease.max_attempts), ("test", "tests", 5));
        assert_eq!(lease.payload["of"], "a test");
    }
    assert_eq!(queue.claim_one().await.id, young);
    assert!(queue.claim(10).await.is_empty(), "all are leased");
}

#[tokio::test]
async fn of_many_who_claim_at_once_one_gets_a_job() {
    let mut queue = Queue::new().await;
    let mut put = BTreeSet::new();
    for _ in 0..40 {
        put.insert(queue.put().await);
    }
    let claimed = join_all((0..8).map(async |_| {
        let (mut one, mut claimed) = (Queue { name: queue.name, connection: connect().await }, Vec::new());
        loop {
            let leases = one.claim(3).await;
            if leases.is_empty() {
                return claimed;
            }
            claimed.extend(leases.into_iter().map(|lease| lease.id));
        }
    }))
    .await
    .concat();
    assert_eq!(claimed.len(), 40, "none is claimed twice");
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), put, "and none is left");
}

#[tokio::test]
async fn other_queues_are_left_alone() {
    let (mut one, mut other) = (Queue::new().await, Queue::new().await);
    let job = one.put().await;
    assert!(other.claim(10).await.is_empty());
    assert_eq!(one.claim_one().await.id, job);
}

#[tokio::test]
async fn a_held_job_waits_for_its_release() {
    let mut queue = Queue::new().await;
    let held = virtualstack_queue::NewJob { held: true, ..queue.job() };
    insert(&mut queue.connection, &held).await.expect("put in");
    assert!(queue.claim(10).await.is_empty());
    release(&mut queue.connection, held.id).await.expect("released");
    let lease = queue.claim_one().await;
    assert_eq!(lease.id, held.id);

    // What is at work is not made due: its lease would be over.
    release(&mut queue.connection, held.id).await.expect("released");
    assert!(queue.claim(10).await.is_empty());
    assert!(queue.may_write(&lease).await);
}

#[tokio::test]
async fn a_lease_that_ran_out_is_another_ones_and_the_first_can_write_no_more() {
    let mut queue = Queue::new().await;
    let job = queue.put().await;
    let dead = queue.claim_one().await;
    assert!(queue.may_write(&dead).await);
    queue.due_since(job, 5).await;
    let alive = queue.claim_one().await;
    assert_eq!((alive.id, alive.token, alive.attempt), (job, dead.token + 1, dead.attempt + 1));
    assert!(alive.overdue_seconds >= 5.0, "since the lease ran out: {alive:?}");

    assert!(!queue.may_write(&dead).await);
    assert!(queue.may_write(&alive).await);
    queue.settle(&dead, &Outcome::Done).await;
    let row = queue.row(job).await;
    assert_eq!((row.state.as_str(), row.fencing_token, row.finished), ("running", alive.token, false));
    queue.settle(&alive, &Outcome::Done).await;
    assert_eq!(queue.row(job).await.state, "completed");
    assert!(!queue.may_write(&alive).await, "what is done is nobody's");
}

#[tokio::test]
async fn a_renewal_keeps_what_is_still_held() {
    let mut queue = Queue::new().await;
    let (kept, stolen, done) = (queue.put().await, queue.put().await, queue.put().await);
    let leases = queue.claim(3).await;
    queue.due_since(stolen, 1).await;
    let thief = queue.claim_one().await;
    let ended = leases.iter().find(|lease| lease.id == done).expect("a lease");
    queue.settle(ended, &Outcome::Done).await;
    let before = queue.row(stolen).await;

    let held: Vec<_> = leases.iter().map(|lease| (lease.id, lease.token)).collect();
    assert_eq!(renew(&mut queue.connection, &held, 2 * LONG).await.expect("renewed"), [kept]);
    let row = queue.row(kept).await;
    assert!(row.due_in > 1.5 * 600.0 && row.fencing_token == 1 && row.attempt == 1, "{row:?}");
    let after = queue.row(stolen).await;
    assert!((after.due_at - before.due_at).abs() < f64::EPSILON, "the thief's lease is as long as it was");
    assert!(queue.may_write(&thief).await);
}

/// Deadlines are held against what the database says, whatever this machine thinks.
#[tokio::test]
async fn a_claim_tells_the_time_of_the_database() {
    let mut queue = Queue::new().await;
    queue.put().await;
    let before = queue.time().await;
    let lease = queue.claim_one().await;
    let told = lease.clock.now();
    let after = queue.time().await;
    assert!(before <= told && told <= after + chrono::TimeDelta::minutes(1), "{before} {told} {after}");
}

#[tokio::test]
async fn groups_take_turns_however_long_the_line_of_one_is() {
    let mut queue = Queue::new().await;
    for group in ["many", "few"] {
        for _ in 0..if group == "many" { 200 } else { 2 } {
            let job = queue.put_of(group).await;
            queue.due_since(job, if group == "many" { 60 } else { 1 }).await;
        }
    }
    let waiting = queue.put_of("later").await;
    queue.due_since(waiting, -600).await;
    let groups = |leases: &[Lease]| leases.iter().map(|lease| lease.group_key.clone()).collect::<Vec<_>>();
    let mut first = groups(&queue.claim(2).await);
    first.sort();
    assert_eq!(first, ["few", "many"], "one each, although all of the first came before");
    assert_eq!(groups(&queue.claim_with(1, 9, &["many"]).await), ["few"], "who has something at work is second");
    assert_eq!(groups(&queue.claim_with(3, 9, &["few", "many"]).await), ["many"; 3], "and who is alone has all");
}

#[tokio::test]
async fn a_group_gets_no_more_than_its_share() {
    let mut queue = Queue::new().await;
    for _ in 0..5 {
        queue.put_of("one").await;
    }
    assert_eq!(queue.claim_with(10, 2, &[]).await.len(), 2, "where all fits");
    assert_eq!(queue.claim_with(1, 2, &["one"]).await.len(), 1, "where it does not");
    assert!(queue.claim_with(10, 2, &["one", "one"]).await.is_empty(), "where it has its share");
    assert!(queue.claim_with(1, 2, &["one", "one"]).await.is_empty());
    let other = queue.put_of("other").await;
    let lease = queue.claim_with(1, 2, &["one", "one"]).await;
    assert_eq!(lease.iter().map(|lease| lease.id).collect::<Vec<_>>(), [other], "what is free is another's");
}
