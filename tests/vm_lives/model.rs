//! What a VM may be: the rules of the contract, without the product's code. What is seen of a VM narrows what may be; each
//! operation, by how it ended, widens it again.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Code;
use virtualstack_model::compute::vm::Size;
use virtualstack_proto::virtualstack::compute::v1::snapshot;
use virtualstack_proto::virtualstack::compute::v1::vm::State;

use super::program::{Ask, Stop};

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    Failed { code: Code, reason: String },
    Cancelled,
}

/// A VM as its tenant sees it while nothing is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: State,
    pub(super) size: Size,
    /// By number.
    pub(super) snapshots: BTreeMap<usize, snapshot::State>,
}

/// A snapshot that may be.
#[derive(Clone, Debug)]
struct Maybe {
    states: Vec<snapshot::State>,
    absent: bool,
    /// The size that a VM gets back with it.
    then: Vec<Size>,
}

/// Everything that may be true of a VM.
#[derive(Clone, Debug)]
pub(super) struct Possible {
    gone: bool,
    /// Empty where it is gone for sure.
    states: BTreeSet<i32>,
    sizes: Vec<Size>,
    snapshots: BTreeMap<usize, Maybe>,
    /// Whether it is made from a medium: it has no guest that could be asked.
    iso: bool,
    /// Whether a failure has left open what there is on the hypervisor.
    shaken: bool,
}

/// What a request meets.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Accepted,
    /// For one of these.
    Refused(Vec<(Code, &'static str)>),
    /// Either.
    Open,
}

/// How an accepted operation ends if nothing comes in between.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prospect {
    Succeeds,
    /// For this reason.
    Fails(&'static str),
    /// The hypervisor decides.
    Open,
}

/// What hypervisors do differently.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Whether a running VM gets CPUs and memory; what is taken away always needs a restart.
    pub(super) grows_hot: Option<bool>,
    /// Whether a guest, where there is one, can be asked to shut down.
    pub(super) guests: bool,
    /// Whether a VM's disk goes back with a revert.
    pub(super) disks_revert: bool,
}

const SETTLED: [State; 4] = [State::Running, State::Stopped, State::Suspended, State::Error];

impl Possible {
    /// No VM.
    pub(super) fn nothing(iso: bool) -> Self {
        let (states, snapshots) = (BTreeSet::new(), BTreeMap::new());
        Self { gone: true, states, sizes: Vec::new(), snapshots, iso, shaken: false }
    }

    /// Holds what is seen against what may be, and goes on with that. None is a VM that is not there.
    pub(super) fn see(&mut self, seen: Option<&Seen>) {
        let Some(seen) = seen else {
            assert!(self.gone, "the VM is gone; it may be {self:?}");
            *self = Self::nothing(self.iso);
            return;
        };
        assert!(self.states.contains(&(seen.state as i32)), "the VM is {seen:?}; it may be {self:?}");
        assert!(self.sizes.contains(&seen.size), "the VM's size: {seen:?}; it may be {self:?}");
        for (number, state) in &seen.snapshots {
            let maybe = self.snapshots.get(number).unwrap_or_else(|| panic!("snapshot {number} of {seen:?}: {self:?}"));
            assert!(maybe.states.contains(state), "snapshot {number} of {seen:?}; it may be {self:?}");
        }
        self.snapshots.retain(|number, maybe| {
            let there = seen.snapshots.get(number);
            assert!(there.is_some() || maybe.absent, "snapshot {number} is gone of {seen:?}");
            maybe.states = there.into_iter().copied().collect();
            maybe.absent = false;
            there.is_some()
        });
        self.gone = false;
        self.states = BTreeSet::from([seen.state as i32]);
        self.sizes = vec![seen.size];
    }

    /// The state, where it is known.
    fn state(&self) -> Option<State> {
        let mut states = self.states.iter();
        match (self.gone, states.next(), states.next()) {
            (false, Some(state), None) => State::try_from(*state).ok(),
            _ => None,
        }
    }

    /// Whether nobody can know what of it is on the hypervisor.
    pub(super) fn is_doubtful(&self) -> bool {
        self.shaken && !self.states.is_empty()
    }

    /// What a request meets while nothing is under way.
    pub(super) fn verdict(&self, ask: &Ask) -> Verdict {
        if let Ask::Create { .. } = ask {
            return Verdict::Accepted;
        }
        if self.states.is_empty() {
            return Verdict::Refused(vec![(Code::NotFound, "VM_NOT_FOUND")]);
        }
        let Some(state) = self.state() else { return Verdict::Open };
        let mut denied_calls = Vec::new();
        let deleted = state == State::Deleted;
        let allowed = match ask {
            Ask::Create { .. } | Ask::Delete { force: true } => true,
            Ask::Delete { force: false } => !deleted,
            Ask::Start | Ask::Stop(_) => !deleted,
            Ask::Restart | Ask::Reset => matches!(state, State::Running | State::Error),
            Ask::Suspend => matches!(state, State::Running | State::Suspended),
            Ask::Resize { .. } => matches!(state, State::Running | State::Stopped),
            Ask::Snapshot(_) | Ask::DropSnapshot(_) | Ask::Revert(_) => !deleted,
            Ask::Console => state == State::Running,
            Ask::Undelete => deleted,
        };
        if *ask == Ask::Undelete && !deleted {
            denied_calls.push((Code::AlreadyExists, "VM_NOT_DELETED"));
        } else if !allowed {
            denied_calls.push((Code::FailedPrecondition, if deleted { "VM_DELETED" } else { "VM_STATE" }));
        }
        match ask {
            // Nothing of it may be left.
            Ask::Undelete if deleted && self.shaken => return Verdict::Open,
            // It has that size already.
            Ask::Resize { size, .. } if !deleted && *size == self.sizes[0] => return Verdict::Accepted,
            Ask::Resize { size, .. } => {
                let has = self.sizes[0];
                if size.disk_gib < has.disk_gib {
                    denied_calls.push((Code::InvalidArgument, "INVALID_FIELDS"));
                }
                if size.disk_gib > has.disk_gib && !self.snapshots.is_empty() {
                    denied_calls.push((Code::FailedPrecondition, "VM_HAS_SNAPSHOTS"));
                }
            }
            Ask::DropSnapshot(number) | Ask::Revert(number) => match self.snapshots.get(number) {
                None => denied_calls.push((Code::NotFound, "SNAPSHOT_NOT_FOUND")),
                Some(maybe) if matches!(ask, Ask::Revert(_)) && maybe.states != [snapshot::State::Ready] => {
                    denied_calls.push((Code::FailedPrecondition, "SNAPSHOT_STATE"));
                }
                Some(_) => {}
            },
            _ => {}
        }
        if denied_calls.is_empty() { Verdict::Accepted } else { Verdict::Refused(denied_calls) }
    }

    /// How an accepted request ends if nothing comes in between.
    pub(super) fn prospect(&self, ask: &Ask, rules: Rules) -> Prospect {
        let state = match ask {
            Ask::Create { .. } => return Prospect::Succeeds,
            _ => self.state(),
        };
        let Some(state) = state.filter(|state| *state != State::Error && !self.shaken) else { return Prospect::Open };
        let runs = state == State::Running;
        match ask {
            Ask::Stop(Stop::GracefulOnly) if runs && (self.iso || !rules.guests) => {
                Prospect::Fails("GUEST_TOOLS_UNAVAILABLE")
            }
            // A guest that sleeps hears nothing.
            Ask::Stop(Stop::GracefulOnly) if state == State::Suspended => Prospect::Open,
            Ask::Resize { size, allow_restart: false } if runs => {
                let has = self.sizes[0];
                let (grows, shrinks) = (
                    size.cpu_count > has.cpu_count || size.memory_mib > has.memory_mib,
                    size.cpu_count < has.cpu_count || size.memory_mib < has.memory_mib,
                );
                match rules.grows_hot {
                    _ if !grows && !shrinks => Prospect::Succeeds,
                    Some(hot) if shrinks || !hot => Prospect::Fails("RESTART_NEEDED"),
                    Some(_) => Prospect::Succeeds,
                    None => Prospect::Open,
                }
            }
            _ => Prospect::Succeeds,
        }
    }

    /// What may be once an operation has ended like this.
    pub(super) fn after(&self, ask: &Ask, end: &End, rules: Rules) -> Self {
        let mut next = self.clone();
        if self.states.is_empty() && !matches!(ask, Ask::Create { .. }) {
            // A delete of what a cancelled create has left: nothing.
            return next;
        }
        let succeeded = *end == End::Succeeded;
        next.shaken |= matches!(end, End::Failed { .. }) && !matches!(ask, Ask::Console);
        // What the VM was, it may still be; after an error, nobody knows.
        let kept: BTreeSet<i32> = match self.states.contains(&(State::Error as i32)) {
            true => self.states.iter().copied().chain(SETTLED.map(|state| state as i32)).collect(),
            false => self.states.clone(),
        };
        let any_of = |states: &[State]| -> BTreeSet<i32> {
            kept.iter().copied().chain(states.iter().map(|state| *state as i32)).collect()
        };
        let only = |state: State| BTreeSet::from([state as i32]);
        match ask {
            Ask::Create { size, .. } => {
                // What failed leaves something only where it could not be taken back either.
                next.gone = !succeeded;
                next.states = match end {
                    End::Succeeded => only(State::Running),
                    End::Failed { .. } => only(State::Error),
                    End::Cancelled => BTreeSet::new(),
                };
                next.sizes = vec![*size];
            }
            Ask::Start | Ask::Stop(_) | Ask::Restart | Ask::Reset | Ask::Suspend => {
                let target = match ask {
                    Ask::Stop(_) => State::Stopped,
                    Ask::Suspend => State::Suspended,
                    _ => State::Running,
                };
                next.states = match (succeeded, ask) {
                    (true, _) => only(target),
                    (false, Ask::Restart) => any_of(&[State::Stopped, target, State::Error]),
                    (false, _) => any_of(&[target, State::Error]),
                };
            }
            Ask::Resize { size, allow_restart } => {
                next.states = match (succeeded, *allow_restart) {
                    (true, _) => kept,
                    (false, true) => any_of(&[State::Stopped, State::Running, State::Error]),
                    (false, false) => any_of(&[State::Error]),
                };
                match succeeded {
                    true => next.sizes = vec![*size],
                    false => next.sizes.push(*size),
                }
            }
            Ask::Snapshot(number) => {
                let states = match succeeded {
                    true => vec![snapshot::State::Ready],
                    false => vec![snapshot::State::Error],
                };
                next.snapshots.insert(*number, Maybe { states, absent: !succeeded, then: self.sizes.clone() });
                next.states = if succeeded { kept } else { any_of(&[State::Error]) };
            }
            Ask::DropSnapshot(number) => {
                next.states = if succeeded { kept } else { any_of(&[State::Error]) };
                if succeeded {
                    next.snapshots.remove(number);
                } else if let Some(maybe) = next.snapshots.get_mut(number) {
                    maybe.states.extend([snapshot::State::Ready, snapshot::State::Error]);
                }
            }
            Ask::Revert(number) => {
                let then = self.snapshots.get(number).map(|maybe| maybe.then.clone()).unwrap_or_default();
                let disk = self.sizes[0].disk_gib;
                let then = then.into_iter().map(|size| match rules.disks_revert {
                    true => size,
                    false => Size { disk_gib: disk, ..size },
                });
                let then: Vec<_> = then.collect();
                next.states = if succeeded { only(State::Stopped) } else { any_of(&[State::Stopped, State::Error]) };
                if let (false, Some(maybe)) = (succeeded, next.snapshots.get_mut(number)) {
                    maybe.states.push(snapshot::State::Error);
                }
                match succeeded {
                    true => next.sizes = then,
                    false => next.sizes.extend(then),
                }
            }
            Ask::Console => {}
            Ask::Undelete => next.states = only(State::Stopped),
            Ask::Delete { force: false } => {
                // Of what never came to be there is nothing to keep.
                next.gone |= succeeded && self.shaken;
                next.states = if succeeded { only(State::Deleted) } else { any_of(&[State::Stopped, State::Error]) };
            }
            Ask::Delete { force: true } if succeeded => next = Self::nothing(self.iso),
            Ask::Delete { force: true } => next.states = any_of(&[State::Error]),
        }
        next
    }
}

/// Whether an event may take a VM from one state to another.
pub(super) fn may_follow(before: State, after: State) -> bool {
    use State::{
        Deleted, Deleting, Error, Provisioning, Running, Starting, Stopped, Stopping, Suspended, Unspecified, Updating,
    };
    match (before, after) {
        (before, after) if before == after => true,
        (Unspecified, after) => after == Provisioning,
        (_, Unspecified) | (_, Provisioning) => false,
        // A delete stands above everything.
        (_, Deleting) => true,
        (Deleting, after) => matches!(after, Deleted | Error),
        (Provisioning, after) => matches!(after, Running | Error | Deleted),
        (Running | Stopped | Suspended | Error, after) => matches!(after, Starting | Stopping | Updating),
        (Starting | Stopping | Updating, after) => matches!(after, Running | Stopped | Suspended | Error),
        (Deleted, after) => after == Stopped,
    }
}
