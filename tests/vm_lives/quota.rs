//! Quotas hold under concurrency, and whatever goes wrong: what they count is what exists.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use virtualstack_model::compute::vm::Size;
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1::quota_service_client::QuotaServiceClient;
use virtualstack_proto::virtualstack::compute::v1::{
    CreateVmRequest, GetQuotaRequest, Quota, QuotaAmounts, UpdateTenantQuotaRequest, Vm,
};

use super::actor::{Actor, excess, metadata};
use super::agreement::{self, Usage};
use super::injected::InjectedFaults;
use super::lab::{Lab, SimulatedLab};
use super::program::{Climate, Program};
use super::workers::Workers;
use super::{fail, looking, plane, templates};
use crate::support::{ControlPlane, Seed, Session, reason, rounds};

/// How many call at once.
const CALLERS: usize = 100;

/// How many VMs the tenant may have.
const LIMIT: usize = 10;

/// Steps of each VM after its creation.
const STEPS: usize = 8;

const SIZE: Size = Size { cpu_count: 1, memory_mib: 1024, disk_gib: 10 };

/// Lets a tenant have so many VMs.
async fn limit(plane: &ControlPlane, slug: &str, vms: usize) {
    let operator = plane.operator().await;
    let limits = QuotaAmounts { vms: Some(i32::try_from(vms).expect("a small number")), ..Default::default() };
    let quota = Some(Quota { name: format!("tenants/{slug}/quota"), limits: Some(limits), ..Default::default() });
    let request = operator.request(UpdateTenantQuotaRequest { quota, ..Default::default() });
    QuotaServiceClient::new(operator.channel.clone()).update_tenant_quota(request).await.expect("a quota");
}

/// What the tenant is told that it uses.
async fn told(session: &Session) -> Usage {
    let request = session.request(GetQuotaRequest {});
    let quota = QuotaServiceClient::new(session.channel.clone()).get_quota(request).await.expect("a quota");
    let usage = quota.into_inner().usage.expect("usage");
    Usage {
        vms: usage.vms().into(),
        vcpus: usage.vcpus().into(),
        memory_mib: usage.memory_mib().into(),
        disk_gib: usage.disk_gib().into(),
        snapshots: usage.snapshots().into(),
    }
}

async fn create(session: &Session, template: &str, display_name: &str) -> Result<(Vm, Operation), Status> {
    let Size { cpu_count, memory_mib, disk_gib } = SIZE;
    let (display_name, template) = (display_name.to_owned(), template.to_owned());
    let vm = Vm { display_name, template, cpu_count, memory_mib, disk_gib, ..Default::default() };
    let request = session.request(CreateVmRequest { vm: Some(vm.clone()), ..Default::default() });
    let operation = session.vms().create_vm(request).await?.into_inner();
    Ok((Vm { name: metadata(&operation).target, ..vm }, operation))
}

/// What a refusal must say: one VM more was asked for, and all are used.
fn full(status: &Status) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, "QUOTA_EXCEEDED"), "{status:?}");
    let limit = i64::try_from(LIMIT).expect("a small number");
    assert_eq!(excess(status), BTreeMap::from([("vms".to_owned(), (limit, limit, 1))]), "{status:?}");
}

/// What is on the hypervisor, as a quota counts it.
async fn existing(plane: &ControlPlane, lab: &dyn Lab) -> Usage {
    let mut exists = Usage::default();
    let deleted: Vec<uuid::Uuid> = plane
        .database
        .rows("SELECT id FROM compute.virtual_machines WHERE deleted_at IS NOT NULL")
        .await
        .into_iter()
        .map(|row: BTreeMap<String, uuid::Uuid>| row["id"])
        .collect();
    for (id, machine) in lab.machines().await {
        exists.add(machine.size, deleted.contains(&id.0), machine.snapshots.len());
    }
    exists
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_creates_ten_are_accepted_and_what_is_counted_is_what_exists() {
    let seed = Seed::new();
    let mut tally = BTreeMap::new();
    let seeds: Vec<_> = (0..rounds(2)).map(|number| seed.of_round(number)).collect();
    // Two at once, since both wait most of the time.
    for pair in seeds.chunks(2) {
        for seen in join_all(pair.iter().map(round)).await {
            add(&mut tally, seen);
        }
    }
    super::report(&tally, rounds(2), 0);
}

type Tally = BTreeMap<String, usize>;

fn add(tally: &mut Tally, seen: Tally) {
    seen.into_iter().for_each(|(what, times)| *tally.entry(what).or_default() += times);
}

/// What was seen in a round.
async fn round(seed: &Seed) -> Tally {
    let mut tally = Tally::new();
    let plane = plane().await;
    let lab: Arc<dyn Lab> = Arc::new(SimulatedLab::new(&plane));
    let troubles = InjectedFaults::new(Arc::clone(&lab));
    let workers = Workers::start(&plane, Arc::clone(&lab), Arc::clone(&troubles)).await;
    let session = plane.tenant("acme").await;
    let templates = templates(&plane, &session).await;
    // So that every creation meets its trouble from the beginning.
    workers.drain().await;
    limit(&plane, "acme", LIMIT).await;

    let sessions = join_all((0..10).map(|_| plane.login("admin@acme.example.com", "acme"))).await;
    let answers = join_all((0..CALLERS).map(|number| {
        let (session, template) = (&sessions[number % sessions.len()], &templates.ova);
        async move { create(session, template, &format!("web-{number}")).await }
    }))
    .await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (LIMIT, CALLERS - LIMIT));
    refused.into_iter().for_each(|answer| full(&answer.expect_err("refused")));
    let ten = i64::try_from(LIMIT).expect("a small number");
    let usage = Usage { vms: ten, vcpus: ten, memory_mib: 1024 * ten, disk_gib: 10 * ten, snapshots: 0 };
    assert_eq!(told(&session).await, usage, "what is asked for is reserved at once");

    // Each of the ten lives on, and at each step something goes wrong.
    let climate =
        Climate { trouble: 100, meanwhile: 20, isos: templates.iso.is_some(), spoils: true, longest_life: 10 };
    let mut lanes = Vec::new();
    let mut begun = Vec::new();
    for (number, answer) in accepted.into_iter().enumerate() {
        let (vm, operation) = answer.expect("accepted");
        let program = Program::new(seed.split(2 * number), climate);
        let ids = seed.split(2 * number + 1);
        let (templates, troubles) = (templates.clone(), Arc::clone(&troubles));
        let mut lane =
            Actor::new(format!("vm-{number}"), session.clone(), templates, lab.rules(), troubles, program, ids);
        begun.push((lane.expect(&vm, SIZE), operation));
        lanes.push(lane);
    }
    let mut workers = Workers::start(&plane, Arc::clone(&lab), Arc::clone(&troubles)).await;
    let (end, mut faults) = (CancellationToken::new(), seed.split(1_000));
    let living = async {
        let parts = lanes.iter_mut().zip(begun).map(|(lane, (step, operation))| {
            let part = async move {
                lane.adopt(&step, operation).await;
                for _ in 0..STEPS {
                    lane.step().await;
                }
            };
            AssertUnwindSafe(part).catch_unwind()
        });
        let parts = join_all(parts).await;
        end.cancel();
        parts
    };
    let (parts, ()) = tokio::join!(living, workers.disturb(&mut faults, &end, &mut tally));
    for (lane, part) in lanes.iter().zip(parts) {
        if let Err(panic) = part {
            fail(&plane, lane).await;
            std::panic::resume_unwind(panic);
        }
    }
    agreement::idle(&plane).await;
    let counted = looking(&plane, &lanes, agreement::check(&plane, lab.as_ref())).await;
    let usage = told(&session).await;
    assert_eq!(counted.values().filter(|usage| **usage != Usage::default()).collect::<Vec<_>>(), [&usage]);

    // What a failure has left in doubt counts until it is cleared away; then usage is what exists, to the last snapshot.
    for lane in &mut lanes {
        lane.clear_doubtful().await;
        add(&mut tally, std::mem::take(&mut lane.tally));
    }
    agreement::idle(&plane).await;
    agreement::check(&plane, lab.as_ref()).await;
    let usage = told(&session).await;
    assert_eq!(usage, existing(&plane, lab.as_ref()).await, "what is counted is what exists");

    // And what was given back can be taken again, no more and no less.
    let free = LIMIT - usize::try_from(usage.vms).expect("not negative");
    for number in 0..free {
        create(&session, &templates.ova, &format!("again-{number}")).await.expect("there is room");
    }
    full(&create(&session, &templates.ova, "too-many").await.expect_err("there is none"));
    workers.drain().await;
    tally
}
