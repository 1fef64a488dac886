//! Upgrades: today's code migrates the database of each kept release, reads it, and goes on with its work.
//!
//! Each folder here is a release: what its binary wrote (dump.sql), and what its API answered then (facts.json). make.py
//! makes both when a release is made. The tests ask the public API, so tables may change.

mod answers;
mod json;
mod work;

use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::SimpleAsyncConnection as _;
use serde_json::Value;
use virtualstack_server::Config;
use virtualstack_store::schema::migrate;

use crate::support::{ControlPlane, Database};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upgrade");

/// How old a resume token may be here. Each token carries its own time, which no test can move.
const CENTURY: u64 = 100 * 365 * 24 * 3600;

/// What a release has left.
struct Release {
    name: String,
    dump: String,
    facts: Value,
}

impl Release {
    /// All that are kept.
    fn all() -> Vec<Self> {
        let folders = fs::read_dir(FOLDER).expect("a folder").map(|entry| entry.expect("an entry").path());
        let releases: Vec<_> =
            folders.filter(|path| path.join("dump.sql").exists()).map(|path| Self::of(&path)).collect();
        assert!(!releases.is_empty(), "no release is kept in {FOLDER}");
        releases
    }

    fn of(folder: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(folder.join(file)).expect(file);
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        Self { name, dump: read("dump.sql"), facts: serde_json::from_str(&read("facts.json")).expect("JSON") }
    }

    /// The database as if the release had left it a moment ago, and by how much all times in its rows are later for that.
    /// Otherwise sessions would have ended, operations would be past their deadlines, and deleted VMs would be purged.
    async fn restored(&self) -> (Database, TimeDelta) {
        let database = Database::empty().await;
        // On a connection of its own, which the dump changes settings of.
        database.admin().await.batch_execute(&self.dump).await.expect("the dump");
        let dumped_at: DateTime<Utc> = self.text("dumpedAt").parse().expect("a time");
        // As much as PostgreSQL can tell apart.
        let by = TimeDelta::microseconds((Utc::now() - dumped_at).num_microseconds().expect("less than an age"));
        database
            .execute(&format!(
                "DO $$ DECLARE moved record; BEGIN \
                    SET LOCAL session_replication_role = replica; \
                    FOR moved IN SELECT format('UPDATE %I.%I SET %s', table_schema, table_name, string_agg(format( \
                            '%1$I = %1$I + interval ''{} microseconds''', column_name), ', ')) AS statement \
                        FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name) \
                        WHERE data_type = 'timestamp with time zone' AND table_type = 'BASE TABLE' \
                            AND table_schema NOT IN ('pg_catalog', 'information_schema') \
                        GROUP BY table_schema, table_name \
                    LOOP EXECUTE moved.statement; END LOOP; \
                 END $$",
                by.num_microseconds().expect("as before")
            ))
            .await;
        (database, by)
    }

    /// A control plane on the migrated database, without a worker.
    async fn upgraded(&self) -> (ControlPlane, TimeDelta) {
        let (database, by) = self.restored().await;
        migrate::run(database.config.migrate_url()).await.unwrap_or_else(|error| panic!("{}: {error:?}", self.name));
        (ControlPlane::on_with(database, settings()).await, by)
    }

    /// A fact that is a text.
    fn text(&self, fact: &str) -> &str {
        text(&self.facts[fact])
    }
}

/// Many calls, quick bookmarks, and resume tokens of any age.
fn settings() -> Config {
    Config {
        auth_per_minute: 10_000,
        auth_per_address_per_minute: 10_000,
        calls_per_second: 100_000,
        calls_burst: 100_000,
        watch_resume_seconds: CENTURY,
        watch_heartbeat_ms: 300,
        ..Config::default()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}"))
}
