//! What every hypervisor adapter has to do: its definition of done.
//!
//! An adapter conforms when all [`CHECKS`] pass in a [`Lab`] of its own; a lab that cannot show something says why, and that
//! is printed, so that it is shown elsewhere. For a new adapter, write a lab and a test that calls [`run`]; neither the
//! checks nor the workflows know of any adapter.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use virtualstack_model::compute::id::{SnapshotId, TemplateId, VmId};
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::{PowerState, Size};
use virtualstack_model::id::{OperationId, TenantId};
use virtualstack_worker::adapters::hypervisor::{
    Fault, FaultClass, Hypervisor, Observation, Progress, SnapshotSpec, TaskRef, TemplateRef, VmIdentity, VmSpec,
};

/// How long something slow takes in a lab, at least.
pub(super) const SLOW: Duration = Duration::from_millis(600);

/// A kind of change of which the next is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    CreateFromTemplate,
    CreateFromMedium,
    PowerOn,
    Resize,
    Snapshot,
    Destroy,
}

/// What happens to the next change of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InjectedFault {
    /// It is carried out, and its reply is lost.
    LostReply(Change),
    /// Its task takes [`SLOW`].
    Slow(Change),
    /// It is turned away since the hypervisor is busy.
    Busy(Change),
    /// Its task fails for good.
    Failing(Change),
}

/// A hypervisor to be tried, and what an adapter cannot do or see.
#[async_trait]
pub(super) trait Lab: Send + Sync {
    /// An adapter as a worker has it that has just started: it remembers nothing.
    async fn adapter(&self) -> Box<dyn Hypervisor>;
    /// The same, in trouble with one change; only that change is asked of it.
    async fn troubled(&self, trouble: InjectedFault) -> Box<dyn Hypervisor>;
    /// A template with 2 CPUs at most, 2 GiB of memory and a disk of 20 GiB, whose VMs grow while they run.
    fn template(&self) -> TemplateRef;
    /// A medium.
    fn medium(&self) -> TemplateRef;
    /// How many VMs of an id there are.
    async fn count(&self, vm: VmId) -> usize;
    /// How many snapshots a VM has.
    async fn snapshots(&self, vm: VmId) -> usize;
    /// How many templates of an id there are, half made ones included.
    async fn imports(&self, template: TemplateId) -> usize;
    /// Takes a VM away behind the adapter's back.
    async fn lose(&self, vm: VmId);
    /// Takes all snapshots of a VM away behind the adapter's back.
    async fn lose_snapshots(&self, vm: VmId);
    /// Stops the tools in the guest of a VM.
    async fn stop_tools(&self, vm: VmId);
    /// Puts a VM of somebody else where this one would be.
    async fn put_foreign(&self, spec: &VmSpec);
    /// Checks that this lab cannot show, with the reason.
    fn cannot_show(&self) -> &[(&str, &str)];
}

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        /// All there is to show, by name.
        const CHECKS: &[(&str, for<'l> fn(&'l dyn Lab) -> LocalBoxFuture<'l, ()>)] =
            &[$((stringify!($name), |lab| $name(lab).boxed_local())),*];
    };
}

checks![
    templates_keep_their_references,
    a_vm_is_made_from_a_template,
    a_vm_is_made_from_a_medium,
    two_calls_make_one_vm,
    a_create_adopts_what_a_lost_reply_left,
    a_create_from_a_medium_adopts_what_a_lost_reply_left,
    a_create_without_its_template_fails,
    a_create_that_fails_leaves_nothing,
    a_create_touches_no_foreign_vm,
    power_goes_everywhere_twice,
    power_survives_a_lost_reply,
    a_guest_shuts_down_when_asked,
    a_guest_without_tools_cannot_be_asked,
    a_reset_needs_a_running_vm,
    what_leaves_no_trace_is_known_by_its_task,
    a_running_vm_grows,
    a_running_vm_does_not_shrink,
    a_disk_only_grows,
    a_resize_survives_a_lost_reply,
    two_calls_make_one_snapshot,
    a_snapshot_survives_a_lost_reply,
    a_snapshot_goes_alone,
    a_revert_brings_back_the_size_and_powers_off,
    a_lost_snapshot_is_lost,
    a_console_is_of_a_running_vm,
    idle_ends_what_can_be_stopped,
    idle_awaits_what_cannot_be_stopped,
    absent_ends_a_create_that_runs,
    absent_ends_a_create_that_nobody_stored,
    absent_takes_everything_and_twice,
    absent_survives_a_lost_reply,
    a_lost_vm_is_lost_everywhere,
    a_busy_hypervisor_is_tried_again,
    a_failure_for_good_is_told,
];

/// Runs all checks, and fails with the names of those that failed.
pub(super) async fn run(lab: &dyn Lab) {
    let hidden = lab.cannot_show();
    for (name, _) in hidden {
        assert!(CHECKS.iter().any(|(check, _)| check == name), "there is no check {name}");
    }
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Some((_, why)) = hidden.iter().find(|(hidden, _)| hidden == name) {
            eprintln!("{name}: not shown here: {why}");
            continue;
        }
        let started = Instant::now();
        let outcome = AssertUnwindSafe(check(lab)).catch_unwind().await;
        eprintln!("{name}: {} in {:?}", if outcome.is_ok() { "shown" } else { "FAILED" }, started.elapsed());
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), CHECKS.len());
}

/// Asks until it is done, as a workflow does: with the last task, and again after faults that are not final.
pub(super) async fn drive_every(
    pause: Duration,
    mut call: impl AsyncFnMut(Option<&TaskRef>) -> Result<Progress, Fault>,
) -> Result<(), Fault> {
    let started = Instant::now();
    let mut task = None;
    loop {
        assert!(started.elapsed() < Duration::from_secs(120), "not done; last task {task:?}");
        match call(task.as_ref()).await {
            Ok(Progress::Done) => return Ok(()),
            Ok(Progress::Running { task: reference, .. }) => task = reference.or(task),
            Err(fault) if matches!(fault.class, FaultClass::Retry | FaultClass::Unknown) => {}
            Err(fault) => return Err(fault),
        }
        tokio::time::sleep(pause).await;
    }
}

pub(super) async fn drive(call: impl AsyncFnMut(Option<&TaskRef>) -> Result<Progress, Fault>) -> Result<(), Fault> {
    drive_every(Duration::from_millis(30), call).await
}

fn size(cpu_count: i32, memory_mib: i32, disk_gib: i32) -> Size {
    Size { cpu_count, memory_mib, disk_gib }
}

pub(super) fn spec(lab: &dyn Lab) -> VmSpec {
    VmSpec {
        id: VmId::new(),
        tenant: TenantId::new(),
        operation: OperationId::new(),
        display_name: "web 1".to_owned(),
        template: lab.template(),
        kind: TemplateKind::Ova,
        size: size(2, 2048, 20),
        customization: None,
    }
}

fn from_medium(lab: &dyn Lab) -> VmSpec {
    VmSpec { template: lab.medium(), kind: TemplateKind::Iso, size: size(1, 1024, 12), ..spec(lab) }
}

fn identity(spec: &VmSpec) -> VmIdentity {
    VmIdentity { id: spec.id, template: spec.template.clone() }
}

pub(super) async fn create(hypervisor: &dyn Hypervisor, spec: &VmSpec) {
    drive(async |task| hypervisor.ensure_vm(spec, task).await).await.expect("created");
}

/// A VM that is there and off, and an adapter.
async fn machine(lab: &dyn Lab) -> (Box<dyn Hypervisor>, VmSpec) {
    let (hypervisor, spec) = (lab.adapter().await, spec(lab));
    create(&*hypervisor, &spec).await;
    (hypervisor, spec)
}

/// One that runs.
async fn running(lab: &dyn Lab) -> (Box<dyn Hypervisor>, VmSpec) {
    let (hypervisor, spec) = machine(lab).await;
    power(&*hypervisor, spec.id, PowerState::On).await;
    (hypervisor, spec)
}

async fn power(hypervisor: &dyn Hypervisor, vm: VmId, power: PowerState) {
    drive(async |task| hypervisor.ensure_power(vm, power, task).await).await.expect("powered");
    assert_eq!(observe(hypervisor, vm).await.power, power);
    let again = hypervisor.ensure_power(vm, power, None).await.expect("again");
    assert_eq!(again, Progress::Done, "it is {power:?} already");
}

async fn resize(hypervisor: &dyn Hypervisor, vm: VmId, to: Size) -> Result<(), Fault> {
    drive(async |task| hypervisor.ensure_size(vm, &to, task).await).await
}

async fn snapshot(hypervisor: &dyn Hypervisor, vm: VmId) -> SnapshotSpec {
    let snapshot = SnapshotSpec { id: SnapshotId::new(), display_name: "before the update".to_owned() };
    drive(async |task| hypervisor.ensure_snapshot(vm, &snapshot, task).await).await.expect("a snapshot");
    snapshot
}

async fn destroy(hypervisor: &dyn Hypervisor, spec: &VmSpec) {
    drive(async |task| hypervisor.ensure_absent(&identity(spec), task).await).await.expect("destroyed");
}

async fn observe(hypervisor: &dyn Hypervisor, vm: VmId) -> Observation {
    hypervisor.observe_vm(vm).await.expect("observed").expect("there")
}

async fn templates_keep_their_references(lab: &dyn Lab) {
    let one = lab.adapter().await.observe_templates().await.expect("templates");
    let other = lab.adapter().await.observe_templates().await.expect("templates");
    assert_eq!(one, other);
    let kind = |reference: TemplateRef| one.iter().find(|t| t.reference == reference).map(|t| t.kind);
    assert_eq!((kind(lab.template()), kind(lab.medium())), (Some(TemplateKind::Ova), Some(TemplateKind::Iso)));
    assert!(one.iter().all(|t| !t.display_name.is_empty() && t.cpu_count > 0 && t.memory_mib > 0 && t.disk_gib > 0));
}

async fn a_vm_is_made_from_a_template(lab: &dyn Lab) {
    let hypervisor = lab.adapter().await;
    let spec = VmSpec { size: size(4, 3072, 24), ..spec(lab) };
    assert_eq!(hypervisor.observe_vm(spec.id).await.expect("observed"), None);
    create(&*hypervisor, &spec).await;
    let seen = observe(&*hypervisor, spec.id).await;
    assert_eq!((seen.power, seen.size, lab.count(spec.id).await), (PowerState::Off, Some(spec.size), 1));
    assert!(seen.ip_addresses.is_empty(), "{seen:?}");
}

async fn a_vm_is_made_from_a_medium(lab: &dyn Lab) {
    let (hypervisor, spec) = (lab.adapter().await, from_medium(lab));
    create(&*hypervisor, &spec).await;
    let seen = observe(&*hypervisor, spec.id).await;
    assert_eq!((seen.power, seen.size, lab.count(spec.id).await), (PowerState::Off, Some(spec.size), 1));
    assert_eq!(hypervisor.ensure_vm(&spec, None).await.expect("again"), Progress::Done);
    power(&*hypervisor, spec.id, PowerState::On).await;
    destroy(&*hypervisor, &spec).await;
    assert_eq!(lab.count(spec.id).await, 0);
    let gone = VmSpec { template: TemplateRef(spec.template.0.replace("debian", "none")), ..from_medium(lab) };
    let fault = hypervisor.ensure_vm(&gone, None).await.expect_err("no such medium");
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "TEMPLATE_GONE"));
}

async fn two_calls_make_one_vm(lab: &dyn Lab) {
    let (one, other, spec) = (lab.adapter().await, lab.adapter().await, spec(lab));
    tokio::join!(create(&*one, &spec), create(&*other, &spec));
    assert_eq!(one.ensure_vm(&spec, None).await.expect("again"), Progress::Done);
    assert_eq!(lab.count(spec.id).await, 1);
}

async fn adopts(lab: &dyn Lab, spec: &VmSpec, change: Change) {
    let troubled = lab.troubled(InjectedFault::LostReply(change)).await;
    let fault = troubled.ensure_vm(spec, None).await.expect_err("no reply");
    assert_eq!(fault.class, FaultClass::Unknown, "{fault}");
    create(&*lab.adapter().await, spec).await;
    assert_eq!(lab.count(spec.id).await, 1);
}

async fn a_create_adopts_what_a_lost_reply_left(lab: &dyn Lab) {
    adopts(lab, &spec(lab), Change::CreateFromTemplate).await;
}

async fn a_create_from_a_medium_adopts_what_a_lost_reply_left(lab: &dyn Lab) {
    adopts(lab, &from_medium(lab), Change::CreateFromMedium).await;
}

async fn a_create_without_its_template_fails(lab: &dyn Lab) {
    let spec = VmSpec { template: TemplateRef(VmId::new().to_string()), ..spec(lab) };
    let fault = lab.adapter().await.ensure_vm(&spec, None).await.expect_err("no such template");
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "TEMPLATE_GONE"));
    assert_eq!(lab.count(spec.id).await, 0);
}

async fn a_create_that_fails_leaves_nothing(lab: &dyn Lab) {
    let spec = spec(lab);
    let troubled = lab.troubled(InjectedFault::Failing(Change::CreateFromTemplate)).await;
    let fault = drive(async |task| troubled.ensure_vm(&spec, task).await).await.expect_err("it fails");
    assert_eq!(fault.class, FaultClass::Permanent, "{fault}");
    let hypervisor = lab.adapter().await;
    destroy(&*hypervisor, &spec).await;
    assert_eq!(lab.count(spec.id).await, 0);
}

async fn a_create_touches_no_foreign_vm(lab: &dyn Lab) {
    let (hypervisor, spec) = (lab.adapter().await, spec(lab));
    lab.put_foreign(&spec).await;
    let fault = drive(async |task| hypervisor.ensure_vm(&spec, task).await).await.expect_err("the place is taken");
    assert_eq!(fault.class, FaultClass::Conflict, "{fault}");
    assert_eq!(hypervisor.observe_vm(spec.id).await.expect("observed"), None);
    destroy(&*hypervisor, &spec).await;
    let fault = drive(async |task| hypervisor.ensure_vm(&spec, task).await).await.expect_err("it is still there");
    assert_eq!(fault.class, FaultClass::Conflict, "{fault}");
}

async fn power_goes_everywhere_twice(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let fault = hypervisor.ensure_power(spec.id, PowerState::Paused, None).await.expect_err("it is off");
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "VM_NOT_RUNNING"));
    for to in [PowerState::On, PowerState::Paused, PowerState::On, PowerState::Off, PowerState::On] {
        power(&*hypervisor, spec.id, to).await;
    }
    assert!(!observe(&*hypervisor, spec.id).await.ip_addresses.is_empty(), "its guest tells its address");
    power(&*hypervisor, spec.id, PowerState::Paused).await;
    power(&*hypervisor, spec.id, PowerState::Off).await;
}

async fn power_survives_a_lost_reply(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let troubled = lab.troubled(InjectedFault::LostReply(Change::PowerOn)).await;
    let fault = troubled.ensure_power(spec.id, PowerState::On, None).await.expect_err("no reply");
    assert_eq!(fault.class, FaultClass::Unknown, "{fault}");
    power(&*hypervisor, spec.id, PowerState::On).await;
}

async fn a_guest_shuts_down_when_asked(lab: &dyn Lab) {
    let (hypervisor, spec) = running(lab).await;
    hypervisor.ask_to_shut_down(spec.id).await.expect("asked");
    hypervisor.ask_to_shut_down(spec.id).await.expect("asked again");
    let started = Instant::now();
    while observe(&*hypervisor, spec.id).await.power != PowerState::Off {
        assert!(started.elapsed() < Duration::from_secs(30), "the guest does not shut down");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    hypervisor.ask_to_shut_down(spec.id).await.expect("it is off, so it is asked nothing");
}

async fn a_guest_without_tools_cannot_be_asked(lab: &dyn Lab) {
    let (hypervisor, spec) = running(lab).await;
    lab.stop_tools(spec.id).await;
    let fault = hypervisor.ask_to_shut_down(spec.id).await.expect_err("nobody to ask");
    assert_eq!((fault.class, fault.reason), (FaultClass::Guest, "GUEST_TOOLS_UNAVAILABLE"));
    assert_eq!(observe(&*hypervisor, spec.id).await.power, PowerState::On);
    power(&*hypervisor, spec.id, PowerState::Off).await;
}

async fn a_reset_needs_a_running_vm(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let fault = hypervisor.reset(spec.id, None).await.expect_err("it is off");
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "VM_NOT_RUNNING"));
    power(&*hypervisor, spec.id, PowerState::On).await;
    drive(async |task| hypervisor.reset(spec.id, task).await).await.expect("reset");
    assert_eq!(observe(&*hypervisor, spec.id).await.power, PowerState::On);
}

/// A reset, and a revert, by their tasks: whether they were done is not to be seen of the VM.
async fn what_leaves_no_trace_is_known_by_its_task(lab: &dyn Lab) {
    let (hypervisor, spec) = running(lab).await;
    let mut started = None;
    drive(async |task| {
        started = task.cloned().or(started.take());
        hypervisor.reset(spec.id, task).await
    })
    .await
    .expect("reset");
    let started = started.expect("a task");
    // Another adapter, as of a worker that goes on where one died.
    assert!(lab.adapter().await.has_done(&started).await.expect("known"));
    assert!(!hypervisor.has_done(&TaskRef("task-unknown".to_owned())).await.expect("unknown"));
    let troubled = lab.troubled(InjectedFault::Slow(Change::Snapshot)).await;
    let slow = SnapshotSpec { id: SnapshotId::new(), display_name: "slow".to_owned() };
    let Ok(Progress::Running { task: Some(task), .. }) = troubled.ensure_snapshot(spec.id, &slow, None).await else {
        panic!("not started");
    };
    assert!(!hypervisor.has_done(&task).await.expect("known"), "it is still at work");
}

async fn a_running_vm_grows(lab: &dyn Lab) {
    let (hypervisor, spec) = running(lab).await;
    let larger = size(4, 4096, 30);
    resize(&*hypervisor, spec.id, larger).await.expect("it grows");
    let seen = observe(&*hypervisor, spec.id).await;
    assert_eq!((seen.power, seen.size), (PowerState::On, Some(larger)));
    assert_eq!(hypervisor.ensure_size(spec.id, &larger, None).await.expect("again"), Progress::Done);
}

async fn a_running_vm_does_not_shrink(lab: &dyn Lab) {
    let (hypervisor, spec) = running(lab).await;
    for smaller in [size(1, 2048, 20), size(2, 1024, 20), size(4, 1024, 30)] {
        let fault = hypervisor.ensure_size(spec.id, &smaller, None).await.expect_err("it runs");
        assert_eq!((fault.class, fault.reason), (FaultClass::PowerOff, "RESTART_NEEDED"), "{smaller:?}");
        assert_eq!(observe(&*hypervisor, spec.id).await.size, Some(spec.size), "nothing was changed");
    }
    power(&*hypervisor, spec.id, PowerState::Off).await;
    resize(&*hypervisor, spec.id, size(1, 1024, 20)).await.expect("it is off");
    assert_eq!(observe(&*hypervisor, spec.id).await.size, Some(size(1, 1024, 20)));
}

async fn a_disk_only_grows(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    resize(&*hypervisor, spec.id, size(2, 2048, 25)).await.expect("it grows");
    resize(&*hypervisor, spec.id, size(2, 2048, 10)).await.expect("it is larger already");
    assert_eq!(observe(&*hypervisor, spec.id).await.size, Some(size(2, 2048, 25)));
}

async fn a_resize_survives_a_lost_reply(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let (larger, troubled) = (size(4, 4096, 22), lab.troubled(InjectedFault::LostReply(Change::Resize)).await);
    let fault = troubled.ensure_size(spec.id, &larger, None).await.expect_err("no reply");
    assert_eq!(fault.class, FaultClass::Unknown, "{fault}");
    resize(&*hypervisor, spec.id, larger).await.expect("it is so, or is made so");
    assert_eq!(observe(&*hypervisor, spec.id).await.size, Some(larger));
}

async fn two_calls_make_one_snapshot(lab: &dyn Lab) {
    let (hypervisor, spec) = running(lab).await;
    let made = snapshot(&*hypervisor, spec.id).await;
    let again = hypervisor.ensure_snapshot(spec.id, &made, None).await.expect("again");
    assert_eq!((again, lab.snapshots(spec.id).await), (Progress::Done, 1));
    assert_eq!(observe(&*hypervisor, spec.id).await.power, PowerState::On, "it runs on");
}

async fn a_snapshot_survives_a_lost_reply(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let made = SnapshotSpec { id: SnapshotId::new(), display_name: "mute".to_owned() };
    let troubled = lab.troubled(InjectedFault::LostReply(Change::Snapshot)).await;
    let fault = troubled.ensure_snapshot(spec.id, &made, None).await.expect_err("no reply");
    assert_eq!(fault.class, FaultClass::Unknown, "{fault}");
    drive(async |task| hypervisor.ensure_snapshot(spec.id, &made, task).await).await.expect("a snapshot");
    assert_eq!(lab.snapshots(spec.id).await, 1);
}

async fn a_snapshot_goes_alone(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let (first, second) = (snapshot(&*hypervisor, spec.id).await, snapshot(&*hypervisor, spec.id).await);
    assert_eq!(lab.snapshots(spec.id).await, 2);
    drive(async |task| hypervisor.ensure_no_snapshot(spec.id, first.id, task).await).await.expect("removed");
    let again = hypervisor.ensure_no_snapshot(spec.id, first.id, None).await.expect("again");
    assert_eq!((again, lab.snapshots(spec.id).await), (Progress::Done, 1));
    drive(async |task| hypervisor.revert(spec.id, second.id, task).await).await.expect("the later one is there");
    let never = hypervisor.ensure_no_snapshot(spec.id, SnapshotId::new(), None).await.expect("never was");
    assert_eq!(never, Progress::Done);
}

async fn a_revert_brings_back_the_size_and_powers_off(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let made = snapshot(&*hypervisor, spec.id).await;
    resize(&*hypervisor, spec.id, size(4, 4096, 20)).await.expect("resized");
    power(&*hypervisor, spec.id, PowerState::On).await;
    for _ in 0..2 {
        drive(async |task| hypervisor.revert(spec.id, made.id, task).await).await.expect("reverted");
        let seen = observe(&*hypervisor, spec.id).await;
        assert_eq!((seen.power, seen.size), (PowerState::Off, Some(spec.size)));
    }
}

async fn a_lost_snapshot_is_lost(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let made = snapshot(&*hypervisor, spec.id).await;
    lab.lose_snapshots(spec.id).await;
    let fault = drive(async |task| hypervisor.revert(spec.id, made.id, task).await).await.expect_err("it is gone");
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "SNAPSHOT_LOST"));
    drive(async |task| hypervisor.ensure_no_snapshot(spec.id, made.id, task).await).await.expect("it is gone");
}

async fn a_console_is_of_a_running_vm(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let fault = hypervisor.open_console(spec.id).await.expect_err("it is off");
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "VM_NOT_RUNNING"));
    power(&*hypervisor, spec.id, PowerState::On).await;
    let one = hypervisor.open_console(spec.id).await.expect("a ticket");
    let other = hypervisor.open_console(spec.id).await.expect("another");
    assert!(one.url.starts_with("wss://"), "{}", one.url);
    assert!(!one.ticket.is_empty() && one.ticket != other.ticket && !one.protocol.is_empty());
    let now = Utc::now();
    assert!(one.expires_at > now && one.expires_at < now + TimeDelta::minutes(10), "{}", one.expires_at);
    assert!(!format!("{one:?}").contains(&one.ticket), "it is a secret");
}

async fn idle_ends_what_can_be_stopped(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    assert_eq!(hypervisor.ensure_idle(spec.id, None).await.expect("at rest"), Progress::Done);
    let troubled = lab.troubled(InjectedFault::Slow(Change::Snapshot)).await;
    let made = SnapshotSpec { id: SnapshotId::new(), display_name: "slow".to_owned() };
    let started = troubled.ensure_snapshot(spec.id, &made, None).await.expect("started");
    assert!(matches!(started, Progress::Running { task: Some(_), .. }), "{started:?}");
    assert_eq!(lab.snapshots(spec.id).await, 0, "it takes its time");
    // Nobody stored the task.
    drive(async |task| hypervisor.ensure_idle(spec.id, task).await).await.expect("idle");
    let snapshots = lab.snapshots(spec.id).await;
    tokio::time::sleep(SLOW * 3 / 2).await;
    assert_eq!(lab.snapshots(spec.id).await, snapshots, "nothing of it was still at work");
    let again = hypervisor.ensure_snapshot(spec.id, &made, None).await;
    again.expect("its end keeps nobody from another");
}

async fn idle_awaits_what_cannot_be_stopped(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let troubled = lab.troubled(InjectedFault::Slow(Change::PowerOn)).await;
    let Ok(Progress::Running { task: Some(task), .. }) = troubled.ensure_power(spec.id, PowerState::On, None).await
    else {
        panic!("not started");
    };
    let waits = hypervisor.ensure_idle(spec.id, Some(&task)).await.expect("waits");
    assert!(matches!(waits, Progress::Running { .. }), "{waits:?}");
    drive(async |later| hypervisor.ensure_idle(spec.id, later.or(Some(&task))).await).await.expect("idle");
    assert_eq!(observe(&*hypervisor, spec.id).await.power, PowerState::On);
}

async fn absent_ends_a_create_that_runs(lab: &dyn Lab) {
    let spec = spec(lab);
    let troubled = lab.troubled(InjectedFault::Slow(Change::CreateFromTemplate)).await;
    let Ok(Progress::Running { task: Some(task), .. }) = troubled.ensure_vm(&spec, None).await else {
        panic!("not started");
    };
    let hypervisor = lab.adapter().await;
    drive(async |later| hypervisor.ensure_absent(&identity(&spec), later.or(Some(&task))).await).await.expect("absent");
    tokio::time::sleep(SLOW * 3 / 2).await;
    assert_eq!(lab.count(spec.id).await, 0, "it does not come to life later");
}

async fn absent_ends_a_create_that_nobody_stored(lab: &dyn Lab) {
    for (spec, change) in [(spec(lab), Change::CreateFromTemplate), (from_medium(lab), Change::CreateFromMedium)] {
        let troubled = lab.troubled(InjectedFault::Slow(change)).await;
        troubled.ensure_vm(&spec, None).await.expect("started");
        destroy(&*lab.adapter().await, &spec).await;
        tokio::time::sleep(SLOW * 3 / 2).await;
        assert_eq!(lab.count(spec.id).await, 0, "it does not come to life later");
    }
}

async fn absent_takes_everything_and_twice(lab: &dyn Lab) {
    let (hypervisor, spec) = running(lab).await;
    snapshot(&*hypervisor, spec.id).await;
    snapshot(&*hypervisor, spec.id).await;
    for _ in 0..2 {
        destroy(&*hypervisor, &spec).await;
        assert_eq!(lab.count(spec.id).await, 0);
        assert_eq!(hypervisor.observe_vm(spec.id).await.expect("observed"), None);
    }
    let never = self::spec(lab);
    destroy(&*hypervisor, &never).await;
    destroy(&*hypervisor, &from_medium(lab)).await;
}

async fn absent_survives_a_lost_reply(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let troubled = lab.troubled(InjectedFault::LostReply(Change::Destroy)).await;
    let fault = troubled.ensure_absent(&identity(&spec), None).await.expect_err("no reply");
    assert_eq!(fault.class, FaultClass::Unknown, "{fault}");
    destroy(&*hypervisor, &spec).await;
    assert_eq!(lab.count(spec.id).await, 0);
}

async fn a_lost_vm_is_lost_everywhere(lab: &dyn Lab) {
    let (hypervisor, spec) = running(lab).await;
    let (vm, made) = (spec.id, snapshot(&*hypervisor, spec.id).await);
    lab.lose(vm).await;
    assert_eq!(hypervisor.observe_vm(vm).await.expect("observed"), None);
    let faults = [
        ("power", hypervisor.ensure_power(vm, PowerState::Off, None).await.map(drop)),
        ("shut down", hypervisor.ask_to_shut_down(vm).await),
        ("reset", hypervisor.reset(vm, None).await.map(drop)),
        ("size", hypervisor.ensure_size(vm, &size(1, 1024, 20), None).await.map(drop)),
        ("snapshot", hypervisor.ensure_snapshot(vm, &made, None).await.map(drop)),
        ("revert", hypervisor.revert(vm, made.id, None).await.map(drop)),
        ("console", hypervisor.open_console(vm).await.map(drop)),
    ];
    for (what, outcome) in faults {
        let fault = outcome.expect_err(what);
        assert_eq!(fault.class, FaultClass::Lost, "{what}: {fault}");
    }
    drive(async |task| hypervisor.ensure_no_snapshot(vm, made.id, task).await).await.expect("it has none");
    drive(async |task| hypervisor.ensure_idle(vm, task).await).await.expect("nothing is at work");
    destroy(&*hypervisor, &spec).await;
}

async fn a_busy_hypervisor_is_tried_again(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let troubled = lab.troubled(InjectedFault::Busy(Change::PowerOn)).await;
    let fault = troubled.ensure_power(spec.id, PowerState::On, None).await.expect_err("busy");
    assert_eq!(fault.class, FaultClass::Retry, "{fault}");
    assert_eq!(observe(&*hypervisor, spec.id).await.power, PowerState::Off, "nothing happened");
    power(&*hypervisor, spec.id, PowerState::On).await;
}

async fn a_failure_for_good_is_told(lab: &dyn Lab) {
    let (hypervisor, spec) = machine(lab).await;
    let troubled = lab.troubled(InjectedFault::Failing(Change::Resize)).await;
    let larger = size(4, 4096, 20);
    let fault = drive(async |task| troubled.ensure_size(spec.id, &larger, task).await).await.expect_err("it fails");
    assert_eq!(fault.class, FaultClass::Permanent, "{fault}");
    assert!(!fault.message.is_empty() && !fault.detail.is_empty());
    assert_eq!(observe(&*hypervisor, spec.id).await.size, Some(spec.size));
    drive(async |task| hypervisor.ensure_idle(spec.id, task).await).await.expect("idle");
    resize(&*hypervisor, spec.id, larger).await.expect("another try is another task");
}
