//! Migrations go up, down, and up again; twice, and from several processes at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use virtualstack_proto::virtualstack::compute::v1::vm::State;
use virtualstack_store::schema::migrate;
use virtualstack_worker::NoProbe;

use crate::support::{ControlPlane, Database};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");

/// What is ours in a database: schemas, and whatever stands in public.
const OURS: &str = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')) \
    + (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
       WHERE n.nspname = 'public' AND c.relname !~ '^__diesel_schema_migrations') \
    + (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public')";

/// The folders of the migrations, oldest first.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<_> =
        fs::read_dir(FOLDER).expect("migrations").map(|entry| entry.expect("an entry").path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    folders
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{folder:?}/{file}: {error}"))
}

fn url(database: &Database) -> &str {
    database.config.migrate_url()
}

/// All that the catalog says of what is ours, to compare one schema with another.
async fn description(database: &Database) -> Vec<String> {
    use diesel_async::RunQueryDsl as _;
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        line: String,
    }
    let query = "WITH ours AS (SELECT n.nspname || '.' || c.relname AS name, c.* FROM pg_class c \
            JOIN pg_namespace n ON n.oid = c.relnamespace \
            WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')) \
        SELECT name || ' ' || relkind::text || ' ' || relrowsecurity || relforcerowsecurity || coalesce(relacl::text, '') AS line FROM ours \
        UNION ALL SELECT name || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull || \
            coalesce(a.attacl::text, '') || coalesce(pg_get_expr(d.adbin, d.adrelid), '') FROM ours \
            JOIN pg_attribute a ON a.attrelid = ours.oid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
            WHERE a.attnum > 0 AND NOT a.attisdropped \
        UNION ALL SELECT c.conrelid::regclass || ' ' || pg_get_constraintdef(c.oid) FROM pg_constraint c JOIN ours ON ours.oid = c.conrelid \
        UNION ALL SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN ours ON ours.oid = i.indrelid \
        UNION ALL SELECT p::text FROM pg_policies p \
        UNION ALL SELECT n.nspname || ' ' || pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '') FROM pg_proc p \
            JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
        UNION ALL SELECT code || title || description || module FROM iam.permissions \
        ORDER BY 1";
    let rows: Vec<Row> = diesel::sql_query(query).load(&mut database.admin().await).await.expect("the catalog");
    rows.into_iter().map(|row| row.line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_goes_down_and_up_again() {
    let database = Database::empty().await;
    assert_eq!(database.count(OURS).await, 0);
    let folders = folders();
    let first = migrate::run(url(&database)).await.expect("migrations");
    assert_eq!(first.len(), folders.len(), "every folder is a migration, embedded in the binary: {first:?}");
    let made = description(&database).await;
    for folder in folders.iter().rev() {
        let down = fs::read_to_string(folder.join("down.sql")).unwrap_or_else(|_| panic!("{folder:?} has no down.sql"));
        assert!(!down.trim().is_empty(), "{folder:?}: down.sql does nothing");
        database.execute(&format!("BEGIN; {down}; COMMIT")).await;
    }
    assert_eq!(database.count(OURS).await, 0, "something is left after all went down");
    database.execute("DELETE FROM __diesel_schema_migrations").await;
    assert_eq!(migrate::run(url(&database)).await.expect("migrations"), first);
    assert_eq!(description(&database).await, made, "up, down and up again gives another schema");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_migration_goes_down_by_itself() {
    // Down must undo its own up, and not lean on what an older migration takes away.
    let database = Database::empty().await;
    migrate::run(url(&database)).await.expect("migrations");
    database.execute("CREATE SCHEMA IF NOT EXISTS keep").await;
    let folders = folders();
    for folder in folders.iter().skip(1).rev() {
        let read = |file: &str| fs::read_to_string(folder.join(file)).expect(file);
        database.execute(&format!("BEGIN; {}; COMMIT", read("down.sql"))).await;
        database.execute(&format!("BEGIN; {}; COMMIT", read("up.sql"))).await;
        database.execute(&format!("BEGIN; {}; COMMIT", read("down.sql"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_release_cannot_read_is_gone_after_the_way_down() {
    let database = Database::empty().await;
    migrate::run(url(&database)).await.expect("migrations");
    let newer = folders().into_iter().rev().take_while(|folder| !folder.ends_with("2026-11-22-000007_rate_limits"));
    let down: String = newer.map(|folder| format!("BEGIN; {}; COMMIT; ", read(&folder, "down.sql"))).collect();
    database
        .execute(&format!(
            "BEGIN; SET LOCAL session_replication_role = replica; \
             WITH made AS (SELECT gen_random_uuid() AS tenant, gen_random_uuid() AS vm, gen_random_uuid() AS job, \
                 gen_random_uuid() AS held), \
             vm AS (INSERT INTO compute.virtual_machines (tenant_id, id, display_name, state, cpu_count, memory_mib, disk_gib, \
                 template_id, template_reference, template_display_name, guest_os, owner_id) \
                 SELECT tenant, vm, 'web', 'STOPPING', 1, 1, 1, vm, '', '', '', vm FROM made), \
             jobs AS (INSERT INTO background_jobs.jobs (id, queue, kind, group_key, payload, max_attempts, available_at) \
                 SELECT job, 'vm', 'vm_power', '', jsonb '{{}}', 1, now() FROM made \
                 UNION ALL SELECT held, 'vm', 'vm_delete', '', jsonb '{{}}', 1, 'infinity' FROM made) \
             INSERT INTO compute.operations (tenant_id, id, verb, state, target, slot, job_id, actor, deadline_at) \
                 SELECT tenant, gen_random_uuid(), 'SUSPEND', 'OPEN', 'vms/' || vm, 'vms/' || vm, job, 'system', now() FROM made \
                 UNION ALL SELECT tenant, gen_random_uuid(), 'DELETE', 'QUEUED', 'vms/' || vm, 'vms/' || vm, held, 'system', now() \
                 FROM made; \
             COMMIT; {down}"
        ))
        .await;
    for found in [
        "SELECT count(*) FROM compute.operations WHERE verb = 'DELETE' AND state = 'OPEN'",
        "SELECT count(*) FROM compute.operations",
        "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'vm_delete' AND available_at <= now()",
        "SELECT count(*) FROM background_jobs.jobs",
        "SELECT count(*) FROM compute.virtual_machines WHERE state = 'ERROR'",
    ] {
        assert_eq!(database.count(found).await, 1, "{found}");
    }
}

/// Operations, jobs and change rows get targets on the way up, and are as they were after the way down; what the older
/// release does not know is gone from its sight.
#[tokio::test(flavor = "multi_thread")]
async fn operations_get_targets_and_lose_them() {
    let database = Database::empty().await;
    migrate::run(url(&database)).await.expect("migrations");
    let folder = folders().into_iter().find(|it| it.ends_with("2026-11-28-000009_operation_targets")).expect("it");
    let newer: String =
        folders().into_iter().rev().take_while(|it| *it != folder).map(|it| read(&it, "down.sql")).collect();
    let (up, down) = (read(&folder, "up.sql"), read(&folder, "down.sql"));
    let id = |n: i32| format!("0199a000-0000-7000-8000-00000000000{n}");
    let (tenant, vm, snapshot) = (id(1), id(2), id(3));
    let kept = format!("jsonb_build_object('vm_id', '{vm}', 'snapshot_id', '{snapshot}', 'verb', 'REVERT_SNAPSHOT')");
    database
        .execute(&format!(
            "BEGIN; {newer}; {down}; COMMIT; BEGIN; SET LOCAL session_replication_role = replica; \
             INSERT INTO background_jobs.jobs (id, queue, kind, group_key, payload, max_attempts, available_at) \
                 VALUES ('{snapshot}', 'vm', 'vm_snapshot', '', '{{\"verb\": \"DELETE_SNAPSHOT\"}}', 1, now()); \
             INSERT INTO compute.operations (tenant_id, id, verb, state, vm_id, snapshot_id, job_id, actor, deadline_at) VALUES \
                 ('{tenant}', '{one}', 'UNDELETE', 'SUCCEEDED', '{vm}', NULL, NULL, '', now()), \
                 ('{tenant}', '{two}', 'DELETE_SNAPSHOT', 'OPEN', '{vm}', '{snapshot}', '{snapshot}', '', now()), \
                 ('{tenant}', '{three}', 'DELETE', 'QUEUED', '{vm}', NULL, '{vm}', '', now()); \
             INSERT INTO audit.changes (tenant_id, position, resource, reason, message, state, actor, kind, after) \
                 VALUES ('{tenant}', 1, 'operations/x', '', '', '', '', 'CREATED', {kept}); COMMIT; BEGIN; {up}; COMMIT",
            one = id(4), two = id(5), three = id(6),
        ))
        .await;
    let all =
        async |found: &str| assert_eq!(database.count(&format!("SELECT count(*) FROM {found}")).await, 1, "{found}");
    all(&format!("compute.operations WHERE verb = 'UNDELETE' AND target = 'vms/{vm}' AND slot IS NULL")).await;
    all(&format!(
        "compute.operations WHERE verb = 'DELETE' AND state = 'OPEN' \
        AND target = 'vms/{vm}/snapshots/{snapshot}' AND slot = 'vms/{vm}'"
    ))
    .await;
    all(&format!("compute.operations WHERE state = 'QUEUED' AND (target, slot) = ('vms/{vm}', 'vms/{vm}')")).await;
    all("audit.changes WHERE after->>'verb' = 'REVERT_SNAPSHOT'").await;

    // As today's release writes them, and one on what the older release has not heard of.
    let after =
        format!("jsonb_build_object('target', 'vms/{vm}/snapshots/{snapshot}', 'slot', 'vms/{vm}', 'verb', 'REVERT')");
    database
        .execute(&format!(
            "BEGIN; SET LOCAL session_replication_role = replica; \
             UPDATE background_jobs.jobs SET payload = '{{\"verb\": \"DELETE\"}}'; \
             INSERT INTO compute.operations (tenant_id, id, verb, state, target, slot, job_id, actor, deadline_at) \
                 VALUES ('{tenant}', '{new}', 'CREATE', 'OPEN', 'templates/{new}', 'templates/{new}', '{new}', '', now()); \
             INSERT INTO audit.changes (tenant_id, position, resource, reason, message, state, actor, kind, after) VALUES \
                 ('{tenant}', 2, 'operations/x', '', '', '', '', 'UPDATED', {after}), \
                 ('{tenant}', 3, 'operations/y', '', '', '', '', 'UPDATED', jsonb_build_object('target', 'templates/{new}')); \
             COMMIT; BEGIN; {down}; COMMIT",
            new = id(7),
        ))
        .await;
    all("(SELECT count(*) FROM compute.operations HAVING count(*) = 3) three").await;
    all(&format!(
        "compute.operations WHERE verb = 'DELETE_SNAPSHOT' AND (vm_id, snapshot_id) = ('{vm}', '{snapshot}')"
    ))
    .await;
    all(&format!("compute.operations WHERE verb = 'DELETE' AND vm_id = '{vm}' AND snapshot_id IS NULL")).await;
    all("background_jobs.jobs WHERE payload->>'verb' = 'DELETE_SNAPSHOT'").await;
    all(&format!("(SELECT count(*) FROM audit.changes WHERE after = {kept} HAVING count(*) = 2) two")).await;
    all("audit.changes WHERE position = 3 AND kind IS NULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_does_nothing() {
    let database = Database::empty().await;
    assert!(!migrate::run(url(&database)).await.expect("migrations").is_empty());
    assert!(migrate::run(url(&database)).await.expect("migrations").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn several_processes_migrate_at_once() {
    let database = Database::empty().await;
    let runs: Vec<_> = (0..4)
        .map(|_| {
            let url = url(&database).to_owned();
            tokio::spawn(async move { migrate::run(&url).await })
        })
        .collect();
    let mut run = Vec::new();
    for task in runs {
        run.extend(task.await.expect("no panic").expect("migrations"));
    }
    assert_eq!(run.len(), folders().len(), "each migration ran once: {run:?}");
}

/// The roles are there, made by an administrator; the owner of the database needs no more than to own it.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_is_no_superuser_can_migrate_and_the_product_runs_on_it() {
    let database = Database::of_plain_owner().await;
    migrate::run(url(&database)).await.expect("migrated");
    let superuser = Database::new().await;
    assert_eq!(
        database.count("SELECT count(*) FROM iam.permissions").await,
        superuser.count("SELECT count(*) FROM iam.permissions").await
    );

    let plane = ControlPlane::on(database).await;
    plane.work(Arc::new(NoProbe)).await.detach();
    plane.templates().await;
    let tenant = plane.tenant("acme").await;
    assert_eq!(tenant.running("web-1").await.state(), State::Running);
}
