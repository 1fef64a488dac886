//! Workers that die, or stand still, where a test wants them to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use virtualstack_worker::{Point, Probe};

/// Where a worker dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// "kind.step".
    pub(crate) step: String,
    pub(crate) point: Point,
}

/// Lets jobs of a worker hang for ever at points, as if it had died there, and notes every point that was passed.
pub(crate) struct CrashProbe {
    /// Where nobody hangs yet.
    left: Mutex<Vec<Crash>>,
    crashed: Notify,
    passed: Mutex<Vec<Crash>>,
}

impl CrashProbe {
    /// Lets whoever comes to one of these points first hang there; of several jobs with the same steps, so, each at another
    /// one.
    pub(crate) fn new(at: impl IntoIterator<Item = Crash>) -> Self {
        Self { left: Mutex::new(at.into_iter().collect()), crashed: Notify::new(), passed: Mutex::default() }
    }

    /// Waits until somebody hangs at each of the points.
    pub(crate) async fn crashed(&self) {
        let crashed = tokio::time::timeout(Duration::from_secs(60), self.crashed.notified()).await;
        crashed.unwrap_or_else(|_| panic!("the worker never came to {:?}", locked(&self.left)));
    }

    /// Every point that was passed, in order.
    pub(crate) fn passed(&self) -> Vec<Crash> {
        locked(&self.passed).clone()
    }

    /// Whether to hang here.
    fn crashes(&self, here: &Crash) -> bool {
        let mut left = locked(&self.left);
        let Some(index) = left.iter().position(|crash| crash == here) else { return false };
        left.remove(index);
        if left.is_empty() {
            self.crashed.notify_one();
        }
        true
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Probe for CrashProbe {
    async fn pass(&self, step: &str, point: Point) {
        let here = Crash { step: step.to_owned(), point };
        locked(&self.passed).push(here.clone());
        if self.crashes(&here) {
            std::future::pending::<()>().await;
        }
    }
}

/// Holds a worker at a point, the first time that it comes there, until it is opened.
pub(crate) struct Gate {
    step: &'static str,
    point: Point,
    passed: AtomicBool,
    reached: Notify,
    opened: Notify,
}

impl Gate {
    /// At a point of `step`, "kind.step".
    pub(crate) fn new(step: &'static str, point: Point) -> Self {
        Self { step, point, passed: AtomicBool::new(false), reached: Notify::new(), opened: Notify::new() }
    }

    /// Waits until the worker stands there.
    pub(crate) async fn reached(&self) {
        let reached = tokio::time::timeout(Duration::from_secs(30), self.reached.notified()).await;
        reached.unwrap_or_else(|_| panic!("the worker never came to {} {:?}", self.step, self.point));
    }

    pub(crate) fn open(&self) {
        self.opened.notify_one();
    }
}

#[async_trait]
impl Probe for Gate {
    async fn pass(&self, step: &str, point: Point) {
        if step == self.step && point == self.point && !self.passed.swap(true, Ordering::SeqCst) {
            self.reached.notify_one();
            self.opened.notified().await;
        }
    }
}
