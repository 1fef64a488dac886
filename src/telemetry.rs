//! Logs and metrics of the process.

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Config, LogFormat};

/// Seconds that latencies are counted by.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Sets both up; the handle prints the metrics.
pub(crate) fn install(config: &Config) -> anyhow::Result<PrometheusHandle> {
    let filter = EnvFilter::try_new(&config.log.filter).map_err(|error| config.wrong("log.filter", error))?;
    // A log that nobody takes any more ends nothing: what it says of itself would go to the same place, and panic there.
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match config.log.format {
        LogFormat::Pretty => logs.with_ansi(shows_colours()).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot set up metrics")
}

/// Whether somebody looks at the log who sees colours.
#[expect(clippy::disallowed_methods, reason = "what a terminal can do is not a setting of ours")]
fn shows_colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused && is_coloured(std::env::var_os("TERM").as_deref())
}

/// Whether a terminal of this kind shows colours.
fn is_coloured(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| term != "dumb" && !term.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dumb_terminal_gets_no_colours() {
        let coloured = |term: &str| is_coloured(Some(OsStr::new(term)));
        assert!(coloured("xterm-256color") && !coloured("dumb") && !coloured("") && !is_coloured(None));
    }
}
