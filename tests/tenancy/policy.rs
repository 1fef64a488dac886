//! The policy stands beside the rpc: each has one, what has none is not reached, and the catalogue is what is seeded.

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

#[tokio::test(flavor = "multi_thread")]
async fn the_seeded_permissions_are_the_catalogue() {
    let plane = ControlPlane::without_worker().await;
    let seeded =
        texts(&plane.database, "SELECT concat_ws('|', code, title, description, module) FROM iam.permissions").await;
    let seeded: BTreeSet<_> = seeded.into_iter().collect();
    let declared: BTreeSet<_> = virtualstack_proto::permissions()
        .map(|known| [known.code, known.title, known.description, known.module].join("|"))
        .collect();
    let missing: Vec<_> = declared.difference(&seeded).collect();
    let stale: Vec<_> = seeded.difference(&declared).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "a migration must bring iam.permissions to what the .proto files say: missing {missing:#?}, stale {stale:#?}"
    );
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
        let wanted: BTreeSet<_> = SYSTEM_ROLES
            .iter()
            .filter(|role| !role.platform || tenant == "provider")
            .flat_map(|role| {
                let held = virtualstack_proto::permissions().filter(|permission| (role.grants)(permission.code));
                held.map(|permission| format!("{} {}", role.key, permission.code)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(found, wanted, "{tenant}");
        let described = format!(
            "SELECT concat_ws('|', r.display_name, r.description) FROM iam.tenant_roles r JOIN iam.tenants t ON t.id = r.tenant_id \
             WHERE t.slug = '{tenant}' ORDER BY 1"
        );
        let mut wanted: Vec<_> = SYSTEM_ROLES
            .iter()
            .filter(|role| !role.platform || tenant == "provider")
            .map(|role| format!("{}|{}", role.key, role.description))
            .collect();
        wanted.sort();
        assert_eq!(texts(&plane.database, &described).await, wanted, "{tenant}");
    }
}
