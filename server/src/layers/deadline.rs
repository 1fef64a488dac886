//! Ends a call when its client no longer waits: `grpc-timeout`, or the default.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use virtualstack_model::Error;

use crate::config::Config;

/// Rpcs that last on purpose: what holds its answer back, and what goes on as long as bytes come.
const PATIENT: [&str; 6] = [
    "/google.longrunning.Operations/WaitOperation",
    "/grpc.health.v1.Health/Watch",
    "/virtualstack.compute.v1.TemplateService/UploadTemplate",
    "/virtualstack.watch.v1.WatchService/WatchOperations",
    "/virtualstack.watch.v1.WatchService/WatchTemplates",
    "/virtualstack.watch.v1.WatchService/WatchVms",
];

/// Longest deadline of the other rpcs, whatever their clients ask for: a call holds a slot until it ends.
const LONGEST: Duration = Duration::from_secs(300);

/// tonic has a deadline of its own outside of ours, which it calls CANCELLED; ours is this much earlier, so it comes first.
const EARLIER: Duration = Duration::from_millis(5);

pub(crate) async fn layer(State(config): State<Arc<Config>>, request: Request, next: Next) -> Response {
    let asked = request.headers().get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse);
    let asked = asked.map(|asked| asked.saturating_sub(EARLIER));
    let default = Duration::from_secs(config.default_timeout_seconds);
    let patient = PATIENT.contains(&request.uri().path());
    let limit = if patient { asked } else { Some(asked.map_or(default, |asked| asked.min(LONGEST.max(default)))) };
    let Some(limit) = limit else {
        return next.run(request).await;
    };
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        super::reply(Error::DeadlineExceeded {
            reason: "DEADLINE_EXCEEDED",
            message: "the call took longer than its deadline; what it began may still take effect".to_owned(),
        })
    })
}

/// Reads gRPC's format: up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_the_format_of_grpc() {
        assert_eq!(parse("500m"), Some(Duration::from_millis(500)));
        assert_eq!(parse("2S"), Some(Duration::from_secs(2)));
        for wrong in ["", "S", "5", "123456789S", "-1S", "1x", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
