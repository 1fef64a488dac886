//! Writes down who was turned away, off the request path: in the audit log of the tenant, or in that of none.

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;
use virtualstack_model::id::TenantId;
use virtualstack_model::log::Audit;
use virtualstack_store::{Store, SystemPurpose, SystemScope};

/// Rows that wait at most. More are counted and not written: whoever floods us with refused calls gains nothing by it.
const WAITING: usize = 10_000;

/// Rows of one commit at most.
const BATCH: usize = 200;

type Row = (Option<TenantId>, Audit);

/// Takes rows in.
#[derive(Clone)]
pub(crate) struct DeniedCalls(Sender<Row>);

/// Writes them.
pub(crate) struct Writer(Receiver<Row>);

pub(crate) fn denied_calls() -> (DeniedCalls, Writer) {
    let (sender, receiver) = channel(WAITING);
    (DeniedCalls(sender), Writer(receiver))
}

impl DeniedCalls {
    /// Takes a row in; never waits.
    pub(crate) fn record(&self, tenant: Option<TenantId>, audit: Audit) {
        if self.0.try_send((tenant, audit)).is_err() {
            metrics::counter!("virtualstack_audit_dropped_total").increment(1);
        }
    }
}

impl Writer {
    /// Writes until `stop`, and then what is left.
    pub(crate) async fn run(mut self, store: Store, stop: CancellationToken) {
        let mut rows = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                taken = self.0.recv_many(&mut rows, BATCH) => if taken == 0 { return },
                () = stop.cancelled() => return,
            }
            if let Err(error) = write(&store, &rows).await {
                metrics::counter!("virtualstack_audit_dropped_total").increment(rows.len() as u64);
                tracing::warn!(%error, rows = rows.len(), "cannot write denied calls to the audit log");
            }
            rows.clear();
        }
    }
}

async fn write(store: &Store, rows: &[Row]) -> virtualstack_model::Result<()> {
    store
        .system(system(), async |tx| {
            for (tenant, audit) in rows {
                tx.audit(*tenant, audit).await?;
            }
            Ok(())
        })
        .await
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "whoever was turned away may be of any tenant, or of none")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::Audit)
}
