//! Policies and HTTP rules of services whose `.proto` files are not ours: long-running operations, health, reflection.

use crate::policy::{Policy, Scope};

/// An HTTP route of a vendored rpc, in the words of `google.api.HttpRule`.
#[derive(Clone, Copy, Debug)]
pub struct HttpRule {
    /// Full name of the method, "package.Service.Method".
    pub method: &'static str,
    pub verb: &'static str,
    pub path: &'static str,
    /// Field that the body fills, "*" for all, or none.
    pub body: &'static str,
}

/// Routes of vendored rpcs. They take the place of what the vendored file says: its ListOperations route
/// would take every path below /v1.
pub const HTTP_RULES: &[HttpRule] = &[
    HttpRule { method: "google.longrunning.Operations.ListOperations", verb: "GET", path: "/v1/operations", body: "" },
    HttpRule {
        method: "google.longrunning.Operations.GetOperation",
        verb: "GET",
        path: "/v1/{name=operations/*}",
        body: "",
    },
    HttpRule {
        method: "google.longrunning.Operations.DeleteOperation",
        verb: "DELETE",
        path: "/v1/{name=operations/*}",
        body: "",
    },
    HttpRule {
        method: "google.longrunning.Operations.CancelOperation",
        verb: "POST",
        path: "/v1/{name=operations/*}:cancel",
        body: "*",
    },
    HttpRule {
        method: "google.longrunning.Operations.WaitOperation",
        verb: "POST",
        path: "/v1/{name=operations/*}:wait",
        body: "*",
    },
];

const READ_OPERATIONS: Policy = Policy {
    scope: Scope::Tenant,
    permission: "operation:read",
    session_only: false,
    guessable: false,
    reads: true,
    collection: "operations",
};
const CANCEL_OPERATIONS: Policy = Policy { permission: "operation:cancel", reads: false, ..READ_OPERATIONS };
const PUBLIC: Policy = Policy { scope: Scope::Public, permission: "", collection: "", ..READ_OPERATIONS };

/// Policies of vendored rpcs, by path.
pub const POLICIES: &[(&str, Policy)] = &[
    ("/google.longrunning.Operations/ListOperations", READ_OPERATIONS),
    ("/google.longrunning.Operations/GetOperation", READ_OPERATIONS),
    ("/google.longrunning.Operations/WaitOperation", READ_OPERATIONS),
    ("/google.longrunning.Operations/CancelOperation", CANCEL_OPERATIONS),
    ("/google.longrunning.Operations/DeleteOperation", CANCEL_OPERATIONS),
    ("/grpc.health.v1.Health/Check", PUBLIC),
    ("/grpc.health.v1.Health/List", PUBLIC),
    ("/grpc.health.v1.Health/Watch", PUBLIC),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", PUBLIC),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", PUBLIC),
];

pub(crate) fn policy(path: &str) -> Option<Policy> {
    POLICIES.iter().find(|(known, _)| *known == path).map(|(_, policy)| *policy)
}
