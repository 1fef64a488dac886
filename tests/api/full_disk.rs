//! A database that answers and takes no writes: its disk is full, or it is read-only.

use serde_json::{Value, json};

use super::{idle_plane, refused};
use crate::support::{ControlPlane, Rest};

/// What the gateway says of itself.
async fn readiness(plane: &ControlPlane) -> (u16, Value) {
    Rest::new(&plane.http, None).call("GET", "/readyz", None).await
}

/// Reads are answered, a write is refused for this reason, and so is the next round of traffic.
async fn takes_no_writes(plane: &ControlPlane, rest: &Rest, template: &str, reason: &str) {
    let body = json!({"displayName": reason.to_lowercase().replace('_', "-"), "template": template});
    let reply = rest.call("POST", "/v1/vms", Some(body)).await;
    refused(&reply, 503, "UNAVAILABLE", reason);
    let details = reply.1["error"]["details"].as_array().expect("details").clone();
    assert!(details.iter().any(|detail| !detail["retryDelay"].is_null()), "{details:?}");
    assert_eq!(rest.call("GET", "/v1/vms", None).await.0, 200);
    let (status, ready) = readiness(plane).await;
    assert_eq!(status, 503, "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_makes_the_server_unready() {
    let plane = idle_plane().await;
    let template = plane.templates().await;
    let rest = plane.admin().await.rest();
    assert_eq!(readiness(&plane).await.0, 200);
    // As PostgreSQL says it where a table has no room to grow.
    plane
        .database
        .execute(
            "CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION \
                 'could not extend file \"base/16384/16390\": No space left on device' \
                 USING ERRCODE = 'disk_full', HINT = 'Check free disk space.'; END $$; \
             CREATE TRIGGER full_disk BEFORE INSERT ON compute.virtual_machines \
                 FOR EACH ROW EXECUTE FUNCTION public.full_disk()",
        )
        .await;
    takes_no_writes(&plane, &rest, &template, "DATABASE_FULL").await;
    let (_, ready) = readiness(&plane).await;
    assert!(ready["reason"].as_str().is_some_and(|reason| reason.contains("disk is full")), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_told_and_makes_the_server_unready() {
    let plane = idle_plane().await;
    let template = plane.templates().await;
    let rest = plane.admin().await.rest();
    // New connections are read-only, and there are only new ones.
    plane
        .database
        .execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); \
                 PERFORM pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid(); END $$",
        )
        .await;
    takes_no_writes(&plane, &rest, &template, "DATABASE_READ_ONLY").await;
}
