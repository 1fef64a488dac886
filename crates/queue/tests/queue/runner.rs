//! The runner: how much it takes on, what it keeps, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virtualstack_queue::{Config, Handler, Lease, Outcome, Runner, settle};

use crate::support::{Queue, connect, url};

/// How long anything may take that should happen now.
const SOON: Duration = Duration::from_secs(30);

/// What a handler has to say of a job.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Begun(Uuid),
    Lost(Uuid),
}

/// Does a job when it is let: works on it until then, or until its lease is lost.
struct Gated {
    says: mpsc::UnboundedSender<Said>,
    let_go: Arc<Semaphore>,
    /// Whether the first one that is let go panics instead.
    panics: bool,
}

impl Handler for Gated {
    async fn handle(&self, lease: Lease, lost: CancellationToken) {
        let _ = self.says.send(Said::Begun(lease.id));
        tokio::select! {
            () = lost.cancelled() => {
                let _ = self.says.send(Said::Lost(lease.id));
            }
            permit = self.let_go.acquire() => {
                permit.expect("open").forget();
                assert!(!self.panics || lease.attempt > 1, "as the test wants it");
                settle(&mut connect().await, &lease, &Outcome::Done).await.expect("settled");
            }
        }
    }
}

/// A runner at work.
struct Working {
    said: mpsc::UnboundedReceiver<Said>,
    let_go: Arc<Semaphore>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Working {
    async fn start(queue: &Queue, concurrency: usize, panics: bool) -> Self {
        Self::start_with(queue, concurrency, concurrency, panics).await
    }

    async fn start_with(queue: &Queue, concurrency: usize, group_share: usize, panics: bool) -> Self {
        let (says, said) = mpsc::unbounded_channel();
        let (let_go, stop) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let config = Config {
            url: url().await,
            queues: vec![queue.name.to_owned()],
            worker: "a test".to_owned(),
            concurrency,
            group_share,
            lease: Duration::from_secs(60),
            heartbeat: Duration::from_millis(50),
            poll: Duration::from_millis(50),
        };
        let runner = Runner::new(config, Gated { says, let_go: Arc::clone(&let_go), panics });
        let task = tokio::spawn(runner.run(stop.clone()));
        Self { said, let_go, stop, task }
    }

    async fn hear(&mut self) -> Said {
        tokio::time::timeout(SOON, self.said.recv()).await.expect("in time").expect("a runner")
    }

    async fn begun(&mut self) -> Uuid {
        match self.hear().await {
            Said::Begun(job) => job,
            said => panic!("{said:?}"),
        }
    }

    async fn drain(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("in time").expect("no panic");
    }
}

/// Waits until a job is in a state.
async fn until(queue: &mut Queue, job: Uuid, state: &str) {
    let there = async {
        while queue.row(job).await.state != state {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, there).await.unwrap_or_else(|_| panic!("it is never {state}"));
}

#[tokio::test]
async fn a_runner_takes_no_more_than_it_has_slots_and_ends_what_it_began() {
    let mut queue = Queue::new().await;
    let jobs = [queue.put().await, queue.put().await, queue.put().await];
    let mut working = Working::start(&queue, 2, false).await;
    let (first, second) = (working.begun().await, working.begun().await);
    let third = *jobs.iter().find(|job| ![first, second].contains(job)).expect("a third one");
    assert_eq!(queue.row(third).await.state, "available", "there is no slot for it");
    working.let_go.add_permits(1);
    assert_eq!(working.begun().await, third, "the slot of whichever was done");

    let late = queue.put().await;
    working.stop.cancel();
    working.let_go.add_permits(2);
    working.drain().await;
    for job in jobs {
        assert_eq!(queue.row(job).await.state, "completed");
    }
    assert_eq!(queue.row(late).await.state, "available", "who stops begins nothing");
}

#[tokio::test]
async fn a_runner_keeps_slots_for_other_groups() {
    let mut queue = Queue::new().await;
    let jobs = [queue.put_of("one").await, queue.put_of("one").await];
    let mut working = Working::start_with(&queue, 2, 1, false).await;
    let first = working.begun().await;
    let second = *jobs.iter().find(|job| **job != first).expect("a second one");
    let other = queue.put_of("other").await;
    assert_eq!(working.begun().await, other, "although the second one was before it");
    assert_eq!(queue.row(second).await.state, "available", "its group has its share");
    working.let_go.add_permits(3);
    assert_eq!(working.begun().await, second, "the slot of its group");
    until(&mut queue, second, "completed").await;
    working.drain().await;
}

#[tokio::test]
async fn a_lease_is_renewed_while_its_job_is_at_work() {
    let mut queue = Queue::new().await;
    let job = queue.put().await;
    let mut working = Working::start(&queue, 1, false).await;
    assert_eq!(working.begun().await, job);
    let claimed = queue.row(job).await.due_at;
    let renewed = async { while queue.row(job).await.due_at <= claimed {} };
    tokio::time::timeout(SOON, renewed).await.expect("a renewal");
    let row = queue.row(job).await;
    assert_eq!((row.attempt, row.fencing_token), (1, 1), "a renewal is no claim");
    working.let_go.add_permits(1);
    until(&mut queue, job, "completed").await;
    working.drain().await;
}

#[tokio::test]
async fn a_handler_hears_that_its_lease_is_lost() {
    let mut queue = Queue::new().await;
    let job = queue.put().await;
    let mut working = Working::start(&queue, 1, false).await;
    assert_eq!(working.begun().await, job);
    // As if nobody had renewed it, and another worker had claimed it since. The runner itself must not be that one.
    queue.steal(job).await;
    assert_eq!(working.hear().await, Said::Lost(job));
    working.drain().await;
    let row = queue.row(job).await;
    assert_eq!((row.state.as_str(), row.fencing_token), ("running", 2), "it is the thief's");
}

#[tokio::test]
async fn a_panic_costs_a_try_and_no_slot() {
    let mut queue = Queue::new().await;
    let job = queue.put().await;
    let mut working = Working::start(&queue, 1, true).await;
    assert_eq!(working.begun().await, job);
    working.let_go.add_permits(1);
    // Its lease would run out some time.
    let lost = async {
        while queue.row(job).await.attempt == 1 {
            queue.due_since(job, 1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, lost).await.expect("a second try");
    assert_eq!(working.begun().await, job);
    working.let_go.add_permits(1);
    until(&mut queue, job, "completed").await;
    working.drain().await;
}
