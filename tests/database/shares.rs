//! The pool's connections: nobody takes them from all others.

use virtualstack_model::compute::id::VmId;
use virtualstack_store::compute::vms;
use virtualstack_store::{Config, Read, Store, TenantTx};

use crate::support::{ADMIN, ControlPlane, DEMO, member_scope};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_holds_all_it_may_keeps_nobody_else_waiting() {
    let plane = ControlPlane::without_worker().await;
    plane.admin().await;
    plane.tenant("acme").await;
    plane.member("ada@example.com", "acme", "user").await;
    let greedy = member_scope(&plane.database, ADMIN, DEMO).await;
    let victim = member_scope(&plane.database, "ada@example.com", "acme").await;
    let store = Store::new(&Config { max_connections: 8, ..plane.database.config.clone() }).expect("a store");
    let (release, released) = tokio::sync::watch::channel(false);
    // Sixty transactions that do not end by themselves.
    let mut holding = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (store, greedy, released) = (store.clone(), greedy.clone(), released.clone());
        holding.spawn(async move {
            let hold = async |_: &mut TenantTx<Read>| {
                released.clone().wait_for(|released| *released).await.expect("a release");
                Ok(())
            };
            store.read(&greedy, hold).await
        });
    }
    let busy =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    while plane.database.count(busy).await < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        let error = vms::get(&mut store.single(&victim), VmId::new()).await.expect_err("nothing");
        assert_eq!(error.reason(), "VM_NOT_FOUND");
    }
    assert_eq!(plane.database.count(busy).await, 2, "a member has a quarter");
    release.send(true).expect("they wait");
    while let Some(done) = holding.join_next().await {
        done.expect("no panic").expect("each had its turn");
    }
}
