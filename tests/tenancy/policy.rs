//! The policy stands beside the rpc: each has one, what has none is not reached, and the catalogue is what the database has.

use std::collections::BTreeSet;

use prost::bytes::Bytes;
use tonic::Code;
use virtualstack_model::iam::user::SYSTEM_ROLES;
use virtualstack_proto::{DESCRIPTOR_POOL, POLICIES, Scope, policy, vendored};

use super::calls::{call_raw, path, rpcs, texts};
use crate::support::{ControlPlane, reason};

#[test]
fn every_rpc_has_a_policy() {
    let codes: BTreeSet<_> = virtualstack_proto::permissions().map(|permission| permission.code).collect();
    for rpc in rpcs() {
        let path = path(&rpc);
        let Some(policy) = policy(&path) else {
            panic!("{path} has no policy: a vendored rpc needs a row in proto/src/vendored.rs")
        };
        match policy.scope {
            Scope::Tenant | Scope::Platform => assert!(codes.contains(policy.permission), "{path}: {policy:?}"),
            Scope::Account => assert!(policy.permission.is_empty() || codes.contains(policy.permission), "{path}"),
            Scope::Public => assert_eq!(policy.permission, "", "{path}"),
        }
        assert_eq!(policy.scope == Scope::Platform, policy.permission.starts_with("platform:"), "{path}: {policy:?}");
    }
}

#[test]
fn no_policy_is_of_an_rpc_that_is_gone() {
    for (path, _) in POLICIES.iter().chain(vendored::POLICIES) {
        let (service, method) = path.trim_start_matches('/').split_once('/').expect("a path");
        // Health and reflection are served from files that are not in our set.
        if service.starts_with("grpc.") {
            continue;
        }
        let found = DESCRIPTOR_POOL.get_service_by_name(service);
        assert!(found.is_some_and(|service| service.methods().any(|known| known.name() == method)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_policy_is_not_reached() {
    let plane = ControlPlane::without_worker().await;
    let operator = plane.operator().await;
    for path in [
        "/virtualstack.compute.v1.VmService/Unknown",
        "/virtualstack.compute.v2.VmService/ListVms",
        "/virtualstack.compute.v1.VmService/ListVms/",
        "/virtualstack.compute.v1.VmService/listVms",
        "//virtualstack.compute.v1.VmService/ListVms",
        "/google.longrunning.Operations/Unknown",
        "/grpc.health.v1.Health/Unknown",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/",
    ] {
        for token in [None, Some(operator.tokens.access_token.as_str())] {
            let status = call_raw(&operator.channel, token, path, Bytes::new()).await.expect_err(path);
            // The reason is the authorization layer's: tonic's own answer to an unknown path has none.
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "METHOD_UNKNOWN"), "{path}");
        }
    }
}

/// Public rpcs that need not be counted by address, and why.
const NOT_GUESSABLE: &[(&str, &str)] = &[(
    "/virtualstack.support.v1.DeskWebhookService/ReceiveDeskWebhook",
    "its secrets are too long to guess, and a busy desk has one address",
)];

#[test]
fn what_everybody_may_call_is_counted_by_address() {
    for (path, policy) in POLICIES.iter().filter(|(_, policy)| policy.scope == Scope::Public) {
        let excused = NOT_GUESSABLE.iter().any(|(known, _)| known == path);
        assert_ne!(
            policy.guessable, excused,
            "{path}: a public rpc is guessable, unless NOT_GUESSABLE in tests/tenancy/policy.rs says why it is not"
        );
    }
}

/// What holds for every permission, those to come included.
#[test]
fn every_permission_is_held_as_the_rules_say() {
    let keys: Vec<_> = SYSTEM_ROLES.iter().map(|role| role.key).collect();
    for permission in virtualstack_proto::permissions() {
        let (code, roles) = (permission.code, permission.roles);
        let unknown: Vec<_> = roles.iter().filter(|role| !keys.contains(role)).collect();
        assert!(unknown.is_empty(), "{code}: no system role is called {unknown:?}");
        let platform = code.starts_with("platform:");
        assert_eq!(roles.contains(&"tenant_admin"), !platform, "{code}: tenant_admin holds all but the platform's");
        let own = matches!(code, "session:read" | "session:revoke");
        assert_eq!(roles.contains(&"platform_admin"), platform || own, "{code}: platform_admin holds the platform's");
        let works = ["platform:tenant:enter", "platform:ticket:update"].contains(&code);
        let helps = own || works || (platform && code.ends_with(":read"));
        assert_eq!(roles.contains(&"platform_support"), helps, "{code}: platform_support sees, enters and answers");
        for role in SYSTEM_ROLES.iter().filter(|role| !role.platform && roles.contains(&role.key)) {
            assert!(!platform, "{code}: {} is a role of tenants", role.key);
        }
        assert!(!own || roles.len() == keys.len(), "{code}: everybody may end their own sessions");
        assert!(!roles.contains(&"viewer") || code.ends_with(":read") || own, "{code}: a viewer only sees");
        assert!(!roles.contains(&"viewer") || roles.contains(&"user"), "{code}: a user sees what a viewer sees");
    }
}

/// The catalogue as the database has it.
async fn kept_catalogue(plane: &ControlPlane) -> BTreeSet<String> {
    let row = "concat_ws('|', code, title, description, module, array_to_string(roles, ','))";
    texts(&plane.database, &format!("SELECT {row} FROM iam.permissions")).await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kept_permissions_are_the_catalogue() {
    let plane = ControlPlane::without_worker().await;
    let declared: BTreeSet<_> = virtualstack_proto::permissions()
        .map(|known| {
            [known.code, known.title, known.description, known.module, known.roles.join(",").as_str()].join("|")
        })
        .collect();
    assert_eq!(kept_catalogue(&plane).await, declared);

    // What another release has left: a code that is gone, in a custom role and in a system role, other words, and a system
    // role that holds more and less than it should.
    let acme = plane.tenant("acme").await;
    let role = serde_json::json!({"displayName": "helpers", "permissions": ["vm:read"]});
    assert_eq!(acme.rest().call("POST", "/v1/roles", Some(role)).await.0, 200);
    let held = "SELECT concat_ws(' ', t.slug, r.display_name, p.permission) FROM iam.tenant_role_permissions p \
        JOIN iam.tenant_roles r ON r.tenant_id = p.tenant_id AND r.id = p.role_id JOIN iam.tenants t ON t.id = p.tenant_id";
    let mut before = texts(&plane.database, held).await;
    let epochs = "SELECT slug || ' ' || authz_epoch FROM iam.tenants ORDER BY slug";
    let epochs_before = texts(&plane.database, epochs).await;
    plane
        .database
        .execute(
            "INSERT INTO iam.permissions VALUES ('vm:fly', 'Fly', 'Let VMs fly.', 'compute', '{user}'); \
             UPDATE iam.permissions SET title = 'Old', roles = '{}' WHERE code = 'vm:read'; \
             INSERT INTO iam.tenant_role_permissions SELECT tenant_id, id, code FROM iam.tenant_roles, \
                unnest(ARRAY['vm:fly']) code WHERE display_name = 'helpers'; \
             INSERT INTO iam.tenant_role_permissions SELECT r.tenant_id, r.id, 'vm:create' FROM iam.tenant_roles r \
                JOIN iam.tenants t ON t.id = r.tenant_id WHERE t.slug = 'demo' AND r.display_name = 'viewer'; \
             DELETE FROM iam.tenant_role_permissions WHERE permission = 'vm:start'",
        )
        .await;
    virtualstack_server::update_permissions(&plane.store).await.expect("an upgrade");
    assert_eq!(kept_catalogue(&plane).await, declared);
    let mut after = texts(&plane.database, held).await;
    before.sort();
    after.sort();
    assert_eq!(after, before, "system roles hold what the catalogue says, and custom roles what is left of theirs");
    let raised: Vec<_> =
        texts(&plane.database, epochs).await.into_iter().filter(|now| !epochs_before.contains(now)).collect();
    let raised: Vec<_> = raised.iter().filter_map(|row| row.split(' ').next()).collect();
    assert_eq!(raised, ["acme", "demo"], "whoever lost something is decided anew");
    virtualstack_server::update_permissions(&plane.store).await.expect("a start");
    assert_eq!(kept_catalogue(&plane).await, declared);
}

#[tokio::test(flavor = "multi_thread")]
async fn system_roles_are_those_of_the_list_in_every_tenant() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    for tenant in ["provider", "demo", "acme"] {
        let query = format!(
            "SELECT concat_ws(' ', r.display_name, p.permission) FROM iam.tenant_roles r JOIN iam.tenants t ON t.id = r.tenant_id \
             LEFT JOIN iam.tenant_role_permissions p ON p.tenant_id = r.tenant_id AND p.role_id = r.id \
             WHERE t.slug = '{tenant}' AND r.system"
        );
        let found: BTreeSet<_> = texts(&plane.database, &query).await.into_iter().collect();
        let desired: BTreeSet<_> = SYSTEM_ROLES
            .iter()
            .filter(|role| !role.platform || tenant == "provider")
            .flat_map(|role| {
                let held = virtualstack_proto::permissions().filter(|permission| permission.roles.contains(&role.key));
                held.map(|permission| format!("{} {}", role.key, permission.code)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(found, desired, "{tenant}");
        let described = format!(
            "SELECT concat_ws('|', r.display_name, r.description) FROM iam.tenant_roles r JOIN iam.tenants t ON t.id = r.tenant_id \
             WHERE t.slug = '{tenant}' ORDER BY 1"
        );
        let mut desired: Vec<_> = SYSTEM_ROLES
            .iter()
            .filter(|role| !role.platform || tenant == "provider")
            .map(|role| format!("{}|{}", role.key, role.description))
            .collect();
        desired.sort();
        assert_eq!(texts(&plane.database, &described).await, desired, "{tenant}");
    }
}
