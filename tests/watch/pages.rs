//! What a watch begins with is read in pages, and what changes meanwhile is in it.

use std::collections::BTreeMap;

use virtualstack_proto::virtualstack::watch::v1::watch_message::Type;

use super::{Watch, describe, settings, vm};
use crate::support::ControlPlane;

/// More than two pages.
const VMS: usize = 1200;

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_there_is_much_to_tell_is_told() {
    let plane = ControlPlane::start_with(settings()).await;
    let admin = plane.admin().await;
    plane
        .database
        .execute(&format!(
            "INSERT INTO compute.virtual_machines (tenant_id, id, display_name, state, cpu_count, memory_mib, disk_gib, \
                 template_id, template_reference, template_display_name, guest_os, owner_id, description) \
             SELECT m.tenant_id, format('01900000-0000-7000-8000-%s', lpad(to_hex(n), 12, '0'))::uuid, 'vm-' || n, 'STOPPED', \
                 1, 1024, 10, gen_random_uuid(), 'reference', 'template', 'linux', m.id, repeat('x', 10000) \
             FROM generate_series(1, {VMS}) n, iam.memberships m JOIN iam.tenants t ON t.id = m.tenant_id \
             WHERE t.slug = 'demo' LIMIT {VMS}"
        ))
        .await;
    let name = |number: usize| format!("vms/01900000-0000-7000-8000-{number:012x}");
    let mut watch = Watch::vms(&admin, "").await.expect("a watch");
    // The first page is read; little of it is told, as there is no room for more on the way. VMs of all pages change.
    let mut told = Vec::new();
    for _ in 0..10 {
        told.push(watch.told().await);
    }
    for number in [5, 450, 700, 1150] {
        describe(&admin, &name(number), "changed meanwhile").await.expect("described");
    }
    told.extend(watch.until(Type::Synced).await);
    let synced = told.pop().expect("the last one");
    assert!(!synced.resume_token.is_empty());
    let mut seen = BTreeMap::new();
    for message in &told {
        assert_eq!((message.r#type(), message.resume_token.as_str()), (Type::Snapshot, ""), "{message:?}");
        seen.insert(vm(message).name.clone(), vm(message).description.clone());
    }
    assert_eq!(seen.len(), VMS);
    let changed: Vec<_> =
        seen.iter().filter(|(_, text)| *text == "changed meanwhile").map(|(name, _)| name.clone()).collect();
    assert_eq!(changed, [5, 450, 700, 1150].map(name));
    // From there on it goes on, and from its token another one does, without a gap and without saying things again.
    describe(&admin, &name(7), "later").await.expect("described");
    let mut resumed = Watch::vms(&admin, &synced.resume_token).await.expect("a watch");
    for watch in [&mut watch, &mut resumed] {
        let message = watch.told().await;
        assert_eq!((message.r#type(), vm(&message).description.as_str()), (Type::Updated, "later"));
    }
}
