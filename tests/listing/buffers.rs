//! What a page of VMs or events costs does not grow with how many there are: at 1,000,000 it touches the buffers that it
//! touches at 10,000, but for the levels that the indexes have grown by.
//!
//! The plans are those of the statements that the store sends, as the tenant's role, told by auto_explain.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use virtualstack_model::compute::id::VmId;
use virtualstack_store::compute::vms;
use virtualstack_store::{ListRequest, Store, SystemPurpose};

use super::{Fixture, TEMPLATE};
use crate::support::plans::buffers;
use crate::support::system;

const FEW: i32 = 10_000;
const MANY: i32 = 1_000_000;

/// The levels that a B-tree grows by from 10,000 rows to 1,000,000, and a page more where rows lie across an edge.
const GROWTH: i64 = 3;

/// A list, the filter and order that it is asked for, the keys of the row before a page in the midst, and how many rows
/// a page of ten has at most.
struct Question {
    of: List,
    filter: &'static str,
    order_by: &'static str,
    /// Of VM or event number `n`.
    keys: fn(i32) -> Value,
    rows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum List {
    Vms,
    Events,
}

/// A template that few VMs are of.
const OTHER: &str = "01900000-0000-7000-8000-00000000000b";

const NO_OWNER: &str = "owner = users/01900000-0000-7000-8000-00000000000b";

const fn vms(filter: &'static str, order_by: &'static str, keys: fn(i32) -> Value) -> Question {
    Question { of: List::Vms, filter, order_by, keys, rows: 10 }
}

const fn events(filter: &'static str, order_by: &'static str) -> Question {
    Question { of: List::Events, filter, order_by, keys: |n| json!([n]), rows: 10 }
}

const QUESTIONS: &[Question] = &[
    vms("", "", |n| json!([id(n)])),
    vms("", "displayName", |n| json!([name(n), id(n)])),
    vms("", "createTime desc", |n| json!([time(n), id(n)])),
    vms("state = ERROR", "", |n| json!([id(n)])),
    vms("state = RUNNING", "", |n| json!([id(n)])),
    vms("template = templates/01900000-0000-7000-8000-00000000000b", "", |n| json!([id(n)])),
    Question { rows: 0, ..vms(NO_OWNER, "", |n| json!([id(n)])) },
    Question { rows: 1, ..vms("displayName = VM-0004999", "", |n| json!([id(n)])) },
    vms("displayName = \"Vm-000499*\"", "", |n| json!([id(n)])),
    vms("displayName = \"vm-0*\"", "displayName", |n| json!([name(n), id(n)])),
    events("", ""),
    events("", "createTime"),
    events("reason = VM_FAILED", ""),
    Question { rows: 0, ..events("reason = VM_NEVER", "") },
];

fn id(n: i32) -> String {
    format!("01900000-0000-7000-8000-{n:012x}")
}

fn name(n: i32) -> String {
    format!("vm-{n:07}")
}

fn time(n: i32) -> String {
    let time = chrono::DateTime::from_timestamp(i64::from(n), 0).expect("a time");
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// The VM that all events are of.
fn vm() -> VmId {
    VmId(uuid::Uuid::parse_str(&id(1)).expect("an id"))
}

impl Fixture {
    /// VMs and events from number `from` to `to`. Those in ERROR, of another template or failed lie evenly among the
    /// others, as many of them at each size. Indexes are made anew, which is quicker than to fill them row by row.
    async fn grow(&self, from: i32, to: i32) {
        let Self { tenant, owner, .. } = self;
        let (owner, vm) = (owner.0, vm().name());
        let mark = format!("i % {} = 7", to / 100);
        let vms = format!(
            "INSERT INTO compute.virtual_machines (tenant_id, id, owner_id, template_id, template_reference, \
                 template_display_name, guest_os, memory_mib, disk_gib, display_name, state, cpu_count, created_at) \
             SELECT '{tenant}', ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, '{owner}', \
                 CASE WHEN {mark} THEN '{OTHER}' ELSE '{TEMPLATE}' END::uuid, '', 'Ubuntu 24.04', 'ubuntu', 1024, 10, \
                 'vm-' || lpad(i::text, 7, '0'), CASE WHEN {mark} THEN 'ERROR' ELSE 'RUNNING' END, 1, to_timestamp(i) \
             FROM generate_series({from}, {to}) i"
        );
        let changes = format!(
            "INSERT INTO audit.changes (tenant_id, position, resource, reason, message, state, actor, created_at) \
             SELECT '{tenant}', i, '{vm}', CASE WHEN {mark} THEN 'VM_FAILED' ELSE 'VM_STARTED' END, 'It was started', \
                 'RUNNING', 'system', to_timestamp(i) \
             FROM generate_series({from}, {to}) i"
        );
        tokio::join!(self.fill("compute.virtual_machines", &vms), self.fill("audit.changes", &changes));
    }

    async fn fill(&self, table: &str, insert: &str) {
        let statements = format!(
            "CREATE TEMP TABLE indexes AS SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition \
                 FROM pg_index WHERE indrelid = '{table}'::regclass AND NOT indisprimary; \
             DO $$ DECLARE one record; BEGIN \
                 FOR one IN SELECT * FROM indexes LOOP EXECUTE 'DROP INDEX ' || one.name; END LOOP; \
             END $$; \
             ALTER TABLE {table} DISABLE TRIGGER ALL, SET (autovacuum_enabled = off); \
             {insert}; \
             SET maintenance_work_mem = '128MB'; \
             DO $$ DECLARE one record; BEGIN \
                 FOR one IN SELECT * FROM indexes LOOP EXECUTE one.definition; END LOOP; \
             END $$; \
             DROP TABLE indexes; RESET maintenance_work_mem;"
        );
        self.database.execute(&statements).await;
        self.database.execute(&format!("VACUUM ANALYZE {table}")).await;
    }

    async fn page(&self, store: &Store, question: &Question, page_token: String) -> (usize, String) {
        let request = ListRequest {
            page_size: 10,
            page_token,
            filter: question.filter.to_owned(),
            order_by: question.order_by.to_owned(),
            show_total: false,
        };
        let page = async |tx: &mut _| match question.of {
            List::Vms => vms::list(tx, &request, false).await.map(|page| (page.rows.len(), page.next_page_token)),
            List::Events => {
                vms::list_events(tx, &request, vm()).await.map(|page| (page.rows.len(), page.next_page_token))
            }
        };
        store
            .write_as_system(&system(SystemPurpose::Reconcile), self.tenant, "test", page)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", question.filter))
    }

    /// The plan of the list's statement among what was logged since, with the buffers that it touched.
    async fn plan(&self, question: &Question, since: i64) -> (i64, String) {
        let relation = if question.of == List::Vms { "virtual_machines" } else { "changes" };
        let is_page = |text: &str, plan: &Value| {
            let of_tenant = text.contains(&self.tenant.to_string());
            of_tenant && text.contains(&format!("\"Relation Name\": \"{relation}\"")) && plan["Node Type"] == "Limit"
        };
        let began = Instant::now();
        loop {
            if let Some(plan) = self.database.plans(since, is_page).await.pop() {
                return (buffers(&plan), scans(&plan));
            }
            assert!(began.elapsed() < Duration::from_secs(30), "no plan of {} is logged", question.filter);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the first page of a question touches, and one in the midst; the least of some tries, since the first ones
    /// read the catalogue and tidy pages up.
    async fn touched(&self, store: &Store, question: &Question, size: i32) -> [(i64, String); 2] {
        let mut least = [(i64::MAX, String::new()), (i64::MAX, String::new())];
        for _ in 0..3 {
            let since = self.database.end_of_log().await;
            let (rows, token) = self.page(store, question, String::new()).await;
            assert_eq!(rows, question.rows, "{} {}", question.filter, question.order_by);
            least[0] = self.plan(question, since).await.min(std::mem::take(&mut least[0]));
            // Tokens are bound to the question, so the one of the first page is made to go on elsewhere.
            if token.is_empty() {
                continue;
            }
            let mut token: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).expect("base64")).expect("JSON");
            token["k"] = (question.keys)(size / 2);
            let since = self.database.end_of_log().await;
            let (rows, _) = self.page(store, question, URL_SAFE_NO_PAD.encode(token.to_string())).await;
            assert_eq!(rows, 10, "{} {}", question.filter, question.order_by);
            least[1] = self.plan(question, since).await.min(std::mem::take(&mut least[1]));
        }
        least
    }
}

/// The ways that a plan reads tables.
fn scans(plan: &Value) -> String {
    let below = plan["Plans"].as_array().into_iter().flatten().map(scans).filter(|scans| !scans.is_empty());
    let here = plan["Node Type"].as_str().filter(|node| node.contains("Scan"));
    let here = here.map(|node| format!("{node} {}", plan["Index Name"].as_str().unwrap_or_default()));
    here.into_iter().chain(below).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_million_touches_what_one_of_ten_thousand_does() {
    let fixture = Fixture::new().await;
    fixture.database.explain().await;
    // Where the tenant itself came from.
    fixture.database.execute("DELETE FROM audit.changes").await;
    let mut seen = Vec::new();
    for (from, size) in [(1, FEW), (FEW + 1, MANY)] {
        fixture.grow(from, size).await;
        // Connections that have the settings, and plans made for what is there now.
        let store = Store::new(&fixture.database.config).expect("a store");
        let mut touched = Vec::new();
        for question in QUESTIONS {
            touched.push(fixture.touched(&store, question, size).await);
        }
        seen.push(touched);
    }
    let mut grown = Vec::new();
    for (question, (few, many)) in QUESTIONS.iter().zip(seen[0].iter().zip(&seen[1])) {
        for (page, (few, many)) in ["first page", "midst"].iter().zip(few.iter().zip(many)) {
            if many.0 == i64::MAX {
                continue;
            }
            let Question { of, filter, order_by, .. } = question;
            let row = format!(
                "{of:?} [{filter}] [{order_by}], {page}: {} at {FEW}, {} at {MANY} ({})",
                few.0, many.0, many.1
            );
            println!("{row}");
            if many.0 > few.0 + GROWTH {
                grown.push(row);
            }
        }
    }
    assert!(grown.is_empty(), "these touch more where there is more:\n{}", grown.join("\n"));

    // What no index serves is seen to read on and on.
    let store = Store::new(&fixture.database.config).expect("a store");
    let since = fixture.database.end_of_log().await;
    let all = Question { rows: 0, ..vms("description = nowhere", "", |n| json!([id(n)])) };
    fixture.page(&store, &all, String::new()).await;
    let (touched, plan) = fixture.plan(&all, since).await;
    assert!(touched > 10_000, "{touched} buffers by {plan}");
}
