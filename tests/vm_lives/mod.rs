//! The state-machine test: several VMs live random lives at once while calls fail, replies get lost, tasks are slow, sessions
//! end and workers are killed. A model says what each request meets and what each operation may make of its VM; now and
//! then all is quiet, and model, database and hypervisor must agree.
//!
//! Everything that is asked for and everything that goes wrong is drawn from a seed, each VM's part from its own, so that
//! VIRTUALSTACK_TEST_SEED repeats each VM's requests and troubles, whatever the time makes of them; in [`replay`] the time
//! makes nothing of them. VIRTUALSTACK_SOAK_SECONDS says how long it goes on, VIRTUALSTACK_SOAK_VCENTER_SECONDS how long on a
//! vCenter; `make soak` is the long run.

mod actor;
mod agreement;
mod barrier;
mod injected;
mod lab;
mod model;
mod program;
mod quota;
mod replay;
mod workers;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use virtualstack_proto::virtualstack::compute::v1::template::Kind;

use self::actor::{Actor, Templates};
use self::injected::InjectedFaults;
use self::lab::{Lab, SimulatedLab, VcsimLab};
use self::program::{Climate, Program};
use self::workers::Workers;
use crate::support::{ControlPlane, Seed, Session, setting};

/// VMs that live at once, half of them in each of two tenants.
const LANES: usize = 8;

/// Steps of each between two looks at the whole.
const STEPS: usize = 8;

/// What a run must have seen to tell anything.
const NEEDED: [&str; 5] =
    ["create succeeded", "stop succeeded", "resize succeeded", "snapshot succeeded", "trouble met"];

/// Rounds in which that is found, also by machines that are too slow to do much in a given time.
const ROUNDS: usize = 40;

/// What none of the lanes has seen yet.
fn lacking(lanes: &[Actor]) -> Option<&'static str> {
    NEEDED.into_iter().find(|needed| !lanes.iter().any(|lane| lane.tally.contains_key(*needed)))
}

/// A control plane whose clients may ask as often as they like, and without a worker.
async fn plane() -> ControlPlane {
    let unlimited = virtualstack_server::Config {
        auth_per_minute: 0,
        auth_per_address_per_minute: 0,
        calls_per_second: 0,
        access_token_seconds: 24 * 3600,
        ..Default::default()
    };
    ControlPlane::start_with(unlimited).await
}

/// What VMs are made from: the smallest template, and a medium.
async fn templates(plane: &ControlPlane, session: &Session) -> Templates {
    plane.templates().await;
    let listed = session.list_templates().await;
    let of = |kind: Kind| listed.iter().find(|it| it.kind() == kind && it.min_cpu_count <= 1).map(|it| it.name.clone());
    Templates { ova: of(Kind::Ova).expect("a small template"), iso: of(Kind::Iso) }
}

/// Lets VMs live for so long.
async fn soak(plane: &ControlPlane, lab: Arc<dyn Lab>, climate: Climate, duration: Duration) {
    let seed = Seed::new();
    let troubles = InjectedFaults::new(Arc::clone(&lab));
    let mut workers = Workers::start(plane, Arc::clone(&lab), Arc::clone(&troubles)).await;
    let sessions = [plane.tenant("acme").await, plane.tenant("rival").await];
    let templates = templates(plane, &sessions[0]).await;
    let climate = Climate { isos: templates.iso.is_some(), ..climate };
    let mut lanes: Vec<_> = (0..LANES)
        .map(|number| {
            let program = Program::new(seed.split(2 * number), climate);
            let (session, ids) = (sessions[number % 2].clone(), seed.split(2 * number + 1));
            let troubles = Arc::clone(&troubles);
            Actor::new(format!("vm-{number}"), session, templates.clone(), lab.rules(), troubles, program, ids)
        })
        .collect();
    let mut log = agreement::Log::default();
    let mut disturbances = BTreeMap::new();
    let started = Instant::now();
    let mut rounds = 0;
    // One is enough to end it for all.
    let failed = AtomicBool::new(false);
    while started.elapsed() < duration || (rounds < ROUNDS && lacking(&lanes).is_some()) {
        let end = CancellationToken::new();
        let mut faults = seed.split(1_000 + rounds);
        let living = async {
            // All of them come to the end of their part, or fail.
            let parts = lanes.iter_mut().map(|lane| {
                let part = async {
                    for _ in 0..STEPS {
                        if !failed.load(Ordering::SeqCst) {
                            lane.step().await;
                        }
                    }
                };
                AssertUnwindSafe(part).catch_unwind().map(|part| {
                    failed.fetch_or(part.is_err(), Ordering::SeqCst);
                    part
                })
            });
            let parts = join_all(parts).await;
            end.cancel();
            parts
        };
        let (parts, ()) = tokio::join!(living, workers.disturb(&mut faults, &end, &mut disturbances));
        for (lane, part) in lanes.iter().zip(parts) {
            if let Err(panic) = part {
                fail(plane, lane).await;
                std::panic::resume_unwind(panic);
            }
        }
        let quiet = async {
            agreement::idle(plane).await;
            agreement::check(plane, lab.as_ref()).await;
            log.read_on(plane).await;
        };
        looking(plane, &lanes, quiet).await;
        rounds += 1;
    }
    workers.drain().await;
    assert_eq!(lacking(&lanes), None, "nobody came to that in {rounds} rounds");
    let tally = lanes.into_iter().flat_map(|lane| lane.tally).chain(disturbances).fold(
        BTreeMap::<String, usize>::new(),
        |mut all, (what, times)| {
            *all.entry(what).or_default() += times;
            all
        },
    );
    report(&tally, rounds, log.events);
}

#[expect(clippy::print_stdout, reason = "shown by --nocapture and when the test fails")]
fn report(tally: &BTreeMap<String, usize>, rounds: usize, events: usize) {
    println!("{rounds} rounds, after each of which all agreed; {events} events");
    for (what, times) in tally {
        println!("{times:6} {what}");
    }
}

/// Looks at the whole. Where that fails, all lanes say what they have done.
async fn looking<T>(plane: &ControlPlane, lanes: &[Actor], look: impl Future<Output = T>) -> T {
    match AssertUnwindSafe(look).catch_unwind().await {
        Ok(seen) => seen,
        Err(panic) => {
            for lane in lanes {
                fail(plane, lane).await;
            }
            std::panic::resume_unwind(panic)
        }
    }
}

/// Prints what a lane has done, and what was told of its VM.
#[expect(clippy::print_stdout, reason = "shown when the test fails")]
async fn fail(plane: &ControlPlane, lane: &Actor) {
    println!("--- what was asked, and what came of it:");
    let last = lane.log.len().saturating_sub(60);
    lane.log[last..].iter().for_each(|line| println!("{line}"));
    let Some(vm) = lane.vm() else { return };
    println!("--- what was told of {vm}:");
    let id = vm.trim_start_matches("vms/");
    for query in [
        format!(
            "SELECT to_char(created_at, 'MI:SS.MS') AS at, reason, message, state, operation_id, fields \
             FROM audit.changes WHERE resource LIKE '{vm}%' ORDER BY position"
        ),
        format!(
            "SELECT to_char(created_at, 'MI:SS.MS') AS at, id, verb, state, step, progress_percent, cancel_requested, \
                error_reason, error_message FROM compute.operations WHERE slot = '{vm}' OR target = '{vm}' ORDER BY created_at"
        ),
        format!(
            "SELECT kind, state, progress, attempt, last_error, payload FROM background_jobs.jobs \
             WHERE payload->>'vm' = '{id}' AND state <> 'completed'"
        ),
    ] {
        let rows: Vec<serde_json::Value> = plane.database.rows(&query).await;
        rows.iter().for_each(|row| println!("{row}"));
    }
}

#[test]
fn a_seed_makes_one_program() {
    let seed = Seed::new();
    let climate = Climate { trouble: 50, meanwhile: 50, isos: true, spoils: true, longest_life: 16 };
    let steps = |seed: &Seed| {
        let mut program = Program::new(seed.split(1), climate);
        (0..500).map(|_| format!("{:?}", program.next())).collect::<Vec<_>>()
    };
    assert_eq!(steps(&seed), steps(&seed));
    assert_ne!(steps(&seed), steps(&seed.split(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn random_lives_on_the_simulated_hypervisor() {
    let plane = plane().await;
    let lab = Arc::new(SimulatedLab::new(&plane));
    let climate = Climate { trouble: 35, meanwhile: 20, isos: true, spoils: true, longest_life: 16 };
    soak(&plane, lab, climate, Duration::from_secs(setting("VIRTUALSTACK_SOAK_SECONDS", 15))).await;
}

/// Sessions end, replies are lost and tasks are slow on the wire, too.
#[tokio::test(flavor = "multi_thread")]
async fn random_lives_on_a_vcenter() {
    let Some(lab) = VcsimLab::start().await else { return };
    let plane = plane().await;
    let climate = Climate { trouble: 25, meanwhile: 20, isos: true, spoils: false, longest_life: 16 };
    soak(&plane, Arc::new(lab), climate, Duration::from_secs(setting("VIRTUALSTACK_SOAK_VCENTER_SECONDS", 10))).await;
}
