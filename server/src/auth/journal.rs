//! The rows of the audit log that no transaction of their own writes: who was turned away, and what operators read in a tenant.
//!
//! They are written off the way of the call. Equal ones become one row, which counts for [`COUNTED_FOR`] from its first call;
//! what comes later begins a new one. Each tenant has a share of the rows that are kept: whoever floods the log takes room
//! from nobody else, and what finds none is counted and not written.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virtualstack_model::id::TenantId;
use virtualstack_model::log::{Audit, Outcome, Tally};
use virtualstack_store::{Store, SystemPurpose, SystemScope};

/// How long a row counts.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// How often counts are written that have grown. A new row is written at once.
const PACE: Duration = Duration::from_secs(1);

/// Rows that are kept at most, of one tenant and altogether. Those who are of no tenant have a share, too.
const MOST_OF_TENANT: usize = 1_000;
const MOST: usize = 10_000;

/// Rows of one commit at most.
const BATCH: usize = 200;

/// Takes rows in.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Shared>);

#[derive(Default)]
struct Shared {
    rows: Mutex<Rows>,
    /// There is a new row.
    more: Notify,
}

/// What makes calls equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    tenant: Option<TenantId>,
    actor: String,
    credential: Option<String>,
    action: String,
    outcome: Outcome,
    resource: String,
    client: Option<IpAddr>,
}

impl Key {
    fn of(tenant: Option<TenantId>, audit: &Audit) -> Self {
        Self {
            tenant,
            actor: audit.actor.name(),
            credential: audit.actor.credential().map(|credential| credential.name()),
            action: audit.action.clone(),
            outcome: audit.outcome.clone(),
            resource: audit.resource.clone(),
            client: audit.client_address,
        }
    }
}

/// A row, by its first call.
#[derive(Clone, Debug)]
struct Row {
    tenant: Option<TenantId>,
    audit: Arc<Audit>,
    tally: Tally,
    began: Instant,
    /// How many of its calls are written.
    written: i64,
}

impl Row {
    fn counts(&self, now: Instant) -> bool {
        now.duration_since(self.began) < COUNTED_FOR
    }

    fn is_due(&self) -> bool {
        self.written < self.tally.count
    }
}

/// Rows that count, and those that count no more and are not written whole.
#[derive(Default)]
struct Rows {
    counting: HashMap<Key, Row>,
    over: Vec<Row>,
    of_tenant: HashMap<Option<TenantId>, usize>,
}

impl Rows {
    /// Says whether there is a new row; None where there is no room for one.
    fn record(&mut self, tenant: Option<TenantId>, audit: Audit, now: Instant) -> Option<bool> {
        let key = Key::of(tenant, &audit);
        if let Some(row) = self.counting.get_mut(&key) {
            if row.counts(now) {
                row.tally.count += 1;
                row.tally.span = TimeDelta::from_std(now.duration_since(row.began)).unwrap_or_default();
                return Some(false);
            }
            self.end(&key);
        }
        if self.counting.len() + self.over.len() >= MOST {
            return None;
        }
        let held = self.of_tenant.entry(tenant).or_default();
        if *held >= MOST_OF_TENANT {
            return None;
        }
        *held += 1;
        let tally = Tally { id: Uuid::now_v7(), count: 1, span: TimeDelta::zero() };
        self.counting.insert(key, Row { tenant, audit: Arc::new(audit), tally, began: now, written: 0 });
        Some(true)
    }

    /// A row counts no more.
    fn end(&mut self, key: &Key) {
        match self.counting.remove(key) {
            Some(row) if row.is_due() => self.over.push(row),
            Some(row) => self.give_back(row.tenant),
            None => {}
        }
    }

    fn give_back(&mut self, tenant: Option<TenantId>) {
        if let Some(held) = self.of_tenant.get_mut(&tenant) {
            *held -= 1;
            if *held == 0 {
                self.of_tenant.remove(&tenant);
            }
        }
    }

    /// Rows that are not written whole.
    fn due(&self) -> Vec<Row> {
        self.over.iter().chain(self.counting.values()).filter(|row| row.is_due()).cloned().collect()
    }

    /// Those that were written as they are here.
    fn written(&mut self, rows: &[Row], now: Instant) {
        let written: HashMap<_, _> = rows.iter().map(|row| (row.tally.id, row.tally.count)).collect();
        for row in self.counting.values_mut().chain(&mut self.over) {
            row.written = written.get(&row.tally.id).copied().unwrap_or(row.written);
        }
        let ended: Vec<_> = self.over.extract_if(.., |row| !row.is_due()).collect();
        ended.iter().for_each(|row| self.give_back(row.tenant));
        let ended: Vec<_> =
            self.counting.iter().filter(|(_, row)| !row.counts(now)).map(|(key, _)| key.clone()).collect();
        ended.iter().for_each(|key| self.end(key));
    }
}

impl Journal {
    /// Takes a call in; never waits.
    pub(crate) fn record(&self, tenant: Option<TenantId>, audit: Audit) {
        let recorded = self.rows().record(tenant, audit, Instant::now());
        match recorded {
            Some(true) => self.0.more.notify_one(),
            Some(false) => {}
            None => metrics::counter!("virtualstack_audit_dropped_total").increment(1),
        }
    }

    /// Writes until `stop`, and then what is left.
    pub(crate) async fn write(self, store: Store, stop: CancellationToken) {
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                () = self.0.more.notified() => {}
                () = tokio::time::sleep(PACE) => {}
                () = stop.cancelled() => stopping = true,
            }
            // What cannot be written stays due.
            if let Err(error) = self.write_due(&store).await {
                tracing::warn!(%error, "cannot write to the audit log");
                tokio::time::sleep(if stopping { Duration::ZERO } else { PACE }).await;
            }
        }
    }

    async fn write_due(&self, store: &Store) -> virtualstack_model::Result<()> {
        let due = self.rows().due();
        for rows in due.chunks(BATCH) {
            let write = async |tx: &mut virtualstack_store::SystemTx| {
                for row in rows {
                    tx.audit_counted(row.tenant, &row.audit, row.tally).await?;
                }
                Ok(())
            };
            store.system(system(), write).await?;
            self.rows().written(rows, Instant::now());
        }
        if due.is_empty() {
            self.rows().written(&[], Instant::now());
        }
        Ok(())
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "whoever was turned away may be of any tenant, or of none")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::Audit)
}

#[cfg(test)]
mod tests {
    use virtualstack_model::log::Actor;

    use super::*;

    fn audit(action: &str) -> Audit {
        Audit {
            action: action.to_owned(),
            actor: Actor::Nobody,
            resource: String::new(),
            request_id: "r".to_owned(),
            client_address: None,
            traceparent: None,
            outcome: Outcome::Denied("PERMISSION_MISSING".into()),
        }
    }

    #[test]
    fn equal_calls_are_one_row_for_a_minute_from_the_first() {
        let (mut rows, began) = (Rows::default(), Instant::now());
        let tenant = Some(TenantId::new());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(rows.record(tenant, audit("a"), at(0)), Some(true));
        let first = rows.due();
        rows.written(&first, at(0));
        assert!(rows.due().is_empty());
        // Each call within the minute counts, and none makes the minute longer.
        for second in [20, 40, 59] {
            assert_eq!(rows.record(tenant, audit("a"), at(second)), Some(false));
        }
        assert_eq!(rows.record(tenant, audit("b"), at(59)), Some(true), "another action is another row");
        assert_eq!(rows.record(tenant, audit("a"), at(60)), Some(true), "a new row begins");
        let mut due = rows.due();
        due.sort_by_key(|row| (row.audit.action.clone(), row.began));
        let told: Vec<_> = due.iter().map(|row| (&*row.audit.action, row.tally.count)).collect();
        assert_eq!(told, [("a", 4), ("a", 1), ("b", 1)]);
        assert_eq!((due[0].tally.id, due[0].tally.span), (first[0].tally.id, TimeDelta::seconds(59)));
        // What was counted while it was written is due again, and what is whole and over is forgotten.
        assert_eq!(rows.record(tenant, audit("b"), at(61)), Some(false));
        rows.written(&due, at(61));
        assert_eq!(rows.due().iter().map(|row| row.tally.count).collect::<Vec<_>>(), [2]);
        let due = rows.due();
        rows.written(&due, at(200));
        assert!(rows.counting.is_empty() && rows.over.is_empty() && rows.of_tenant.is_empty());
    }

    #[test]
    fn a_tenant_that_floods_takes_room_from_no_other() {
        let (mut rows, now) = (Rows::default(), Instant::now());
        let (loud, quiet) = (Some(TenantId::new()), Some(TenantId::new()));
        let taken = (0..3 * MOST_OF_TENANT).filter(|call| rows.record(loud, audit(&call.to_string()), now).is_some());
        assert_eq!(taken.count(), MOST_OF_TENANT);
        assert_eq!(rows.record(quiet, audit("a"), now), Some(true));
        assert_eq!(rows.record(None, audit("a"), now), Some(true));
        // Equal calls need no room.
        assert_eq!(rows.record(loud, audit("0"), now), Some(false));
        // Nor can many tenants together take more than there is.
        let all = (0..2 * MOST).filter(|_| rows.record(Some(TenantId::new()), audit("a"), now).is_some());
        assert_eq!(all.count(), MOST - MOST_OF_TENANT - 2);
    }
}
