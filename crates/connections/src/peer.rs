//! A connection as its calls see it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::{Share, Shares};

/// Who is at the other end of a connection, and what becomes of it. Requests have it as an extension.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    began: Instant,
    limits: Arc<Limits>,
    /// Requests that have come, and those that are not yet answered whole.
    requests: AtomicU64,
    at_work: AtomicUsize,
    /// When the last one was answered, in milliseconds since the connection began.
    last: AtomicU64,
    trusted: AtomicBool,
    /// Its place in the share of its address, until it is trusted.
    share: Mutex<Option<Share<IpAddr>>>,
    unread: AtomicUsize,
    unread_by_network: Shares<IpAddr>,
    network: IpAddr,
    /// Since when each of those waits for its client that do.
    waiting: Mutex<HashMap<u64, Arc<Waiting>>>,
}

/// Something that is to be read by the client. Zero while there is nothing to wait for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    since: AtomicU64,
}

impl Waiting {
    pub(crate) fn begins(&self, peer: &Peer) {
        // Never zero, which is for nothing.
        let _ = self.since.compare_exchange(0, peer.now().max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn ends(&self) {
        self.since.store(0, Ordering::Relaxed);
    }
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoesOn,
    /// It ends in order: no call is at work.
    Idle,
    /// It is cut.
    Cut(&'static str),
}

impl Peer {
    pub(crate) fn new(
        address: SocketAddr,
        limits: Arc<Limits>,
        share: Option<Share<IpAddr>>,
        unread_by_network: Shares<IpAddr>,
    ) -> Self {
        Self(Arc::new(Connection {
            address,
            began: Instant::now(),
            limits,
            requests: AtomicU64::new(0),
            at_work: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            trusted: AtomicBool::new(false),
            share: Mutex::new(share),
            unread: AtomicUsize::new(0),
            unread_by_network,
            network: crate::network(address.ip()),
            waiting: Mutex::default(),
        }))
    }

    /// The other end.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Says that a gateway of ours is at the other end, which speaks for many and watches over them itself: the limits of a
    /// single client do not hold for it.
    pub fn trust(&self) {
        if !self.0.trusted.swap(true, Ordering::Relaxed) {
            self.0.share.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Whether there is room for another reply, or too much waits to be read already.
    #[must_use]
    pub fn reads(&self) -> bool {
        let Limits { unread_per_connection, unread_per_network, .. } = *self.0.limits;
        self.0.trusted.load(Ordering::Relaxed)
            || self.0.unread.load(Ordering::Relaxed) < unread_per_connection
                && self.0.unread_by_network.held(&self.0.network) < unread_per_network
    }

    pub(crate) fn unread(&self) -> Unread {
        Unread { peer: self.clone(), of_network: self.0.unread_by_network.none(self.0.network), bytes: 0 }
    }

    pub(crate) fn begin_request(&self) -> AtWork {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork(self.clone())
    }

    /// Watches over something that the client is to read.
    pub(crate) fn watch(&self, number: u64) -> Arc<Waiting> {
        let waiting = Arc::<Waiting>::default();
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&waiting));
        waiting
    }

    pub(crate) fn forget(&self, number: u64) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn judge(&self) -> Verdict {
        let Limits { first_request, idle, send, .. } = *self.0.limits;
        let (now, since) = (self.now(), |then: u64| Duration::from_millis(self.now().saturating_sub(then)));
        if self.0.requests.load(Ordering::Relaxed) == 0 {
            return if since(0) >= first_request { Verdict::Cut("silent") } else { Verdict::GoesOn };
        }
        if self.0.at_work.load(Ordering::Relaxed) == 0 && !self.0.trusted.load(Ordering::Relaxed) {
            return if since(self.0.last.load(Ordering::Relaxed)) >= idle { Verdict::Idle } else { Verdict::GoesOn };
        }
        if !self.0.trusted.load(Ordering::Relaxed) {
            let waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let longest =
                waiting.values().map(|waiting| waiting.since.load(Ordering::Relaxed)).filter(|then| *then > 0);
            if longest.min().is_some_and(|then| Duration::from_millis(now.saturating_sub(then)) >= send) {
                return Verdict::Cut("unread");
            }
        }
        Verdict::GoesOn
    }
}

/// A request that is not yet answered whole.
#[derive(Debug)]
pub(crate) struct AtWork(Peer);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.0.last.store(self.0.now(), Ordering::Relaxed);
        self.0.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of a reply that the client has not taken.
#[derive(Debug)]
pub(crate) struct Unread {
    peer: Peer,
    of_network: Share<IpAddr>,
    bytes: usize,
}

impl Unread {
    pub(crate) fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                self.peer.0.unread.fetch_add(more, Ordering::Relaxed);
                self.of_network.grow(more);
            }
            None => {
                self.peer.0.unread.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
                self.of_network.shrink(self.bytes - bytes);
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.set(0);
    }
}
