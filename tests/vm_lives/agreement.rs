//! Whether all who know of a VM say the same while nothing is under way: the database, its quotas and logs, and the
//! hypervisor. The tenant's view is held against the model by each lane.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::compute::vm::{PowerState, Size};
use virtualstack_proto::virtualstack::compute::v1::vm::State;

use super::lab::{Lab, Machine};
use super::model::may_follow;
use crate::support::ControlPlane;

/// How long open work may take to end.
const PATIENCE: Duration = Duration::from_secs(150);

#[derive(Debug, Deserialize)]
struct VmRow {
    tenant_id: String,
    id: uuid::Uuid,
    state: String,
    state_reason: String,
    cpu_count: i32,
    memory_mib: i32,
    disk_gib: i32,
    /// The larger of its size and that which an operation was to give it.
    cpus_held: i32,
    memory_held: i32,
    disk_held: i32,
    counted: bool,
    deleted: bool,
    snapshots: Vec<SnapshotRow>,
}

#[derive(Debug, Deserialize)]
struct SnapshotRow {
    id: String,
    state: String,
}

/// What a tenant uses: VMs, CPUs, memory, disk, snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    pub(super) vms: i64,
    pub(super) vcpus: i64,
    pub(super) memory_mib: i64,
    pub(super) disk_gib: i64,
    pub(super) snapshots: i64,
}

impl Usage {
    pub(super) fn add(&mut self, size: Size, deleted: bool, snapshots: usize) {
        self.disk_gib += i64::from(size.disk_gib);
        self.snapshots += i64::try_from(snapshots).expect("a small number");
        if !deleted {
            self.vms += 1;
            self.vcpus += i64::from(size.cpu_count);
            self.memory_mib += i64::from(size.memory_mib);
        }
    }
}

#[derive(Debug, Deserialize)]
struct Event {
    resource: String,
    reason: String,
    state: String,
    operation_id: Option<String>,
}

/// Reads what is told of VMs and operations, from where the last look ended.
#[derive(Default)]
pub(super) struct Log {
    position: i64,
    /// The state of each VM after its last event.
    states: BTreeMap<String, State>,
    /// What was told of an operation.
    told: BTreeSet<(String, String)>,
    pub(super) events: usize,
}

impl Log {
    /// Reads on: a VM's events follow from one another, and each is told once. Nothing may be under way.
    pub(super) async fn read_on(&mut self, plane: &ControlPlane) {
        let after = self.position;
        // Each tenant counts by itself, but these all read to the end each time; the clock puts them in one order.
        let events: Vec<Event> = plane
            .database
            .rows(&format!(
                "SELECT resource, reason, state, operation_id FROM audit.changes \
                 WHERE resource ~ '^vms/[^/]*$' AND created_at > 'epoch'::timestamptz + {after} * interval '1 microsecond' \
                 ORDER BY tenant_id, position"
            ))
            .await;
        let end = "SELECT (extract(epoch FROM max(created_at)) * 1000000)::bigint FROM audit.changes";
        self.position = plane.database.count(end).await;
        for event in events {
            self.events += 1;
            let state = State::from_str_name(&event.state).unwrap_or_else(|| panic!("{event:?}"));
            let before = self.states.insert(event.resource.clone(), state).unwrap_or(State::Unspecified);
            assert!(may_follow(before, state), "{} became {state:?} from {before:?}: {event:?}", event.resource);
            if let Some(operation) = event.operation_id {
                let first = self.told.insert((operation, event.reason.clone()));
                assert!(first, "{} of {} is told twice", event.reason, event.resource);
            }
        }
    }
}

/// Waits until nothing is under way.
pub(super) async fn idle(plane: &ControlPlane) {
    let open = "SELECT (SELECT count(*) FROM background_jobs.jobs WHERE queue = 'vm' AND finished_at IS NULL) \
        + (SELECT count(*) FROM compute.operations WHERE state IN ('OPEN', 'QUEUED'))";
    let started = Instant::now();
    while plane.database.count(open).await > 0 {
        assert!(started.elapsed() < PATIENCE, "work is left after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Holds rows, quotas and hypervisor against one another, while nothing is under way; what each tenant uses.
pub(super) async fn check(plane: &ControlPlane, lab: &dyn Lab) -> BTreeMap<String, Usage> {
    let rows: Vec<VmRow> = plane
        .database
        .rows(
            "SELECT tenant_id, id, state, state_reason, cpu_count, memory_mib, disk_gib, counted, deleted_at IS NOT NULL AS deleted, \
                greatest(cpu_count, desired_cpu_count) AS cpus_held, greatest(memory_mib, desired_memory_mib) AS memory_held, \
                greatest(disk_gib, desired_disk_gib) AS disk_held, \
                (SELECT coalesce(json_agg(json_build_object('id', s.id, 'state', s.state)), '[]') \
                 FROM compute.snapshots s WHERE s.tenant_id = vm.tenant_id AND s.vm_id = vm.id) AS snapshots \
             FROM compute.virtual_machines vm",
        )
        .await;
    let mut machines = lab.machines().await;
    let mut held: BTreeMap<String, Usage> = BTreeMap::new();
    for row in &rows {
        let size = Size { cpu_count: row.cpu_count, memory_mib: row.memory_mib, disk_gib: row.disk_gib };
        let machine = machines.remove(&VmId(row.id));
        same(row, size, machine.as_ref());
        let usage = held.entry(row.tenant_id.clone()).or_default();
        let held = Size { cpu_count: row.cpus_held, memory_mib: row.memory_held, disk_gib: row.disk_held };
        // What a failure has left in doubt counts for the larger size.
        assert!(held == size || row.state == "ERROR" || !row.state_reason.is_empty(), "its size is to change: {row:?}");
        match row.counted {
            true => usage.add(held, row.deleted, row.snapshots.len()),
            false => usage.snapshots += i64::try_from(row.snapshots.len()).expect("a small number"),
        }
    }
    assert!(machines.is_empty(), "VMs on the hypervisor that nobody knows of: {machines:?}");

    #[derive(Deserialize)]
    struct Counted {
        tenant_id: String,
        #[serde(flatten)]
        usage: Usage,
    }
    let counted: Vec<Counted> =
        plane.database.rows("SELECT tenant_id, vms, vcpus, memory_mib, disk_gib, snapshots FROM compute.quotas").await;
    for Counted { tenant_id, usage } in &counted {
        let held = held.get(tenant_id).copied().unwrap_or_default();
        assert_eq!(*usage, held, "what the quota counts, and what the rows of {tenant_id} hold: {rows:?}");
    }
    counted.into_iter().map(|Counted { tenant_id, usage }| (tenant_id, usage)).collect()
}

/// Whether row and machine agree.
fn same(row: &VmRow, size: Size, machine: Option<&Machine>) {
    let power = match row.state.as_str() {
        "RUNNING" => Some(PowerState::On),
        "DELETED" if !row.state_reason.is_empty() => None,
        "STOPPED" | "DELETED" => Some(PowerState::Off),
        "SUSPENDED" => Some(PowerState::Paused),
        // A failure has left open what it is, or how much is left of what was to be purged.
        "ERROR" => None,
        state => panic!("nothing is under way, and the VM is {state}: {row:?}"),
    };
    if !row.counted {
        assert!(machine.is_none(), "it counts for nothing and is there: {row:?} {machine:?}");
        return;
    }
    let Some(power) = power else { return };
    let Some(machine) = machine else { panic!("the VM is not on the hypervisor: {row:?}") };
    assert_eq!((machine.power, machine.size), (power, size), "power and size on the hypervisor: {row:?}");
    let usable = row.snapshots.iter().filter(|snapshot| snapshot.state == "READY").map(|snapshot| snapshot.id.clone());
    let usable: BTreeSet<String> = usable.collect();
    let known: BTreeSet<String> = row.snapshots.iter().map(|snapshot| snapshot.id.clone()).collect();
    assert!(usable.is_subset(&machine.snapshots), "snapshots are gone from the hypervisor: {row:?} {machine:?}");
    assert!(machine.snapshots.is_subset(&known), "snapshots that nobody knows of: {row:?} {machine:?}");
}
