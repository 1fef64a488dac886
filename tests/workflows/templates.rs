//! Imports and deletes of templates: broken files, workers that die, hypervisors that fail, uploads that are left, objects
//! that nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};
use virtualstack_images::Format;
use virtualstack_images::make::{Broken, Flavour, Iso, Ova, broken};
use virtualstack_model::compute::jobs::UploadExpiry;
use virtualstack_model::jobs::{Job, ObjectSweep, TenantPurge};
use virtualstack_store::SystemPurpose;
use virtualstack_worker::adapters::hypervisor::{Fault, FaultClass};
use virtualstack_worker::{NoProbe, Point};

use super::tasks::becomes;
use super::{behind, cancel, ended, error, failed, quick, read, waiting};
use crate::api::compute::templates::{created, put, stored, sum};
use crate::support::{Call, ControlPlane, Crash, CrashProbe, Gate, Session, When, system, test_fault};

/// What the simulated hypervisor has of tenants' templates.
const IMPORTED: &str = "SELECT count(*) FROM simulated_hypervisor.templates";

/// A template with its file, complete.
async fn uploaded(tenant: &Session, display_name: &str, kind: &str, file: &[u8]) -> String {
    let rest = tenant.rest();
    let template = created(&rest, display_name, kind).await;
    let (status, reply) = put(&rest, &template, None, file.to_vec()).await;
    assert_eq!(status, 200, "{reply}");
    template
}

/// Asks for an import.
async fn import(tenant: &Session, template: &str, file: &[u8]) -> Value {
    super::ask(tenant, "POST", &format!("{template}:import"), json!({"sha256": sum(file)})).await
}

fn ova() -> Vec<u8> {
    Ova::new(Flavour::VMware).bytes()
}

async fn delete(tenant: &Session, template: &str) {
    super::done(tenant, "DELETE", template, json!({})).await;
}

/// Activates a scheduled task, as a signal does.
async fn activate<T: Job>(plane: &ControlPlane) {
    let signal = plane.store.system(system(SystemPurpose::Reconcile), async |tx| tx.activate::<T>().await);
    signal.await.expect("activated");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_file_is_told_by_its_own_check_and_leaves_nothing() {
    let (plane, tenant) = behind(quick(), |_, _| Ok(())).await;
    // One of each check is enough: the parser's own tests have all.
    let mut files = BTreeMap::new();
    for file in broken() {
        files.entry(file.check.as_str()).or_insert(file);
    }
    assert!(files.len() >= 40, "{}", files.len());
    let files: Vec<_> = files.into_values().filter(|file| !file.bytes.is_empty()).collect();
    let mut messages = BTreeSet::new();
    for some in files.chunks(8) {
        let told = futures::future::join_all(some.iter().map(|file| refused(&tenant, file))).await;
        messages.extend(told);
    }
    assert!(messages.len() >= files.len(), "each has a message of its own");
    assert_eq!(stored(&plane).await, (0, 0));
    assert_eq!(plane.database.count(IMPORTED).await, 0, "the hypervisor has not heard of any");
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.user_templates").await, 0);
}

/// Imports a broken file, and deletes its template; what was told.
async fn refused(tenant: &Session, file: &Broken) -> String {
    let kind = if file.format == Format::Ova { "OVA" } else { "ISO" };
    let template = uploaded(tenant, file.name, kind, &file.bytes).await;
    let failed = ended(tenant, &import(tenant, &template, &file.bytes).await).await;
    assert_eq!(error(&failed), (3, "IMAGE_INVALID".to_owned()), "{}: {failed}", file.name);
    let told = &failed["error"]["details"][0]["metadata"];
    assert_eq!(told["check"], file.check.as_str(), "{}: {failed}", file.name);
    let state = read(tenant, &template).await;
    assert_eq!((&state["state"], &state["uploadedBytes"]), (&json!("FAILED"), &json!("0")), "{}", file.name);
    delete(tenant, &template).await;
    format!("{}: {}", file.name, failed["error"]["message"])
}

/// Runs an operation on a template with a worker that dies at each point in turn, each time with another that goes on.
async fn survives(
    steps: &str,
    begin: impl AsyncFn(&Session, &str) -> (String, Value),
    check: impl AsyncFn(&Session, &str, Value),
) {
    let (mut plane, tenant) = waiting().await;
    plane.lease_ms = 400;
    let plane = plane;
    let noting = Arc::new(CrashProbe::new([]));
    let worker = plane.work(Arc::clone(&noting) as _).await;
    let (template, operation) = begin(&tenant, "undisturbed").await;
    check(&tenant, &template, ended(&tenant, &operation).await).await;
    worker.drain().await;
    let mut points: Vec<Crash> = Vec::new();
    for passed in noting.passed() {
        if passed.step.starts_with(steps) && !points.contains(&passed) {
            points.push(passed);
        }
    }
    assert!(points.len() >= 2, "{points:?}");
    for (number, point) in points.into_iter().enumerate() {
        let probe = Arc::new(CrashProbe::new([point.clone()]));
        let victim = plane.work(Arc::clone(&probe) as _).await;
        let mut tries = 0;
        let (template, operation) = loop {
            let (template, operation) = begin(&tenant, &format!("crash-{number}-{tries}")).await;
            // Where a cancel was too quick or too late for the point, the next may not be.
            tokio::select! {
                () = probe.crashed() => break (template, operation),
                done = ended(&tenant, &operation) => check(&tenant, &template, done).await,
            }
            tries += 1;
            assert!(tries < 20, "nobody comes to {point:?}");
        };
        victim.kill().await;
        let survivor = plane.work(Arc::new(NoProbe)).await;
        check(&tenant, &template, ended(&tenant, &operation).await).await;
        survivor.drain().await;
    }
    let ready = "SELECT count(*) FROM compute.user_templates WHERE state = 'READY'";
    assert_eq!(plane.database.count(IMPORTED).await, plane.database.count(ready).await, "exactly those are there");
    let (objects, parts) = stored(&plane).await;
    assert_eq!(i64::try_from(objects).expect("few"), parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_survives_a_crash_at_every_point() {
    let file = ova();
    let begin = async |tenant: &Session, name: &str| {
        let template = uploaded(tenant, name, "OVA", &file).await;
        let operation = import(tenant, &template, &file).await;
        (template, operation)
    };
    let check = async |tenant: &Session, template: &str, done: Value| {
        assert_eq!(done["response"]["state"], "READY", "{done}");
        assert_eq!(read(tenant, template).await["state"], "READY");
    };
    survives("template_import", begin, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_import_survives_a_crash_at_every_point() {
    let file = ova();
    let begin = async |tenant: &Session, name: &str| {
        let template = uploaded(tenant, name, "OVA", &file).await;
        let operation = import(tenant, &template, &file).await;
        cancel(tenant, &operation).await;
        (template, operation)
    };
    let check = async |tenant: &Session, template: &str, done: Value| {
        let state = read(tenant, template).await;
        // A worker may have been quicker.
        if done["error"].is_null() {
            assert_eq!(state["state"], "READY", "{done}");
        } else {
            assert_eq!(error(&done).0, 1, "{done}");
            let kept = (json!("UPLOADING"), json!(file.len().to_string()));
            assert_eq!((state["state"].clone(), state["uploadedBytes"].clone()), kept, "{state}");
        }
    };
    survives("template_import.rollback", begin, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_survives_a_crash_at_every_point() {
    let file = Iso::new("mine").bytes();
    let begin = async |tenant: &Session, name: &str| {
        let template = uploaded(tenant, name, "ISO", &file).await;
        let done = ended(tenant, &import(tenant, &template, &file).await).await;
        assert_eq!(done["response"]["state"], "READY", "{done}");
        let operation = super::ask(tenant, "DELETE", &template, json!({})).await;
        (template, operation)
    };
    let check = async |tenant: &Session, template: &str, done: Value| {
        assert_eq!(done["response"]["name"], template, "{done}");
        assert_eq!(tenant.rest().call("GET", &format!("/v1/{template}"), None).await.0, 404);
    };
    survives("template_delete", begin, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_cancelled_can_be_asked_for_again() {
    for at in ["template_import.validate", "template_import.import"] {
        let (plane, tenant) = waiting().await;
        let gate = Arc::new(Gate::new(at, Point::BeforeCall));
        plane.work(Arc::clone(&gate) as _).await.detach();
        let file = ova();
        let template = uploaded(&tenant, "mine", "OVA", &file).await;
        let operation = import(&tenant, &template, &file).await;
        gate.reached().await;
        cancel(&tenant, &operation).await;
        gate.open();
        let done = ended(&tenant, &operation).await;
        assert_eq!(error(&done), (1, "CANCELLED".to_owned()), "{done}");
        let back = read(&tenant, &template).await;
        assert_eq!((&back["state"], &back["uploadedBytes"]), (&json!("UPLOADING"), &json!(file.len().to_string())));
        assert_eq!(plane.database.count(IMPORTED).await, 0);
        let done = ended(&tenant, &import(&tenant, &template, &file).await).await;
        assert_eq!(done["response"]["state"], "READY", "{done}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hypervisor_cannot_do_fails_the_template_and_frees_its_bytes() {
    for (class, code) in
        [(FaultClass::Capacity, 8), (FaultClass::Invalid, 3), (FaultClass::Permanent, 14), (FaultClass::Conflict, 14)]
    {
        let hook = move |call, when| match (call, when) {
            (Call::Import, When::Before) => {
                Err(Fault::new(class, "TEST_FAULT", "it does not work", "for the operator"))
            }
            _ => Ok(()),
        };
        let (plane, tenant) = behind(quick(), hook).await;
        let file = ova();
        let template = uploaded(&tenant, "mine", "OVA", &file).await;
        let path = format!("{template}:import");
        let told = failed(&tenant, "POST", &path, json!({"sha256": sum(&file)})).await;
        assert_eq!(told, (code, "TEST_FAULT".to_owned()), "{class:?}");
        let state = read(&tenant, &template).await;
        assert_eq!(
            (&state["state"], &state["stateReason"]),
            (&json!("FAILED"), &json!("it does not work")),
            "{class:?}"
        );
        assert_eq!(stored(&plane).await, (0, 0), "{class:?}");
        let usage = &read(&tenant, "quota").await["usage"];
        assert_eq!((&usage["templates"], &usage["templateBytes"]), (&json!(1), &json!("0")), "{class:?}");
        delete(&tenant, &template).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_then_told() {
    let hook = |call, when| match (call, when) {
        (Call::Import, When::Before) => Err(test_fault(FaultClass::Retry)),
        _ => Ok(()),
    };
    let (plane, tenant) = behind(quick(), hook).await;
    let file = ova();
    let template = uploaded(&tenant, "mine", "OVA", &file).await;
    let operation = import(&tenant, &template, &file).await;
    let failing = "SELECT count(*) FROM background_jobs.jobs WHERE progress ->> 'failing_since' IS NOT NULL";
    becomes(&plane, failing, 1).await;
    let open = read(&tenant, operation["name"].as_str().expect("a name")).await;
    assert_eq!(open["done"], false, "an outage costs nobody a file: {open}");
    let long = "UPDATE background_jobs.jobs SET available_at = now(), progress = jsonb_set(progress, '{failing_since}', \
        to_jsonb(now() - interval '1 day')) WHERE kind = 'template_import' AND state = 'available'";
    let ended = loop {
        plane.database.execute(long).await;
        let now = read(&tenant, operation["name"].as_str().expect("a name")).await;
        if now["done"] == true {
            break now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(error(&ended), (14, "TEST_FAULT".to_owned()), "{ended}");
    let told = ended["error"]["message"].as_str().expect("a message");
    assert!(told.contains("120 minutes"), "{told}");
    assert_eq!(read(&tenant, &template).await["stateReason"], told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_the_hypervisor_holds_on_to_stays() {
    let hook = |call, when| match (call, when) {
        (Call::RemoveTemplate, When::Before) => Err(Fault::new(FaultClass::Conflict, "TEST_FAULT", "it is in use", "")),
        _ => Ok(()),
    };
    let (_plane, tenant) = behind(quick(), hook).await;
    let file = ova();
    let template = uploaded(&tenant, "mine", "OVA", &file).await;
    ended(&tenant, &import(&tenant, &template, &file).await).await;
    assert_eq!(failed(&tenant, "DELETE", &template, json!({})).await, (10, "TEST_FAULT".to_owned()));
    assert_eq!(read(&tenant, &template).await["state"], "READY", "whoever could use it still can");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_ends_an_import_that_is_under_way() {
    let (plane, tenant) = waiting().await;
    let gate = Arc::new(Gate::new("template_import.import", Point::BeforeCall));
    plane.work(Arc::clone(&gate) as _).await.detach();
    let file = ova();
    let template = uploaded(&tenant, "mine", "OVA", &file).await;
    let operation = import(&tenant, &template, &file).await;
    gate.reached().await;
    let deletion = super::ask(&tenant, "DELETE", &template, json!({})).await;
    assert_eq!(read(&tenant, &template).await["state"], "DELETING");
    gate.open();
    ended(&tenant, &operation).await;
    assert!(ended(&tenant, &deletion).await["error"].is_null());
    assert_eq!((plane.database.count(IMPORTED).await, stored(&plane).await), (0, (0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_left_fails() {
    let (plane, tenant) = behind(quick(), |_, _| Ok(())).await;
    let left = uploaded(&tenant, "left", "OVA", &[1; 100]).await;
    let fresh = uploaded(&tenant, "fresh", "OVA", &[1; 100]).await;
    let id = left.trim_start_matches("templates/");
    let due =
        format!("UPDATE compute.user_templates SET upload_expires_at = now() - interval '1 second' WHERE id = '{id}'");
    assert_eq!(plane.database.changed(&due).await, 1);
    activate::<UploadExpiry>(&plane).await;
    becomes(&plane, "SELECT count(*) FROM compute.user_templates WHERE state = 'FAILED'", 1).await;
    let state = read(&tenant, &left).await;
    assert_eq!((&state["state"], &state["uploadedBytes"]), (&json!("FAILED"), &json!("0")));
    assert!(state["stateReason"].as_str().is_some_and(|why| why.contains("upload was left")), "{state}");
    assert_eq!(read(&tenant, &fresh).await["state"], "UPLOADING");
    let usage = &read(&tenant, "quota").await["usage"];
    assert_eq!(usage["templateBytes"], "100");
    // Its object goes a moment after its row.
    for _ in 0..400 {
        if stored(&plane).await == (1, 1) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("its bytes are left: {:?}", stored(&plane).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_no_row_knows_are_swept_when_they_are_old() {
    let (plane, tenant) = behind(quick(), |_, _| Ok(())).await;
    uploaded(&tenant, "mine", "OVA", &[1; 100]).await;
    let objects = plane.database.objects();
    for name in ["old", "young"] {
        let key = format!("templates/nobody/{name}").parse().expect("a key");
        objects.put(&key, vec![Bytes::from_static(b"orphan")]).await.expect("put");
    }
    assert_eq!(stored(&plane).await, (3, 1));
    let day_ago = SystemTime::now() - Duration::from_secs(24 * 3600);
    for file in plane.database.object_files() {
        if !file.ends_with("young") {
            std::fs::File::options().write(true).open(&file).expect("a file").set_modified(day_ago).expect("a time");
        }
    }
    activate::<ObjectSweep>(&plane).await;
    for _ in 0..400 {
        if stored(&plane).await == (2, 1) {
            let left = plane.database.object_files();
            assert!(left.iter().any(|file| file.ends_with("young")), "{left:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the orphan is left: {:?}", stored(&plane).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_purged_takes_its_templates_along() {
    let plane = ControlPlane::start().await;
    let tenant = plane.tenant("doomed").await;
    let file = ova();
    let template = uploaded(&tenant, "mine", "OVA", &file).await;
    ended(&tenant, &import(&tenant, &template, &file).await).await;
    uploaded(&tenant, "half", "ISO", &[1; 100]).await;
    assert_eq!((plane.database.count(IMPORTED).await, stored(&plane).await), (1, (2, 2)));
    let path = format!("/v1/{}?force=true", tenant.tokens.tenant);
    assert_eq!(plane.operator().await.rest().call("DELETE", &path, None).await.0, 200);
    let left = "SELECT count(*) FROM iam.tenants WHERE display_name = 'doomed' AND state <> 'PURGED'";
    for _ in 0..100 {
        activate::<TenantPurge>(&plane).await;
        if plane.database.count(left).await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(plane.database.count(left).await, 0);
    assert_eq!((plane.database.count(IMPORTED).await, stored(&plane).await), (0, (0, 0)));
}
