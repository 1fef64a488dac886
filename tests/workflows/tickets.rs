//! What becomes of tickets by itself.

use serde_json::json;
use virtualstack_model::support::jobs::TicketClosing;
use virtualstack_store::SystemPurpose;

use super::{behind, quick};
use crate::support::system;

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_was_resolved_long_ago_is_closed() {
    let (plane, tenant) = behind(quick(), |_, _| Ok(())).await;
    let (rest, staff) = (tenant.rest(), plane.operator().await.rest());
    let mut tickets = Vec::new();
    for subject in ["resolved long ago", "resolved now", "opened again"] {
        let body = json!({"subject": subject, "description": "Help"});
        let (_, ticket) = rest.call("POST", "/v1/tickets", Some(body)).await;
        let name = ticket["name"].as_str().expect("a name").to_owned();
        let long = format!("/v1/{}/{name}", tenant.tokens.tenant);
        assert_eq!(staff.call("PATCH", &long, Some(json!({"state": "RESOLVED"}))).await.0, 200);
        tickets.push(name);
    }
    let long_ago =
        "UPDATE support.tickets SET resolved_at = now() - interval '15 days' WHERE subject <> 'resolved now'";
    plane.database.execute(long_ago).await;
    let reopen = rest.call("POST", &format!("/v1/{}:reopen", tickets[2]), Some(json!({}))).await;
    assert_eq!(reopen.1["state"], "OPEN");
    let signal = plane.store.system(system(SystemPurpose::Reconcile), async |tx| tx.activate::<TicketClosing>().await);
    signal.await.expect("activated");
    super::tasks::becomes(&plane, "SELECT count(*) FROM support.tickets WHERE state = 'CLOSED'", 1).await;
    let closed = rest.call("GET", &format!("/v1/{}", tickets[0]), None).await.1;
    assert!(closed["state"] == "CLOSED" && closed["closeTime"].is_string(), "{closed}");
    assert_eq!(rest.call("GET", &format!("/v1/{}", tickets[1]), None).await.1["state"], "RESOLVED");
    assert_eq!(plane.database.count("SELECT open_tickets::bigint FROM support.ticket_usage").await, 2);
}
