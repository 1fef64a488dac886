//! Lets the provider's desk have what has changed of tickets.
//!
//! - What it does: it puts a ticket there, changes what differs from what both had last, and says what was said since; in turns of
//!   the tenants, and of each ticket in order.
//! - What it must never do: put anything there twice, though replies are lost and workers die. So a try is written down before its
//!   first call; a later one looks for our id before it puts anything.
//!
//! It is a part of [`super::desk_sync`].

use std::collections::HashMap;

use bytes::Bytes;
use chrono::TimeDelta;
use futures::TryStreamExt as _;
use uuid::Uuid;
use virtualstack_model::id::TenantId;
use virtualstack_model::support::attachment;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::{Error, Result};
use virtualstack_store::SystemTx;
use virtualstack_store::support::desk::{self as store, Outgoing, Twin};
use virtualstack_store::support::staff_files::StaffAttachment;

use super::desk_problem::Problem;
use crate::adapters::desk::{Change, Class, Desk, Fault, NewComment, NewFile, NewTicket, Remote};
use crate::engine::task::TaskContext;
use crate::reconciler::reconciler;

/// Tickets of one run at most; the next goes on.
const TICKETS: i64 = 50;

/// How long a ticket waits that could not be sent: each time twice as long, up to an hour.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(1);
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(1);

/// Tickets one after the other that could not be sent: then it is the desk, and not they.
const IN_A_ROW: u32 = 3;

/// Sends what is due.
pub(super) async fn run(context: &TaskContext<'_>, desk: &dyn Desk) -> Result<(), Problem> {
    let due = async |tx: &mut _| store::to_send(tx, TICKETS).await;
    let mut failures = 0;
    for (tenant, ticket) in context.store().system(reconciler(), due).await? {
        let mut sending = Sending::begin(context, desk, tenant, ticket).await?;
        let fault = match sending.run().await {
            Ok(()) => {
                failures = 0;
                continue;
            }
            Err(Problem::Desk(fault)) if !matches!(fault.class, Class::Busy(_)) => fault,
            Err(problem) => return Err(problem),
        };
        tracing::warn!(%ticket, error = %fault, "the desk does not take a ticket");
        sending.put_off(&fault).await?;
        failures += 1;
        if failures == IN_A_ROW {
            return Err(Problem::Desk(fault));
        }
    }
    Ok(())
}

/// A ticket on its way.
struct Sending<'a> {
    context: &'a TaskContext<'a>,
    desk: &'a dyn Desk,
    tenant: TenantId,
    id: TicketId,
    out: Outgoing,
    /// Whether a try before this one may have put something there.
    again: bool,
}

impl<'a> Sending<'a> {
    async fn begin(context: &'a TaskContext<'a>, desk: &'a dyn Desk, tenant: TenantId, id: TicketId) -> Result<Self> {
        let read = async |tx: &mut SystemTx| store::outgoing(tx, tenant, id).await;
        let out = context.commit("read", read).await?;
        let again = out.twin.attempts > 0;
        Ok(Self { context, desk, tenant, id, out, again })
    }

    async fn run(&mut self) -> Result<(), Problem> {
        let remote_id = self.ensure_there().await?;
        self.change(&remote_id).await?;
        self.say(&remote_id).await?;
        self.out.twin.attempts = 0;
        self.out.twin.retry_at = Some(self.context.now());
        let (tenant, id, out) = (self.tenant, self.id, &self.out);
        let synced = async |tx: &mut SystemTx| {
            store::save(tx, tenant, id, &out.twin).await?;
            store::synced(tx, out).await
        };
        Ok(self.context.commit("synced", synced).await?)
    }

    /// Writes what is known of the twin.
    async fn save(&self, step: &str) -> Result<()> {
        let (tenant, id, twin) = (self.tenant, self.id, &self.out.twin);
        let save = async |tx: &mut SystemTx| store::save(tx, tenant, id, twin).await;
        self.context.commit(step, save).await
    }

    /// Writes down that something is about to be put there.
    async fn begin_try(&mut self) -> Result<()> {
        if self.out.twin.attempts == 0 {
            self.out.twin.attempts = 1;
            self.save("try").await?;
        }
        Ok(())
    }

    /// The number of the ticket there, which is put there if it is not.
    async fn ensure_there(&mut self) -> Result<String, Problem> {
        if let Some(id) = &self.out.twin.remote_id {
            return Ok(id.clone());
        }
        let found = if self.again { self.context.call("find", self.desk.find(self.id)).await? } else { None };
        let is_found = found.is_some();
        let remote = match found {
            Some(remote) => remote,
            None => self.create().await?,
        };
        let (twin, ticket) = (&mut self.out.twin, &self.out.ticket);
        twin.remote_id = Some(remote.id.clone());
        (twin.state, twin.priority) = (ticket.state.to_string(), ticket.priority.to_string());
        // What an earlier try has sent may be older than what it is now; and staff may have changed the state of it.
        if !is_found {
            twin.subject.clone_from(&ticket.subject);
            twin.description.clone_from(&ticket.description);
            twin.remote_state.clone_from(&remote.raw_state);
        }
        self.save("created").await?;
        Ok(remote.id)
    }

    /// Puts the ticket there, once that is written down.
    async fn create(&mut self) -> Result<Remote, Problem> {
        // What a lost reply has put there may not be found yet.
        let waits = self.out.twin.begun_at + self.context.shared.config.desk_search_delay() - self.context.now();
        if self.again && waits > TimeDelta::zero() {
            return Err(Problem::Desk(Fault {
                class: Class::Retry,
                message: "whether an earlier try has put the ticket there is not known yet".to_owned(),
            }));
        }
        self.out.twin.begun_at = self.context.now();
        self.out.twin.attempts += 1;
        self.save("try").await?;
        Ok(self.context.call("create", self.desk.create(&self.new_ticket())).await?)
    }

    fn new_ticket(&self) -> NewTicket {
        let ticket = &self.out.ticket;
        NewTicket {
            id: self.id,
            subject: ticket.subject.clone(),
            description: ticket.description.clone(),
            facts: self.facts(),
            state: ticket.state,
            priority: ticket.priority,
            requester_email: self.out.requester_email.clone(),
        }
    }

    fn facts(&self) -> Vec<(String, String)> {
        let known: HashMap<String, String> = serde_json::from_value(self.out.ticket.facts.clone()).unwrap_or_default();
        let mut facts: Vec<_> = known.into_iter().collect();
        facts.sort();
        let ours = [
            ("tenant", self.out.tenant_name.clone()),
            ("requester", self.out.requester_name.clone()),
            ("ticket", format!("{} (number {})", self.id.name_in(self.tenant), self.out.ticket.number)),
            ("category", self.out.ticket.category.to_string()),
        ];
        ours.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(facts).collect()
    }

    /// Changes what differs from what both had last.
    async fn change(&mut self, remote_id: &str) -> Result<(), Problem> {
        let (ticket, twin) = (&self.out.ticket, &self.out.twin);
        let change = Change {
            subject: Some(ticket.subject.clone()).filter(|subject| *subject != twin.subject),
            description: Some((ticket.description.clone(), self.facts())).filter(|(text, _)| *text != twin.description),
            state: Some(ticket.state).filter(|state| state.as_str() != twin.state),
            priority: Some(ticket.priority).filter(|priority| priority.as_str() != twin.priority),
        };
        if change == Change::default() {
            return Ok(());
        }
        let Remote { raw_state, .. } = self.context.call("update", self.desk.update(remote_id, &change)).await?;
        let (twin, ticket) = (&mut self.out.twin, &self.out.ticket);
        twin.subject.clone_from(&ticket.subject);
        twin.description.clone_from(&ticket.description);
        (twin.state, twin.priority) = (ticket.state.to_string(), ticket.priority.to_string());
        // A state that was not sent may have been changed there, which is still to be read.
        if change.state.is_some() {
            twin.remote_state = raw_state;
        }
        Ok(self.save("updated").await?)
    }

    /// Says what was said since, and sends what files came, in their order.
    async fn say(&mut self, remote_id: &str) -> Result<(), Problem> {
        let comments = self.out.comments.iter().map(|comment| {
            let said = NewComment {
                id: comment.id.0,
                author_name: comment.author_name.clone(),
                body: comment.body.clone(),
                internal: comment.internal,
                file: None,
            };
            (said, None)
        });
        let files = self.out.files.iter().map(|file| {
            let said = NewComment {
                id: file.id.0,
                author_name: file.author_name.clone(),
                body: format!("File: {}", file.file_name),
                internal: file.internal,
                file: None,
            };
            (said, Some(file.clone()))
        });
        let mut unsaid: Vec<_> = comments.chain(files).collect();
        if unsaid.is_empty() {
            return Ok(());
        }
        // Ids sort by the time they were made.
        unsaid.sort_by_key(|(said, _)| said.id);
        let there: HashMap<Uuid, String> = if self.again {
            let said = self.context.call("said", self.desk.comments(remote_id)).await?;
            said.into_iter().filter_map(|comment| Some((comment.ours?, comment.id))).collect()
        } else {
            HashMap::new()
        };
        self.begin_try().await?;
        for (mut said, file) in unsaid {
            let remote = match there.get(&said.id) {
                Some(remote) => remote.clone(),
                None => {
                    if let Some(file) = file {
                        said.file = Some(self.read(&file).await?);
                    }
                    self.context.call("say", self.desk.comment(remote_id, &said)).await?
                }
            };
            let (tenant, id) = (self.tenant, self.id);
            let pair = async |tx: &mut SystemTx| store::pair(tx, (tenant, id), said.id, &remote).await;
            self.context.commit("said", pair).await?;
        }
        Ok(())
    }

    /// The bytes of a file.
    async fn read(&self, file: &StaffAttachment) -> Result<NewFile, Problem> {
        let mut bytes = Vec::new();
        for (object, size) in attachment::objects(file.tenant_id, file.id, file.size_bytes) {
            let key = object.parse().map_err(Error::internal)?;
            let unread = |fault: virtualstack_objects::Fault| {
                Problem::Desk(Fault { class: Class::Retry, message: fault.to_string() })
            };
            let pieces = self.context.shared.objects.read(&key, 0..size).await.map_err(unread)?;
            let pieces: Vec<Bytes> = pieces.try_collect().await.map_err(unread)?;
            bytes.extend(pieces.concat());
        }
        let content_type = attachment::served_as(&file.content_type).to_owned();
        Ok(NewFile { name: file.file_name.clone(), content_type, bytes: bytes.into() })
    }

    /// Writes down that a try has failed, and when the next one is due: never, where the desk would refuse it again.
    async fn put_off(&mut self, fault: &Fault) -> Result<()> {
        let twin: &mut Twin = &mut self.out.twin;
        let final_ = matches!(fault.class, Class::Refused | Class::Missing);
        twin.attempts = twin.attempts.max(1) + 1;
        let pause = FIRST_PAUSE * 2_i32.saturating_pow(u32::try_from(twin.attempts.min(12)).unwrap_or_default());
        twin.retry_at = (!final_).then(|| self.context.now() + pause.min(LONGEST_PAUSE));
        let (tenant, id, twin, message) = (self.tenant, self.id, &self.out.twin, &fault.message);
        let failed = async |tx: &mut SystemTx| {
            store::save(tx, tenant, id, twin).await?;
            if final_ { store::failed(tx, tenant, id, message).await } else { Ok(()) }
        };
        self.context.commit("failed", failed).await
    }
}
