//! Lists of operations, events, templates and permissions, and what filters say of states that nobody sees.

use virtualstack_model::compute::id::VmId;
use virtualstack_model::{Error, Result};
use virtualstack_store::compute::templates;
use virtualstack_store::compute::vms;
use virtualstack_store::iam::{roles, tenants, users};
use virtualstack_store::{ListRequest, SystemPurpose, operations};

use super::{Fixture, TEMPLATE, refused};
use crate::support::{ControlPlane, system};

const VM: &str = "01900000-0000-7000-8000-000000000001";
const OTHER_VM: &str = "01900000-0000-7000-8000-000000000002";
const SNAPSHOT: &str = "01900000-0000-7000-8000-000000000005";

fn asked(filter: &str, order_by: &str) -> ListRequest {
    let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
    ListRequest { filter, order_by, show_total: true, ..Default::default() }
}

/// Operations 1 to 6, events 1 to 4 of a VM and one of another.
async fn worked_on() -> Fixture {
    let fixture = Fixture::new().await;
    let tenant = fixture.tenant;
    fixture
        .database
        .execute(&format!(
            "INSERT INTO compute.operations (tenant_id, id, verb, state, target, slot, step, progress_percent, cancel_requested, error_code, \
                 actor, created_at, ended_at, deadline_at) \
             SELECT '{tenant}', ('01900000-0000-7000-8000-00000000010' || i)::uuid, \
                 (ARRAY['CREATE', 'CREATE', 'REVERT', 'STOP', 'DELETE', 'DELETE'])[i], \
                 (ARRAY['SUCCEEDED', 'FAILED', 'SUCCEEDED', 'CANCELLED', 'OPEN', 'QUEUED'])[i], \
                 CASE WHEN i = 4 THEN 'vms/{OTHER_VM}' WHEN i IN (2, 3) THEN 'vms/{VM}/snapshots/{SNAPSHOT}' ELSE 'vms/{VM}' END, \
                 CASE WHEN i = 4 THEN 'vms/{OTHER_VM}' ELSE 'vms/{VM}' END, 'step', i * 10, i = 4, CASE WHEN i = 2 THEN 8 END, 'system', \
                 '2026-01-01T00:00:00Z'::timestamptz + i * interval '1 day', CASE WHEN i < 5 THEN now() END, now() \
             FROM generate_series(1, 6) i; \
             INSERT INTO audit.changes (tenant_id, position, resource, reason, message, state, operation_id, actor, created_at) \
             SELECT '{tenant}', 1000 + i, 'vms/' || CASE WHEN i = 5 THEN '{OTHER_VM}' ELSE '{VM}' END, \
                 (ARRAY['VM_CREATED', 'VM_STARTED', 'VM_STOPPED', 'VM_STARTED', 'VM_STARTED'])[i], 'Text ' || i, \
                 (ARRAY['PROVISIONING', 'RUNNING', 'STOPPED', 'RUNNING', 'RUNNING'])[i], \
                 CASE WHEN i = 1 THEN '01900000-0000-7000-8000-000000000101'::uuid END, \
                 CASE WHEN i = 3 THEN 'users/{TEMPLATE}' ELSE 'system' END, \
                 '2026-01-01T00:00:00Z'::timestamptz + i * interval '1 day' FROM generate_series(1, 5) i"
        ))
        .await;
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_found_by_what_they_show() {
    let fixture = worked_on().await;
    let found = async |filter: &str| -> Result<Vec<u128>> {
        let request = asked(filter, "");
        let purpose = system(SystemPurpose::Reconcile);
        let listed = fixture
            .store
            .write_as_system(&purpose, fixture.tenant, "test", async |tx| operations::list(tx, &request).await);
        let listed = listed.await?;
        assert_eq!(listed.total_size, Some(i32::try_from(listed.rows.len()).expect("few")));
        Ok(listed.rows.into_iter().map(|row| row.id.0.as_u128() & 0xf).collect())
    };
    for (filter, expected) in [
        ("", &[6, 5, 4, 3, 2, 1][..]),
        ("done = true", &[4, 3, 2, 1]),
        ("done != true", &[6, 5]),
        ("metadata.verb = CREATE", &[2, 1]),
        ("metadata.verb = REVERT OR metadata.verb = STOP", &[4, 3]),
        (&format!("metadata.target = vms/{VM}"), &[6, 5, 1]),
        (&format!("metadata.target : \"vms/{VM}\""), &[6, 5, 3, 2, 1]),
        (&format!("metadata.target = vms/{VM}/snapshots/{SNAPSHOT}"), &[3, 2]),
        (&format!("metadata.target : vms/{VM}/snapshots/{SNAPSHOT}"), &[3, 2]),
        (&format!("metadata.target : vms/{OTHER_VM}"), &[4]),
        ("metadata.target:*", &[6, 5, 4, 3, 2, 1]),
        (&format!("metadata.target = vms/{}", SNAPSHOT.to_uppercase()), &[]),
        (&format!("metadata.target = vms/{}", VM.replace('-', "")), &[6, 5, 1]),
        (&format!("metadata.target != vms/{VM}"), &[4, 3, 2]),
        ("metadata.createTime > 2026-01-05T12:00:00Z", &[6, 5]),
        ("-metadata.endTime:*", &[6, 5]),
        ("metadata.cancelRequested = true", &[4]),
        ("metadata.progressPercent >= 50", &[6, 5]),
        ("error.code = 8", &[2]),
        ("error.code = 1", &[4]),
        ("-error.code:*", &[6, 5, 3, 1]),
        ("name = operations/01900000-0000-7000-8000-000000000103", &[3]),
    ] {
        assert_eq!(found(filter).await.unwrap_or_else(|error| panic!("{filter}: {error}")), expected, "{filter}");
    }
    for (filter, what) in [
        ("state = OPEN", "there is no field \"state\"; fields are done, metadata.target, metadata.verb"),
        ("metadata.colour = red", "there is no field \"metadata.colour\""),
        ("metadata.verb = CREATE_SNAPSHOT", "metadata.verb must be one of CREATE, UPDATE"),
        ("metadata.target = vms/x", "metadata.target must be a full name, vms/{uuid} or vms/{uuid}/snapshots/{uuid}"),
        (&format!("metadata.target = vms/{VM}/snapshots"), "must be a full name"),
        (&format!("metadata.target = vms/{VM}/snapshots/{SNAPSHOT}/x/y"), "must be a full name"),
        (&format!("metadata.target < vms/{VM}"), "metadata.target does not take <"),
    ] {
        refused(found(filter).await, "filter", what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_by_what_they_show() {
    let fixture = worked_on().await;
    let vm = VmId(VM.parse().expect("an id"));
    let listed = async |request: ListRequest| {
        fixture
            .store
            .write_as_system(&system(SystemPurpose::Reconcile), fixture.tenant, "test", async |tx| {
                vms::list_events(tx, &request, vm).await
            })
            .await
    };
    let found = async |filter: &str, order_by: &str| -> Result<Vec<i64>> {
        Ok(listed(asked(filter, order_by)).await?.rows.into_iter().map(|row| row.position - 1000).collect())
    };
    for (filter, order_by, expected) in [
        ("", "", &[4, 3, 2, 1][..]),
        ("", "createTime", &[1, 2, 3, 4]),
        ("", "createTime desc", &[4, 3, 2, 1]),
        ("reason = VM_STARTED", "", &[4, 2]),
        ("reason = VM_STARTED", "createTime", &[2, 4]),
        ("reason = \"VM_ST*\"", "", &[4, 3, 2]),
        ("reason = vm_started", "", &[]),
        ("reason != VM_STARTED", "", &[3, 1]),
        ("state = STOPPED", "", &[3]),
        ("createTime >= 2026-01-04T00:00:00Z", "", &[4, 3]),
        ("operation = operations/01900000-0000-7000-8000-000000000101", "", &[1]),
        ("operation:*", "", &[1]),
        ("actor = system", "", &[4, 2, 1]),
        ("actor = \"users/*\"", "", &[3]),
        ("message:\"text 2\" OR \"text 3\"", "", &[3, 2]),
    ] {
        let rows = found(filter, order_by).await.unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(rows, expected, "{filter} {order_by}");
    }
    refused(found("position = 5", "").await, "filter", "there is no field \"position\"; fields are createTime, state");
    refused(found("\"\" = 5", "").await, "filter", "there is no field \"\"");
    refused(found("", "reason").await, "orderBy", "cannot order by \"reason\"; fields are createTime");
    // Page by page, in both directions.
    for order_by in ["", "createTime"] {
        let mut positions = Vec::new();
        let mut request = ListRequest { page_size: 3, ..asked("", order_by) };
        loop {
            let page = listed(request.clone()).await.expect("a page");
            assert_eq!(page.total_size, Some(4));
            positions.extend(page.rows.iter().map(|row| row.position));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert!(
            positions.len() == 4 && positions.is_sorted_by(|a, b| (a < b) == (order_by == "createTime")),
            "{positions:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_and_permissions_too() {
    let fixture = Fixture::new().await;
    fixture
        .database
        .execute(
            "INSERT INTO compute.provider_templates (id, display_name, kind, state, guest_os, cpu_count, memory_mib, \
                 disk_gib) SELECT ('01900000-0000-7000-8000-00000000010' || i)::uuid, \
             (ARRAY['Ubuntu 24.04', 'Debian 12', 'Windows'])[i], CASE WHEN i = 3 THEN 'ISO' ELSE 'OVA' END, \
             CASE WHEN i = 2 THEN 'UNAVAILABLE' ELSE 'READY' END, 'linux', i, 1024, 10 FROM generate_series(1, 3) i",
        )
        .await;
    let found = async |filter: &str, order_by: &str| -> Result<Vec<String>> {
        let request = asked(filter, order_by);
        let purpose = system(SystemPurpose::Reconcile);
        let listed = fixture
            .store
            .write_as_system(&purpose, fixture.tenant, "test", async |tx| templates::list(tx, &request).await);
        Ok(listed.await?.rows.into_iter().map(|row| row.display_name).collect())
    };
    for (filter, order_by, expected) in [
        ("", "", &["Windows", "Debian 12", "Ubuntu 24.04"][..]),
        ("", "displayName", &["Debian 12", "Ubuntu 24.04", "Windows"]),
        ("kind = OVA state = READY", "", &["Ubuntu 24.04"]),
        ("displayName = \"ubuntu*\"", "", &["Ubuntu 24.04"]),
        ("displayName = \"debian 12\"", "", &["Debian 12"]),
        ("minCpuCount >= 2", "minCpuCount", &["Debian 12", "Windows"]),
        ("minDiskGib > 10", "", &[]),
    ] {
        assert_eq!(found(filter, order_by).await.expect(filter), expected, "{filter} {order_by}");
    }
    refused(found("reference = r1", "").await, "filter", "there is no field \"reference\"");

    let codes = async |request: ListRequest| {
        let listed = async |tx: &mut _| roles::list_permissions(tx, &request).await;
        let listed = fixture
            .store
            .write_as_system(&system(SystemPurpose::Reconcile), fixture.tenant, "test", listed)
            .await
            .expect("a page");
        let codes: Vec<_> = listed.rows.into_iter().map(|row| row.code).collect();
        (codes, listed.next_page_token)
    };
    let (all, _) = codes(ListRequest { page_size: 1000, ..asked("", "") }).await;
    assert!(all.len() > 20 && all.is_sorted(), "by code: {all:?}");
    assert_eq!(codes(asked("code = \"vm:st*\"", "code desc")).await.0, ["vm:stop", "vm:start"]);
    assert_eq!(codes(asked("module = operations", "title")).await.0, ["operation:cancel", "operation:read"]);
    let mut walked = Vec::new();
    let mut request = ListRequest { page_size: 7, ..asked("", "") };
    loop {
        let (page, token) = codes(request.clone()).await;
        walked.extend(page);
        request.page_token = token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(walked, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_name_no_state_that_nobody_sees() {
    let fixture = Fixture::new().await;
    let request = asked("state = GONE", "");
    let words = |error: Error| error.to_string().split_once("must be one of ").map(|(_, words)| words.to_owned());
    let users = async |tx: &mut _| users::list(tx, &request, None).await;
    let error = fixture
        .store
        .write_as_system(&system(SystemPurpose::Reconcile), fixture.tenant, "test", users)
        .await
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(words(error).as_deref(), Some("INVITED, ACTIVE, INACTIVE"));
    let tenants = async |tx: &mut _| tenants::list_any(tx, &request, true).await;
    let error = fixture.store.system(system(SystemPurpose::Bootstrap), tenants).await.map(|_| ()).expect_err("refused");
    assert_eq!(words(error).as_deref(), Some("ACTIVE, SUSPENDED, DELETED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_is_repeated_is_answered_again() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let made = async |path: &str, body: serde_json::Value| {
        let (status, made) = rest.call("POST", path, Some(body)).await;
        assert_eq!(status, 200, "{made}");
        made["name"].as_str().expect("a name").to_owned()
    };
    let role = made("/v1/roles", serde_json::json!({"displayName": "one"})).await;
    let other = made("/v1/roles", serde_json::json!({"displayName": "other"})).await;
    let key = made("/v1/apiKeys", serde_json::json!({"displayName": "ci", "permissions": ["vm:read"]})).await;
    let user = made("/v1/users", serde_json::json!({"email": "one@example.com", "displayName": "One"})).await;
    let operator = plane.operator().await.rest();
    for (rest, name, then) in
        [(&rest, &role, 404), (&rest, &key, 404), (&rest, &user, 404), (&operator, &acme.tokens.tenant, 400)]
    {
        let id = uuid::Uuid::new_v4();
        let path = format!("/v1/{name}?requestId={id}");
        for _ in 0..2 {
            let (status, answer) = rest.call("DELETE", &path, None).await;
            assert_eq!(status, 200, "{name}: {answer}");
        }
        let (status, answer) = rest.call("DELETE", &format!("/v1/{name}"), None).await;
        assert_eq!(status, then, "{name}: {answer}");
        if *name == role {
            let (status, answer) = rest.call("DELETE", &format!("/v1/{other}?requestId={id}"), None).await;
            assert_eq!(status, 400, "the same id with another body: {answer}");
        }
    }
}
