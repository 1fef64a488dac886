//! Threads that hash, and who waits for them. A hash takes tens of milliseconds and 19 MiB, so there are few threads, each with
//! memory of its own that is used again; and those who wait take turns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use argon2::Block;
use tokio::sync::oneshot;
use virtualstack_model::{Error, Result};

use crate::shares::Holder;

/// What may wait, of one holder and altogether.
const MOST_OF_HOLDER: usize = 32;
const MOST: usize = 1024;

/// Memory that a hash is made in.
pub(super) type Memory = Vec<Block>;

/// What the work is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Somebody wants to be let in; those come first.
    Check,
    /// A password is set.
    Set,
}

type Work = Box<dyn FnOnce(&mut Memory) + Send>;

/// The threads. They end when it is dropped.
pub(super) struct Hashers(Arc<Shared>);

struct Shared {
    line: Mutex<Line>,
    more: Condvar,
}

/// Who waits.
#[derive(Default)]
struct Line {
    checks: Turns,
    sets: Turns,
    ended: bool,
}

/// Holders take turns, whoever of them has how much to do.
#[derive(Default)]
struct Turns {
    order: VecDeque<Holder>,
    of: HashMap<Holder, VecDeque<Work>>,
    waiting: usize,
}

impl Turns {
    fn push(&mut self, holder: Holder, work: Work) -> Result<()> {
        let own = self.of.entry(holder).or_default();
        if own.len() >= MOST_OF_HOLDER || self.waiting >= MOST {
            return Err(Error::ResourceExhausted {
                reason: "TOO_MANY_CALLS",
                message: "as many passwords wait to be hashed as may; try again".to_owned(),
                retry_after: Some(Duration::from_secs(2)),
            });
        }
        if own.is_empty() {
            self.order.push_back(holder);
        }
        own.push_back(work);
        self.waiting += 1;
        Ok(())
    }

    fn pop(&mut self) -> Option<Work> {
        let holder = self.order.pop_front()?;
        let own = self.of.get_mut(&holder)?;
        let work = own.pop_front();
        if own.is_empty() {
            self.of.remove(&holder);
        } else {
            self.order.push_back(holder);
        }
        self.waiting -= 1;
        work
    }
}

impl Hashers {
    pub(super) fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared { line: Mutex::default(), more: Condvar::new() });
        for _ in 0..threads.max(1) {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("passwords".to_owned())
                .spawn(move || shared.work())
                .map_err(Error::internal)?;
        }
        Ok(Self(shared))
    }

    /// Does `work` when it is the holder's turn. Nothing is done for a caller who has gone.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        errand: Errand,
        holder: Holder,
        work: impl FnOnce(&mut Memory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, waiting) = oneshot::channel();
        let work: Work = Box::new(move |memory| {
            if !done.is_closed() {
                let _ = done.send(work(memory));
            }
        });
        {
            let mut line = self.0.lock();
            let turns = if errand == Errand::Check { &mut line.checks } else { &mut line.sets };
            turns.push(holder, work)?;
        }
        self.0.more.notify_one();
        waiting.await.map_err(Error::internal)?
    }
}

impl Drop for Hashers {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.more.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut memory = Memory::new();
        while let Some(work) = self.next() {
            // A panic is the end of one piece of work: its caller finds that nobody answers.
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut memory)));
            if worked.is_err() {
                tracing::error!("hashing a password has panicked");
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut line = self.lock();
        loop {
            if line.ended {
                return None;
            }
            if let Some(work) = line.checks.pop().or_else(|| line.sets.pop()) {
                return Some(work);
            }
            line = self.more.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use virtualstack_model::id::TenantId;

    use super::*;

    /// One thread that is busy until it is told to go on, and the order in which things are done then.
    #[tokio::test]
    async fn checks_come_first_and_holders_take_turns() {
        let hashers = Hashers::new(1).expect("a thread");
        let (go_on, wait) = mpsc::channel::<()>();
        let (done, order) = mpsc::channel();
        let busy = hashers.run(Errand::Check, Holder::All, move |_| {
            let _ = wait.recv();
            Ok(())
        });
        let (many, few) = (Holder::Tenant(TenantId::new()), Holder::Tenant(TenantId::new()));
        let note = |what: &'static str| {
            let done = done.clone();
            move |_: &mut Memory| {
                done.send(what).expect("somebody listens");
                Ok(())
            }
        };
        let all = async {
            futures::join!(
                hashers.run(Errand::Set, many, note("many 1")),
                hashers.run(Errand::Set, many, note("many 2")),
                hashers.run(Errand::Set, many, note("many 3")),
                hashers.run(Errand::Set, few, note("few")),
                hashers.run(Errand::Check, many, note("a login")),
                async { go_on.send(()) },
            )
        };
        // What nobody waits for any more is not done.
        let gone = async {
            tokio::select! {
                biased;
                _ = hashers.run(Errand::Set, few, note("gone")) => {}
                () = std::future::ready(()) => {}
            }
        };
        let (busy, (), _) = futures::join!(busy, gone, all);
        busy.expect("done");
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["a login", "many 1", "few", "many 2", "many 3"]);
    }

    #[tokio::test]
    async fn a_line_has_an_end_for_each_holder() {
        let hashers = Hashers::new(1).expect("a thread");
        let (go_on, wait) = mpsc::channel::<()>();
        let busy = hashers.run(Errand::Set, Holder::All, move |_| {
            let _ = wait.recv();
            Ok(())
        });
        let holder = Holder::Tenant(TenantId::new());
        let line =
            futures::future::join_all((0..MOST_OF_HOLDER + 3).map(|_| hashers.run(Errand::Set, holder, |_| Ok(()))));
        let other = hashers.run(Errand::Set, Holder::Tenant(TenantId::new()), |_| Ok(()));
        let (_, line, other, _) = futures::join!(busy, line, other, async { go_on.send(()) });
        let refused: Vec<_> = line.into_iter().filter_map(|done| done.err().map(|error| error.reason())).collect();
        assert_eq!(refused, ["TOO_MANY_CALLS"; 3]);
        other.expect("others have a line of their own");
    }
}
