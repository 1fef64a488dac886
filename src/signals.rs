//! What signals ask for: first to stop in order, then to stop at once.

use std::fs;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a process was asked by signals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// To stop in order.
    pub(crate) stop: CancellationToken,
    /// To stop at once, and wait for nothing.
    pub(crate) cut: CancellationToken,
}

/// A second signal came.
#[derive(Debug)]
pub(crate) struct CutShort;

impl std::fmt::Display for CutShort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut short by a second signal; what was at work goes on at the next start")
    }
}

impl std::error::Error for CutShort {}

impl Asked {
    /// Listens for the signals that end a process. The first one says what is waited for.
    pub(crate) fn listen(waits_for: String) -> anyhow::Result<Self> {
        let asked = Self::default();
        let (told, mut signals) = tokio::sync::mpsc::channel(1);
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::hangup()];
        for kind in kinds.into_iter().filter(|kind| *kind != SignalKind::hangup() || !hangup_is_ignored()) {
            let mut signal = signal(kind).context("cannot listen for signals")?;
            let told = told.clone();
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    let _ = told.send(()).await;
                }
            });
        }
        let Self { stop, cut } = asked.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
            tracing::info!("stopping: waiting for {waits_for}; a second signal (Ctrl-C) cuts it short");
            signals.recv().await;
            cut.cancel();
            tracing::warn!("cutting short what was waited for");
        });
        Ok(asked)
    }

    /// What comes of `work`, unless it is cut short.
    pub(crate) async fn or_cut<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => Err(CutShort.into()),
            done = work => done,
        }
    }
}

/// Whether this process was told at its start to outlive its terminal, as by nohup.
fn hangup_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    ignored >> (SignalKind::hangup().as_raw_value() - 1) & 1 == 1
}
