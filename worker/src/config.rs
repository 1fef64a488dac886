//! Settings of the worker.

use chrono::TimeDelta;
use serde::Deserialize;

/// Settings of the worker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Jobs at work at once, mails and imports not counted.
    pub concurrency: usize,
    /// Mails at work at once.
    pub mail_concurrency: usize,
    /// Imports of templates at work at once; one tenant has at most half of them.
    pub import_concurrency: usize,
    /// Milliseconds that a claim holds. A job whose worker died goes on after this.
    pub lease_ms: u32,
    /// Milliseconds between renewals of held claims.
    pub heartbeat_ms: u32,
    /// Milliseconds between looks at the queue when nothing wakes the worker.
    pub poll_ms: u32,
    /// Milliseconds between looks at a task of the hypervisor.
    pub task_poll_ms: u32,
    /// Seconds to wait for a new VM's address before it is called running without one.
    pub address_wait_seconds: u32,
    /// Seconds that a deleted VM is kept.
    pub undelete_window_seconds: u32,
    /// Seconds between looks for what members are to be told.
    pub notify_seconds: u32,
    /// Seconds in which a member gets one mail of a kind at most: what comes meanwhile is told by the next.
    pub mail_pause_seconds: u32,
    /// Seconds between looks for tickets that the desk is to have, and between reads of the desk.
    pub desk_send_seconds: u32,
    pub desk_poll_seconds: u32,
    /// Seconds after which a resolved ticket is closed.
    pub ticket_close_seconds: u32,
    /// Seconds between readings of the hypervisors' templates.
    pub inventory_seconds: u32,
    /// Seconds between runs of each purge and cleanup.
    pub housekeeping_seconds: u32,
    /// Seconds between looks for objects in the storage that nothing refers to; they are removed when they are as old as that.
    pub sweep_seconds: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: 16,
            mail_concurrency: 4,
            import_concurrency: 4,
            lease_ms: 30_000,
            heartbeat_ms: 10_000,
            poll_ms: 5_000,
            task_poll_ms: 500,
            address_wait_seconds: 30,
            undelete_window_seconds: 7 * 24 * 3600,
            notify_seconds: 5,
            mail_pause_seconds: 600,
            desk_send_seconds: 5,
            desk_poll_seconds: 60,
            ticket_close_seconds: 14 * 24 * 3600,
            inventory_seconds: 60,
            housekeeping_seconds: 60,
            sweep_seconds: 3600,
        }
    }
}

impl Config {
    pub(crate) fn notify(&self) -> TimeDelta {
        TimeDelta::seconds(self.notify_seconds.into())
    }

    pub(crate) fn desk_send(&self) -> TimeDelta {
        TimeDelta::seconds(self.desk_send_seconds.into())
    }

    pub(crate) fn desk_poll(&self) -> TimeDelta {
        TimeDelta::seconds(self.desk_poll_seconds.into())
    }

    pub(crate) fn ticket_close(&self) -> TimeDelta {
        TimeDelta::seconds(self.ticket_close_seconds.into())
    }

    pub(crate) fn inventory(&self) -> TimeDelta {
        TimeDelta::seconds(self.inventory_seconds.into())
    }

    pub(crate) fn housekeeping(&self) -> TimeDelta {
        TimeDelta::seconds(self.housekeeping_seconds.into())
    }

    pub(crate) fn sweep(&self) -> TimeDelta {
        TimeDelta::seconds(self.sweep_seconds.into())
    }
}
