//! Jobs without an operation: what activates them, and what is left of those of earlier versions.

use std::sync::Arc;
use std::time::Duration;

use virtualstack_model::compute::jobs::TemplateInventory;
use virtualstack_store::SystemPurpose;
use virtualstack_worker::{NoProbe, Point};

use super::waiting;
use crate::support::{ControlPlane, Gate, system};

const READY: &str = "SELECT count(*) FROM compute.provider_templates WHERE state = 'READY'";

/// The inventory waits for its timer, which is a minute.
const WAITS: &str = "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'template_inventory' AND state = 'available' \
    AND available_at > now() + interval '30 seconds'";

/// Waits less than the timer until a count is what it shall be.
pub(super) async fn becomes(plane: &ControlPlane, count: &str, expected: i64) {
    for _ in 0..400 {
        if plane.database.count(count).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not {expected} after 20 s: {count}")
}

async fn activate(plane: &ControlPlane) {
    let signal =
        plane.store.system(system(SystemPurpose::Inventory), async |tx| tx.activate::<TemplateInventory>().await);
    signal.await.expect("activated");
}

async fn lose_templates(plane: &ControlPlane) {
    plane.database.execute("UPDATE compute.provider_templates SET state = 'UNAVAILABLE'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_activates_a_task_ahead_of_its_timer() {
    let plane = ControlPlane::start().await;
    becomes(&plane, WAITS, 1).await;
    let templates = plane.database.count(READY).await;
    lose_templates(&plane).await;
    activate(&plane).await;
    becomes(&plane, READY, templates).await;
    becomes(&plane, WAITS, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_a_task_at_work_is_not_lost() {
    let (plane, _) = waiting().await;
    let templates = plane.database.count(READY).await;
    // Published, and not over.
    let gate = Arc::new(Gate::new("template_inventory.publish", Point::AfterCommit));
    plane.work(Arc::clone(&gate) as _).await.detach();
    gate.reached().await;
    lose_templates(&plane).await;
    activate(&plane).await;
    gate.open();
    becomes(&plane, READY, templates).await;
    becomes(&plane, WAITS, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_whose_hypervisor_is_not_configured_any_more_is_unavailable() {
    let plane = ControlPlane::start().await;
    becomes(&plane, WAITS, 1).await;
    let of_another =
        "SELECT count(*) FROM compute.provider_templates WHERE display_name = 'gone' AND state = 'UNAVAILABLE'";
    plane
        .database
        .execute(
            "WITH gone AS (INSERT INTO compute.provider_templates (id, display_name, kind, state, guest_os, cpu_count, \
                memory_mib, disk_gib) VALUES (gen_random_uuid(), 'gone', 'OVA', 'READY', '', 1, 1, 1) RETURNING id) \
             INSERT INTO compute.provider_template_copies (hypervisor, reference, template_id, state, cpu_count, memory_mib, \
                disk_gib) SELECT 'another', 'gone', id, 'READY', 1, 1, 1 FROM gone",
        )
        .await;
    activate(&plane).await;
    becomes(&plane, of_another, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_an_earlier_version_are_its_workers_until_none_is_left() {
    let plane = ControlPlane::without_worker().await;
    // One that was left alone, and one that a worker of that version comes back to.
    plane
        .database
        .execute(
            "INSERT INTO background_jobs.jobs (id, queue, kind, group_key, payload, max_attempts, available_at, unique_key) \
             SELECT gen_random_uuid(), 'periodic', kind, 'system', '{}', 3, now() - due, kind FROM (VALUES \
             ('housekeeping', interval '2 hours'), ('inventory', interval '1 minute')) left_over (kind, due)",
        )
        .await;
    plane.work(Arc::new(NoProbe)).await.detach();
    becomes(&plane, "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'housekeeping'", 0).await;
    let untouched = "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'inventory' AND fencing_token = 0";
    assert_eq!(plane.database.count(untouched).await, 1, "no worker of today takes it");
    let scheduled = "SELECT count(*) FROM background_jobs.jobs WHERE queue = 'tasks' AND unique_key = kind";
    assert_eq!(plane.database.count(scheduled).await, 14);
    plane.work(Arc::new(NoProbe)).await.detach();
    assert_eq!(plane.database.count(scheduled).await, 14, "a second worker puts in no other");
}
