//! Consoles: a ticket, once, and a VM that stays as it is.

use serde_json::json;
use virtualstack_worker::adapters::hypervisor::FaultClass;

use super::{ask, behind, done, ended, failed, on, quick, read};
use crate::support::{Call, When, test_fault};

#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_opened_with_a_ticket_that_is_told_once() {
    let (plane, tenant) = on(quick()).await;
    let vm = tenant.running("screen").await;
    let operation = ask(&tenant, "POST", &format!("{}:openConsole", vm.name), json!({})).await;
    let first = ended(&tenant, &operation).await;
    let ticket = first["response"]["ticket"].as_str().expect("a ticket");
    assert_eq!(first["response"]["vm"], vm.name.as_str());
    let again = ended(&tenant, &operation).await;
    assert!(again["response"]["ticket"].as_str().is_none_or(str::is_empty), "{again}");
    assert_eq!(read(&tenant, &vm.name).await["state"], "RUNNING");
    let written = format!("SELECT count(*) FROM background_jobs.jobs WHERE row_to_json(jobs)::text LIKE '%{ticket}%'");
    assert_eq!(plane.database.count(&written).await, 0, "no job has the ticket");
    let written = format!(
        "SELECT (SELECT count(*) FROM audit.changes c WHERE c::text LIKE '%{ticket}%') \
            + (SELECT count(*) FROM audit.logs l WHERE l::text LIKE '%{ticket}%')"
    );
    assert_eq!(plane.database.count(&written).await, 0, "no log has the ticket");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_cannot_be_opened_changes_nothing() {
    let (plane, tenant) = behind(quick(), |call, when| {
        let fails = (call, when) == (Call::Console, When::Before);
        if fails { Err(test_fault(FaultClass::Permanent)) } else { Ok(()) }
    })
    .await;
    let vm = tenant.running("dark").await.name;
    assert_eq!(failed(&tenant, "POST", &format!("{vm}:openConsole"), json!({})).await, (9, "TEST_FAULT".to_owned()));
    assert_eq!(read(&tenant, &vm).await["state"], "RUNNING");
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.console_tickets").await, 0);
    // The VM is free for the next operation.
    assert_eq!(done(&tenant, "POST", &format!("{vm}:stop"), json!({})).await["state"], "STOPPED");
}
