//! Where a worker can die: each of these points is a place where a test kills it, or runs a step twice.

use async_trait::async_trait;

/// A point in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before a call to the outside.
    BeforeCall,
    /// The call has returned; nothing of it is stored yet.
    AfterCall,
    /// Before the step's transaction is committed.
    BeforeCommit,
    /// It is committed; nobody has been told yet.
    AfterCommit,
}

impl Point {
    /// Every point.
    pub const ALL: [Self; 4] = [Self::BeforeCall, Self::AfterCall, Self::BeforeCommit, Self::AfterCommit];

    /// Stable name, as in settings and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeCall => "before_call",
            Self::AfterCall => "after_call",
            Self::BeforeCommit => "before_commit",
            Self::AfterCommit => "after_commit",
        }
    }
}

/// Told of every point that a worker passes. Outside of tests it does nothing.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// `step` is "kind.step", e.g. "vm_create.clone". A future that never ends is a worker that died here.
    async fn pass(&self, step: &str, point: Point);
}

/// Lets everything pass.
#[derive(Clone, Copy, Debug)]
pub struct NoProbe;

#[async_trait]
impl Probe for NoProbe {
    async fn pass(&self, _step: &str, _point: Point) {}
}
