//! What a desk does.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::ticket::{TicketPriority, TicketState};

/// A desk that is another program.
#[async_trait]
pub trait Desk: Send + Sync + 'static {
    /// What tells it from other desks.
    fn name(&self) -> &str;

    /// Looks for a ticket of ours.
    async fn find(&self, ticket: TicketId) -> Result<Option<Remote>, Fault>;

    /// Puts a ticket there.
    async fn create(&self, ticket: &NewTicket) -> Result<Remote, Fault>;

    /// Reads a ticket.
    async fn read(&self, id: &str) -> Result<Remote, Fault>;

    /// Changes what is set.
    async fn update(&self, id: &str, change: &Change) -> Result<Remote, Fault>;

    /// What was said of a ticket, oldest first; as many as `known` of the first may be left out.
    async fn comments(&self, id: &str, known: usize) -> Result<Vec<RemoteComment>, Fault>;

    /// Says something of a ticket; its id there.
    async fn comment(&self, id: &str, comment: &NewComment) -> Result<String, Fault>;

    /// The bytes of a file, if they are no more than so many.
    async fn fetch(&self, file: &RemoteFile, most: u64) -> Result<Bytes, Fault>;

    /// Tickets that have changed since a time of the desk's clock, oldest change first, a page of them: those that are deleted, or
    /// those that are not.
    async fn changed_since(&self, since: DateTime<Utc>, page: usize, deleted: bool) -> Result<Changed, Fault>;

    /// How long after a call has begun everybody finds what it has done, if it has done something.
    fn settles_after(&self) -> TimeDelta;

    /// How long it wants not to be called.
    fn pause(&self) -> Option<TimeDelta>;

    /// How far the desk's clock is ahead of ours, as far as is known.
    fn skew(&self) -> TimeDelta;
}

/// A ticket to put there.
#[derive(Clone, Debug)]
pub struct NewTicket {
    pub id: TicketId,
    pub subject: String,
    pub description: String,
    /// What is known of what it is about, and of whose it is.
    pub facts: Vec<(String, String)>,
    pub state: TicketState,
    pub priority: TicketPriority,
    pub requester_email: String,
}

/// What changes of a ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub subject: Option<String>,
    pub description: Option<(String, Vec<(String, String)>)>,
    pub state: Option<TicketState>,
    pub priority: Option<TicketPriority>,
}

/// A ticket as the desk has it.
#[derive(Clone, Debug)]
pub struct Remote {
    pub id: String,
    /// None where the desk's own word has no meaning here.
    pub state: Option<TicketState>,
    pub raw_state: String,
    pub priority: Option<TicketPriority>,
    /// Whose it is there.
    pub requester: String,
    /// By the desk's clock.
    pub updated_at: DateTime<Utc>,
    pub deleted: bool,
}

/// A page of tickets that have changed.
#[derive(Clone, Debug)]
pub struct Changed {
    pub tickets: Vec<Remote>,
    /// Whether there may be more.
    pub is_full: bool,
}

/// Something to say of a ticket, maybe with a file.
#[derive(Clone, Debug)]
pub struct NewComment {
    /// Of the comment or the file.
    pub id: Uuid,
    pub author_name: String,
    pub body: String,
    pub internal: bool,
    pub file: Option<NewFile>,
}

/// A file.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub name: String,
    pub content_type: String,
    pub bytes: Bytes,
}

/// Something that was said in the desk.
#[derive(Clone, Debug)]
pub struct RemoteComment {
    pub id: String,
    /// Ours, if we have put it there.
    pub ours: Option<Uuid>,
    /// Plain text.
    pub body: String,
    pub internal: bool,
    pub by: By,
    pub files: Vec<RemoteFile>,
}

/// Who says something in a desk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Staff,
    /// Somebody by mail, by the desk's id of them.
    Mail(String),
}

/// A file that came with something that was said.
#[derive(Clone, Debug)]
pub struct RemoteFile {
    pub id: String,
    pub name: String,
    pub url: String,
}

/// Why a desk did not do something.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub class: Class,
    pub message: String,
}

/// What can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may pass. Whether the call was done is not known.
    Retry,
    /// The desk wants fewer calls; nothing was done. It is worth another try after this long.
    Busy(TimeDelta),
    /// The desk refuses it, and would again.
    Refused,
    /// What is named is not there.
    Missing,
}
