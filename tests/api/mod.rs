//! The contract as clients see it, over gRPC, grpc-web and REST.

mod bad_input;
pub(crate) mod compute;
mod full_disk;
mod iam;
mod notifications;
mod operations;
mod story;
mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use virtualstack_worker::NoProbe;

use crate::support::{ControlPlane, Rest};
use crate::tenancy::calls::texts;

/// Status and JSON of a reply.
pub(crate) type Reply = (u16, Value);

/// A control plane where nobody works on jobs, with templates: what is asked for stays as it was asked for.
async fn idle_plane() -> ControlPlane {
    let plane = ControlPlane::without_worker().await;
    let worker = plane.work(Arc::new(NoProbe)).await;
    plane.templates().await;
    worker.drain().await;
    plane
}

/// Ends what is open as a worker would, with the VMs in a state and all snapshots there.
async fn settle(plane: &ControlPlane, state: &str) {
    plane
        .database
        .execute(&format!(
            "UPDATE compute.operations SET state = 'SUCCEEDED', ended_at = now() WHERE state IN ('OPEN', 'QUEUED'); \
             UPDATE compute.snapshots SET state = 'READY'; \
             UPDATE compute.virtual_machines SET state = '{state}', cpu_count = coalesce(desired_cpu_count, cpu_count), \
                memory_mib = coalesce(desired_memory_mib, memory_mib), disk_gib = coalesce(desired_disk_gib, disk_gib), \
                desired_cpu_count = NULL, desired_memory_mib = NULL, desired_disk_gib = NULL, \
                deleted_at = CASE WHEN '{state}' = 'DELETED' THEN now() END, \
                purge_at = CASE WHEN '{state}' = 'DELETED' THEN now() + interval '1 day' END; \
             DELETE FROM background_jobs.jobs WHERE queue = 'vm'"
        ))
        .await;
}

/// A VM of the demo tenant that nobody works on, in a state.
async fn settled_vm(plane: &ControlPlane, rest: &Rest, display_name: &str, state: &str) -> String {
    let body = json!({"displayName": display_name, "template": plane.templates().await});
    let (status, operation) = rest.call("POST", "/v1/vms", Some(body)).await;
    assert_eq!(status, 200, "{operation}");
    settle(plane, state).await;
    operation["metadata"]["target"].as_str().expect("a target").to_owned()
}

/// A digest of all that a mutation of VMs could write.
async fn all_rows(plane: &ControlPlane) -> Vec<String> {
    let tables = "SELECT schemaname || '.' || tablename || ' ' || \
        md5(query_to_xml(format('SELECT * FROM %I.%I', schemaname, tablename), true, false, '')::text) FROM pg_tables \
        WHERE schemaname IN ('compute', 'background_jobs', 'audit') OR tablename = 'request_ids' ORDER BY 1";
    texts(&plane.database, tables).await
}

/// Status and JSON of a request that says more than [`crate::support::Rest::call`] can.
async fn send(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.expect("a reply");
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
    assert_eq!(kind.as_deref(), Some("application/json"));
    assert!(response.headers().contains_key("x-request-id"), "every reply has a request id");
    (status, response.json().await.expect("JSON"))
}

/// The token in a mail, which stands by itself on a line.
fn token_of(mail: &str) -> String {
    let tokens: Vec<_> = mail.lines().filter(|line| line.starts_with("vsi_") || line.starts_with("vsp_")).collect();
    let [token] = tokens[..] else { panic!("not one token in {mail}") };
    assert!(mail.contains(&format!("#token={token}\n")), "a link with the token too: {mail}");
    token.to_owned()
}

/// Rows of any table, in any database column, that hold a text.
async fn rows_with(plane: &ControlPlane, text: &str) -> i64 {
    let rows = format!(
        "SELECT count(*) FROM pg_tables WHERE schemaname IN ('iam', 'compute', 'background_jobs', 'audit') \
         AND query_to_xml(format('SELECT * FROM %I.%I', schemaname, tablename), true, false, '')::text LIKE '%{text}%'"
    );
    plane.database.count(&rows).await
}

/// Holds a reply against the contract's form of an error; the fields that its BadRequest names.
#[track_caller]
pub(crate) fn refused(reply: &Reply, http: u16, status: &str, reason: &str) -> Vec<String> {
    let (code, body) = reply;
    let error = &body["error"];
    let details = error["details"].as_array().unwrap_or_else(|| panic!("an error with details, not {code} {body}"));
    let of_type = |name: &str| {
        let name = format!("type.googleapis.com/google.rpc.{name}");
        details.iter().find(move |detail| detail["@type"] == name.as_str())
    };
    let info = of_type("ErrorInfo").unwrap_or_else(|| panic!("no ErrorInfo: {body}"));
    let got = (*code, &error["code"], error["status"].as_str(), info["reason"].as_str());
    assert_eq!(got, (http, &json!(http), Some(status), Some(reason)), "{body}");
    assert_eq!(info["domain"], "virtualstack", "{body}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "nothing beside the error: {body}");
    let violations = of_type("BadRequest").and_then(|detail| detail["fieldViolations"].as_array());
    let violations = violations.into_iter().flatten().map(|violation| {
        assert!(violation["description"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        violation["field"].as_str().expect("a field").to_owned()
    });
    violations.collect()
}
