//! Kills this process at a chosen point of a workflow, for the tests that do so; never outside of environment "testing".

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use virtualstack_worker::{Point, Probe};

/// Kills the process when a point is passed for the n-th time.
pub(crate) struct CrashAt {
    at: String,
    left: AtomicU32,
}

impl CrashAt {
    pub(crate) fn new(at: String, after: u32) -> Self {
        Self { at, left: AtomicU32::new(after.max(1)) }
    }
}

#[async_trait]
impl Probe for CrashAt {
    async fn pass(&self, step: &str, point: Point) {
        if self.at == format!("{step}.{}", point.as_str()) && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            tracing::warn!(at = self.at, "crash point: killing this process");
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
