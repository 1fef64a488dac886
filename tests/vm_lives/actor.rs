//! One VM after another: asks for what the program says, and holds every answer against the model.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::jobs::{VmConsole, VmCreate, VmDelete, VmPower, VmResize, VmSnapshot};
use virtualstack_model::compute::vm::Size;
use virtualstack_model::jobs::Job as _;
use virtualstack_proto::google::longrunning::operation::Result as Outcome;
use virtualstack_proto::google::longrunning::{CancelOperationRequest, GetOperationRequest, Operation};
use virtualstack_proto::google::rpc::ErrorInfo;
use virtualstack_proto::virtualstack::compute::v1::snapshot_service_client::SnapshotServiceClient;
use virtualstack_proto::virtualstack::compute::v1::stop_vm_request::Fallback;
use virtualstack_proto::virtualstack::compute::v1::{
    ConsoleTicket, CreateSnapshotRequest, CreateVmRequest, DeleteSnapshotRequest, DeleteVmRequest,
    ListSnapshotsRequest, OpenConsoleRequest, ResetVmRequest, RestartVmRequest, RevertSnapshotRequest, Snapshot,
    StartVmRequest, StopVmRequest, SuspendVmRequest, UndeleteVmRequest, UpdateVmRequest, Vm,
};
use virtualstack_proto::virtualstack::operations::v1::OperationMetadata;

use super::barrier::Barrier;
use super::injected::InjectedFaults;
use super::model::{End, Possible, Prospect, Rules, Seen, Verdict};
use super::program::{Ask, InjectedFault, Meanwhile, Program, Step, Stop};
use crate::support::{Seed, Session, reason};

/// How long an operation may take here, where tasks take milliseconds, workers that die a second, and steps that fail as
/// long as they wait for their next try: a minute, when they have often failed.
const PATIENCE: Duration = Duration::from_secs(150);

/// How often an operation is looked at.
const LOOK: Duration = Duration::from_millis(40);

/// Full names of what VMs are made from.
#[derive(Clone, Debug)]
pub(super) struct Templates {
    pub(super) ova: String,
    pub(super) iso: Option<String>,
}

/// The VM of a life.
#[derive(Clone, Debug)]
struct Life {
    display_name: String,
    /// Its full name; none where it was never accepted.
    vm: Option<String>,
    /// Full names of its snapshots, by number.
    snapshots: HashMap<usize, String>,
    possible: Possible,
}

/// What says when something happens while an operation is under way.
pub(super) enum Pace {
    Clock,
    /// The worker, which stands still for it.
    Barrier(Arc<Barrier>),
}

impl Pace {
    fn go_on(&self) {
        if let Self::Barrier(stage) = self {
            stage.go_on();
        }
    }

    fn over(&self) {
        if let Self::Barrier(stage) = self {
            stage.over();
        }
    }
}

/// Lives one VM after the other.
pub(super) struct Actor {
    session: Session,
    templates: Templates,
    rules: Rules,
    troubles: Arc<InjectedFaults>,
    name: String,
    program: Program,
    pace: Pace,
    /// Ids of requests, and times of repeats.
    ids: Seed,
    life: Life,
    lives: usize,
    /// What was done, for whom it fails.
    pub(super) log: Vec<String>,
    /// How many operations of each kind ended how, and so on.
    pub(super) tally: BTreeMap<String, usize>,
}

impl Actor {
    pub(super) fn new(
        name: String,
        session: Session,
        templates: Templates,
        rules: Rules,
        troubles: Arc<InjectedFaults>,
        program: Program,
        ids: Seed,
    ) -> Self {
        let life = Life {
            display_name: String::new(),
            vm: None,
            snapshots: HashMap::new(),
            possible: Possible::nothing(false),
        };
        let (pace, log, tally) = (Pace::Clock, Vec::new(), BTreeMap::new());
        Self { session, templates, rules, troubles, name, program, pace, ids, life, lives: 0, log, tally }
    }

    /// Where not the clock counts, but how far the worker is.
    pub(super) fn on(self, stage: &Arc<Barrier>) -> Self {
        Self { pace: Pace::Barrier(Arc::clone(stage)), ..self }
    }

    /// Draws what goes wrong while a VM is made that was asked for already.
    pub(super) fn expect(&mut self, vm: &Vm, size: Size) -> Step {
        self.life.display_name.clone_from(&vm.display_name);
        let step = self.program.creation(size);
        self.note(&format!("{}: {step:?}, accepted", vm.display_name));
        self.troubles.arm(&vm.display_name, step.trouble);
        step
    }

    /// Goes on from there.
    pub(super) async fn adopt(&mut self, step: &Step, operation: Operation) {
        self.accepted(step, Verdict::Accepted, operation).await;
    }

    /// Purges its VM if the last operation has left it in doubt.
    pub(super) async fn clear_doubtful(&mut self) {
        if !self.life.possible.is_doubtful() {
            return;
        }
        let ask = Ask::Delete { force: true };
        let step = Step { ask, twice: false, validated: false, trouble: None, meanwhile: None };
        let operation = self.ask(&step.ask, "", false).await.expect("a purge");
        self.accepted(&step, Verdict::Accepted, operation).await;
    }

    /// The full name of its VM.
    pub(super) fn vm(&self) -> Option<&str> {
        self.life.vm.as_deref()
    }

    fn note(&mut self, what: &str) {
        self.log.push(format!("{} {what}", chrono::Utc::now().format("%M:%S%.3f")));
    }

    fn count(&mut self, what: String) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Does the next step of the program.
    pub(super) async fn step(&mut self) {
        let step = self.program.next();
        if let Ask::Create { iso, .. } = step.ask {
            self.lives += 1;
            let display_name = format!("{}-{}", self.name, self.lives);
            let (vm, snapshots) = (None, HashMap::new());
            self.life = Life { display_name, vm, snapshots, possible: Possible::nothing(iso) };
        }
        self.note(&format!("{}: {step:?}", self.life.display_name));
        if let Pace::Barrier(stage) = &self.pace {
            stage.begin(kind(&step.ask), step.meanwhile.map(|(moment, _)| moment.point));
        }
        let verdict = self.life.possible.verdict(&step.ask);
        self.troubles.arm(&self.life.display_name, step.trouble);
        if step.validated {
            let validated = self.ask(&step.ask, "", true).await;
            self.judge(&step.ask, &verdict, validated.as_ref().map(|_| ()));
            if let Ok(Operation { name, done, .. }) = validated {
                assert!(name.is_empty() && done, "an unnamed, done operation");
            }
            self.look(true).await;
        }
        let id = if step.twice { self.ids.uuid().to_string() } else { String::new() };
        let answer = self.ask(&step.ask, &id, false).await;
        self.judge(&step.ask, &verdict, answer.as_ref().map(|_| ()));
        match answer {
            Ok(operation) => {
                if step.twice {
                    let again = self.ask(&step.ask, &id, false).await.expect("a repeat is answered");
                    assert_eq!(again.name, operation.name, "a repeat gets the operation of the first");
                }
                self.accepted(&step, verdict, operation).await;
            }
            Err(refusal) => {
                self.note(&format!("refused: {:?} {}", refusal.code(), reason(&refusal)));
                self.count(format!("{} refused", verb(&step.ask)));
                self.troubles.disarm(&self.life.display_name);
                self.look(false).await;
            }
        }
    }

    fn judge(&self, ask: &Ask, verdict: &Verdict, answer: Result<(), &Status>) {
        match (verdict, answer) {
            (Verdict::Accepted, answer) => {
                assert!(answer.is_ok(), "{ask:?} should be accepted: {answer:?}; {:?}", self.life.possible);
            }
            (Verdict::Refused(_), Ok(())) => panic!("{ask:?} should be refused: {verdict:?}; {:?}", self.life.possible),
            (Verdict::Refused(reasons), Err(status)) => {
                let got = (status.code(), reason(status));
                let fits = reasons.iter().any(|(code, reason)| (*code, reason.to_string()) == got);
                assert!(fits, "{ask:?} is refused with {got:?}, not one of {reasons:?}: {status:?}");
            }
            (Verdict::Open, Ok(())) => {}
            (Verdict::Open, Err(status)) => {
                assert_eq!(status.code(), Code::FailedPrecondition, "{ask:?}: {status:?}");
            }
        }
    }

    /// Follows an operation to its end, and another one that is asked for meanwhile.
    async fn accepted(&mut self, step: &Step, verdict: Verdict, operation: Operation) {
        let ask = &step.ask;
        let target = metadata(&operation).target;
        match ask {
            Ask::Create { .. } => {
                let vm = VmId::parse("target", &target).expect("a VM");
                self.troubles.named(vm, &self.life.display_name);
                self.life.vm = Some(target);
            }
            Ask::Snapshot(number) => {
                self.life.snapshots.insert(*number, target);
            }
            _ => {}
        }
        let prospect = match verdict {
            Verdict::Accepted => self.life.possible.prospect(ask, self.rules),
            _ => Prospect::Open,
        };
        let waiting = async {
            let done = self.wait(&operation).await;
            // What waits behind it meets no trouble.
            let met = self.troubles.disarm(&self.life.display_name);
            self.pace.over();
            (done, met)
        };
        let ((done, met), second) = tokio::join!(waiting, self.interfere(step, &operation));
        let end = end(&done);
        let is_final = met > 0 && step.trouble.is_some_and(InjectedFault::is_final);
        let meanwhile = second.as_ref().map(|(ask, answer)| (ask, answer.as_ref().map(|_| ()).map_err(reason)));
        self.note(&format!("{end:?}, met trouble {met} times, meanwhile {meanwhile:?}"));
        self.count(format!("{} {}", verb(ask), ending(&end)));
        if met > 0 {
            self.count("trouble met".to_owned());
        }
        let disturbed = matches!(step.meanwhile, Some((_, Meanwhile::Cancel | Meanwhile::Delete { .. })));
        match (&end, &prospect) {
            (End::Cancelled, _) => assert!(disturbed, "{ask:?} was cancelled by nobody"),
            (End::Failed { reason, .. }, Prospect::Fails(expected)) if reason == expected => {}
            (End::Failed { .. }, Prospect::Open) => {}
            (End::Failed { .. }, _) => assert!(is_final, "{ask:?} failed for no reason: {end:?}"),
            (End::Succeeded, Prospect::Fails(expected)) => panic!("{ask:?} should have failed: {expected}"),
            (End::Succeeded, _) => {}
        }
        self.response(ask, &done).await;
        let mut possible = self.life.possible.after(ask, &end, self.rules);
        if let Some(second) = second {
            possible = self.second(step, &operation, possible, second).await;
        }
        self.life.possible = possible;
        self.look(false).await;
    }

    /// What came of the request that was made while the operation was under way.
    async fn second(
        &mut self,
        step: &Step,
        first: &Operation,
        possible: Possible,
        (ask, answer): (Ask, Result<Operation, Status>),
    ) -> Possible {
        let operation = match answer {
            Ok(operation) => operation,
            Err(status) => {
                let got = (status.code(), reason(&status));
                let busy = match (&step.ask, &ask) {
                    (Ask::Delete { .. }, Ask::Delete { .. }) => "DELETE_IN_PROGRESS",
                    _ => "OPERATION_IN_PROGRESS",
                };
                let late = match possible.verdict(&ask) {
                    Verdict::Refused(reasons) => {
                        reasons.iter().any(|(code, reason)| (*code, reason.to_string()) == got)
                    }
                    Verdict::Open => true,
                    Verdict::Accepted => false,
                };
                let refused = got == (Code::Aborted, busy.to_owned());
                assert!(refused || late, "{ask:?} during {:?}: {status:?}", step.ask);
                self.count(format!("{} refused meanwhile", verb(&ask)));
                return possible;
            }
        };
        assert_ne!(operation.name, first.name);
        let end = end(&self.wait(&operation).await);
        self.note(&format!("then {ask:?}: {end:?}"));
        self.count(format!("{} {} behind another", verb(&ask), ending(&end)));
        possible.after(&ask, &end, self.rules)
    }

    /// What is asked for while an operation is under way; nothing is checked here, the operation may be done by then.
    async fn interfere(&self, step: &Step, operation: &Operation) -> Option<(Ask, Result<Operation, Status>)> {
        let (moment, what) = step.meanwhile?;
        match &self.pace {
            Pace::Clock => {
                if step.trouble == Some(InjectedFault::SlowTask) {
                    // What is interrupted is that task, on machines that are slow, too.
                    self.troubles.met(&self.life.display_name).await;
                }
                tokio::time::sleep(moment.after).await;
            }
            Pace::Barrier(stage) if !stage.held().await => return None,
            Pace::Barrier(_) => {}
        }
        let ask = match what {
            Meanwhile::Cancel => None,
            Meanwhile::Start => Some(Ask::Start),
            Meanwhile::Delete { force } => Some(Ask::Delete { force }),
        };
        let second = match ask {
            None => {
                let request = self.session.request(CancelOperationRequest { name: operation.name.clone() });
                self.session.operations().cancel_operation(request).await.expect("cancelled");
                None
            }
            Some(ask) => {
                let answer = self.ask(&ask, "", false).await;
                Some((ask, answer))
            }
        };
        self.pace.go_on();
        second
    }

    /// Sends a request.
    #[expect(clippy::needless_update, reason = "some requests have more fields than are said, and one macro sends all")]
    async fn ask(&self, ask: &Ask, request_id: &str, validate_only: bool) -> Result<Operation, Status> {
        let session = &self.session;
        // What was never accepted has a name that nobody has.
        let name = self.life.vm.clone().unwrap_or_else(|| format!("vms/{}", uuid::Uuid::from_u128(1)));
        let request_id = request_id.to_owned();
        let mut vms = session.vms();
        let mut snapshots = SnapshotServiceClient::new(session.channel.clone());
        macro_rules! send {
            ($client:ident, $method:ident, $request:ident { $($field:ident $(: $value:expr)?),* }) => {
                $client.$method(session.request($request {
                    request_id, validate_only, $($field $(: $value)?,)* ..Default::default()
                })).await.map(tonic::Response::into_inner)
            };
        }
        match ask {
            Ask::Create { iso, size } => {
                let template = if *iso { self.templates.iso.clone() } else { Some(self.templates.ova.clone()) };
                let vm = Some(Vm {
                    display_name: self.life.display_name.clone(),
                    template: template.expect("a medium"),
                    ..sized(*size)
                });
                send!(vms, create_vm, CreateVmRequest { vm })
            }
            Ask::Start => send!(vms, start_vm, StartVmRequest { name }),
            Ask::Stop(Stop::Hard) => send!(vms, stop_vm, StopVmRequest { name }),
            Ask::Stop(how) => {
                let seconds = if let Pace::Clock = self.pace { 5 } else { 1_800 };
                let timeout = Some(Duration::from_secs(seconds).try_into().expect("a duration"));
                let fallback = if *how == Stop::Graceful { Fallback::PowerOff } else { Fallback::Fail };
                send!(vms, stop_vm, StopVmRequest { name, graceful: true, timeout, fallback: fallback.into() })
            }
            Ask::Restart => send!(vms, restart_vm, RestartVmRequest { name }),
            Ask::Reset => send!(vms, reset_vm, ResetVmRequest { name }),
            Ask::Suspend => send!(vms, suspend_vm, SuspendVmRequest { name }),
            Ask::Resize { size, allow_restart } => {
                let vm = Some(Vm { name, ..sized(*size) });
                send!(vms, update_vm, UpdateVmRequest { vm, allow_restart: *allow_restart })
            }
            Ask::Snapshot(number) => {
                let snapshot = Some(Snapshot { display_name: format!("s{number}"), ..Default::default() });
                send!(snapshots, create_snapshot, CreateSnapshotRequest { parent: name, snapshot })
            }
            Ask::DropSnapshot(number) => {
                let name = self.snapshot(&name, *number);
                send!(snapshots, delete_snapshot, DeleteSnapshotRequest { name })
            }
            Ask::Revert(number) => {
                let name = self.snapshot(&name, *number);
                send!(snapshots, revert_snapshot, RevertSnapshotRequest { name })
            }
            Ask::Console => send!(vms, open_console, OpenConsoleRequest { name }),
            Ask::Delete { force } => send!(vms, delete_vm, DeleteVmRequest { name, force: *force }),
            Ask::Undelete => send!(vms, undelete_vm, UndeleteVmRequest { name }),
        }
    }

    /// Full name of a snapshot, or of none.
    fn snapshot(&self, vm: &str, number: usize) -> String {
        let none = || format!("{vm}/snapshots/{}", uuid::Uuid::from_u128(2));
        self.life.snapshots.get(&number).cloned().unwrap_or_else(none)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        self.session.request(message)
    }

    /// Waits for the end of an operation, which must come, and looks that it gets ever farther.
    async fn wait(&self, operation: &Operation) -> Operation {
        let started = Instant::now();
        let mut operation = operation.clone();
        let mut progress = metadata(&operation).progress_percent;
        while !operation.done {
            assert!(started.elapsed() < PATIENCE, "not done after {PATIENCE:?}: {:?}", metadata(&operation));
            tokio::time::sleep(LOOK).await;
            let request = self.request(GetOperationRequest { name: operation.name.clone() });
            operation = self.session.operations().get_operation(request).await.expect("an operation").into_inner();
            let now = metadata(&operation);
            assert!(now.progress_percent >= progress, "progress from {progress} back to {now:?}");
            progress = now.progress_percent;
        }
        let (metadata, done) = (metadata(&operation), operation.result.is_some());
        assert!(done && metadata.end_time.is_some(), "{metadata:?}");
        operation
    }

    /// Looks at the response of an operation that is done.
    async fn response(&self, ask: &Ask, done: &Operation) {
        let Some(Outcome::Response(response)) = &done.result else { return };
        match ask {
            Ask::Console => {
                let ticket = ConsoleTicket::decode(response.value.as_slice()).expect("a ticket");
                assert_eq!(Some(&ticket.vm), self.life.vm.as_ref());
                assert!(!ticket.url.is_empty() && !ticket.ticket.is_empty(), "the first reply has it: {ticket:?}");
                let again = self.request(GetOperationRequest { name: done.name.clone() });
                let again = self.session.operations().get_operation(again).await.expect("an operation").into_inner();
                let Some(Outcome::Response(again)) = again.result else { panic!("{again:?}") };
                let again = ConsoleTicket::decode(again.value.as_slice()).expect("a ticket");
                assert!(again.url.is_empty() && again.ticket.is_empty(), "it is told once: {again:?}");
            }
            Ask::Snapshot(_) | Ask::DropSnapshot(_) | Ask::Revert(_) => {
                let snapshot = Snapshot::decode(response.value.as_slice()).expect("a snapshot");
                assert_eq!(snapshot.name, metadata(done).target);
            }
            _ => {
                let vm = Vm::decode(response.value.as_slice()).expect("a VM");
                assert_eq!(Some(&vm.name), self.life.vm.as_ref());
            }
        }
    }

    /// Reads the VM and holds it against the model.
    async fn look(&mut self, unchanged: bool) {
        let Some(vm) = self.life.vm.clone() else { return };
        let seen = self.seen(&vm).await;
        let mut possible = self.life.possible.clone();
        possible.see(seen.as_ref());
        if !unchanged {
            self.note(&format!("sees {seen:?}"));
        }
        self.life.possible = possible;
    }

    /// The VM as it is told.
    async fn seen(&self, name: &str) -> Option<Seen> {
        let vm = match self.session.get(name).await {
            Ok(vm) => vm,
            Err(status) if reason(&status) == "VM_NOT_FOUND" => return None,
            Err(status) => panic!("{status:?}"),
        };
        let list = self.request(ListSnapshotsRequest { parent: name.to_owned(), ..Default::default() });
        let mut snapshots: SnapshotServiceClient<Channel> = SnapshotServiceClient::new(self.session.channel.clone());
        let listed = snapshots.list_snapshots(list).await.expect("snapshots").into_inner().snapshots;
        let numbered = listed.into_iter().map(|snapshot| {
            let number = snapshot.display_name.trim_start_matches('s').parse().expect("a number");
            (number, snapshot.state())
        });
        let size = Size { cpu_count: vm.cpu_count, memory_mib: vm.memory_mib, disk_gib: vm.disk_gib };
        Some(Seen { state: vm.state(), size, snapshots: numbered.collect() })
    }
}

fn sized(size: Size) -> Vm {
    let Size { cpu_count, memory_mib, disk_gib } = size;
    Vm { cpu_count, memory_mib, disk_gib, ..Default::default() }
}

/// What an operation tells of itself.
pub(super) fn metadata(operation: &Operation) -> OperationMetadata {
    let metadata = operation.metadata.as_ref().expect("metadata");
    OperationMetadata::decode(metadata.value.as_slice()).expect("metadata")
}

fn end(operation: &Operation) -> End {
    match operation.result.as_ref().expect("a result") {
        Outcome::Response(_) => End::Succeeded,
        Outcome::Error(status) => {
            let info = status.details.iter().find(|detail| detail.type_url.ends_with("google.rpc.ErrorInfo"));
            let info = ErrorInfo::decode(info.expect("a reason").value.as_slice()).expect("a reason");
            match Code::from(status.code) {
                Code::Cancelled => End::Cancelled,
                code => End::Failed { code, reason: info.reason },
            }
        }
    }
}

fn ending(end: &End) -> String {
    match end {
        End::Succeeded => "succeeded".to_owned(),
        End::Failed { reason, .. } => format!("failed with {reason}"),
        End::Cancelled => "cancelled".to_owned(),
    }
}

/// The kind of its job.
fn kind(ask: &Ask) -> &'static str {
    match ask {
        Ask::Create { .. } => VmCreate::KIND,
        Ask::Start | Ask::Stop(_) | Ask::Restart | Ask::Reset | Ask::Suspend => VmPower::KIND,
        Ask::Resize { .. } => VmResize::KIND,
        Ask::Snapshot(_) | Ask::DropSnapshot(_) | Ask::Revert(_) => VmSnapshot::KIND,
        Ask::Console => VmConsole::KIND,
        // An undelete has none.
        Ask::Delete { .. } | Ask::Undelete => VmDelete::KIND,
    }
}

fn verb(ask: &Ask) -> &'static str {
    match ask {
        Ask::Create { iso: true, .. } => "create from ISO",
        Ask::Create { iso: false, .. } => "create",
        Ask::Start => "start",
        Ask::Stop(Stop::Hard) => "stop",
        Ask::Stop(_) => "graceful stop",
        Ask::Restart => "restart",
        Ask::Reset => "reset",
        Ask::Suspend => "suspend",
        Ask::Resize { .. } => "resize",
        Ask::Snapshot(_) => "snapshot",
        Ask::DropSnapshot(_) => "snapshot delete",
        Ask::Revert(_) => "revert",
        Ask::Console => "console",
        Ask::Delete { force: false } => "delete",
        Ask::Delete { force: true } => "purge",
        Ask::Undelete => "undelete",
    }
}

/// What a refusal says about quotas: of each that is exceeded, its name, and the limit, what is used and what was asked.
pub(super) fn excess(status: &Status) -> BTreeMap<String, (i64, i64, i64)> {
    let violations = status.get_details_quota_failure().map(|failure| failure.violations).unwrap_or_default();
    let info = status.get_details_error_info().expect("a reason").metadata;
    let number = |name: &str, what: &str| -> i64 {
        info.get(&format!("{name}.{what}")).and_then(|number| number.parse().ok()).expect("a number")
    };
    let numbers = |name: String| {
        let all = (number(&name, "limit"), number(&name, "used"), number(&name, "asked"));
        (name, all)
    };
    violations.into_iter().map(|violation| numbers(violation.subject)).collect()
}
