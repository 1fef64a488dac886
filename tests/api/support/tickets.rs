//! Tickets as members and as the provider's staff see them.

use serde_json::{Value, json};
use virtualstack_server::Config;

use crate::api::{idle_plane, refused, settled_vm};
use crate::support::{ControlPlane, Rest, Session};
use crate::tenancy::calls::texts;

/// What no tenant may ever see.
const PLANTED: &str = "PLANTED-among-staff";

pub(super) async fn call(rest: &Rest, method: &str, path: &str, body: Value) -> Value {
    let body = Some(body).filter(|body| !body.is_null());
    let (status, reply) = rest.call(method, &format!("/v1/{path}"), body).await;
    assert_eq!(status, 200, "{method} {path}: {reply}");
    reply
}

pub(super) async fn get(rest: &Rest, path: &str) -> Value {
    call(rest, "GET", path, Value::Null).await
}

/// A ticket that is written.
pub(super) async fn written(rest: &Rest, subject: &str) -> Value {
    call(rest, "POST", "tickets", json!({"subject": subject, "description": "Since noon.\nHelp!"})).await
}

pub(super) fn name(of: &Value) -> &str {
    of["name"].as_str().expect("a name")
}

/// A tenant with an admin, and a member who sees their own tickets.
pub(super) async fn world() -> (ControlPlane, Session, Session, Session) {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.tenant("acme").await;
    let member = plane.member("user@example.com", "acme", "user").await;
    let operator = plane.operator().await;
    (plane, admin, member, operator)
}

/// The name that operators know a ticket by.
pub(super) fn long(tenant: &Session, ticket: &Value) -> String {
    format!("{}/{}", tenant.tokens.tenant, name(ticket))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_written_answered_and_closed() {
    let (_plane, tenant, member, operator) = world().await;
    let (mine, staff) = (member.rest(), operator.rest());
    let ticket = written(&mine, "It hangs").await;
    assert_eq!(
        (&ticket["number"], &ticket["state"], &ticket["priority"]),
        (&json!(1), &json!("OPEN"), &json!("MEDIUM"))
    );
    assert_eq!((&ticket["description"], &ticket["desk"]["state"]), (&json!("Since noon.\nHelp!"), &json!("LOCAL")));
    assert_eq!(ticket["requester"], get(&mine, "users/me").await["name"]);
    let (path, long) = (name(&ticket).to_owned(), long(&tenant, &ticket));

    // The staff ask something.
    let seen = get(&staff, &long).await;
    assert_eq!((name(&seen), &seen["subject"]), (&*long, &json!("It hangs")));
    let pending = call(&staff, "PATCH", &long, json!({"state": "PENDING", "priority": "HIGH"})).await;
    assert_eq!((&pending["state"], &pending["priority"]), (&json!("PENDING"), &json!("HIGH")));
    let answer = call(&staff, "POST", &format!("{long}/comments"), json!({"body": "What did you do?"})).await;
    assert_eq!((&answer["author"], &answer["internal"]), (&json!("provider"), &json!(false)));
    assert_eq!(get(&mine, &path).await["state"], "PENDING", "an answer does not change the state");

    // The requester answers, which is the staff's turn.
    let comment = call(&mine, "POST", &format!("{path}/comments"), json!({"body": "Nothing."})).await;
    assert_eq!(comment["author"], ticket["requester"]);
    let open = get(&mine, &path).await;
    assert_eq!((&open["state"], &open["commentCount"]), (&json!("OPEN"), &json!(2)));
    let comments = get(&mine, &format!("{path}/comments?orderBy=createTime")).await["comments"].clone();
    let bodies: Vec<_> = comments.as_array().expect("comments").iter().map(|comment| &comment["body"]).collect();
    assert_eq!(bodies, ["What did you do?", "Nothing."]);
    assert_eq!(get(&mine, name(&comments[0])).await, comments[0]);

    // An operator takes it, and resolves it.
    let me = get(&staff, "users/me").await;
    let given = call(&staff, "PATCH", &long, json!({"assignee": me["name"], "state": "RESOLVED"})).await;
    assert_eq!(given["assignee"], me["name"]);
    let resolved = get(&mine, &path).await;
    assert_eq!((&resolved["assignee"], &resolved["assigneeDisplayName"]), (&json!(""), &me["displayName"]));
    assert!(resolved["resolveTime"].is_string() && resolved["closeTime"].is_null(), "{resolved}");

    let closed = call(&mine, "POST", &format!("{path}:close"), json!({})).await;
    assert!(closed["state"] == "CLOSED" && closed["closeTime"].is_string(), "{closed}");
    for (rest, method, at, body) in [
        (&mine, "POST", format!("{path}:close"), json!({})),
        (&mine, "POST", format!("{path}/comments"), json!({"body": "more"})),
        (&mine, "PATCH", path.clone(), json!({"subject": "other"})),
        (&staff, "PATCH", long.clone(), json!({"state": "OPEN"})),
        (&staff, "POST", format!("{long}/comments"), json!({"body": "more"})),
    ] {
        let reply = rest.call(method, &format!("/v1/{at}"), Some(body)).await;
        refused(&reply, 400, "FAILED_PRECONDITION", "TICKET_STATE");
    }
    let reopened = call(&mine, "POST", &format!("{path}:reopen"), json!({})).await;
    assert!(reopened["state"] == "OPEN" && reopened["closeTime"].is_null(), "{reopened}");
    let events =
        texts(&_plane.database, "SELECT reason FROM audit.changes WHERE resource LIKE 'tickets/%' ORDER BY position")
            .await;
    let expected = "CREATED UPDATED ANSWERED COMMENTED UPDATED CLOSED REOPENED";
    assert_eq!(events.join(" ").replace("TICKET_", ""), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_see_their_own_and_managers_the_tenants() {
    let (plane, tenant, member, _) = world().await;
    let other = plane.member("other@example.com", "acme", "user").await;
    let (admin, mine, others) = (tenant.rest(), member.rest(), other.rest());
    let ticket = written(&mine, "Mine").await;
    written(&others, "Theirs").await;
    written(&admin, "The admin's").await;
    let subjects = async |rest: &Rest, query: &str| {
        let listed = get(rest, &format!("tickets?orderBy=number&showTotal=true{query}")).await;
        let tickets = listed["tickets"].as_array().expect("tickets").clone();
        let subjects: Vec<_> =
            tickets.iter().map(|ticket| ticket["subject"].as_str().expect("text").to_owned()).collect();
        assert_eq!(listed["totalSize"], subjects.len());
        subjects
    };
    assert_eq!(subjects(&mine, "").await, ["Mine"]);
    assert_eq!(subjects(&others, "").await, ["Theirs"]);
    assert_eq!(subjects(&admin, "").await, ["Mine", "Theirs", "The admin's"]);
    let filter =
        format!("&filter=requester%3D%22{}%22", ticket["requester"].as_str().expect("a name").replace('/', "%2F"));
    assert_eq!(subjects(&admin, &filter).await, ["Mine"]);
    assert_eq!(subjects(&others, &filter).await, [""; 0], "nor by a filter");

    // Another's is none, in every verb.
    let comment = call(&mine, "POST", &format!("{}/comments", name(&ticket)), json!({"body": "more"})).await;
    let nothing = format!("tickets/{}", uuid::Uuid::now_v7());
    for (method, suffix, body) in [
        ("GET", "", Value::Null),
        ("PATCH", "", json!({"subject": "other"})),
        ("POST", ":close", json!({})),
        ("POST", ":reopen", json!({})),
        ("GET", "/comments", Value::Null),
        ("POST", "/comments", json!({"body": "more"})),
    ] {
        for at in [name(&ticket), &nothing] {
            let body = Some(body.clone()).filter(|body| !body.is_null());
            let reply = others.call(method, &format!("/v1/{at}{suffix}"), body).await;
            refused(&reply, 404, "NOT_FOUND", "TICKET_NOT_FOUND");
        }
    }
    let reply = others.call("GET", &format!("/v1/{}", name(&comment)), None).await;
    refused(&reply, 404, "NOT_FOUND", "TICKET_NOT_FOUND");
    call(&admin, "POST", &format!("{}:close", name(&ticket)), json!({})).await;

    // A page token is its member's.
    written(&mine, "Mine, too").await;
    let page = get(&mine, "tickets?pageSize=1").await;
    let token = page["nextPageToken"].as_str().expect("a token");
    get(&mine, &format!("tickets?pageSize=1&pageToken={token}")).await;
    let reply = others.call("GET", &format!("/v1/tickets?pageSize=1&pageToken={token}"), None).await;
    refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_staff_note_among_themselves_stays_there() {
    let (plane, tenant, member, operator) = world().await;
    let (admin, mine, staff) = (tenant.rest(), member.rest(), operator.rest());
    let ticket = written(&mine, "It hangs").await;
    let (path, long) = (name(&ticket).to_owned(), long(&tenant, &ticket));
    let before = get(&mine, &path).await;
    let position = "SELECT max(position) FROM audit.changes WHERE resource LIKE 'tickets/%'";
    let log = plane.database.count(position).await;
    let note = call(&staff, "POST", &format!("{long}/comments"), json!({"body": PLANTED, "internal": true})).await;
    assert_eq!((&note["internal"], &note["body"]), (&json!(true), &json!(PLANTED)));
    call(&staff, "POST", &format!("{long}/comments"), json!({"body": "An answer."})).await;
    assert_eq!(get(&staff, &long).await["commentCount"], 2);
    let comments = get(&staff, &format!("{long}/comments?filter=internal%3Dtrue")).await;
    assert_eq!(comments["comments"].as_array().map(Vec::len), Some(1), "{comments}");

    for rest in [&mine, &admin] {
        for at in ["tickets", &path, &format!("{path}/comments"), "tickets?filter=PLANTED", "vms", "operations"] {
            assert!(!get(rest, at).await.to_string().contains(PLANTED), "{at}");
        }
        let short = format!("{path}/comments/{}", note["uid"].as_str().expect("an id"));
        let reply = rest.call("GET", &format!("/v1/{short}"), None).await;
        refused(&reply, 404, "NOT_FOUND", "TICKET_COMMENT_NOT_FOUND");
        let reply = rest.call("GET", &format!("/v1/{path}/comments?filter=internal%3Dtrue"), None).await;
        refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        let body = Some(json!({"body": "x", "internal": true}));
        let reply = rest.call("POST", &format!("/v1/{path}/comments"), body).await;
        refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        let reply = rest.call("GET", &format!("/v1/{long}"), None).await;
        assert_eq!(reply.0, 403, "{reply:?}");
        assert_eq!(get(rest, &format!("{path}/comments?showTotal=true")).await["totalSize"], 1);
    }
    let after = get(&mine, &path).await;
    assert_eq!(after["commentCount"], 1);
    assert_eq!(plane.database.count(position).await, log + 1, "the answer, and nothing of the note");

    // The etag of a tenant does not move by a note, that of operators does.
    let (etag, staff_etag) = (after["etag"].clone(), get(&staff, &long).await["etag"].clone());
    call(&staff, "POST", &format!("{long}/comments"), json!({"body": PLANTED, "internal": true})).await;
    assert_eq!(get(&mine, &path).await, after);
    assert_ne!((&before["etag"], &staff_etag), (&etag, &get(&staff, &long).await["etag"]));

    // Whatever the tenant's role can read, it is not there.
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN \
        ('iam', 'compute', 'support', 'audit') AND has_table_privilege('virtualstack_tenant', \
        format('%I.%I', schemaname, tablename), 'SELECT')";
    for table in texts(&plane.database, tables).await {
        let planted = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{PLANTED}%'");
        assert_eq!(plane.database.count(&planted).await, 0, "{table}");
    }
    let kept = format!("SELECT count(*) FROM support.internal_comments WHERE body = '{PLANTED}'");
    assert_eq!(plane.database.count(&kept).await, 2, "it is somewhere, or this shows nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_keeps_what_was_known_of_what_it_is_about() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "ERROR").await;
    let operation = texts(&plane.database, "SELECT 'operations/' || id FROM compute.operations").await.remove(0);
    plane
        .database
        .execute(
            "UPDATE compute.virtual_machines SET state_reason = 'the host burns'; UPDATE compute.operations SET state = 'FAILED', \
             error_code = 14, error_reason = 'HYPERVISOR_FULL', error_message = 'no room'",
        )
        .await;
    let request = "SELECT request_id FROM audit.logs WHERE action LIKE '%CreateVm'";
    let request = texts(&plane.database, request).await.remove(0);
    let about =
        json!({"subject": "Help", "description": "It burns", "category": "INCIDENT", "vm": vm, "operation": operation});
    let ticket = call(&rest, "POST", "tickets", about).await;
    let facts = json!({
        "vm.displayName": "web-1", "vm.state": "ERROR", "vm.stateReason": "the host burns",
        "operation.verb": "CREATE", "operation.target": vm, "operation.state": "FAILED",
        "operation.reason": "HYPERVISOR_FULL", "operation.error": "no room", "operation.requestId": request,
    });
    assert_eq!((&ticket["facts"], &ticket["vm"], &ticket["operation"]), (&facts, &json!(vm), &json!(operation)));
    // Who may not read them learns nothing of them by a ticket.
    let key = json!({"displayName": "writes only", "permissions": ["ticket:create", "ticket:read"]});
    let key = call(&rest, "POST", "apiKeys", key).await;
    let by_key = Rest::with_key(&plane.http, key["secret"].as_str().expect("a secret"));
    for (field, value, reason) in [("vm", &vm, "VM_NOT_FOUND"), ("operation", &operation, "OPERATION_NOT_FOUND")] {
        let body = json!({"subject": "x", "description": "x", field: value});
        refused(&by_key.call("POST", "/v1/tickets", Some(body)).await, 404, "NOT_FOUND", reason);
    }
    for (field, value) in [("vm", "vms"), ("operation", "operations")] {
        let about = json!({"subject": "Help", "description": "x", field: format!("{value}/{}", uuid::Uuid::now_v7())});
        let reply = rest.call("POST", "/v1/tickets", Some(about)).await;
        assert_eq!(reply.0, 404, "{reply:?}");
    }
    assert_eq!(written(&rest, "The next").await["number"], 2, "what was refused has taken no number");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_by_field() {
    let (_plane, tenant, _, operator) = world().await;
    let (rest, staff) = (tenant.rest(), operator.rest());
    let ticket = written(&rest, "It hangs").await;
    let long = long(&tenant, &ticket);
    let ticket = |change: Value| {
        let mut ticket = json!({"subject": "Help", "description": "It burns"});
        ticket.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        ticket
    };
    for (wrong, field) in [
        (ticket(json!({"subject": ""})), "ticket.subject"),
        (ticket(json!({"subject": "two\nlines"})), "ticket.subject"),
        (ticket(json!({"subject": "x".repeat(201)})), "ticket.subject"),
        (ticket(json!({"description": ""})), "ticket.description"),
        (ticket(json!({"description": "x".repeat(20_001)})), "ticket.description"),
        (ticket(json!({"description": "bell \u{7}"})), "ticket.description"),
        (ticket(json!({"vm": "vms/x"})), "ticket.vm"),
        (ticket(json!({"operation": "vms/x"})), "ticket.operation"),
        (ticket(json!({"state": "CLOSED"})), "ticket.state"),
        (ticket(json!({"assignee": format!("users/{}", uuid::Uuid::nil())})), "ticket.assignee"),
    ] {
        let reply = rest.call("POST", "/v1/tickets", Some(wrong)).await;
        refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        assert!(reply.1.to_string().contains(&format!("\"{field}\"")), "{field}: {reply:?}");
    }
    let stranger = get(&rest, "users/me").await["name"].clone();
    for (wrong, field) in [(json!({"assignee": stranger}), "ticket.assignee"), (json!({"subject": "x"}), "updateMask")]
    {
        let mask = wrong.as_object().expect("an object").keys().next().expect("a field").clone();
        let reply = staff.call("PATCH", &format!("/v1/{long}?updateMask={mask}"), Some(wrong)).await;
        refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        assert!(reply.1.to_string().contains(field), "{field}: {reply:?}");
    }
    let nothing = format!("tickets/{}", uuid::Uuid::now_v7());
    for at in [
        format!("tenants/-/{nothing}"),
        "tenants/nobody/tickets".to_owned(),
        format!("{}/{nothing}", tenant.tokens.tenant),
    ] {
        assert_eq!(staff.call("GET", &format!("/v1/{at}"), None).await.0, 404, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_a_bound_of_tickets_and_comments() {
    let config = Config { max_open_tickets_per_tenant: 2, ticket_comments_per_tenant_per_hour: 3, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let tenant = plane.tenant("acme").await;
    let (rest, staff) = (tenant.rest(), plane.operator().await.rest());
    let (first, second) = (written(&rest, "one").await, written(&rest, "two").await);
    let third = json!({"subject": "three", "description": "x"});
    let reply = rest.call("POST", "/v1/tickets", Some(third.clone())).await;
    refused(&reply, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_TICKETS");
    let elsewhere = plane.tenant("rival").await.rest();
    assert_eq!(written(&elsewhere, "of another").await["number"], 1, "others are not held up");
    call(&rest, "POST", &format!("{}:close", name(&first)), json!({})).await;
    assert_eq!(call(&rest, "POST", "tickets", third).await["number"], 3, "without a gap");
    let reply = rest.call("POST", &format!("/v1/{}:reopen", name(&first)), Some(json!({}))).await;
    refused(&reply, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_TICKETS");
    assert_eq!(call(&staff, "POST", &format!("{}:reopen", long(&tenant, &first)), json!({})).await["state"], "OPEN");

    let comments = format!("{}/comments", name(&second));
    for _ in 0..3 {
        call(&rest, "POST", &comments, json!({"body": "more"})).await;
    }
    let reply = rest.call("POST", &format!("/v1/{comments}"), Some(json!({"body": "more"}))).await;
    refused(&reply, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_COMMENTS");
    call(&staff, "POST", &format!("{}/comments", long(&tenant, &second)), json!({"body": "enough"})).await;
}

/// Who closes each ticket at once meets a bound, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_writes_so_many_tickets_an_hour() {
    let config = Config { tickets_per_tenant_per_hour: 3, ticket_comments_per_tenant_per_hour: 5, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let rest = plane.tenant("acme").await.rest();
    let mut last = json!({});
    for _ in 0..3 {
        last = written(&rest, "again").await;
        call(&rest, "POST", &format!("{}:close", name(&last)), json!({})).await;
    }
    let body = json!({"subject": "again", "description": "x"});
    let reply = rest.call("POST", "/v1/tickets", Some(body)).await;
    refused(&reply, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_NEW_TICKETS");
    call(&rest, "POST", &format!("{}:reopen", name(&last)), json!({})).await;
    // However many come at once.
    let path = format!("/v1/{}/comments", name(&last));
    let comment = || rest.call("POST", &path, Some(json!({"body": "at once"})));
    let replies = futures::future::join_all(std::iter::repeat_with(comment).take(20)).await;
    assert_eq!(replies.iter().filter(|(status, _)| *status == 200).count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_have_no_gaps_however_many_write_at_once() {
    let (_plane, tenant, _, _) = world().await;
    let rest = tenant.rest();
    let write = |number: usize| {
        let rest = &rest;
        async move {
            // Every third is refused when all else is done.
            let vm = if number.is_multiple_of(3) { format!("vms/{}", uuid::Uuid::now_v7()) } else { String::new() };
            let body = json!({"subject": format!("at once {number}"), "description": "x", "vm": vm});
            rest.call("POST", "/v1/tickets", Some(body)).await.0
        }
    };
    let done = futures::future::join_all((0..24).map(write)).await;
    assert_eq!(done.iter().filter(|status| **status == 200).count(), 16, "{done:?}");
    let tickets = get(&rest, "tickets?orderBy=number").await["tickets"].clone();
    let numbers: Vec<_> = tickets.as_array().expect("tickets").iter().map(|ticket| ticket["number"].as_i64()).collect();
    assert_eq!(numbers, (1..=16).map(Some).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_list_the_tickets_of_all_tenants() {
    let (plane, tenant, _, operator) = world().await;
    let rival = plane.tenant("rival").await;
    let staff = operator.rest();
    let (ours, theirs) = (written(&tenant.rest(), "Ours").await, written(&rival.rest(), "Theirs").await);
    let names = async |at: &str| -> Vec<String> {
        let listed = get(&staff, at).await["tickets"].clone();
        listed.as_array().expect("tickets").iter().map(|ticket| name(ticket).to_owned()).collect()
    };
    let (ours, theirs) = (long(&tenant, &ours), long(&rival, &theirs));
    assert_eq!(names("tenants/-/tickets").await, [&*theirs, &*ours], "newest first");
    assert_eq!(names("tenants/acme/tickets").await, [&*ours], "by slug");
    assert_eq!(names("tenants/current/tickets").await, [""; 0], "the provider's own");
    call(&staff, "PATCH", &theirs, json!({"state": "PENDING"})).await;
    assert_eq!(names("tenants/-/tickets?filter=state%3DPENDING").await, [&*theirs]);
    let me = get(&staff, "users/me").await["name"].as_str().expect("a name").to_owned();
    call(&staff, "PATCH", &ours, json!({"assignee": me})).await;
    let filter = format!("assignee%3D%22{}%22", me.replace('/', "%2F"));
    assert_eq!(names(&format!("tenants/-/tickets?filter={filter}")).await, [&*ours]);
    let none = call(&staff, "PATCH", &format!("{ours}?updateMask=assignee"), json!({"assignee": ""})).await;
    assert_eq!((&none["assignee"], &none["assigneeDisplayName"]), (&json!(""), &json!("")));
    // Of two who have read the same one is refused.
    let etag = get(&staff, &ours).await["etag"].clone();
    let change = |state: &str| Some(json!({"state": state, "etag": etag}));
    let at = format!("/v1/{ours}?updateMask=state");
    let (one, other) =
        futures::join!(staff.call("PATCH", &at, change("PENDING")), staff.call("PATCH", &at, change("RESOLVED")));
    let mut both = [one.0, other.0];
    both.sort_unstable();
    assert_eq!(both, [200, 409], "{one:?} {other:?}");
}
