//! Lets the provider's desk have what has changed of tickets.
//!
//! - What it does: it puts a ticket there, changes what differs from what both had last, and says what was said since; in turns of
//!   the tenants, and of each ticket in order.
//! - What it must never do: put anything there twice, though replies are lost and workers die; undo what was done there later. So a try
//!   is written down before its call, and one that stays without an answer is looked for before the next; and a ticket is read before
//!   it is changed.
//!
//! It is a part of [`super::desk_sync`].

use std::collections::HashMap;

use bytes::Bytes;
use chrono::TimeDelta;
use futures::TryStreamExt as _;
use uuid::Uuid;
use virtualstack_model::support::attachment;
use virtualstack_model::{Error, Result};
use virtualstack_store::SystemTx;
use virtualstack_store::support::desk::{self as store, Outgoing, TwinKey};
use virtualstack_store::support::staff_files::StaffAttachment;

use super::desk_follow::follow;
use super::desk_poll::DELETED;
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
    let due = async |tx: &mut SystemTx| store::to_send(tx, desk.name(), TICKETS).await;
    let mut failures = 0;
    for (tenant, ticket) in context.store().system(reconciler(), due).await? {
        if context.ends() {
            return Ok(());
        }
        if let Some(pause) = desk.pause() {
            let message = "the desk wants fewer calls".to_owned();
            return Err(Problem::Desk(Fault { class: Class::Busy(pause), message }));
        }
        let mut sending = Sending::begin(context, desk, TwinKey { desk: desk.name(), tenant, ticket }).await?;
        let Err(problem) = sending.run().await else {
            failures = 0;
            continue;
        };
        let fault = match problem.of_one() {
            Ok(fault) => fault,
            Err(Problem::Early(after)) => {
                sending.wait(after).await?;
                continue;
            }
            Err(problem) => return Err(problem),
        };
        tracing::warn!(%ticket, error = %fault, "the desk does not take a ticket");
        sending.put_off(&fault).await?;
        failures += 1;
        // What it refuses says that it works.
        if failures == IN_A_ROW && fault.class == Class::Retry {
            return Err(Problem::Desk(fault));
        }
    }
    Ok(())
}

/// A ticket on its way.
struct Sending<'a> {
    context: &'a TaskContext<'a>,
    desk: &'a dyn Desk,
    key: TwinKey<'a>,
    out: Outgoing,
    /// What the desk has refused, and whether the tenant sees that.
    refused: Option<(bool, String)>,
}

impl<'a> Sending<'a> {
    async fn begin(context: &'a TaskContext<'a>, desk: &'a dyn Desk, key: TwinKey<'a>) -> Result<Self> {
        let out = Self::read_out(context, key).await?;
        Ok(Self { context, desk, key, out, refused: None })
    }

    async fn read_out(context: &TaskContext<'_>, key: TwinKey<'_>) -> Result<Outgoing> {
        context.commit("read", async |tx: &mut SystemTx| store::outgoing(tx, key).await).await
    }

    async fn run(&mut self) -> Result<(), Problem> {
        let remote_id = match self.out.twin.remote_id.clone() {
            Some(remote_id) => {
                self.look(&remote_id).await?;
                remote_id
            }
            None => self.put_there().await?,
        };
        self.change(&remote_id).await?;
        self.say(&remote_id).await?;
        if self.out.is_part() {
            // The rest is due as before.
            return Ok(());
        }
        let (key, out, refused) = (self.key, &self.out, &self.refused);
        let synced = async |tx: &mut SystemTx| {
            store::synced(tx, key, out).await?;
            match refused {
                Some((is_public, why)) => store::failed(tx, key.tenant, key.ticket, *is_public, why).await,
                None => Ok(()),
            }
        };
        Ok(self.context.commit("synced", synced).await?)
    }

    /// Reads the ticket there, and takes over what has changed: what is sent then is later.
    async fn look(&mut self, remote_id: &str) -> Result<(), Problem> {
        let remote = self.context.call("look", self.desk.read(remote_id)).await?;
        if remote.deleted {
            return Err(Problem::Desk(Fault { class: Class::Missing, message: DELETED.to_owned() }));
        }
        follow(self.context, self.desk, self.key, &remote).await?;
        self.out = Self::read_out(self.context, self.key).await?;
        Ok(())
    }

    /// Writes what is known of the twin.
    async fn save(&self, step: &str) -> Result<()> {
        let (key, twin) = (self.key, &self.out.twin);
        self.context.commit(step, async |tx: &mut SystemTx| store::save(tx, key, twin).await).await
    }

    /// Puts something there, once that is written down.
    async fn put<T>(&mut self, step: &str, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Problem> {
        (self.out.twin.open_try, self.out.twin.begun_at) = (true, self.context.now());
        self.save("try").await?;
        let put = self.context.call(step, call).await;
        // Any other answer says whether it is there.
        if !matches!(&put, Err(Fault { class: Class::Retry, .. })) {
            self.out.twin.open_try = false;
        }
        if put.is_err() {
            self.save("failed").await?;
        }
        Ok(put?)
    }

    /// Waits until what a try without an answer has put there would be found.
    fn expect_settled(&self) -> Result<(), Problem> {
        let wait = self.out.twin.begun_at + self.desk.settles_after() - self.context.now();
        if self.out.twin.open_try && wait > TimeDelta::zero() { Err(Problem::Early(wait)) } else { Ok(()) }
    }

    /// Puts the ticket there, if no try before has; its number there.
    async fn put_there(&mut self) -> Result<String, Problem> {
        self.expect_settled()?;
        let desk = self.desk;
        let found = match self.out.twin.open_try {
            true => self.context.call("find", desk.find(self.key.ticket)).await?,
            false => None,
        };
        let is_found = found.is_some();
        let remote = match found {
            Some(remote) => remote,
            None => {
                let (twin, ticket) = (&mut self.out.twin, &self.out.ticket);
                twin.subject.clone_from(&ticket.subject);
                twin.description.clone_from(&ticket.description);
                (twin.state, twin.priority) = (ticket.state.to_string(), ticket.priority.to_string());
                let new = self.new_ticket();
                self.put("create", desk.create(&new)).await?
            }
        };
        let twin = &mut self.out.twin;
        (twin.remote_id, twin.open_try) = (Some(remote.id.clone()), false);
        // What was sent is what both have; where the desk has another state, that was given to it since.
        if remote.state.is_some_and(|state| state.as_str() == twin.state) {
            twin.remote_state.clone_from(&remote.raw_state);
        }
        let (key, twin, remote_id) = (self.key, &self.out.twin, &remote.id);
        let created = async |tx: &mut SystemTx| {
            store::number(tx, key.tenant, key.ticket, remote_id).await?;
            store::save(tx, key, twin).await?;
            // What was done there before we knew of it was passed over.
            if is_found { store::read_again(tx, key).await } else { Ok(()) }
        };
        self.context.commit("created", created).await?;
        if is_found {
            self.look(&remote.id).await?;
        }
        Ok(remote.id)
    }

    fn new_ticket(&self) -> NewTicket {
        let ticket = &self.out.ticket;
        NewTicket {
            id: self.key.ticket,
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
            ("ticket", format!("{} (number {})", self.key.ticket.name_in(self.key.tenant), self.out.ticket.number)),
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
        self.expect_settled()?;
        let there: HashMap<Uuid, String> = if self.out.twin.open_try {
            let said = self.context.call("said", self.desk.comments(remote_id, 0)).await?;
            said.into_iter().filter_map(|comment| Some((comment.ours?, comment.id))).collect()
        } else {
            HashMap::new()
        };
        let (key, desk) = (self.key, self.desk);
        for (mut said, file) in unsaid {
            let put = match there.get(&said.id) {
                Some(remote) => Ok(remote.clone()),
                None => {
                    if let Some(file) = file {
                        said.file = Some(self.read(&file).await?);
                    }
                    self.put("say", desk.comment(remote_id, &said)).await
                }
            };
            self.out.twin.open_try = false;
            let (remote, twin) = match put {
                Ok(remote) => (Some(remote), &self.out.twin),
                Err(Problem::Desk(Fault { class: Class::Refused, message })) => {
                    let is_public = !said.internal || self.refused.as_ref().is_some_and(|(is_public, _)| *is_public);
                    self.refused = Some((is_public, message));
                    (None, &self.out.twin)
                }
                Err(problem) => return Err(problem),
            };
            let pair = async |tx: &mut SystemTx| {
                store::save(tx, key, twin).await?;
                match &remote {
                    Some(remote) => store::pair(tx, key, said.id, remote).await.map(|_| ()),
                    None => store::refuse(tx, key, said.id).await,
                }
            };
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
        let is_final = matches!(fault.class, Class::Refused | Class::Missing);
        let attempts = self.out.twin.attempts + 1;
        let pause = FIRST_PAUSE * 2_i32.saturating_pow(u32::try_from(attempts.min(12)).unwrap_or_default());
        let retry_at = (!is_final).then(|| self.context.now() + pause.min(LONGEST_PAUSE));
        let (key, twin, message) = (self.key, &self.out.twin, &fault.message);
        let failed = async |tx: &mut SystemTx| {
            let is_put_off = store::put_off(tx, key, twin, attempts, retry_at).await?;
            if is_put_off && is_final { store::failed(tx, key.tenant, key.ticket, true, message).await } else { Ok(()) }
        };
        self.context.commit("failed", failed).await
    }

    /// Has the ticket wait, which is no failure.
    async fn wait(&self, after: TimeDelta) -> Result<()> {
        let (key, twin, at) = (self.key, &self.out.twin, Some(self.context.now() + after));
        let wait = async |tx: &mut SystemTx| store::put_off(tx, key, twin, twin.attempts, at).await.map(|_| ());
        self.context.commit("early", wait).await
    }
}
