//! Revocation is exact: the statement that opens a transaction checks the access again, whatever was decided before.

use tonic::Code;
use virtualstack_model::compute::id::VmId;
use virtualstack_model::credential::Credential;
use virtualstack_model::id::ApiKeyId;
use virtualstack_model::log::Audit;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::compute::v1::ListVmsRequest;
use virtualstack_proto::virtualstack::iam::v1::session_service_client::SessionServiceClient;
use virtualstack_proto::virtualstack::iam::v1::{GetCurrentSessionRequest, LogoutRequest, SwitchTenantRequest};
use virtualstack_store::compute::vms;
use virtualstack_store::iam::{tenants, users};
use virtualstack_store::{AccountScope, Ending, ListRequest, Store, SystemPurpose, TenantScope};

use super::calls::{member, texts};
use crate::support::{ControlPlane, Database, Session, reason, system};

/// Code and reason of the next request, one that reads and one that writes; both must agree.
async fn next_request(session: &Session) -> (Code, String) {
    let read = session.vms().list_vms(session.request(ListVmsRequest::default())).await.expect_err("refused");
    let write = session.stop(&VmId::new().name()).await.expect_err("refused");
    let me = SessionServiceClient::new(session.channel.clone())
        .get_current_session(session.request(GetCurrentSessionRequest {}))
        .await
        .expect_err("refused");
    for other in [&write, &me] {
        assert_eq!((read.code(), reason(&read)), (other.code(), reason(other)));
    }
    (read.code(), reason(&read))
}

async fn works(session: &Session) {
    session.vms().list_vms(session.request(ListVmsRequest::default())).await.expect("a list");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_is_gone_at_the_next_request() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let ada = member(&plane, "ada@example.com", "acme", "user").await;
    works(&ada).await;

    // A member is deactivated.
    let raise = "UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE slug = 'acme'";
    let state = |state: &str| {
        format!(
            "UPDATE iam.memberships SET state = '{state}' WHERE account_id = (SELECT id FROM iam.users WHERE email = 'ada@example.com'); {raise}"
        )
    };
    plane.database.execute(&state("INACTIVE")).await;
    assert_eq!(next_request(&ada).await, (Code::PermissionDenied, "MEMBERSHIP_INACTIVE".to_owned()));
    works(&acme).await;
    plane.database.execute(&state("ACTIVE")).await;
    works(&ada).await;

    // A role is taken away.
    plane
        .database
        .execute(&format!(
            "DELETE FROM iam.user_tenant_roles WHERE membership_id = (SELECT m.id FROM iam.memberships m JOIN iam.users u \
             ON u.id = m.account_id WHERE u.email = 'ada@example.com'); {raise}"
        ))
        .await;
    let refused = ada.vms().list_vms(ada.request(ListVmsRequest::default())).await.expect_err("refused");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "PERMISSION_MISSING"));

    // The tenant is suspended.
    plane.database.execute(&format!("UPDATE iam.tenants SET state = 'SUSPENDED' WHERE slug = 'acme'; {raise}")).await;
    assert_eq!(next_request(&acme).await, (Code::PermissionDenied, "TENANT_SUSPENDED".to_owned()));
    plane.database.execute("UPDATE iam.tenants SET state = 'ACTIVE' WHERE slug = 'acme'").await;
    works(&acme).await;

    // The session is ended by its owner; another session of the same account goes on.
    let second = plane.login("admin@acme.example.com", "acme").await;
    acme.auth().logout(acme.request(LogoutRequest {})).await.expect("a logout");
    assert_eq!(next_request(&acme).await, (Code::Unauthenticated, "SESSION_ENDED".to_owned()));
    works(&second).await;

    // It runs out.
    plane.database.execute("UPDATE iam.sessions SET expires_at = now() - interval '1 second'").await;
    assert_eq!(next_request(&second).await, (Code::Unauthenticated, "SESSION_ENDED".to_owned()));
    let third = plane.login("admin@acme.example.com", "acme").await;
    works(&third).await;

    // The account is deactivated.
    plane.database.execute("UPDATE iam.users SET state = 'INACTIVE' WHERE email = 'admin@acme.example.com'").await;
    assert_eq!(next_request(&third).await, (Code::Unauthenticated, "SESSION_ENDED".to_owned()));
}

/// A scope as the authorization layer would make it, of what the database says of a member's newest session.
async fn scope_of(database: &Database, email: &str, tenant: &str) -> TenantScope {
    let query = format!(
        "SELECT concat_ws(' ', t.id, u.id, m.id, s.id, t.authz_epoch) FROM iam.users u JOIN iam.memberships m ON m.account_id = u.id \
         JOIN iam.tenants t ON t.id = m.tenant_id JOIN iam.sessions s ON s.account_id = u.id \
         WHERE u.email = '{email}' AND t.slug = '{tenant}' ORDER BY s.created_at DESC LIMIT 1"
    );
    let row = texts(database, &query).await.pop().expect("a member with a session");
    let ids: Vec<_> = row.split(' ').collect();
    let id = |index: usize| uuid::Uuid::try_parse(ids[index]).expect("a UUID").to_string();
    scope(&id(0), &id(1), &id(2), &id(3), ids[4].parse().expect("a number"))
}

#[expect(clippy::disallowed_methods, reason = "the test plays the authorization layer, and one that is mistaken")]
fn scope(tenant: &str, account: &str, user: &str, session: &str, epoch: i64) -> TenantScope {
    let id = |text: &str| uuid::Uuid::try_parse(text).expect("a UUID");
    TenantScope::new(
        virtualstack_model::id::TenantId(id(tenant)),
        virtualstack_model::id::AccountId(id(account)),
        virtualstack_model::id::UserId(id(user)),
        Credential::Session(virtualstack_model::id::SessionId(id(session))),
        epoch,
    )
}

#[expect(clippy::disallowed_methods, reason = "the test plays the authorization layer")]
fn account(scope: &TenantScope) -> AccountScope {
    AccountScope::new(scope.clone())
}

fn audit(scope: &TenantScope) -> Audit {
    Audit {
        action: "test".to_owned(),
        actor: scope.actor(),
        resource: scope.tenant().name(),
        request_id: String::new(),
        client_address: None,
        traceparent: None,
        outcome: Default::default(),
    }
}

/// Every way into a transaction with a scope, and what each gives.
async fn open(store: &Store, scope: &TenantScope) -> Vec<Result<()>> {
    vec![
        store.read(scope, async |_| Ok(())).await,
        store.write(scope, audit(scope), Ending::Commit, async |_| Ok(())).await,
        store.account(&account(scope), async |_| Ok(())).await,
        store.system(system(SystemPurpose::Platform(scope.clone())), async |_| Ok(())).await,
    ]
}

async fn refused(store: &Store, scope: &TenantScope, desired: &str) {
    for opened in open(store, scope).await {
        assert_eq!(opened.as_ref().map_err(Error::reason), Err(desired), "{scope:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_believes_no_stale_or_foreign_decision() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    plane.tenant("rival").await;
    let (email, tenant) = ("admin@acme.example.com", "acme");
    let good = scope_of(&plane.database, email, tenant).await;
    let other = scope_of(&plane.database, "admin@rival.example.com", "rival").await;
    for opened in open(&plane.store, &good).await {
        opened.expect("the decision stands");
    }
    let parts = |scope: &TenantScope, session: &TenantScope| {
        let account = account(scope).account().to_string();
        let session = self::account(session).session().expect("a session").to_string();
        (scope.tenant().to_string(), account, scope.user().to_string(), session)
    };
    let with = |tenant: &TenantScope, user: &TenantScope, session: &TenantScope, epoch: i64| {
        let (_, account, user, session) = parts(user, session);
        scope(&tenant.tenant().to_string(), &account, &user, &session, epoch)
    };
    // The session of somebody else.
    refused(&plane.store, &with(&good, &good, &other, 1), "SESSION_ENDED").await;
    // A member of one tenant in another one.
    refused(&plane.store, &with(&other, &good, &good, 1), "SESSION_ENDED").await;
    // Somebody else's membership.
    refused(&plane.store, &with(&other, &other, &good, 1), "SESSION_ENDED").await;
    // One's own session and membership, and somebody else's account.
    let (tenant_id, _, user_id, session_id) = parts(&good, &good);
    let (_, foreign_account, ..) = parts(&other, &other);
    refused(&plane.store, &scope(&tenant_id, &foreign_account, &user_id, &session_id, 1), "SESSION_ENDED").await;
    // No session at all.
    let (tenant_id, account_id, user_id, _) = parts(&good, &good);
    let nowhere = uuid::Uuid::now_v7().to_string();
    refused(&plane.store, &scope(&tenant_id, &account_id, &user_id, &nowhere, 1), "SESSION_ENDED").await;
    // What was decided before the epoch was raised.
    plane.database.execute("UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE slug = 'acme'").await;
    refused(&plane.store, &good, "ACCESS_CHANGED").await;
    for opened in open(&plane.store, &scope_of(&plane.database, email, tenant).await).await {
        opened.expect("the new decision stands");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_believes_no_stale_key() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let key = serde_json::json!({"displayName": "ci", "permissions": ["vm:read"]});
    let (_, key) = acme.rest().call("POST", "/v1/apiKeys", Some(key)).await;
    let id: ApiKeyId = key["name"].as_str().expect("a name").trim_start_matches("apiKeys/").parse().expect("an id");
    let owner = scope_of(&plane.database, "admin@acme.example.com", "acme").await;
    let of = |generation, version| scope_by_key(&owner, Credential::ApiKey { id, generation, version });
    let good = async |scope: &TenantScope| {
        for opened in open(&plane.store, scope).await {
            opened.expect("the decision stands");
        }
    };
    let change = async |what: &str| plane.database.execute(&format!("UPDATE iam.api_keys SET {what}")).await;
    good(&of(1, 1)).await;
    refused(&plane.store, &of(2, 1), "KEY_INVALID").await;
    let unknown = Credential::ApiKey { id: ApiKeyId::new(), generation: 1, version: 1 };
    refused(&plane.store, &scope_by_key(&owner, unknown), "KEY_INVALID").await;
    plane.member("ada@example.com", "acme", "tenant_admin").await;
    let other = scope_of(&plane.database, "ada@example.com", "acme").await;
    let credential = Credential::ApiKey { id, generation: 1, version: 1 };
    refused(&plane.store, &scope_by_key(&other, credential), "KEY_INVALID").await;

    // Changed, rotated, and past the overlap.
    change("version = 2").await;
    refused(&plane.store, &of(1, 1), "ACCESS_CHANGED").await;
    good(&of(1, 2)).await;
    change("version = 3, generation = 2, previous_expires_at = now() + interval '1 hour'").await;
    refused(&plane.store, &of(1, 2), "ACCESS_CHANGED").await;
    good(&of(1, 3)).await;
    good(&of(2, 3)).await;
    change("previous_expires_at = now() - interval '1 second'").await;
    refused(&plane.store, &of(1, 3), "KEY_INVALID").await;
    good(&of(2, 3)).await;
    for none in ["previous_expires_at = NULL", "version = 4, generation = 3, previous_expires_at = NULL"] {
        change(none).await;
        refused(&plane.store, &of(1, 3), "KEY_INVALID").await;
    }

    // Ended, or its owner has.
    good(&of(3, 4)).await;
    change("expires_at = now()").await;
    refused(&plane.store, &of(3, 4), "KEY_INVALID").await;
    change("expires_at = NULL").await;
    let member = format!("UPDATE iam.memberships SET state = 'STATE' WHERE id = '{}'", owner.user());
    for state in ["INACTIVE", "REMOVED"] {
        plane.database.execute(&member.replace("STATE", state)).await;
        refused(&plane.store, &of(3, 4), "MEMBERSHIP_INACTIVE").await;
    }
    plane.database.execute(&member.replace("STATE", "ACTIVE")).await;
    good(&of(3, 4)).await;
    plane.database.execute("UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE slug = 'acme'").await;
    refused(&plane.store, &of(3, 4), "ACCESS_CHANGED").await;
    plane.database.execute("DELETE FROM iam.api_keys").await;
    refused(&plane.store, &of(3, 4), "KEY_INVALID").await;
}

#[expect(clippy::disallowed_methods, reason = "the test plays the authorization layer, and one that is mistaken")]
fn scope_by_key(owner: &TenantScope, key: Credential) -> TenantScope {
    let account = account(owner).account();
    TenantScope::new(owner.tenant(), account, owner.user(), key, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_decision_rests_on_both_tenants() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    plane.tenant("rival").await;
    let operator = plane.operator().await;
    let switch = SwitchTenantRequest { tenant: "acme".to_owned(), reason: "to see whether it holds".to_owned() };
    operator.auth().switch_tenant(operator.request(switch)).await.expect("entered");
    // The member is the provider's, the tenant another, and the epoch is the sum of both.
    let scope_now = async |tenant: &str| {
        let query = format!(
            "SELECT concat_ws(' ', t.id, m.account_id, m.id, s.id, t.authz_epoch + home.authz_epoch) FROM iam.sessions s \
             JOIN iam.tenants home ON home.slug = 'provider' JOIN iam.tenants t ON t.slug = '{tenant}' \
             JOIN iam.memberships m ON m.tenant_id = home.id AND m.account_id = s.account_id WHERE s.support_tenant_id IS NOT NULL"
        );
        let row = texts(&plane.database, &query).await.pop().expect("a session");
        let ids: Vec<_> = row.split(' ').collect();
        scope(ids[0], ids[1], ids[2], ids[3], ids[4].parse().expect("a number"))
    };
    let good = scope_now("acme").await;
    assert_eq!(good.tenant().name(), acme.tokens.tenant);
    for opened in open(&plane.store, &good).await {
        opened.expect("the decision stands");
    }
    refused(&plane.store, &scope_now("rival").await, "SESSION_ENDED").await;
    refused(&plane.store, &scope_now("provider").await, "SESSION_ENDED").await;
    for slug in ["provider", "acme"] {
        let before = scope_now("acme").await;
        let raise = format!("UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE slug = '{slug}'");
        plane.database.execute(&raise).await;
        refused(&plane.store, &before, "ACCESS_CHANGED").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_cannot_write_in_sql_either() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    let good = scope_of(&plane.database, "admin@acme.example.com", "acme").await;
    // A policy that writes when a VM is read: queries that only read then write, in SQL, behind the types.
    plane
        .database
        .execute(
            "CREATE TABLE public.written (at timestamptz); GRANT INSERT ON public.written TO public; \
             CREATE FUNCTION public.write() RETURNS boolean LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO public.written VALUES (now()); RETURN true; END $$; \
             CREATE POLICY written ON iam.tenants AS RESTRICTIVE FOR SELECT TO virtualstack_tenant USING (public.write()); \
             CREATE POLICY written ON compute.virtual_machines AS RESTRICTIVE FOR SELECT TO virtualstack_tenant \
             USING (public.write()); \
             CREATE POLICY everything ON compute.virtual_machines TO virtualstack_tenant USING (true)",
        )
        .await;
    let vms = format!(
        "INSERT INTO compute.virtual_machines (tenant_id, id, display_name, state, cpu_count, memory_mib, disk_gib, template_id, \
         template_reference, template_display_name, guest_os, owner_id) VALUES ('{}', gen_random_uuid(), 'web-1', 'STOPPED', \
         1, 4, 1, gen_random_uuid(), '', '', '', '{}')",
        good.tenant(),
        good.user()
    );
    plane.database.execute(&vms).await;
    let request = ListRequest::default();
    let written =
        plane.store.write(&good, audit(&good), Ending::Commit, async |tx| vms::list(tx, &request, false).await).await;
    assert_eq!(written.expect("a write may write").rows.len(), 1);
    assert!(plane.database.count("SELECT count(*) FROM public.written").await > 0, "the policy does write");
    plane.database.execute("DELETE FROM public.written").await;
    let refused = plane.store.read(&good, async |tx| vms::list(tx, &request, false).await).await.expect_err("refused");
    let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("read-only transaction"), "{refused:?}");
    assert_eq!(plane.database.count("SELECT count(*) FROM public.written").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn query_functions_see_one_tenant_and_one_account() {
    let plane = ControlPlane::start().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let (mine, theirs) = (acme.running("web-1").await, rival.running("web-1").await);
    let good = scope_of(&plane.database, "admin@acme.example.com", "acme").await;
    let id = |name: &str| VmId::parse("name", name).expect("a name");
    let (mine, theirs) = (id(&mine.name), id(&theirs.name));
    let request = ListRequest::default();
    let (one, many, list) = plane
        .store
        .read(&good, async |tx| {
            let many = vms::get_many(tx, &[mine, theirs]).await?;
            Ok((vms::find(tx, theirs).await?, many, vms::list(tx, &request, true).await?.rows))
        })
        .await
        .expect("reads");
    assert!(one.is_none());
    assert_eq!(many.iter().map(|vm| vm.id).collect::<Vec<_>>(), [mine]);
    assert_eq!(list.iter().map(|vm| vm.id).collect::<Vec<_>>(), [mine]);
    let locked =
        plane.store.write(&good, audit(&good), Ending::Commit, async |tx| vms::find_locked(tx, theirs).await).await;
    assert!(locked.expect("a read").is_none());

    let request = ListRequest::default();
    let own = account(&good);
    let (me, entered) = plane
        .store
        .account(&own, async |tx| {
            Ok((users::me(tx, own.tenant()).await?, tenants::list_mine(tx, &request).await?.rows))
        })
        .await
        .expect("reads");
    assert_eq!(me.email, "admin@acme.example.com");
    assert_eq!(entered.iter().map(|tenant| tenant.slug.as_str()).collect::<Vec<_>>(), ["acme"]);
    let other = scope_of(&plane.database, "admin@rival.example.com", "rival").await;
    let foreign = plane.store.account(&own, async |tx| users::me(tx, other.tenant()).await.map(|_| ())).await;
    foreign.expect_err("not a member there");
}
