//! the store's `schema` says of the tables what the migrated database says.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl as _;

use crate::support::Database;

const SCHEMA: &str = concat!(
    include_str!("../../crates/store/src/schema/audit.rs"),
    include_str!("../../crates/store/src/schema/compute.rs"),
    include_str!("../../crates/store/src/schema/iam.rs"),
    include_str!("../../crates/store/src/schema/notifications.rs"),
    include_str!("../../crates/store/src/schema/support.rs"),
);

/// Columns that are deliberately not in the store's `schema`.
const NOT_IN_SCHEMA: &[(&str, &str)] = &[];

/// Tables that only SQL of their own reads and writes, so that diesel need not know them.
const TABLES_IN_SQL: &[&str] = &[
    "background_jobs.jobs",
    "simulated_hypervisor.snapshots",
    "simulated_hypervisor.tasks",
    "simulated_hypervisor.templates",
    "simulated_hypervisor.vms",
];

/// Name → type as PostgreSQL spells it, of one table, and its primary key.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    columns: BTreeMap<String, String>,
    key: BTreeSet<String>,
}

/// The `table!` blocks of the store's `schema`.
fn declared() -> BTreeMap<String, Table> {
    let mut tables = BTreeMap::new();
    for block in SCHEMA.split("table! {").skip(1) {
        let (head, rest) = block.split_once(") {").expect("a head");
        let (name, key) = head.trim().split_once(" (").expect("a key");
        let (body, _) = rest.split_once('}').expect("an end");
        let key = key.split(',').map(|column| column.trim().to_owned()).collect();
        let columns = body.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" -> "));
        let columns = columns.map(|(column, of)| (column.to_owned(), sql_type(of))).collect();
        assert!(tables.insert(name.to_owned(), Table { columns, key }).is_none(), "{name} twice");
    }
    tables
}

fn sql_type(of: &str) -> String {
    if let Some(inner) = of.strip_prefix("Nullable<").and_then(|rest| rest.strip_suffix('>')) {
        return sql_type(inner).trim_end_matches(" not null").to_owned();
    }
    if let Some(inner) = of.strip_prefix("Array<").and_then(|rest| rest.strip_suffix('>')) {
        return format!("{}[] not null", sql_type(inner).trim_end_matches(" not null"));
    }
    let name = match of {
        "Uuid" => "uuid",
        "Text" => "text",
        "BigInt" => "bigint",
        "Integer" => "integer",
        "Bool" => "boolean",
        "Timestamptz" => "timestamp with time zone",
        "Bytea" => "bytea",
        "Jsonb" => "jsonb",
        "Inet" => "inet",
        "Cidr" => "cidr",
        "Numeric" => "numeric",
        other => panic!("the schema uses {other}: tell tests/schema/freshness.rs what PostgreSQL calls it"),
    };
    format!("{name} not null")
}

/// Views, of whose columns PostgreSQL does not know that they are never null. Each query selects all of them.
const VIEWS: [&str; 4] = ["compute.templates", "notifications.told", "support.all_attachments", "support.all_comments"];

async fn migrated(database: &Database) -> BTreeMap<String, Table> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        name: String,
        #[diesel(sql_type = Text)]
        attribute: String,
        #[diesel(sql_type = Text)]
        of: String,
        #[diesel(sql_type = diesel::sql_types::Bool)]
        key: bool,
    }
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT n.nspname || '.' || c.relname AS name, a.attname::text AS attribute, \
            format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END AS of, \
            EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)) AS key \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped \
           AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'public')",
    )
    .load(&mut database.admin().await)
    .await
    .expect("the catalog");
    let mut tables = BTreeMap::<String, Table>::new();
    for row in rows {
        let table = tables.entry(row.name).or_default();
        if row.key {
            table.key.insert(row.attribute.clone());
        }
        table.columns.insert(row.attribute, row.of);
    }
    tables
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_rs_is_what_the_migrations_make() {
    let database = Database::new().await;
    let (declared, mut migrated) = (declared(), migrated(&database).await);
    assert!(declared.len() >= 15, "the schema was not understood: {:?}", declared.keys());
    for (table, column) in NOT_IN_SCHEMA {
        let found = migrated.get_mut(*table).and_then(|table| table.columns.remove(*column));
        assert!(found.is_some(), "{table}.{column} is gone: take it out of NOT_IN_SCHEMA");
    }
    for table in TABLES_IN_SQL {
        assert!(migrated.remove(*table).is_some(), "{table} is gone: take it out of TABLES_IN_SQL");
    }
    for (name, table) in declared.iter().filter(|(name, _)| !VIEWS.contains(&name.as_str())) {
        assert_eq!(Some(table), migrated.get(name), "{name}: the schema (left) and the migrations (right) disagree");
    }
    let unknown: Vec<_> = migrated.keys().filter(|name| !declared.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "not in the schema, nor in TABLES_IN_SQL: {unknown:?}");
}

/// Times that do not say where they are were once compared with times that do.
#[tokio::test(flavor = "multi_thread")]
async fn every_time_knows_its_zone() {
    let tables = migrated(&Database::new().await).await;
    let columns = tables.iter().flat_map(|(table, of)| of.columns.iter().map(move |(name, of)| (table, name, of)));
    let naive: Vec<_> = columns.filter(|(_, _, of)| of.contains("time") && !of.contains("with time zone")).collect();
    assert!(naive.is_empty(), "{naive:?}");
}
