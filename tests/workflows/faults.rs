//! What a hypervisor that fails costs: retryable faults cost time, permanent ones fail the operation and leave nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtualstack_proto::google::longrunning::operation::Result as Outcome;
use virtualstack_proto::google::rpc::Status;
use virtualstack_proto::virtualstack::compute::v1::vm::State;
use virtualstack_worker::NoProbe;
use virtualstack_worker::adapters::hypervisor::FaultClass;

use crate::support::{Call, ControlPlane, Intercepted, Session, When, test_fault};

/// A control plane whose hypervisor fails a call `times` times.
async fn plane(call: Call, class: FaultClass, times: u32) -> (ControlPlane, Session) {
    let plane = ControlPlane::without_worker().await;
    let quick = virtualstack_worker::adapters::hypervisor::simulated::Config {
        create_ms: 20,
        power_ms: 10,
        ..Default::default()
    };
    let left = AtomicU32::new(times);
    let failing = Intercepted::new(Arc::new(plane.hypervisor(quick)), move |passed, when| {
        let fails = (passed, when) == (call, When::Before)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { Err(test_fault(class)) } else { Ok(()) }
    });
    plane.work_on(Arc::new(NoProbe), Arc::new(failing)).await.detach();
    plane.templates().await;
    let tenant = plane.admin().await;
    (plane, tenant)
}

fn failure(outcome: Option<Outcome>) -> Status {
    match outcome {
        Some(Outcome::Error(status)) => status,
        other => panic!("it should have failed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_fails_at_any_step_leaves_nothing_on_the_hypervisor() {
    for (call, class, code) in [
        (Call::Create, FaultClass::Permanent, tonic::Code::FailedPrecondition),
        (Call::Create, FaultClass::Capacity, tonic::Code::ResourceExhausted),
        (Call::Create, FaultClass::Conflict, tonic::Code::Aborted),
        (Call::PowerOn, FaultClass::Permanent, tonic::Code::FailedPrecondition),
        (Call::Observe, FaultClass::Lost, tonic::Code::NotFound),
    ] {
        let (plane, tenant) = plane(call, class, 1).await;
        let operation = tenant.create("doomed").await.expect("accepted");
        let status = failure(tenant.wait(&operation).await.result);
        assert_eq!(tonic::Code::from(status.code), code, "{call:?} {class:?}");
        assert_eq!(status.message, "it does not work", "the tenant is told; the detail is the operator's");
        plane.idle().await;
        assert!(plane.hypervisor(Default::default()).vms().await.expect("a list").is_empty(), "{call:?} {class:?}");
        let vms = tenant.vms().list_vms(tenant.request(Default::default())).await.expect("VMs").into_inner().vms;
        assert_eq!(vms[0].state(), State::Error);
        assert_eq!(vms[0].state_reason, "Creation failed: it does not work");
        // What failed can be cleared away.
        tenant.vm_of(tenant.delete(&vms[0].name, true).await.expect("accepted")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retryable_faults_cost_time_and_nothing_else() {
    for call in [Call::Create, Call::PowerOn, Call::Observe] {
        for class in [FaultClass::Retry, FaultClass::Unknown] {
            let (plane, tenant) = plane(call, class, 2).await;
            assert_eq!(tenant.running("patient").await.state(), State::Running, "{call:?} {class:?}");
            plane.idle().await;
            assert_eq!(plane.hypervisor(Default::default()).vms().await.expect("a list").len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_fails_tells_the_state_that_the_vm_is_really_in() {
    let (_plane, tenant) = plane(Call::PowerOff, FaultClass::Permanent, 1).await;
    let vm = tenant.running("stubborn").await;
    let operation = tenant.stop(&vm.name).await.expect("accepted");
    assert_eq!(failure(tenant.wait(&operation).await.result).message, "it does not work");
    assert_eq!(tenant.get(&vm.name).await.expect("the VM").state(), State::Running);
    // And it can be tried again.
    let stopped = tenant.vm_of(tenant.stop(&vm.name).await.expect("accepted")).await;
    assert_eq!(stopped.state(), State::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_go_neither_on_nor_back_is_a_dead_letter_and_an_error() {
    let (plane, tenant) = plane(Call::Absent, FaultClass::Permanent, 1).await;
    let vm = tenant.running("sticky").await;
    let operation = tenant.delete(&vm.name, true).await.expect("accepted");
    assert_eq!(failure(tenant.wait(&operation).await.result).message, "it does not work");
    assert_eq!(tenant.get(&vm.name).await.expect("the VM").state(), State::Error);
    assert_eq!(plane.database.count("SELECT count(*) FROM background_jobs.jobs WHERE state = 'discarded'").await, 1);
    tenant.vm_of(tenant.delete(&vm.name, true).await.expect("accepted")).await;
    assert_eq!(plane.hypervisor(Default::default()).vms().await.expect("a list").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_fails_leaves_the_vm_deleted_and_can_be_repeated() {
    let (plane, tenant) = plane(Call::Absent, FaultClass::Permanent, 1).await;
    let vm = tenant.running("lingering").await;
    let deleted = tenant.vm_of(tenant.delete(&vm.name, false).await.expect("accepted")).await;
    let operation = tenant.delete(&vm.name, true).await.expect("accepted");
    assert_eq!(failure(tenant.wait(&operation).await.result).message, "it does not work");
    let kept = tenant.get(&vm.name).await.expect("the VM");
    assert_eq!((kept.state(), kept.delete_time), (State::Deleted, deleted.delete_time), "nobody may use it");
    assert!(kept.purge_time.is_some(), "the housekeeping purges it again");
    tenant.vm_of(tenant.delete(&vm.name, true).await.expect("accepted")).await;
    assert_eq!(plane.hypervisor(Default::default()).vms().await.expect("a list").len(), 0);
}
