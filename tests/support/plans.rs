//! The plans of the statements that the store sends, as its roles see them, told by auto_explain in the log of PostgreSQL.

use serde_json::Value;

use super::Database;
use crate::tenancy::calls::texts;

impl Database {
    /// Has each statement of connections that are made from now on explained in the log.
    pub(crate) async fn explain(&self) {
        self.execute(
            "LOAD 'auto_explain'; \
             DO $$ DECLARE setting text; BEGIN \
                 FOREACH setting IN ARRAY ARRAY['session_preload_libraries = auto_explain', 'auto_explain.log_min_duration = 0', \
                     'auto_explain.log_analyze = on', 'auto_explain.log_buffers = on', 'auto_explain.log_timing = off', \
                     'auto_explain.log_format = json'] \
                 LOOP EXECUTE format('ALTER DATABASE %I SET %s', current_database(), setting); END LOOP; \
             END $$",
        )
        .await;
    }

    /// Where the log of PostgreSQL ends.
    pub(crate) async fn end_of_log(&self) -> i64 {
        self.count("SELECT size FROM pg_stat_file('server.log')").await
    }

    /// The plans among what was logged since that are wanted, by their text and themselves.
    pub(crate) async fn plans(&self, since: i64, is_wanted: impl Fn(&str, &Value) -> bool) -> Vec<Value> {
        let log = format!("SELECT pg_read_file('server.log', {since}, 100000000)");
        let log = texts(self, &log).await.concat();
        let blocks = log.split("  plan:\n").skip(1);
        let block = |block: &str| -> String { block.lines().take_while(|line| line.starts_with('\t')).collect() };
        let plan = |text: String| {
            let plan = serde_json::from_str::<Value>(&text).ok()?["Plan"].take();
            is_wanted(&text, &plan).then_some(plan)
        };
        blocks.map(block).filter_map(plan).collect()
    }
}

/// The buffers that a plan has touched.
pub(crate) fn buffers(plan: &Value) -> i64 {
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().map(|key| plan[*key].as_i64().expect("buffers")).sum()
}
