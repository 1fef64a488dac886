//! Every table has a class, and PostgreSQL holds it to that class, whatever the code above does.

use std::collections::BTreeMap;

use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};

use super::calls::texts;
use crate::support::{ControlPlane, Database};

/// What a table holds, and so who gets at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Rows of tenants: the tenant role sees those of its tenant.
    Tenant,
    /// Rows of accounts: the account role sees those of its account.
    Account,
    /// The same rows for all: everybody reads, the system role writes.
    Shared,
    /// The same rows for whom they were granted to: they read, the system role writes.
    Granted,
    /// Rows about tenants that only the provider's staff see: the system role reads and writes them, no tenant.
    Provider,
    /// What only the system, the queue or the simulator sees.
    Machinery,
}

use Class::{Account, Granted, Machinery, Provider, Shared, Tenant};

/// Every table of ours. The key of a tenant's or an account's table is the column that row-level security compares.
const TABLES: &[(&str, Class, &str)] = &[
    ("audit.change_heads", Tenant, "tenant_id"),
    ("audit.changes", Tenant, "tenant_id"),
    ("audit.logs", Tenant, "tenant_id"),
    ("background_jobs.jobs", Machinery, ""),
    ("compute.console_tickets", Tenant, "tenant_id"),
    ("compute.guest_customizations", Tenant, "tenant_id"),
    ("compute.operations", Tenant, "tenant_id"),
    ("compute.provider_template_copies", Shared, ""),
    ("compute.provider_template_grants", Tenant, "tenant_id"),
    ("compute.provider_templates", Granted, ""),
    ("compute.quotas", Tenant, "tenant_id"),
    ("compute.snapshots", Tenant, "tenant_id"),
    ("compute.template_images", Tenant, "tenant_id"),
    ("compute.template_parts", Tenant, "tenant_id"),
    ("compute.user_templates", Tenant, "tenant_id"),
    ("compute.virtual_machines", Tenant, "tenant_id"),
    ("iam.api_keys", Tenant, "tenant_id"),
    ("iam.invitations", Tenant, "tenant_id"),
    ("iam.memberships", Tenant, "tenant_id"),
    ("iam.password_resets", Machinery, ""),
    ("iam.permissions", Shared, ""),
    ("iam.rate_limits", Machinery, ""),
    ("iam.refresh_tokens", Machinery, ""),
    ("iam.request_ids", Tenant, "tenant_id"),
    ("iam.retired_api_keys", Tenant, "tenant_id"),
    ("iam.sessions", Account, "account_id"),
    ("iam.signing_keys", Machinery, ""),
    ("iam.tenant_role_permissions", Tenant, "tenant_id"),
    ("iam.tenant_roles", Tenant, "tenant_id"),
    ("iam.tenants", Tenant, "id"),
    ("iam.user_tenant_roles", Tenant, "tenant_id"),
    ("iam.users", Account, "id"),
    ("notifications.broadcast_marks", Account, "account_id"),
    ("notifications.broadcasts", Tenant, "tenant_id"),
    ("notifications.cursors", Provider, "tenant_id"),
    ("notifications.mails", Provider, "tenant_id"),
    ("notifications.notices", Account, "account_id"),
    ("notifications.preferences", Account, "account_id"),
    ("notifications.quota_marks", Provider, "tenant_id"),
    ("simulated_hypervisor.snapshots", Machinery, ""),
    ("simulated_hypervisor.tasks", Machinery, ""),
    ("simulated_hypervisor.templates", Machinery, ""),
    ("simulated_hypervisor.vms", Machinery, ""),
    ("support.desk_cursors", Machinery, ""),
    ("support.desk_items", Provider, "tenant_id"),
    ("support.desk_tickets", Provider, "tenant_id"),
    ("support.internal_attachments", Provider, "tenant_id"),
    ("support.internal_comments", Provider, "tenant_id"),
    ("support.ticket_attachments", Tenant, "tenant_id"),
    ("support.ticket_comments", Tenant, "tenant_id"),
    ("support.ticket_staff", Provider, "tenant_id"),
    ("support.ticket_usage", Tenant, "tenant_id"),
    ("support.tickets", Tenant, "tenant_id"),
];

/// Columns by which a tenant's tables refer to each other without the tenant. Empty, and to stay so.
const FOREIGN_KEYS_WITHOUT_TENANT: &[&str] = &[];

/// What the tenant role may do with machinery, and nothing else.
const TENANT_ON_MACHINERY: &[&str] = &["background_jobs.jobs INSERT"];

const SCHEMAS: &str = "('iam', 'compute', 'background_jobs', 'support', 'notifications', 'billing', 'audit', \
    'simulated_hypervisor')";

/// Tables with rows of tenants, and the column that says whose.
pub(super) fn tables_of_tenants() -> impl Iterator<Item = (&'static str, &'static str)> {
    of_class(Tenant).chain(of_class(Provider))
}

fn of_class(class: Class) -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.iter().filter(move |(_, of, _)| *of == class).map(|(table, _, key)| (*table, *key))
}

/// Tables, views, partitions and the like of our schemas, as `c` and `n`.
fn relations(what: &str, kinds: &str, more: &str) -> String {
    format!(
        "SELECT {what} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname IN {SCHEMAS} AND c.relkind IN ({kinds}) {more} ORDER BY 1"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_has_a_class() {
    let database = Database::new().await;
    let what = "n.nspname || '.' || c.relname || ' ' || coalesce(obj_description(c.oid, 'pg_class'), 'no comment')";
    let found = texts(&database, &relations(what, "'r', 'p', 'f'", "")).await;
    let found: BTreeMap<_, _> = found.iter().filter_map(|row| row.split_once(' ')).collect();
    for (table, comment) in &found {
        let Some((_, class, _)) = TABLES.iter().find(|(known, ..)| known == table) else {
            panic!(
                "{table} has no class. Say whose rows it holds: call iam.tenant_table, account_table, shared_table or \
                 secure_table in its migration, and add it to TABLES in tests/tenancy/classes.rs. The isolation matrix \
                 then wants samples of the rpcs that read it."
            );
        };
        let desired = format!("class: {}", format!("{class:?}").to_lowercase());
        assert_eq!(*comment, desired, "{table}: the list and the comment that its migration left disagree");
    }
    for (table, ..) in TABLES {
        assert!(found.contains_key(table), "{table} is gone from the schema: take it out of TABLES");
    }
    // A view runs with its owner's rights unless it says otherwise, and a materialised one keeps rows of everybody.
    let views = texts(
        &database,
        &relations(
            "n.nspname || '.' || c.relname",
            "'v', 'm'",
            "AND NOT coalesce(c.reloptions @> '{security_invoker=true}', false)",
        ),
    )
    .await;
    assert!(views.is_empty(), "views without security_invoker go around row-level security: {views:?}");
    let elsewhere = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
        AND n.nspname || '.' || c.relname <> 'public.__diesel_schema_migrations' AND n.nspname NOT IN ";
    let elsewhere = texts(&database, &format!("{elsewhere}{SCHEMAS}")).await;
    assert!(elsewhere.is_empty(), "in a schema that this test does not watch: {elsewhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_holds_for_owners_too() {
    let database = Database::new().await;
    let open = "AND NOT (c.relrowsecurity AND c.relforcerowsecurity)";
    let open = texts(&database, &relations("n.nspname || '.' || c.relname", "'r', 'p'", open)).await;
    assert!(open.is_empty(), "without ENABLE and FORCE ROW LEVEL SECURITY: {open:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_those_of_the_class() {
    let database = Database::new().await;
    // The first line of each is what a role may see; the roles stand in the policy itself, and PUBLIC never does.
    let policies = texts(
        &database,
        &format!(
            "SELECT schemaname || '.' || tablename || ' ' || policyname || ' ' || permissive || ' ' || cmd || ' ' || \
             array_to_string(ARRAY(SELECT unnest(roles) ORDER BY 1), ',') || ' ' || coalesce(qual, 'null') || ' ' || coalesce(with_check, 'null') \
             FROM pg_policies WHERE schemaname IN {SCHEMAS}"
        ),
    )
    .await;
    let of = |table: &str| -> Vec<String> {
        let prefix = format!("{table} ");
        policies.iter().filter_map(|policy| policy.strip_prefix(&prefix)).map(str::to_owned).collect()
    };
    let for_role = |table: &str, role: &str| -> Vec<String> {
        of(table).into_iter().filter(|policy| policy.contains(role) || policy.contains(" public ")).collect()
    };
    let own = |role: &str, key: &str, function: &str| {
        format!("{role} PERMISSIVE ALL virtualstack_{role} ({key} = ( SELECT iam.{function}() AS {function})) null")
    };
    for (table, key) in of_class(Tenant) {
        let found = for_role(table, "virtualstack_tenant");
        assert_eq!(found, [own("tenant", key, "current_tenant")], "{table}: CALL iam.tenant_table");
    }
    for (table, key) in of_class(Account) {
        let found = for_role(table, "virtualstack_account");
        assert_eq!(found, [own("account", key, "current_account")], "{table}: CALL iam.account_table");
        assert!(for_role(table, "virtualstack_tenant").is_empty(), "{table}: a tenant's role gets at accounts");
    }
    for (table, _) in of_class(Shared) {
        let read = "shared PERMISSIVE SELECT virtualstack_account,virtualstack_tenant true null";
        assert_eq!(for_role(table, "virtualstack_tenant"), [read], "{table}: CALL iam.shared_table");
        let writes = writes_of(&database, "virtualstack_tenant", table).await;
        assert!(writes.is_empty(), "{table}: the tenant role may {writes:?} what all tenants share");
    }
    for (table, _) in of_class(Granted) {
        let [policy] = for_role(table, "virtualstack_tenant").try_into().expect("one policy");
        let read = "granted PERMISSIVE SELECT virtualstack_tenant ";
        assert!(policy.starts_with(read) && policy.contains("current_tenant"), "{table}: {policy}");
        assert!(for_role(table, "virtualstack_account").is_empty(), "{table}: an account's role gets at it");
        let writes = writes_of(&database, "virtualstack_tenant", table).await;
        assert!(writes.is_empty(), "{table}: the tenant role may {writes:?} what is granted to it");
    }
    for (table, _) in of_class(Provider) {
        for role in ["virtualstack_tenant", "virtualstack_account"] {
            assert!(for_role(table, role).is_empty(), "{table}: {role} gets at what only the provider's staff see");
            let readable = format!("SELECT 'SELECT' WHERE has_any_column_privilege('{role}', '{table}', 'SELECT')");
            assert!(texts(&database, &readable).await.is_empty(), "{table}: {role} may read it");
            assert!(writes_of(&database, role, table).await.is_empty(), "{table}: {role} may write it");
        }
    }
    for (table, _) in of_class(Machinery) {
        let allowed = TENANT_ON_MACHINERY.iter().any(|grant| grant.starts_with(table));
        assert_eq!(!for_role(table, "virtualstack_tenant").is_empty(), allowed, "{table}: see TENANT_ON_MACHINERY");
        assert!(for_role(table, "virtualstack_account").is_empty(), "{table}: an account's role gets at machinery");
    }
    // Wherever an account's role gets at a tenant's table, it is at the rows of that account.
    for (table, _) in of_class(Tenant) {
        for policy in for_role(table, "virtualstack_account") {
            assert!(policy.contains("current_account()"), "{table}: {policy}");
        }
    }
    let jobs = for_role("background_jobs.jobs", "virtualstack_tenant");
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert!(
        jobs[0].starts_with("tenant PERMISSIVE INSERT") && jobs[0].contains("current_tenant"),
        "a tenant puts in jobs of its own group only: {jobs:?}"
    );
}

async fn writes_of(database: &Database, role: &str, table: &str) -> Vec<String> {
    let query = format!(
        "SELECT privilege FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) privilege \
         WHERE has_table_privilege('{role}', '{table}', privilege) OR (privilege IN ('INSERT', 'UPDATE') \
         AND has_any_column_privilege('{role}', '{table}', privilege))"
    );
    texts(database, &query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_role_only_puts_jobs_in() {
    let database = Database::new().await;
    let mut found = Vec::new();
    for (table, _) in of_class(Machinery) {
        let read =
            format!("SELECT 'SELECT' WHERE has_any_column_privilege('virtualstack_tenant', '{table}', 'SELECT')");
        let mut may = texts(&database, &read).await;
        may.extend(writes_of(&database, "virtualstack_tenant", table).await);
        found.extend(may.iter().map(|privilege| format!("{table} {privilege}")));
    }
    assert_eq!(found, TENANT_ON_MACHINERY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_rows_are_found_by_tenant() {
    let database = Database::new().await;
    for (table, key) in of_class(Tenant) {
        let leading = format!(
            "SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = '{table}'::regclass AND a.attname = '{key}' AND i.indpred IS NULL"
        );
        assert!(
            database.count(&leading).await > 0,
            "{table}: no index leads with {key}, so every query reads them all"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_between_tenants_tables_name_the_tenant() {
    let database = Database::new().await;
    let keys = texts(
        &database,
        "SELECT c.conrelid::regclass || ' ' || c.confrelid::regclass || ' ' || \
            (SELECT string_agg(a.attname || '=' || f.attname, ',' ORDER BY k.n) FROM unnest(c.conkey, c.confkey) \
                WITH ORDINALITY k (mine, theirs, n) \
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.mine \
             JOIN pg_attribute f ON f.attrelid = c.confrelid AND f.attnum = k.theirs) \
         FROM pg_constraint c WHERE c.contype = 'f'",
    )
    .await;
    assert!(keys.len() > 5, "{keys:?}");
    let key_of = |table: &str| of_class(Tenant).find(|(known, _)| *known == table).map(|(_, key)| key);
    for foreign_key in keys {
        let [from, to, columns] = foreign_key.splitn(3, ' ').collect::<Vec<_>>().try_into().expect("three words");
        if let (Some(mine), Some(theirs)) = (key_of(from), key_of(to)) {
            let pair = format!("{mine}={theirs}");
            assert!(
                columns.split(',').any(|column| column == pair) || FOREIGN_KEYS_WITHOUT_TENANT.contains(&columns),
                "{from} refers to {to} by {columns}: foreign keys do not obey row-level security, so {pair} must be \
                 part of it"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_can_do_no_more_than_they_are_for() {
    let database = Database::new().await;
    let mighty = texts(
        &database,
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'virtualstack\\_%' AND (rolsuper OR rolbypassrls OR rolcreaterole \
         OR rolcreatedb OR rolreplication OR (rolcanlogin AND rolname <> 'virtualstack_login'))",
    )
    .await;
    assert!(mighty.is_empty(), "{mighty:?}");
    let owns = texts(
        &database,
        "SELECT r.rolname || ' owns ' || pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_shdepend d \
         JOIN pg_roles r ON r.oid = d.refobjid WHERE d.deptype = 'o' AND r.rolname LIKE 'virtualstack\\_%' \
         AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))",
    )
    .await;
    assert!(owns.is_empty(), "{owns:?}");
    let login = "SELECT count(*) FROM pg_roles WHERE rolname = 'virtualstack_login' AND rolcanlogin AND NOT rolinherit";
    assert_eq!(database.count(login).await, 1, "virtualstack_login is LOGIN NOINHERIT");
    // What the login role can become, and nothing beyond: no role of ours is a member of another.
    let members = texts(
        &database,
        "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles l ON l.oid = m.member \
         WHERE l.rolname LIKE 'virtualstack\\_%' AND l.rolname <> 'virtualstack_login'",
    )
    .await;
    assert!(members.is_empty(), "{members:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_role_can_read_nothing() {
    let database = Database::new().await;
    let privileges = "'SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'";
    let what = "n.nspname || '.' || c.relname || ' ' || privilege";
    let query =
        relations(what, "'r', 'p', 'v', 'm'", "AND has_table_privilege('virtualstack_login', c.oid, privilege)")
            .replace("WHERE", &format!("CROSS JOIN unnest(ARRAY[{privileges}]) privilege WHERE"));
    let allowed = texts(&database, &query).await;
    assert!(allowed.is_empty(), "{allowed:?}");

    let mut login = AsyncPgConnection::establish(&database.config.url).await.expect("a connection");
    for (table, ..) in TABLES {
        let refused = login.batch_execute(&format!("SELECT 1 FROM {table}")).await.expect_err(table).to_string();
        assert!(refused.contains("permission denied"), "{table}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_transaction_sees_no_rows_but_its_own() {
    let plane = ControlPlane::start().await;
    let (mine, other) = (plane.tenant("acme").await, plane.tenant("rival").await);
    for session in [&mine, &other] {
        let vm = session.running("web-1").await;
        let request = virtualstack_proto::virtualstack::compute::v1::StopVmRequest {
            name: vm.name,
            request_id: uuid::Uuid::now_v7().to_string(),
            ..Default::default()
        };
        session.vms().stop_vm(session.request(request)).await.expect("accepted");
        let key = serde_json::json!({"displayName": "ci", "permissions": ["vm:read"]});
        assert_eq!(session.rest().call("POST", "/v1/apiKeys", Some(key)).await.0, 200);
        let invitation = serde_json::json!({"email": "new@example.com", "role": "roles/viewer"});
        assert_eq!(session.rest().call("POST", "/v1/invitations", Some(invitation)).await.0, 200);
    }
    plane.idle().await;
    // What its worker would take away at once, or takes a while to make.
    plane
        .database
        .execute(
            "INSERT INTO iam.retired_api_keys (tenant_id, id, public_id) \
                SELECT tenant_id, gen_random_uuid(), 'of ' || tenant_id FROM iam.api_keys; \
             INSERT INTO compute.snapshots (tenant_id, id, vm_id, display_name, state, cpu_count, memory_mib, creator) \
                SELECT tenant_id, gen_random_uuid(), id, 'before', 'READY', 1, 1024, 'system' FROM compute.virtual_machines; \
             INSERT INTO compute.console_tickets (tenant_id, operation_id, sealed_ticket, expires_at) \
                SELECT tenant_id, id, '\\x00', now() + interval '1 hour' FROM compute.operations; \
             INSERT INTO compute.guest_customizations (tenant_id, vm_id, sealed) \
                SELECT tenant_id, id, '\\x00' FROM compute.virtual_machines; \
             INSERT INTO compute.provider_template_grants (tenant_id, template_id) \
                SELECT v.tenant_id, v.template_id FROM compute.virtual_machines v; \
             INSERT INTO compute.user_templates (tenant_id, id, display_name, name_key, description, labels, kind, state, owner_id) \
                SELECT tenant_id, id, 'mine', 'mine', '', '{}', 'OVA', 'UPLOADING', owner_id FROM compute.virtual_machines; \
             INSERT INTO compute.template_parts (tenant_id, template_id, first_byte, size_bytes, object) \
                SELECT tenant_id, id, 0, 1, 'templates/' || id FROM compute.user_templates; \
             INSERT INTO compute.template_images (tenant_id, template_id, image) \
                SELECT tenant_id, id, '{}' FROM compute.user_templates; \
             INSERT INTO support.ticket_usage SELECT tenant_id, 1, 1 FROM compute.virtual_machines; \
             INSERT INTO support.tickets (tenant_id, id, number, subject, description, category, priority, state, requester_id, facts) \
                SELECT tenant_id, id, 1, 'mine', 'mine', 'QUESTION', 'LOW', 'OPEN', owner_id, '{}' FROM compute.virtual_machines; \
             INSERT INTO support.ticket_comments (tenant_id, id, ticket_id, author_id, author_name, body, source) \
                SELECT tenant_id, id, id, requester_id, 'me', 'mine', 'API' FROM support.tickets; \
             INSERT INTO support.ticket_attachments (tenant_id, id, ticket_id, file_name, size_bytes, content_type, sha256, author_name) \
                SELECT tenant_id, id, id, 'mine', 1, 'text/plain', '', 'me' FROM support.tickets; \
             INSERT INTO notifications.broadcasts (tenant_id, id, platform, title, body, severity, audience) \
                SELECT tenant_id, id, false, 'mine', 'mine', 'INFO', 'ALL' FROM compute.virtual_machines",
        )
        .await;
    let id = |name: &str| name.strip_prefix("tenants/").expect("a full name").to_owned();
    let (me, them) = (id(&mine.tokens.tenant), id(&other.tokens.tenant));
    let mut login = AsyncPgConnection::establish(&plane.database.config.url).await.expect("a connection");
    for (table, key) in of_class(Tenant) {
        let rows = format!("SELECT count(*) FROM {table} WHERE {key} = '{them}'");
        assert!(plane.database.count(&rows).await > 0, "{table}: nothing to hide, so this shows nothing");
        // As the store opens a transaction, and then the query that somebody wrote without thinking of tenants.
        for (tenant, desired) in [(me.as_str(), true), ("", false)] {
            login
                .batch_execute(&format!(
                    "BEGIN; SET LOCAL ROLE virtualstack_tenant; SET LOCAL virtualstack.tenant_id = '{tenant}'; \
                     DO $$ BEGIN ASSERT EXISTS (SELECT FROM {table}) = {desired}, 'own rows'; \
                     ASSERT NOT EXISTS (SELECT FROM {table} WHERE {key} IS DISTINCT FROM nullif('{tenant}', '')::uuid), 'foreign rows'; \
                     END $$; COMMIT"
                ))
                .await
                .unwrap_or_else(|error| panic!("{table} for tenant {tenant:?}: {error}"));
        }
        // Whatever it may write, it writes into its own tenant.
        for statement in [
            format!(
                "INSERT INTO {table} SELECT (jsonb_populate_record(null::{table}, to_jsonb(t) || '{{\"{key}\": \"{them}\"}}')).* FROM {table} t"
            ),
            format!("UPDATE {table} SET {key} = '{them}'"),
        ] {
            let opened = format!(
                "BEGIN; SET LOCAL ROLE virtualstack_tenant; SET LOCAL virtualstack.tenant_id = '{me}'; {statement}"
            );
            let refused = login.batch_execute(&opened).await.expect_err(&statement).to_string();
            assert!(
                [
                    "permission denied",
                    "violates row-level security",
                    "cannot insert a non-DEFAULT",
                    "can only be updated to DEFAULT"
                ]
                .iter()
                .any(|why| refused.contains(why)),
                "{statement}: {refused}"
            );
            login.batch_execute("ROLLBACK").await.expect("a rollback");
        }
        let them_there = format!(
            "BEGIN; SET LOCAL ROLE virtualstack_tenant; SET LOCAL virtualstack.tenant_id = '{me}'; \
             DELETE FROM {table} WHERE {key} = '{them}'; COMMIT"
        );
        // Either it may not delete at all, or it finds nothing.
        let _ = login.batch_execute(&them_there).await;
        login.batch_execute("ROLLBACK").await.expect("a rollback");
        assert!(plane.database.count(&rows).await > 0, "{table}: a tenant has deleted another's rows");
    }
    // Nor does it put a job in for another tenant.
    let job = |group: &str| {
        format!(
            "BEGIN; SET LOCAL ROLE virtualstack_tenant; SET LOCAL virtualstack.tenant_id = '{me}'; \
             INSERT INTO background_jobs.jobs (id, queue, kind, group_key, payload, max_attempts, available_at) \
             VALUES (gen_random_uuid(), 'none', 'none', '{group}', '{{}}', 1, 'infinity'); ROLLBACK"
        )
    };
    login.batch_execute(&job(&me)).await.expect("a job of its own");
    let refused = login.batch_execute(&job(&them)).await.expect_err("refused").to_string();
    assert!(refused.contains("violates row-level security"), "{refused}");
}
