//! Where a job stands after a step.

use chrono::{TimeDelta, Utc};
use serde_json::json;
use virtualstack_queue::{NewJob, Outcome, insert_unique, prune, release};

use crate::support::Queue;

#[tokio::test]
async fn the_next_step_begins_afresh_under_the_same_lease() {
    let mut queue = Queue::new().await;
    let job = queue.put().await;
    queue.claim_one().await;
    queue.due_since(job, 1).await;
    let lease = queue.claim_one().await;
    let before = queue.row(job).await;
    assert_eq!(before.attempt, 2);

    queue.settle(&lease, &Outcome::Stay).await;
    let row = queue.row(job).await;
    assert_eq!((row.state.as_str(), row.attempt, row.progress), ("running", 2, None), "the same step goes on");

    queue.settle(&lease, &Outcome::Next(json!("second"))).await;
    let row = queue.row(job).await;
    assert_eq!((row.state.as_str(), row.attempt, row.progress), ("running", 1, Some(json!("second"))));
    assert!((row.due_at - before.due_at).abs() < f64::EPSILON, "the lease is as long as it was");
    assert!(queue.may_write(&lease).await);
}

#[tokio::test]
async fn a_job_that_waits_gives_its_slot_back() {
    let mut queue = Queue::new().await;
    let job = queue.put().await;
    let lease = queue.claim_one().await;
    queue.settle(&lease, &Outcome::Wait(json!("asked"), TimeDelta::minutes(5))).await;
    let row = queue.row(job).await;
    assert_eq!((row.state.as_str(), row.attempt, row.progress), ("available", 0, Some(json!("asked"))));
    assert!((290.0..=300.0).contains(&row.due_in), "{}", row.due_in);
    assert!(!queue.may_write(&lease).await);
    assert!(queue.claim(10).await.is_empty());

    release(&mut queue.connection, job).await.expect("released");
    let again = queue.claim_one().await;
    assert_eq!((again.attempt, again.progress, again.token), (1, Some(json!("asked")), lease.token + 1));
}

fn retry(after: Option<TimeDelta>, within: Option<TimeDelta>) -> Outcome {
    Outcome::Retry { error: "no answer".to_owned(), after, within }
}

#[tokio::test]
async fn each_try_may_wait_twice_as_long_up_to_a_minute() {
    let mut queue = Queue::new().await;
    let job = queue.put().await;
    for (attempt, at_most) in (1..).zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]) {
        let lease = queue.claim_one().await;
        assert_eq!(lease.attempt, attempt);
        assert_eq!(lease.last_error.as_deref(), (attempt > 1).then_some("no answer"));
        queue.settle(&lease, &retry(None, None)).await;
        let row = queue.row(job).await;
        assert_eq!((row.state.as_str(), row.attempt, row.progress), ("available", attempt, None));
        assert!(row.due_in <= at_most, "attempt {attempt}: {}", row.due_in);
        queue.due_since(job, 0).await;
    }
}

#[tokio::test]
async fn a_try_waits_as_long_as_it_is_told_to() {
    let mut queue = Queue::new().await;
    let job = queue.put().await;
    let (minute, hour) = (Some(TimeDelta::minutes(1)), Some(TimeDelta::hours(1)));
    for (after, within, seconds) in [(hour, None, 3600.0), (hour, minute, 60.0), (None, Some(TimeDelta::zero()), 0.0)] {
        let lease = queue.claim_one().await;
        queue.settle(&lease, &retry(after, within)).await;
        let due_in = queue.row(job).await.due_in;
        assert!((seconds - 10.0..=seconds).contains(&due_in), "after {after:?}, within {within:?}: {due_in}");
        queue.due_since(job, 0).await;
    }
}

#[tokio::test]
async fn what_has_ended_stays_ended_and_only_what_is_completed_is_removed() {
    let mut queue = Queue::new().await;
    let (done, discarded) = (queue.put().await, queue.put().await);
    for lease in queue.claim(2).await {
        let failed = Outcome::Discard { error: "no way".to_owned() };
        queue.settle(&lease, if lease.id == done { &Outcome::Done } else { &failed }).await;
    }
    for (job, state, error) in [(done, "completed", None), (discarded, "discarded", Some("no way"))] {
        let row = queue.row(job).await;
        assert_eq!((row.state.as_str(), row.finished, row.last_error.as_deref()), (state, true, error));
        queue.due_since(job, 60).await;
        release(&mut queue.connection, job).await.expect("nothing to release");
    }
    assert!(queue.claim(10).await.is_empty());

    let hour_ago = Utc::now() - TimeDelta::hours(1);
    prune(&mut queue.connection, hour_ago).await.expect("pruned");
    assert!(queue.find(done).await.is_some(), "it is not old enough");
    for job in [done, discarded] {
        queue.finished_since(job, 7_200).await;
    }
    prune(&mut queue.connection, hour_ago).await.expect("pruned");
    assert!(queue.find(done).await.is_none());
    assert!(queue.find(discarded).await.is_some(), "it stays for the operator");
}

#[tokio::test]
async fn a_key_has_one_live_job() {
    let mut queue = Queue::new().await;
    let with_key = |queue: &Queue| NewJob { unique_key: Some(queue.name.to_owned()), ..queue.job() };
    let (first, second, third) = (with_key(&queue), with_key(&queue), with_key(&queue));
    assert!(insert_unique(&mut queue.connection, &first).await.expect("put in"));
    assert!(!insert_unique(&mut queue.connection, &second).await.expect("not put in"));
    let lease = queue.claim_one().await;
    assert_eq!(lease.id, first.id);
    assert!(!insert_unique(&mut queue.connection, &second).await.expect("not put in"), "it is at work");
    queue.settle(&lease, &Outcome::Done).await;
    assert!(insert_unique(&mut queue.connection, &second).await.expect("put in"));
    let lease = queue.claim_one().await;
    queue.settle(&lease, &Outcome::Discard { error: "no way".to_owned() }).await;
    assert!(insert_unique(&mut queue.connection, &third).await.expect("put in"), "a dead letter keeps no key");
}
