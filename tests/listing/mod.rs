//! Filters, orders, pages and totals of lists, against PostgreSQL: VMs, which have fields of every kind, and tenants.

mod buffers;
mod resources;
mod validate_only;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use virtualstack_model::compute::id::VmId;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::{Error, Result};
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::iam::tenants;
use virtualstack_store::iam::{accounts, users};
use virtualstack_store::tenant_life::{self, NewTenant};
use virtualstack_store::{ListRequest, Listed, Store, SystemPurpose};

use crate::support::{Database, system};

/// A tenant with VMs, and its store.
struct Fixture {
    database: Database,
    store: Store,
    tenant: TenantId,
    owner: UserId,
}

impl Fixture {
    async fn new() -> Self {
        let database = Database::new().await;
        let store = Store::new(&database.config).expect("a store");
        let (tenant, owner) = store
            .system(system(SystemPurpose::Bootstrap), async |tx| {
                let tenant = tenant_life::create(tx, &NewTenant::new("acme", "Acme")).await?.id;
                let account = accounts::ensure(tx, "ada@example.com", "Ada", None).await?.0;
                Ok((tenant, users::add_active(tx, tenant, account, "user").await?))
            })
            .await
            .expect("a tenant");
        Self { database, store, tenant, owner }
    }

    /// Inserts VMs: an expression for each of some columns, over the number `i` from `from` to `to`.
    async fn insert(&self, from: i32, to: i32, columns: &str, values: &str) {
        let Self { tenant, owner, .. } = self;
        // Ids as UUIDv7 have them: they rise with `i`.
        let statement = format!(
            "INSERT INTO compute.virtual_machines (tenant_id, id, owner_id, template_id, template_reference, \
             template_display_name, guest_os, memory_mib, disk_gib, {columns}) \
             SELECT '{tenant}', ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, '{owner}', '{TEMPLATE}', '', 'Ubuntu 24.04', 'ubuntu', \
             1024, 10, {values} FROM generate_series({from}, {to}) i"
        );
        self.database.execute(&statement).await;
    }

    async fn list(&self, request: &ListRequest, show_deleted: bool) -> Result<Listed<Vm>> {
        self.store
            .write_as_system(&system(SystemPurpose::Reconcile), self.tenant, "test", async |tx| {
                vms::list(tx, request, show_deleted).await
            })
            .await
    }

    /// Display names of what matches, in their own order.
    async fn matching(&self, filter: &str) -> Result<Vec<String>> {
        let request = ListRequest { filter: filter.to_owned(), show_total: true, ..Default::default() };
        let listed = self.list(&request, true).await?;
        assert_eq!(listed.total_size, Some(i32::try_from(listed.rows.len()).expect("few")), "{filter}");
        let mut names: Vec<_> = listed.rows.into_iter().map(|vm| vm.display_name).collect();
        names.sort();
        Ok(names)
    }

    /// The ids of all pages, in order; `between` runs before each next page.
    async fn walk(&self, order_by: &str, page_size: i32, between: impl AsyncFn(i32)) -> Vec<VmId> {
        let mut request = ListRequest { page_size, order_by: order_by.to_owned(), ..Default::default() };
        let mut ids = Vec::new();
        for page in 0.. {
            let listed = self.list(&request, false).await.unwrap_or_else(|error| panic!("{order_by}: {error}"));
            ids.extend(listed.rows.iter().map(|vm| vm.id));
            request.page_token = listed.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
            between(page).await;
        }
        ids
    }
}

const TEMPLATE: &str = "01900000-0000-7000-8000-00000000000a";

/// Six VMs, `i` from 1 to 6.
async fn six() -> Fixture {
    let fixture = Fixture::new().await;
    fixture
        .insert(
            1,
            6,
            "display_name, description, state, cpu_count, ip_addresses, labels, created_at, observed_at, observed_power_state",
            "(ARRAY['web-1', 'web-2', 'DB', '100%', 'a_b', 'Ä\\''\"*'])[i], \
             (ARRAY['front end', 'Front desk', '', 'axb', 'a\\b', 'x'])[i], \
             CASE WHEN i <= 2 THEN 'RUNNING' WHEN i <= 4 THEN 'STOPPED' ELSE 'ERROR' END, i, \
             CASE WHEN i = 1 THEN ARRAY['10.0.0.1', '10.0.0.2'] WHEN i = 2 THEN ARRAY['10.0.1.1'] ELSE '{}' END, \
             (ARRAY['{\"env\": \"prod\", \"app.io/tier\": \"web\"}', '{\"env\": \"test\"}', '{\"gone\": \"\"}', '{}', '{}', '{}'])[i]::jsonb, \
             '2026-01-01T00:00:00Z'::timestamptz + i * interval '1 day', \
             CASE WHEN i <= 2 THEN '2026-02-01T00:00:00Z'::timestamptz END, CASE WHEN i = 1 THEN 'ON' WHEN i = 2 THEN 'OFF' END",
        )
        .await;
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_what_they_say() {
    let fixture = six().await;
    let owner = fixture.owner.name();
    let all = ["100%", "DB", "a_b", "web-1", "web-2", "Ä\\'\"*"];
    let [percent, db, under, web1, web2, odd] = all;
    for (filter, expected) in [
        ("", &all[..]),
        // Text.
        ("displayName = web-1", &[web1]),
        ("displayName = WEB-1", &[web1]),
        ("displayName = web", &[]),
        ("displayName != web-1", &[percent, db, under, web2, odd]),
        ("displayName = \"web*\"", &[web1, web2]),
        ("displayName = *-2", &[web2]),
        ("displayName = \"*E*\"", &[web1, web2]),
        ("displayName:EB", &[web1, web2]),
        ("displayName:*", &all),
        ("description = \"\"", &[db]),
        ("description:*", &[percent, under, web1, web2, odd]),
        ("description:\"front end\"", &[web1]),
        // What LIKE and strings would read.
        ("displayName:%", &[percent]),
        ("displayName:_", &[under]),
        ("displayName = a_b", &[under]),
        ("description = a_b", &[]),
        (r"description = a\b", &[under]),
        (r"description:\", &[under]),
        (r#"displayName = "ä\\'\"\*""#, &[odd]),
        (r#"displayName:"\*""#, &[odd]),
        ("displayName = Ä*", &[odd]),
        // Words.
        ("state = RUNNING", &[web1, web2]),
        ("state:RUNNING", &[web1, web2]),
        ("state != RUNNING", &[percent, db, under, odd]),
        ("observedPowerState = ON", &[web1]),
        ("observedPowerState != ON", &[percent, db, under, web2, odd]),
        ("observedPowerState:*", &[web1, web2]),
        ("-observedPowerState:*", &[percent, db, under, odd]),
        // Numbers.
        ("cpuCount = 3", &[db]),
        ("cpuCount != 3", &[percent, under, web1, web2, odd]),
        ("cpuCount < 3", &[web1, web2]),
        ("cpuCount <= 3", &[db, web1, web2]),
        ("cpuCount > 5", &[odd]),
        ("cpuCount >= \"5\"", &[under, odd]),
        ("cpuCount > -9223372036854775808", &all),
        // Times.
        ("createTime < 2026-01-03T00:00:00Z", &[web1]),
        ("createTime <= 2026-01-03T01:00:00+01:00", &[web1, web2]),
        ("createTime = \"2026-01-03T00:00:00.000Z\"", &[web2]),
        ("createTime > 2026-01-06T00:00:00Z", &[odd]),
        ("observeTime >= 2026-01-01T00:00:00Z", &[web1, web2]),
        ("NOT observeTime >= 2026-01-01T00:00:00Z", &[percent, db, under, odd]),
        ("observeTime:*", &[web1, web2]),
        // Full names.
        (&format!("owner = {owner}"), &all),
        (&format!("owner != {owner}"), &[]),
        (&format!("template = templates/{TEMPLATE}"), &all),
        ("name = vms/01900000-0000-7000-8000-000000000003", &[db]),
        // Lists and maps.
        ("ipAddresses:10.0.0.2", &[web1]),
        ("ipAddresses:10.0.0", &[]),
        ("ipAddresses:10.0.*", &[web1, web2]),
        ("-ipAddresses:*", &[percent, db, under, odd]),
        ("labels.env = prod", &[web1]),
        ("labels.env:prod", &[web1]),
        ("labels.env != prod", &[percent, db, under, web2, odd]),
        ("labels.env = \"*\"", &[web1, web2]),
        ("labels:env", &[web1, web2]),
        ("labels:*", &[db, web1, web2]),
        ("labels.gone:*", &[db]),
        ("labels.gone = \"\"", &[db]),
        ("labels.app.io/tier = web", &[web1]),
        ("labels.\"app.io/tier\" = web", &[web1]),
        // Terms, in display name and description.
        ("FRONT", &[web1, web2]),
        ("front -desk", &[web1]),
        ("\"front d\"", &[web2]),
        ("f*d", &[web1, web2]),
        ("% OR x", &[percent, odd]),
        ("ä", &[odd]),
        // Together.
        ("web state = RUNNING AND cpuCount > 1", &[web2]),
        ("cpuCount = 1 OR cpuCount = 3 state = STOPPED", &[db]),
        ("(cpuCount = 1 AND state = RUNNING) OR state = ERROR", &[under, web1, odd]),
        ("NOT (state = RUNNING OR state = ERROR)", &[percent, db]),
        ("NOT (observedPowerState = ON OR observedPowerState = OFF)", &[percent, db, under, odd]),
    ] {
        let found = fixture.matching(filter).await.unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(found, expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_says_is_never_sql() {
    let fixture = six().await;
    for text in [
        "' OR true --",
        "x' OR '1'='1",
        "'; DROP TABLE compute.virtual_machines; --",
        "$1",
        "\\'; SELECT pg_sleep(10); --",
        "%' OR display_name LIKE '%",
        "\u{feff}\u{202e}\u{0001}",
    ] {
        let quoted = format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
        for filter in [
            quoted.clone(),
            format!("displayName = {quoted}"),
            format!("displayName:{quoted}"),
            format!("ipAddresses:{quoted}"),
            format!("labels.{quoted} = x"),
            format!("labels.env = {quoted}"),
            format!("labels:{quoted}"),
        ] {
            assert_eq!(fixture.matching(&filter).await.expect(&filter), [""; 0], "{filter}");
        }
        for filter in ["state", "cpuCount", "createTime", "owner"].map(|field| format!("{field} = {quoted}")) {
            refused(fixture.matching(&filter).await, "filter", "must be");
        }
        refused(fixture.matching(&format!("{quoted} = 1")).await, "filter", "there is no field");
        let request = ListRequest { order_by: text.to_owned(), ..Default::default() };
        refused(fixture.list(&request, false).await, "orderBy", "");
    }
    assert_eq!(fixture.matching("").await.expect("all").len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let fixture = six().await;
    for (filter, what) in [
        ("cpuCount > 1 shoeSize = 3", "at character 14: there is no field \"shoeSize\"; fields are displayName, "),
        ("display_name = x", "there is no field \"display_name\""),
        ("state.x = y", "there is no field \"state.x\""),
        ("tenantId = x", "there is no field"),
        ("state = SLEEPING", "state must be one of PROVISIONING, RUNNING, "),
        ("state = RUN*", "state must be one of"),
        ("state < RUNNING", "state does not take <, but = != :"),
        ("displayName > a", "displayName does not take >"),
        ("cpuCount = two", "cpuCount must be a whole number"),
        ("cpuCount > 9223372036854775808", "cpuCount must be a whole number"),
        ("createTime > yesterday", "createTime must be a time as in RFC 3339"),
        ("createTime > 99999-01-01T00:00:00Z", "createTime must be a time"),
        ("owner = ada", "owner must be a full name, users/{uuid}"),
        ("labels = x", "labels does not take =, but :"),
        ("ipAddresses = 10.0.0.1", "ipAddresses does not take ="),
        ("displayName = \"", "at character 15: the quote is not closed"),
        ("displayName = \"\0\"", "NUL"),
    ] {
        refused(fixture.matching(filter).await, "filter", what);
    }
    for (order_by, what) in [
        ("shoeSize", "cannot order by \"shoeSize\"; fields are displayName, state, "),
        ("labels", "cannot order by"),
        ("name", "cannot order by"),
        ("displayName down", "asc or desc"),
        ("displayName desc desc", "asc or desc"),
        ("displayName,", "cannot order by \"\""),
        ("displayName, displayName desc", "displayName stands twice"),
        ("displayName, state, cpuCount, diskGib", "at most 3"),
    ] {
        let request = ListRequest { order_by: order_by.to_owned(), ..Default::default() };
        refused(fixture.list(&request, false).await, "orderBy", what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_gives_every_row_once() {
    let fixture = many().await;
    let unicode = "display_name COLLATE \"und-x-icu\"";
    for (order_by, sql) in [
        ("", "id DESC".to_owned()),
        ("displayName", format!("{unicode}, id")),
        ("displayName desc", format!("{unicode} DESC, id DESC")),
        ("state", "state, id".to_owned()),
        ("cpuCount asc", "cpu_count, id".to_owned()),
        ("cpuCount desc", "cpu_count DESC, id DESC".to_owned()),
        ("memoryMib", "memory_mib, id".to_owned()),
        ("diskGib", "disk_gib, id".to_owned()),
        ("createTime", "created_at, id".to_owned()),
        ("updateTime desc", "updated_at DESC, id DESC".to_owned()),
        ("observeTime", "observed_at, id".to_owned()),
        ("observeTime desc", "observed_at DESC, id DESC".to_owned()),
        ("deleteTime", "deleted_at, id".to_owned()),
        ("purgeTime desc", "purge_at DESC, id DESC".to_owned()),
        (" state  desc , observeTime,cpuCount desc", "state DESC, observed_at, cpu_count DESC, id DESC".to_owned()),
        ("observeTime desc, createTime", "observed_at DESC, created_at, id".to_owned()),
    ] {
        let expected: Vec<VmId> = {
            use diesel_async::RunQueryDsl as _;
            #[derive(diesel::QueryableByName)]
            struct Row {
                #[diesel(sql_type = diesel::sql_types::Uuid)]
                id: uuid::Uuid,
            }
            let query = format!("SELECT id FROM compute.virtual_machines ORDER BY {sql}");
            let rows: Vec<Row> = diesel::sql_query(query).load(&mut fixture.database.admin().await).await.expect("ids");
            rows.into_iter().map(|row| VmId(row.id)).collect()
        };
        assert_eq!(expected.len(), 1200);
        let walked = fixture.walk(order_by, 97, async |_| ()).await;
        assert!(walked == expected, "{order_by:?}: {} rows, not in the order of {sql}", walked.len());
    }
}

/// 1,200 VMs with many ties and nulls.
async fn many() -> Fixture {
    let fixture = Fixture::new().await;
    fixture
        .insert(
            1,
            1200,
            "display_name, state, cpu_count, created_at, observed_at",
            "CASE WHEN i % 2 = 0 THEN 'Web-' ELSE 'wéb-' END || i * 7919 % 1200, \
             CASE WHEN i % 3 = 0 THEN 'RUNNING' ELSE 'STOPPED' END, i % 4 + 1, \
             '2026-01-01T00:00:00.123456Z'::timestamptz + i % 10 * interval '1 microsecond', \
             CASE WHEN i % 5 < 3 THEN '2026-01-01T00:00:00Z'::timestamptz + i % 3 * interval '1 second' END",
        )
        .await;
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_meanwhile_move_no_others() {
    let fixture = many().await;
    for (round, order_by) in ["", "displayName", "cpuCount desc", "observeTime"].into_iter().enumerate() {
        let before: BTreeSet<_> = fixture.walk("", 1000, async |_| ()).await.into_iter().map(|id| id.0).collect();
        let first = 10_000 + i32::try_from(round).expect("small") * 1000;
        let walked = fixture
            .walk(order_by, 100, async |page| {
                let i = first + page * 2;
                let columns = "display_name, state, cpu_count, observed_at";
                let values = "'w' || i, 'RUNNING', i % 4 + 1, CASE WHEN i % 2 = 0 THEN now() END";
                if page < 12 {
                    fixture.insert(i, i + 1, columns, values).await;
                }
            })
            .await;
        let once: BTreeSet<_> = walked.iter().map(|id| id.0).collect();
        assert_eq!(once.len(), walked.len(), "{order_by:?}: none twice");
        assert!(once.is_superset(&before), "{order_by:?}: none left out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_question_only() {
    let fixture = six().await;
    let first = ListRequest {
        page_size: 2,
        filter: "cpuCount > 1".to_owned(),
        order_by: "observeTime".to_owned(),
        ..Default::default()
    };
    let token = fixture.list(&first, false).await.expect("a page").next_page_token;
    let second = ListRequest { page_token: token.clone(), ..first.clone() };
    assert_eq!(fixture.list(&second, false).await.expect("a page").rows.len(), 2);
    // Another size or a wish for the total is the same question.
    let rest = ListRequest { page_size: 50, show_total: true, ..second.clone() };
    let rest = fixture.list(&rest, false).await.expect("a page");
    assert_eq!((rest.rows.len(), rest.total_size, rest.next_page_token.as_str()), (3, Some(5), ""));

    let question = "was given for another query";
    for other in [
        ListRequest { filter: "cpuCount > 2".to_owned(), ..second.clone() },
        ListRequest { filter: String::new(), ..second.clone() },
        ListRequest { order_by: "observeTime desc".to_owned(), ..second.clone() },
        ListRequest { order_by: String::new(), ..second.clone() },
        // What one field lends another makes no difference.
        ListRequest { filter: "cpuCount > 1observeTime".to_owned(), order_by: String::new(), ..second.clone() },
    ] {
        refused(fixture.list(&other, false).await, "pageToken", question);
    }
    refused(fixture.list(&second, true).await, "pageToken", question);
    let tenants = async |request: &ListRequest| {
        fixture
            .store
            .system(system(SystemPurpose::Bootstrap), async |tx| tenants::list_any(tx, request, true).await)
            .await
    };
    let plain = fixture.list(&ListRequest { page_size: 1, ..Default::default() }, false).await.expect("a page");
    let stolen = ListRequest { page_token: plain.next_page_token, ..Default::default() };
    refused(tenants(&stolen).await, "pageToken", question);

    // Keys that nobody was given.
    let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).expect("base64")).expect("JSON");
    let id = token["k"][1].clone();
    for keys in [
        json!([]),
        json!([null]),
        json!([null, null]),
        json!([null, id, id]),
        json!(["x", id]),
        json!([1, id]),
        json!([{"a": 1}, id]),
        json!([null, "\0"]),
        json!("x"),
    ] {
        let forged = json!({"k": keys, "b": token["b"]});
        let page_token = URL_SAFE_NO_PAD.encode(forged.to_string());
        let request = ListRequest { page_token, ..first.clone() };
        refused(fixture.list(&request, false).await, "pageToken", "is not a token of this list");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_counts_what_matches_on_every_page() {
    let fixture = many().await;
    fixture.database.execute("UPDATE compute.virtual_machines SET deleted_at = now() WHERE cpu_count = 1").await;
    let mut request =
        ListRequest { filter: "state = RUNNING".to_owned(), page_size: 5000, show_total: true, ..Default::default() };
    let deleted = fixture.list(&request, true).await.expect("a page");
    assert_eq!((deleted.rows.len(), deleted.total_size), (400, Some(400)));
    request.page_size = 299;
    let page = fixture.list(&request, false).await.expect("a page");
    assert_eq!((page.rows.len(), page.total_size), (299, Some(300)));
    request.page_token = page.next_page_token;
    let page = fixture.list(&request, false).await.expect("a page");
    assert_eq!((page.rows.len(), page.total_size, page.next_page_token.as_str()), (1, Some(300), ""));
    request = ListRequest { page_size: 5000, ..Default::default() };
    let page = fixture.list(&request, true).await.expect("a page");
    assert_eq!((page.rows.len(), page.total_size), (1000, None), "1000 at most, and no total unless it is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_listed_by_the_same() {
    let fixture = Fixture::new().await;
    let request = ListRequest {
        page_size: 2,
        filter: "-slug = acme state = ACTIVE".to_owned(),
        order_by: "displayName".to_owned(),
        show_total: true,
        ..Default::default()
    };
    let listed = fixture
        .store
        .system(system(SystemPurpose::Bootstrap), async |tx| {
            for (slug, name) in [("one", "zeta"), ("two", "Alpha"), ("three", "élan")] {
                tenant_life::create(tx, &NewTenant::new(slug, name)).await?;
            }
            tenants::list_any(tx, &request, true).await
        })
        .await
        .expect("a page");
    let names: Vec<_> = listed.rows.iter().map(|tenant| tenant.display_name.as_str()).collect();
    assert_eq!((names, listed.total_size), (vec!["Alpha", "élan"], Some(3)));
}

/// Holds that an answer is a refusal that names the field and says why.
fn refused<T>(answer: Result<T>, field: &str, what: &str) {
    let Err(error) = answer else { panic!("{field} was taken: {what}") };
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with(&format!("{field}: ")) && message.contains(what), "{message:?} for {what:?}");
}
