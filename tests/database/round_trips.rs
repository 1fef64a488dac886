//! How often a client waits for PostgreSQL.

use virtualstack_model::compute::id::VmId;
use virtualstack_store::compute::{templates, vms};
use virtualstack_store::iam::{api_keys, invitations, roles, tenants, users};
use virtualstack_store::{AccountScope, Ending, ListRequest, Store, operations};

use super::audit;
use crate::support::{ADMIN, ControlPlane, DEMO, Wire, member_scope};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_one_query_takes_one_round_trip() {
    let plane = ControlPlane::start().await;
    let vm: VmId = VmId::parse("name", &plane.admin().await.running("one").await.name).expect("a name");
    let scope = member_scope(&plane.database, ADMIN, DEMO).await;
    let wire = Wire::before(&plane.database);
    let store = Store::new(&wire.config).expect("a store");
    let page = ListRequest::default();
    macro_rules! one_trip {
        ($($name:literal: $read:expr;)*) => {
            $({
                // The first makes the connection and prepares the statement.
                $read.await.expect($name);
                let (_, turns) = wire.turns_of(async { $read.await.expect($name) }).await;
                assert_eq!(turns, 1, "{}", $name);
            })*
        };
    }
    one_trip! {
        "a VM": vms::get(&mut store.single(&scope), vm);
        "VMs": vms::list(&mut store.single(&scope), &page, false);
        "what happened to a VM": vms::list_events(&mut store.single(&scope), &page, vm);
        "templates": templates::list(&mut store.single(&scope), &page);
        "operations": operations::list(&mut store.single(&scope), &page);
        "a member": users::get(&mut store.single(&scope), scope.user());
        "members": users::list(&mut store.single(&scope), &page, None);
        "roles": roles::list(&mut store.single(&scope), &page);
        "keys": api_keys::list(&mut store.single(&scope), &page, None);
        "invitations": invitations::list(&mut store.single(&scope), &page);
        "the tenant": tenants::current(&mut store.single(&scope));
    }
    // Nobody's access lasts longer because a statement is prepared.
    plane.database.execute("UPDATE iam.sessions SET ended_at = now()").await;
    let error = vms::get(&mut store.single(&scope), vm).await.expect_err("refused");
    assert_eq!(error.reason(), "SESSION_ENDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_opens_in_one_round_trip_and_ends_in_another() {
    let plane = ControlPlane::without_worker().await;
    plane.admin().await;
    let scope = member_scope(&plane.database, ADMIN, DEMO).await;
    let wire = Wire::before(&plane.database);
    let store = Store::new(&wire.config).expect("a store");
    for ending in [Ending::Commit, Ending::DryRun] {
        let write = async || store.write(&scope, audit(), ending, async |_| Ok(())).await.expect("written");
        write().await;
        let ((), turns) = wire.turns_of(write()).await;
        assert_eq!(turns, 2, "{ending:?}");
    }
    let rows = plane.database.count("SELECT count(*) FROM audit.logs WHERE action = 'test'").await;
    assert_eq!(rows, 2, "a dry run leaves no row");
    #[expect(clippy::disallowed_methods, reason = "the test plays the authorization layer")]
    let account = AccountScope::new(scope);
    let read = async || store.account(&account, async |_| Ok(())).await.expect("read");
    read().await;
    let ((), turns) = wire.turns_of(read()).await;
    assert_eq!(turns, 2, "an account's");
}
