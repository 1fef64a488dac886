//! Workers that die, or stand still, where a test wants them to.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
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

/// Lets a worker hang for ever at a point, as if it had died there, and notes every point that was passed.
pub(crate) struct CrashProbe {
    at: Option<Crash>,
    crashes: AtomicU32,
    pub(crate) crashed: Notify,
    passed: Mutex<Vec<Crash>>,
}

impl CrashProbe {
    /// Dies at `at`, once; with none it only notes.
    pub(crate) fn new(at: Option<Crash>) -> Self {
        Self { at, crashes: AtomicU32::new(0), crashed: Notify::new(), passed: Mutex::default() }
    }

    /// Whether the worker has died.
    pub(crate) fn has_crashed(&self) -> bool {
        self.crashes.load(Ordering::SeqCst) > 0
    }

    /// Every point that was passed, in order.
    pub(crate) fn passed(&self) -> Vec<Crash> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Probe for CrashProbe {
    async fn pass(&self, step: &str, point: Point) {
        let here = Crash { step: step.to_owned(), point };
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).push(here.clone());
        if self.at.as_ref() == Some(&here) && self.crashes.fetch_add(1, Ordering::SeqCst) == 0 {
            self.crashed.notify_one();
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
