//! What each number among the settings may be: what is outside makes no sense, and would show later and elsewhere.

use crate::given::Range;

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;
const YEAR: f64 = 366.0 * DAY;
const MILLISECONDS: f64 = 1000.0;
const MIB: f64 = 1_048_576.0;
const MANY: f64 = 1_000_000.0;

/// Every one. A test looks for those that are missing.
pub(crate) const RANGES: &[Range] = &[
    Range("database.max_connections", 2.0, 10_000.0),
    Range("database.statement_timeout_ms", 10.0, HOUR * MILLISECONDS),
    Range("database.acquire_timeout_ms", 10.0, HOUR * MILLISECONDS),
    Range("server.access_token_seconds", 10.0, DAY),
    Range("server.session_seconds", 60.0, 10.0 * YEAR),
    Range("server.max_request_bytes", 1024.0, 1024.0 * MIB),
    Range("server.concurrency_limit", 1.0, MANY),
    Range("server.default_timeout_seconds", 1.0, HOUR),
    Range("server.concurrent_hashes", 1.0, 1024.0),
    Range("server.auth_per_minute", 0.0, MANY),
    Range("server.auth_per_address_per_minute", 0.0, MANY),
    Range("server.calls_per_second", 0.0, MANY),
    Range("server.calls_burst", 0.0, MANY),
    Range("server.max_watches", 1.0, MANY),
    Range("server.max_watches_per_tenant", 1.0, MANY),
    Range("server.max_watches_per_principal", 1.0, MANY),
    Range("server.watch_resume_seconds", 1.0, YEAR),
    Range("server.watch_heartbeat_ms", 100.0, HOUR * MILLISECONDS),
    Range("server.drain_seconds", 0.0, HOUR),
    Range("gateway.upstream_connections", 1.0, 1024.0),
    Range("gateway.max_json_body", 1024.0, 1024.0 * MIB),
    Range("gateway.max_raw_body", 1024.0, 1024.0 * MIB),
    // hyper takes no less.
    Range("gateway.max_header_bytes", 8192.0, 16.0 * MIB),
    Range("gateway.max_url_bytes", 256.0, 65_534.0),
    Range("gateway.max_response_bytes", 1024.0, 1024.0 * MIB),
    Range("gateway.default_timeout", 0.1, HOUR),
    Range("gateway.max_timeout", 0.1, DAY),
    Range("gateway.header_read_timeout", 0.1, HOUR),
    Range("gateway.drain_timeout", 0.0, HOUR),
    Range("gateway.max_connections", 1.0, MANY),
    Range("gateway.max_requests", 1.0, MANY),
    Range("gateway.max_streams", 1.0, MANY),
    Range("worker.concurrency", 1.0, 1000.0),
    Range("worker.mail_concurrency", 1.0, 1000.0),
    Range("worker.lease_ms", 100.0, HOUR * MILLISECONDS),
    Range("worker.heartbeat_ms", 10.0, HOUR * MILLISECONDS),
    Range("worker.poll_ms", 10.0, HOUR * MILLISECONDS),
    Range("worker.task_poll_ms", 10.0, HOUR * MILLISECONDS),
    Range("worker.address_wait_seconds", 0.0, HOUR),
    Range("worker.undelete_window_seconds", 0.0, 10.0 * YEAR),
    Range("worker.inventory_seconds", 1.0, DAY),
    Range("worker.housekeeping_seconds", 1.0, DAY),
    Range("hypervisor.crash_after", 0.0, MANY),
    Range("simulated.create_ms", 0.0, DAY * MILLISECONDS),
    Range("simulated.power_ms", 0.0, DAY * MILLISECONDS),
    Range("simulated.shut_down_ms", 0.0, DAY * MILLISECONDS),
    Range("simulated.fault_rate", 0.0, 1.0),
    Range("simulated.task_fault_rate", 0.0, 1.0),
    Range("simulated.lost_reply_rate", 0.0, 1.0),
    Range("vcenter.max_changes", 1.0, 1000.0),
    Range("vcenter.max_clones", 1.0, 1000.0),
    Range("vcenter.request_timeout_seconds", 1.0, HOUR),
    Range("mail.smtp_port", 1.0, 65_535.0),
    Range("mail.timeout_seconds", 1.0, HOUR),
];
