//! A worker on a stage: it is counted past its points, and stands still or dies where the play says so. What happens is then
//! bound to what it does, and not to the time.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use virtualstack_worker::{Point, Probe};

/// What an operation's worker is to do.
#[derive(Default)]
struct Scene {
    /// The kind of job that is counted; a delete that waits behind it is not.
    kind: &'static str,
    passed: HashSet<(String, Point)>,
    stands_still: Option<usize>,
    dies: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curtain {
    Open,
    Held,
    Closed,
}

/// Counts the points of one operation at a time.
pub(super) struct Barrier {
    scene: Mutex<Scene>,
    curtain: watch::Sender<Curtain>,
    death: Notify,
}

impl Barrier {
    pub(super) fn new() -> Self {
        let curtain = watch::Sender::new(Curtain::Closed);
        Self { scene: Mutex::default(), curtain, death: Notify::new() }
    }

    fn scene(&self) -> std::sync::MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the worker of the next operation die at a point.
    pub(super) fn doom(&self, point: Option<usize>) {
        self.scene().dies = point;
    }

    /// An operation is going to be asked for. Its worker stands still at the first call from this point on.
    pub(super) fn begin(&self, kind: &'static str, stands_still: Option<usize>) {
        let mut scene = self.scene();
        *scene = Scene { kind, passed: HashSet::new(), stands_still, dies: scene.dies };
        drop(scene);
        self.curtain.send_replace(Curtain::Open);
    }

    /// Waits until the worker stands still; false where the operation is over before.
    pub(super) async fn held(&self) -> bool {
        let mut curtain = self.curtain.subscribe();
        *curtain.wait_for(|curtain| *curtain != Curtain::Open).await.expect("a stage") == Curtain::Held
    }

    /// Lets the worker go on that stands still.
    pub(super) fn go_on(&self) {
        self.curtain.send_replace(Curtain::Open);
    }

    /// The operation is done.
    pub(super) fn over(&self) {
        *self.scene() = Scene::default();
        self.curtain.send_replace(Curtain::Closed);
    }

    /// Waits until the worker is to die.
    pub(super) async fn dying(&self) {
        self.death.notified().await;
    }
}

#[async_trait]
impl Probe for Barrier {
    async fn pass(&self, step: &str, point: Point) {
        let kind = step.split('.').next().unwrap_or_default();
        if kind.starts_with("vm_") && self.scene().kind != kind {
            // A delete that waits behind an operation begins when its client has seen that it has ended.
            let mut curtain = self.curtain.subscribe();
            let _ = curtain.wait_for(|curtain| *curtain == Curtain::Closed).await;
            return;
        }
        // What follows a commit may also follow the end, for who looks fast enough. Tasks are asked again and again; only the
        // first time counts.
        let (holds, dies) = {
            let mut scene = self.scene();
            let counts = scene.kind == kind && point != Point::AfterCommit;
            if !counts || !scene.passed.insert((step.to_owned(), point)) {
                return;
            }
            let at = scene.passed.len() - 1;
            // Before a commit the rows are locked, and whoever asked for anything would wait.
            let holds = point != Point::BeforeCommit && scene.stands_still.is_some_and(|point| at >= point);
            if holds {
                scene.stands_still = None;
            }
            (holds, scene.dies == Some(at))
        };
        if holds {
            self.curtain.send_replace(Curtain::Held);
            let mut curtain = self.curtain.subscribe();
            let _ = curtain.wait_for(|curtain| *curtain != Curtain::Held).await;
        }
        if dies {
            self.death.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
