//! How long queries take, and how often transactions meet one another, by what is at work: an rpc, a step of a job, or a
//! purpose of the system. No label names a tenant.

use std::time::Instant;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use metrics::{Histogram, SharedString};

tokio::task_local! {
    static CALL: &'static str;
}

/// Labels the transactions of a call. `call` is one of the rpcs that there are, never what a client made up.
pub async fn of_call<F: Future>(call: &'static str, work: F) -> F::Output {
    CALL.scope(call, work).await
}

/// What a transaction is counted under.
pub(crate) struct Action {
    label: SharedString,
    queries: Histogram,
}

impl Action {
    /// The call that is at work; `otherwise` where none is.
    pub(crate) fn of(otherwise: &str) -> Self {
        let label = CALL.try_with(|call| SharedString::const_str(call));
        let label = label.unwrap_or_else(|_| SharedString::from(otherwise.to_owned()));
        let queries = metrics::histogram!("virtualstack_database_query_seconds", "action" => label.clone());
        Self { label, queries }
    }

    /// Times the queries that a connection makes from now on.
    pub(crate) fn time(&self, connection: &mut AsyncPgConnection) {
        connection.set_instrumentation(Timer { queries: self.queries.clone(), start: None });
    }

    /// Counts a transaction that met another one.
    pub(crate) fn count_conflict(&self) {
        metrics::counter!("virtualstack_database_conflicts_total", "action" => self.label.clone()).increment(1);
    }
}

struct Timer {
    queries: Histogram,
    start: Option<Instant>,
}

impl Instrumentation for Timer {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { .. } => self.start = Some(Instant::now()),
            InstrumentationEvent::FinishQuery { .. } => {
                if let Some(start) = self.start.take() {
                    self.queries.record(start.elapsed().as_secs_f64());
                }
            }
            _ => {}
        }
    }
}
