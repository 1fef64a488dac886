//! What is asked of a VM, and what goes wrong meanwhile: drawn from a seed and from nothing else, least of all from what
//! came of it before. Lives follow one another: a create, a number of steps, a purge.

use std::time::Duration;

use virtualstack_model::compute::vm::Size;
use virtualstack_proto::virtualstack::compute::v1::vm::State;
use virtualstack_worker::adapters::hypervisor::FaultClass;

use crate::support::{Call, Seed, When};

/// What is asked for. Snapshots are numbered in the order in which a life asks for them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    Create { iso: bool, size: Size },
    Start,
    Stop(Stop),
    Restart,
    Reset,
    Suspend,
    Resize { size: Size, allow_restart: bool },
    Snapshot(usize),
    DropSnapshot(usize),
    Revert(usize),
    Console,
    Delete { force: bool },
    Undelete,
}

/// How a VM is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Hard,
    /// By its guest; where that cannot be asked, the power is cut.
    Graceful,
    /// By its guest, or not at all.
    GracefulOnly,
}

/// What goes wrong with the VM that is asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InjectedFault {
    /// A call fails so often, before it does anything or after it has done its work.
    Fault { call: Call, when: When, class: FaultClass, times: u32 },
    /// A call takes its time to answer.
    SlowCall { call: Call, when: When },
    /// The next task takes longer than others.
    SlowTask,
    /// The next task fails.
    FailingTask,
}

impl InjectedFault {
    /// Whether a repeat of what failed cannot help.
    pub(super) fn is_final(self) -> bool {
        match self {
            Self::Fault { class, .. } => !matches!(class, FaultClass::Retry | FaultClass::Unknown),
            Self::FailingTask => true,
            Self::SlowCall { .. } | Self::SlowTask => false,
        }
    }
}

/// What is asked for while the operation is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meanwhile {
    Cancel,
    /// Refused, unless the operation is done by then; then it is what comes next.
    Start,
    /// Waits behind the operation.
    Delete {
        force: bool,
    },
}

/// When something happens while an operation is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// By the clock.
    pub(super) after: Duration,
    /// By how far the worker is, where that is what counts: at its so manyth point.
    pub(super) point: usize,
}

/// One thing that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) ask: Ask,
    /// Whether the request has an id, and is sent again as if its answer had been lost.
    pub(super) twice: bool,
    /// Whether it is only validated before.
    pub(super) validated: bool,
    pub(super) trouble: Option<InjectedFault>,
    pub(super) meanwhile: Option<(Moment, Meanwhile)>,
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Climate {
    /// Steps of a hundred that have trouble.
    pub(super) trouble: usize,
    /// Steps of a hundred that are interfered with.
    pub(super) meanwhile: usize,
    /// Whether there are media to make VMs from.
    pub(super) isos: bool,
    /// Whether a task can be made slow or fail.
    pub(super) spoils: bool,
    /// Steps of a life at most.
    pub(super) longest_life: usize,
}

/// Points of an operation, roughly.
pub(super) const POINTS: usize = 12;

/// A VM as it would be if nothing went wrong. What is drawn is drawn for this one, so that it makes sense most of the time.
#[derive(Clone, Debug)]
struct Nominal {
    state: State,
    size: Size,
    snapshots: Vec<usize>,
    steps_left: usize,
}

/// Draws step after step.
#[derive(Clone, Debug)]
pub(super) struct Program {
    seed: Seed,
    climate: Climate,
    nominal: Option<Nominal>,
    /// Ends a life for sure, whatever has become of it.
    clear: bool,
    /// The number of the next snapshot.
    snapshots: usize,
}

impl Program {
    pub(super) fn new(seed: Seed, climate: Climate) -> Self {
        Self { seed, climate, nominal: None, clear: false, snapshots: 0 }
    }

    /// The step of a creation that was asked for already.
    pub(super) fn creation(&mut self, size: Size) -> Step {
        let ask = Ask::Create { iso: false, size };
        let meanwhile = self.seed.percent(self.climate.meanwhile).then(|| self.meanwhile());
        let trouble = self.seed.percent(self.climate.trouble).then(|| trouble(&mut self.seed, &ask));
        let step = Step { ask, twice: false, validated: false, trouble, meanwhile };
        self.follow(&step);
        step
    }

    fn begin(&mut self, size: Size) {
        let steps_left = 2 + self.seed.below(self.climate.longest_life - 1);
        self.snapshots = 0;
        self.nominal = Some(Nominal { state: State::Running, size, snapshots: Vec::new(), steps_left });
    }

    /// The next step.
    pub(super) fn next(&mut self) -> Step {
        if std::mem::take(&mut self.clear) {
            let ask = Ask::Delete { force: true };
            return Step { ask, twice: false, validated: false, trouble: None, meanwhile: None };
        }
        let ask = self.ask();
        let meanwhile = self.seed.percent(self.climate.meanwhile).then(|| self.meanwhile());
        let mut trouble = self.seed.percent(self.climate.trouble).then(|| trouble(&mut self.seed, &ask));
        let interrupted = matches!(meanwhile, Some((_, Meanwhile::Cancel | Meanwhile::Delete { .. })));
        if interrupted && self.climate.spoils && self.seed.percent(50) {
            // So that there is something to interrupt.
            trouble = Some(InjectedFault::SlowTask);
        }
        let (twice, validated) = (self.seed.percent(15), self.seed.percent(10));
        let step = Step { ask, twice, validated, trouble, meanwhile };
        self.follow(&step);
        step
    }

    fn ask(&mut self) -> Ask {
        let Some(nominal) = self.nominal.clone() else {
            let size = Size {
                cpu_count: self.seed.pick(&[1, 2, 3]),
                memory_mib: self.seed.pick(&[1024, 2048]),
                disk_gib: self.seed.pick(&[10, 12]),
            };
            return Ask::Create { iso: self.climate.isos && self.seed.percent(30), size };
        };
        if nominal.steps_left == 0 {
            return Ask::Delete { force: true };
        }
        let mut choices: Vec<(usize, Ask)> = vec![
            // Each of them is asked for in each state now and then: it may be refused.
            (1, Ask::Start),
            (1, Ask::Stop(Stop::Hard)),
            (1, Ask::Restart),
            (1, Ask::Reset),
            (1, Ask::Suspend),
            (1, Ask::Console),
            (1, Ask::Undelete),
            (1, Ask::Revert(self.seed.below(self.snapshots + 1))),
            (1, Ask::DropSnapshot(self.seed.below(self.snapshots + 1))),
            (2, Ask::Resize { size: self.size(&nominal), allow_restart: self.seed.percent(50) }),
            (1, Ask::Delete { force: true }),
            (2, Ask::Delete { force: false }),
        ];
        let snapshot = |choices: &mut Vec<(usize, Ask)>, seed: &mut Seed, next: usize| {
            let made = &nominal.snapshots;
            choices.push((if made.len() < 3 { 8 } else { 1 }, Ask::Snapshot(next)));
            if !made.is_empty() {
                choices.push((8, Ask::Revert(seed.pick(made))));
                choices.push((8, Ask::DropSnapshot(seed.pick(made))));
            }
        };
        match nominal.state {
            State::Running => {
                let size = self.size(&nominal);
                choices.extend([
                    (5, Ask::Stop(Stop::Hard)),
                    (5, Ask::Stop(Stop::Graceful)),
                    (3, Ask::Stop(Stop::GracefulOnly)),
                    (5, Ask::Restart),
                    (4, Ask::Reset),
                    (6, Ask::Suspend),
                    (3, Ask::Console),
                    (8, Ask::Resize { size, allow_restart: self.seed.percent(50) }),
                ]);
                snapshot(&mut choices, &mut self.seed, self.snapshots);
            }
            State::Stopped => {
                let size = self.size(&nominal);
                choices.extend([(16, Ask::Start), (8, Ask::Resize { size, allow_restart: false })]);
                snapshot(&mut choices, &mut self.seed, self.snapshots);
            }
            State::Suspended => {
                choices.extend([(14, Ask::Start), (5, Ask::Stop(Stop::Hard)), (2, Ask::Stop(Stop::Graceful))]);
                snapshot(&mut choices, &mut self.seed, self.snapshots);
            }
            _ => choices.extend([(20, Ask::Undelete), (6, Ask::Delete { force: true })]),
        }
        let mut at = self.seed.below(choices.iter().map(|(weight, _)| weight).sum());
        let chosen = choices.into_iter().find(|(weight, _)| match at.checked_sub(*weight) {
            None => true,
            Some(rest) => {
                at = rest;
                false
            }
        });
        chosen.expect("one of them").1
    }

    fn size(&mut self, nominal: &Nominal) -> Size {
        Size {
            cpu_count: self.seed.pick(&[1, 2, 3, 4]),
            memory_mib: self.seed.pick(&[1024, 1536, 2048, 3072]),
            disk_gib: nominal.size.disk_gib + self.seed.pick(&[0, 0, 0, 1, 4, -1]),
        }
    }

    fn meanwhile(&mut self) -> (Moment, Meanwhile) {
        let what = match self.seed.below(10) {
            0..6 => Meanwhile::Cancel,
            6..8 => Meanwhile::Start,
            _ => Meanwhile::Delete { force: self.seed.percent(50) },
        };
        (Moment { after: self.seed.millis(200), point: self.seed.below(POINTS) }, what)
    }

    /// What the step makes of the nominal VM.
    fn follow(&mut self, step: &Step) {
        if let Ask::Create { size, .. } = step.ask {
            self.begin(size);
        }
        let Some(mut nominal) = self.nominal.take() else { return };
        nominal.steps_left = nominal.steps_left.saturating_sub(1);
        let (state, deleted) = (nominal.state, nominal.state == State::Deleted);
        match &step.ask {
            Ask::Create { .. } | Ask::Console | Ask::Reset => {}
            Ask::Snapshot(number) => {
                self.snapshots = number + 1;
                nominal.snapshots.push(*number);
            }
            Ask::DropSnapshot(number) if !deleted => nominal.snapshots.retain(|kept| kept != number),
            Ask::Revert(number) if !deleted && nominal.snapshots.contains(number) => nominal.state = State::Stopped,
            Ask::Start if !deleted => nominal.state = State::Running,
            Ask::Stop(_) if !deleted => nominal.state = State::Stopped,
            Ask::Suspend if state == State::Running => nominal.state = State::Suspended,
            Ask::Resize { size, .. } if !deleted => {
                // A disk that is asked to shrink is refused; one that has snapshots may be, too.
                nominal.size.disk_gib = nominal.size.disk_gib.max(size.disk_gib);
            }
            Ask::Undelete if deleted => nominal.state = State::Stopped,
            Ask::Delete { force: false } => nominal.state = State::Deleted,
            Ask::Delete { force: true } => {
                self.clear = true;
                return;
            }
            _ => {}
        }
        match step.meanwhile {
            Some((_, Meanwhile::Delete { force: false })) => nominal.state = State::Deleted,
            Some((_, Meanwhile::Delete { force: true })) => {
                self.clear = true;
                return;
            }
            // Whether it is there now, only time tells.
            Some((_, Meanwhile::Cancel)) if matches!(step.ask, Ask::Create { .. }) => {
                self.clear = true;
                return;
            }
            _ => {}
        }
        self.nominal = Some(nominal);
    }
}

/// Calls that the workflow of an operation makes, those of its way back included.
fn calls(ask: &Ask) -> &'static [Call] {
    match ask {
        Ask::Create { .. } => &[Call::Create, Call::PowerOn, Call::Observe, Call::Absent, Call::Idle],
        Ask::Start => &[Call::PowerOn, Call::Observe, Call::Idle],
        Ask::Stop(Stop::Hard) => &[Call::PowerOff, Call::Observe, Call::Idle],
        Ask::Stop(_) => &[Call::ShutDown, Call::PowerOff, Call::Observe, Call::Idle],
        Ask::Restart => &[Call::ShutDown, Call::PowerOff, Call::PowerOn, Call::Observe, Call::Idle],
        Ask::Reset => &[Call::Reset, Call::Observe, Call::Idle],
        Ask::Suspend => &[Call::Suspend, Call::Observe, Call::Idle],
        Ask::Resize { .. } => {
            &[Call::Resize, Call::Resize, Call::ShutDown, Call::PowerOff, Call::PowerOn, Call::Observe, Call::Idle]
        }
        Ask::Snapshot(_) => &[Call::Snapshot, Call::Snapshot, Call::Observe, Call::Idle, Call::RemoveSnapshot],
        Ask::DropSnapshot(_) => &[Call::RemoveSnapshot, Call::RemoveSnapshot, Call::Observe, Call::Idle],
        Ask::Revert(_) => &[Call::Revert, Call::Revert, Call::Observe, Call::Idle],
        Ask::Console | Ask::Undelete => &[Call::Console],
        Ask::Delete { force: false } => &[Call::PowerOff, Call::ShutDown, Call::Observe, Call::Idle],
        Ask::Delete { force: true } => &[Call::Absent],
    }
}

/// InjectedFault that an operation can meet.
fn trouble(seed: &mut Seed, ask: &Ask) -> InjectedFault {
    let (call, when) = (seed.pick(calls(ask)), seed.pick(&[When::Before, When::After]));
    match seed.below(10) {
        0 => InjectedFault::SlowTask,
        1 => InjectedFault::FailingTask,
        2 => InjectedFault::SlowCall { call, when },
        3..7 => {
            let class = seed.pick(&[FaultClass::Retry, FaultClass::Unknown]);
            // Each time, the step waits longer before it is tried again.
            InjectedFault::Fault { call, when, class, times: seed.pick(&[1, 1, 1, 2]) }
        }
        _ => {
            let class = seed.pick(&[FaultClass::Permanent, FaultClass::Capacity, FaultClass::Conflict]);
            InjectedFault::Fault { call, when, class, times: 1 }
        }
    }
}
