//! What a call leaves behind whose caller goes away.

use std::time::Duration;

use virtualstack_model::compute::id::VmId;
use virtualstack_store::compute::vms;
use virtualstack_store::{Ending, Store};

use super::audit;
use crate::support::{ADMIN, ControlPlane, DEMO, Wire, member_scope};

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_leaves_a_clean_connection() {
    let plane = ControlPlane::start().await;
    let vm = VmId::parse("name", &plane.admin().await.running("held").await.name).expect("a name");
    let scope = member_scope(&plane.database, ADMIN, DEMO).await;
    let wire = Wire::before(&plane.database);
    let store = Store::new(&wire.config).expect("a store");
    let write = async || store.write(&scope, audit(), Ending::Commit, async |tx| vms::lock(tx, vm).await).await;
    write().await.expect("a VM");
    let mine = "SELECT count(*) FROM audit.logs WHERE action = 'test'";
    let before = plane.database.count(mine).await;

    // Somebody holds the VM: the statement waits, and goes on when nobody waits for it any more.
    let holder = plane.store.clone();
    let (held, release) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let hold = holder.write(&scope, audit(), Ending::DryRun, async |tx| {
        vms::lock(tx, vm).await?;
        held.notify_one();
        release.notified().await;
        Ok(())
    });
    let drop_some = async {
        held.notified().await;
        for millis in [0, 1, 7, 300] {
            let dropped = tokio::time::timeout(Duration::from_millis(millis), write()).await;
            assert!(dropped.is_err(), "it waits for the VM");
            // The one connection there is, is back: rolled back, in nobody's role, and not a new one.
            let ((), turns) = wire
                .turns_of(async { store.read(&scope, async |_| Ok(())).await.expect("the connection is back") })
                .await;
            assert!(turns <= 4, "it was not made anew, which takes more: {turns}");
        }
        release.notify_one();
    };
    let (done, ()) = tokio::join!(hold, drop_some);
    done.expect("the VM was held");
    assert_eq!(plane.database.count(mine).await, before, "what was dropped was not done");
    write().await.expect("a VM");
}
