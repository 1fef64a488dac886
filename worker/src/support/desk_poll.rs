//! Reads what has changed in the provider's desk.
//!
//! - What it does: it reads the tickets that have changed since the last time, with an overlap, and takes over what was said there, and
//!   the state and priority that they were given.
//! - What it must never do: take over what we have put there, anything twice, or a ticket that is not ours; pass over a change; have all
//!   wait for one that cannot be read.
//!
//! It is a part of [`super::desk_sync`].

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use virtualstack_model::Result;
use virtualstack_store::SystemTx;
use virtualstack_store::support::desk::{self as store, Author, Cursor, Received, TwinKey, Unread};
use virtualstack_store::support::tickets::Event;

use super::desk_files::{self as files, audit};
use super::desk_follow::follow;
use super::desk_problem::Problem;
use crate::adapters::desk::{By, Class, Desk, Fault, Remote, RemoteComment};
use crate::engine::task::TaskContext;
use crate::reconciler::reconciler;

/// How far back each read begins behind the end of the one before: a change may show later than its time says.
const OVERLAP: TimeDelta = TimeDelta::minutes(2);

/// Times of a desk have seconds: what was read in the second of a change may have changed once more in it.
const SETTLED: TimeDelta = TimeDelta::seconds(2);

/// How far back the first read begins.
const FIRST: TimeDelta = TimeDelta::days(1);

/// Pages of one run at most; the next goes on.
const PAGES: usize = 20;

/// Tickets of one run at most that are read though the desk does not say that they have changed.
const AGAIN: i64 = 50;

/// How long a ticket waits that could not be read: each time twice as long.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(5);
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(1);

/// Tickets one after the other that could not be read: then it is the desk, and not they.
const IN_A_ROW: u32 = 3;

/// Who says what comes by mail and not from the requester.
const BY_MAIL: &str = "By mail";

/// Reads what has changed since the end of the read before.
pub(super) async fn run(context: &TaskContext<'_>, desk: &dyn Desk, cursor: Option<Cursor>) -> Result<(), Problem> {
    let (name, begun) = (desk.name(), context.now());
    let first = Cursor { read_until: begun + desk.skew() - FIRST, polled_at: begun, cut: false, asked_at: None };
    if cursor.is_none() {
        context.commit("begun", async |tx: &mut SystemTx| store::set_cursor(tx, name, first).await).await?;
    }
    let cursor = Cursor { polled_at: begun, ..cursor.unwrap_or(first) };
    let read = Reading { context, desk, failures: 0 }.run(cursor).await;
    if matches!(read, Err(Problem::Desk(_))) {
        // Where it fails, it is not asked more often for that.
        context.commit("failed", async |tx: &mut SystemTx| store::polled(tx, name, begun).await).await?;
    }
    read
}

struct Reading<'a> {
    context: &'a TaskContext<'a>,
    desk: &'a dyn Desk,
    /// Tickets one after the other that could not be read.
    failures: u32,
}

impl Reading<'_> {
    async fn run(&mut self, mut cursor: Cursor) -> Result<(), Problem> {
        let (context, desk) = (self.context, self.desk);
        let again = async |tx: &mut SystemTx| store::to_read(tx, desk.name(), AGAIN).await;
        for remote_id in context.store().system(reconciler(), again).await? {
            self.take(&remote_id, None).await?;
        }
        let since = if cursor.cut { cursor.read_until } else { cursor.read_until - OVERLAP };
        // The deleted ones first: once the others are read, nobody looks further back.
        let mut deleted = Walk::new(since, true);
        while let Some(page) = deleted.next(self).await? {
            for remote in &page {
                self.take(&remote.id, Some(remote)).await?;
            }
        }
        let mut walk = Walk::new(since, false);
        for _ in 0..PAGES {
            let Some(page) = walk.next(self).await? else { break };
            for remote in &page {
                self.take(&remote.id, Some(remote)).await?;
                cursor.read_until = cursor.read_until.max(remote.updated_at);
            }
            cursor.cut = !walk.is_over;
            let remember = async |tx: &mut SystemTx| store::set_cursor(tx, desk.name(), cursor).await;
            context.commit("read", remember).await?;
        }
        Ok(())
    }

    /// Takes over what has changed of a ticket, if it is one of ours. One that cannot be read is put off.
    async fn take(&mut self, remote_id: &str, listed: Option<&Remote>) -> Result<(), Problem> {
        let (context, desk) = (self.context, self.desk);
        if context.ends() {
            return Err(Problem::Early(TimeDelta::zero()));
        }
        let find = async |tx: &mut SystemTx| store::find(tx, desk.name(), remote_id).await;
        let Some((tenant, ticket, twin)) = context.store().system(reconciler(), find).await? else { return Ok(()) };
        let key = TwinKey { desk: desk.name(), tenant, ticket };
        let is_read = |remote: &Remote| match twin.deleted {
            true => remote.deleted,
            false => !remote.deleted && twin.remote_updated_at == Some(remote.updated_at),
        };
        if listed.is_some_and(is_read) {
            return Ok(());
        }
        let taken = Taking { context, desk, key, remote_id }.run(&twin).await;
        let Err(problem) = taken else {
            self.failures = 0;
            return Ok(());
        };
        let fault = problem.of_one()?;
        tracing::warn!(%ticket, error = %fault, "a ticket of the desk's cannot be read");
        let pause = FIRST_PAUSE * 2_i32.saturating_pow(u32::try_from(twin.read_failures.min(12)).unwrap_or_default());
        let why = format!("what is said in the desk cannot be read: {}", fault.message);
        let unread = Unread { why: &why, pause: pause.min(LONGEST_PAUSE) };
        context.commit("unread", async |tx: &mut SystemTx| store::unread(tx, key, unread).await).await?;
        self.failures += 1;
        if self.failures < IN_A_ROW { Ok(()) } else { Err(Problem::Desk(fault)) }
    }
}

/// A way through a list of what has changed. Each page begins where the one before ended, so that nothing is passed over when tickets
/// change meanwhile and move to the list's end.
struct Walk {
    since: DateTime<Utc>,
    page: usize,
    deleted: bool,
    is_over: bool,
}

impl Walk {
    const fn new(since: DateTime<Utc>, deleted: bool) -> Self {
        Self { since, page: 1, deleted, is_over: false }
    }

    /// The next page, if there is one.
    async fn next(&mut self, reading: &Reading<'_>) -> Result<Option<Vec<Remote>>, Problem> {
        if self.is_over {
            return Ok(None);
        }
        let (since, page) = (self.since, self.page);
        let changed = reading.desk.changed_since(since, page, self.deleted);
        let changed = reading.context.call("changed", changed).await?;
        self.is_over = !changed.is_full;
        // Those of the last second are read once more.
        match changed.tickets.last().map(|last| last.updated_at - TimeDelta::seconds(1)) {
            Some(last) if last > since => (self.since, self.page) = (last, 1),
            _ => self.page += 1,
        }
        Ok(Some(changed.tickets))
    }
}

/// A ticket that is taken over.
struct Taking<'a> {
    context: &'a TaskContext<'a>,
    desk: &'a dyn Desk,
    key: TwinKey<'a>,
    remote_id: &'a str,
}

impl Taking<'_> {
    async fn run(&self, twin: &store::Twin) -> Result<(), Problem> {
        let Self { context, desk, key, remote_id } = *self;
        let read_at = context.now() + desk.skew();
        // As it is now: it may have changed since the list was made.
        let remote = match context.call("look", desk.read(remote_id)).await {
            Ok(remote) => Some(remote).filter(|remote| !remote.deleted),
            Err(Fault { class: Class::Missing, .. }) => None,
            Err(fault) => return Err(Problem::Desk(fault)),
        };
        let Some(remote) = remote else {
            let deleted = async |tx: &mut SystemTx| store::deleted(tx, key, DELETED).await;
            return Ok(context.commit("deleted", deleted).await?);
        };
        // First the state: what is said makes the ticket here look younger.
        follow(context, desk, key, &remote).await?;
        self.hear(&remote).await?;
        let at = Some(remote.updated_at).filter(|at| *at + SETTLED < read_at);
        let taken = async |tx: &mut SystemTx| store::taken(tx, key, twin, at).await;
        Ok(context.commit("taken", taken).await?)
    }

    /// Takes over what was said there.
    async fn hear(&self, remote: &Remote) -> Result<(), Problem> {
        let Self { context, desk, key, remote_id } = *self;
        let heard = async |tx: &mut SystemTx| store::heard(tx, key).await;
        let heard = context.store().system(reconciler(), heard).await?;
        let said = context.call("said", desk.comments(remote_id, heard)).await?;
        let ids: Vec<_> = said.iter().map(|comment| comment.id.clone()).collect();
        let known = async |tx: &mut SystemTx| store::known(tx, desk.name(), &ids).await;
        let known: HashSet<_> = context.store().system(reconciler(), known).await?.into_iter().collect();
        for comment in said.into_iter().filter(|comment| !known.contains(&comment.id)) {
            if !self.is_ours(&comment).await? {
                self.receive(remote, comment).await?;
            }
        }
        Ok(())
    }

    /// Whether a comment is one that we have put there. Who quotes one of ours has its last line, too, but writes it anew.
    async fn is_ours(&self, comment: &RemoteComment) -> Result<bool, Problem> {
        let Some(ours) = comment.ours.filter(|_| comment.by == By::Staff) else { return Ok(false) };
        let key = self.key;
        let pair = async |tx: &mut SystemTx| {
            Ok(store::is_of(tx, key, ours).await? && store::pair(tx, key, ours, &comment.id).await?)
        };
        Ok(self.context.commit("heard", pair).await?)
    }

    async fn receive(&self, remote: &Remote, comment: RemoteComment) -> Result<(), Problem> {
        let Self { context, desk, key, .. } = *self;
        let mut event = Event::new("TICKET_ANSWERED", "The provider answered");
        let mut author = Author { user: None, name: context.shared.desk_staff_name.clone() };
        if let By::Mail(user) = &comment.by {
            event = Event::new("TICKET_COMMENTED", "Somebody commented by mail");
            author.name = BY_MAIL.to_owned();
            if *user == remote.requester && !user.is_empty() {
                let requester = async |tx: &mut SystemTx| store::requester(tx, key).await;
                author = context.store().system(reconciler(), requester).await?;
            }
        }
        // First its files: once the comment is known, nobody looks for them.
        for file in &comment.files {
            files::take(context, desk, key, file, (&author, comment.internal)).await?;
        }
        let body = if comment.body.is_empty() { "(no text)".to_owned() } else { comment.body };
        let received = Received { remote_id: comment.id, author, body, internal: comment.internal, event };
        let audit = audit(key.ticket);
        let receive = async |tx: &mut SystemTx| store::receive(tx, &audit, key, &received).await;
        Ok(context.commit("heard", receive).await?)
    }
}

/// Why nothing more is the same on both sides.
pub(super) const DELETED: &str = "the desk has deleted the ticket";
