//! Freshservice, by its API of version 2.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::TryStreamExt as _;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use virtualstack_model::support::id::TicketId;
use virtualstack_model::support::ticket::{TicketPriority, TicketState};

use super::config::{Config, ConfigError};
use super::contract::{
    By, Change, Changed, Class, Desk, Fault, NewComment, NewTicket, Remote, RemoteComment, RemoteFile,
};
use super::html;
use crate::adapters::tls;

/// Rows of a page: as many as there may be.
const PAGE: usize = 100;

/// Bytes of a reply, at most.
const MOST: usize = 32 << 20;

/// Tickets that are put there come from a portal, as far as the desk is concerned.
const SOURCE: u32 = 2;

/// Characters of an error that are told.
const TOLD: usize = 300;

/// Freshservice.
pub struct Freshservice {
    config: Config,
    base: Url,
    name: String,
    http: reqwest::Client,
    state: Mutex<State>,
}

/// What the desk's replies have said.
#[derive(Default)]
struct State {
    /// Until when it shall not be called.
    wait_until: Option<Instant>,
    skew: TimeDelta,
}

#[derive(Deserialize)]
struct Ticket {
    id: u64,
    status: u32,
    priority: u32,
    updated_at: DateTime<Utc>,
    #[serde(default)]
    requester_id: Option<u64>,
    #[serde(default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct Conversation {
    id: u64,
    #[serde(default)]
    body: Option<String>,
    // What does not say that it is for the requester is not.
    #[serde(default)]
    private: Option<bool>,
    #[serde(default)]
    incoming: bool,
    #[serde(default)]
    user_id: Option<u64>,
    #[serde(default)]
    attachments: Vec<Attachment>,
}

#[derive(Deserialize)]
struct Attachment {
    id: u64,
    name: String,
    attachment_url: String,
}

impl Freshservice {
    /// Reads the settings; does not call the desk, which may be down for now.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.read_key()?;
        let base = config.base()?;
        let tls = tls::trusted(None).map_err(|error| ConfigError::new("url", error))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(config.timeout_seconds))
            .build()
            .map_err(|error| ConfigError::new("url", error))?;
        let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
        let name = format!("freshservice {}{port}", base.host_str().unwrap_or_default());
        Ok(Self { config: config.clone(), base, name, http, state: Mutex::default() })
    }

    /// Calls the desk, unless it wants fewer calls.
    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: impl FnOnce(RequestBuilder) -> RequestBuilder + Send,
    ) -> Result<Value, Fault> {
        if let Some(wait) = self.wait() {
            return Err(busy(wait));
        }
        let mut url = self.base.join(&format!("api/v2/{path}")).map_err(|error| refused(&error.to_string()))?;
        url.query_pairs_mut().extend_pairs(query);
        let key = self.config.read_key().map_err(|error| retry(&error.to_string()))?;
        let request = body(self.http.request(method, url)).basic_auth(key.0, Some("X"));
        let response = request.send().await.map_err(|error| retry(&error.without_url().to_string()))?;
        self.note(response.headers());
        let status = response.status();
        if status.is_success() {
            let bytes = read(response, MOST).await?;
            return if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes).map_err(unreadable) };
        }
        Err(self.fault(status, response).await)
    }

    /// How long the desk shall not be called.
    fn wait(&self) -> Option<TimeDelta> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = state.wait_until?.checked_duration_since(Instant::now())?;
        TimeDelta::from_std(left).ok().filter(|left| !left.is_zero())
    }

    /// Learns of a reply how many calls are left, and how late it is there.
    fn note(&self, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(total), Some(left)) = (number("x-ratelimit-total"), number("x-ratelimit-remaining"))
            && left * 100 < total * u64::from(self.config.headroom_percent)
        {
            // When its minute ends is not said: a part of one is, until it does.
            state.wait_until = Some(Instant::now() + Duration::from_secs(self.config.pause_seconds));
        }
        if let Some(after) = number(RETRY_AFTER.as_str()) {
            state.wait_until = Some(Instant::now() + Duration::from_secs(after.min(3600)));
        }
        let date = headers.get(DATE).and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
        if let Some(date) = date {
            state.skew = date.to_utc() - Utc::now();
        }
    }

    async fn fault(&self, status: StatusCode, response: Response) -> Fault {
        if status == StatusCode::TOO_MANY_REQUESTS {
            return busy(self.wait().unwrap_or(TimeDelta::seconds(15)));
        }
        let told = told(&read(response, MOST).await.unwrap_or_default());
        let message = format!("the desk answers {}: {told}", status.as_u16());
        match status {
            StatusCode::NOT_FOUND => Fault { class: Class::Missing, message },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT => retry(&message),
            status if status.is_client_error() => refused(&message),
            _ => retry(&message),
        }
    }

    fn remote(&self, ticket: &Ticket) -> Remote {
        Remote {
            id: ticket.id.to_string(),
            state: self.state_of(ticket.status),
            raw_state: ticket.status.to_string(),
            priority: priority_of(ticket.priority),
            requester: user(ticket.requester_id),
            updated_at: ticket.updated_at,
            deleted: ticket.deleted,
        }
    }

    fn state_of(&self, status: u32) -> Option<TicketState> {
        if let Some(word) = self.config.states.get(&status.to_string()) {
            return TicketState::from_word(word);
        }
        match status {
            2 => Some(TicketState::Open),
            3 => Some(TicketState::Pending),
            4 => Some(TicketState::Resolved),
            5 => Some(TicketState::Closed),
            _ => None,
        }
    }
}

#[async_trait]
impl Desk for Freshservice {
    fn name(&self) -> &str {
        &self.name
    }

    async fn find(&self, ticket: TicketId) -> Result<Option<Remote>, Fault> {
        let query = match &self.config.id_field {
            Some(name) => format!("\"{name}:'{ticket}'\""),
            None => format!("\"tag:'{}'\"", tag(ticket)),
        };
        let reply = self.call(Method::GET, "tickets/filter", &[("query", &query)], |request| request).await?;
        let tickets: Vec<Ticket> = field(reply, "tickets")?;
        Ok(tickets.first().map(|ticket| self.remote(ticket)))
    }

    async fn create(&self, ticket: &NewTicket) -> Result<Remote, Fault> {
        let mut body = json!({
            "subject": ticket.subject,
            "description": described(&ticket.description, &ticket.facts),
            "email": ticket.requester_email,
            "status": status(ticket.state),
            "priority": priority(ticket.priority),
            "source": SOURCE,
            "tags": ["virtualstack", tag(ticket.id)],
        });
        if let Some(name) = &self.config.id_field {
            body["custom_fields"] = json!({ name: ticket.id.to_string() });
        }
        let reply = self.call(Method::POST, "tickets", &[], |request| request.json(&body)).await?;
        let ticket: Ticket = field(reply, "ticket")?;
        Ok(self.remote(&ticket))
    }

    async fn read(&self, id: &str) -> Result<Remote, Fault> {
        let reply = self.call(Method::GET, &format!("tickets/{id}"), &[], |request| request).await?;
        let ticket: Ticket = field(reply, "ticket")?;
        Ok(self.remote(&ticket))
    }

    async fn update(&self, id: &str, change: &Change) -> Result<Remote, Fault> {
        let mut body = serde_json::Map::new();
        let Change { subject, description, state, priority: to } = change;
        body.extend(subject.as_ref().map(|subject| ("subject".to_owned(), json!(subject))));
        let text = description.as_ref().map(|(text, facts)| described(text, facts));
        body.extend(text.map(|text| ("description".to_owned(), json!(text))));
        body.extend(state.map(|state| ("status".to_owned(), json!(status(state)))));
        body.extend(to.map(|to| ("priority".to_owned(), json!(priority(to)))));
        let path = format!("tickets/{id}");
        let reply = self.call(Method::PUT, &path, &[], |request| request.json(&body)).await?;
        let ticket: Ticket = field(reply, "ticket")?;
        Ok(self.remote(&ticket))
    }

    async fn comments(&self, id: &str, known: usize) -> Result<Vec<RemoteComment>, Fault> {
        let path = format!("tickets/{id}/conversations");
        // The last page of those that are known is read once more; all of them, where so many were deleted that it is gone.
        let first = (known / PAGE).max(1);
        let (mut page, mut all) = (first, Vec::new());
        loop {
            let (number, size) = (page.to_string(), PAGE.to_string());
            let query = [("page", &*number), ("per_page", &*size)];
            let reply = self.call(Method::GET, &path, &query, |request| request).await?;
            let said: Vec<Conversation> = field(reply, "conversations")?;
            if said.is_empty() && page == first && page > 1 {
                page = 1;
                continue;
            }
            let is_full = said.len() == PAGE;
            all.extend(said.into_iter().map(heard));
            if !is_full {
                return Ok(all);
            }
            page += 1;
        }
    }

    async fn comment(&self, id: &str, comment: &NewComment) -> Result<String, Fault> {
        let text = if comment.internal {
            comment.body.clone()
        } else {
            format!("{}:\n\n{}", comment.author_name, comment.body)
        };
        let body = html::marked(&text, comment.id);
        let path = format!("tickets/{id}/notes");
        let reply = match &comment.file {
            None => {
                let body = json!({"body": body, "private": comment.internal});
                self.call(Method::POST, &path, &[], |request| request.json(&body)).await?
            }
            Some(file) => {
                let part = Part::stream(file.bytes.clone()).file_name(file.name.clone());
                let part = part.mime_str(&file.content_type).map_err(|error| refused(&error.to_string()))?;
                let form = Form::new().text("body", body).text("private", comment.internal.to_string());
                let form = form.part("attachments[]", part);
                self.call(Method::POST, &path, &[], |request| request.multipart(form)).await?
            }
        };
        let said: Conversation = field(reply, "conversation")?;
        Ok(said.id.to_string())
    }

    async fn fetch(&self, file: &RemoteFile, most: u64) -> Result<Bytes, Fault> {
        let url = Url::parse(&file.url).map_err(|error| refused(&error.to_string()))?;
        // Files may lie elsewhere, where our key is none of anybody's business; but not in the clear.
        if url.scheme() != "https" && url.origin() != self.base.origin() {
            return Err(refused("a file of the desk's is not behind https"));
        }
        let reply = self.http.get(url).send().await.map_err(|error| retry(&error.without_url().to_string()))?;
        let status = reply.status();
        match status {
            status if status.is_success() => {}
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(retry(&format!("the storage of the desk's files answers {}", status.as_u16())));
            }
            // Its address was told just now: another try would be refused, too.
            status if status.is_client_error() || status.is_redirection() => {
                return Err(refused(&format!("the storage of the desk's files answers {}", status.as_u16())));
            }
            status => return Err(retry(&format!("the storage of the desk's files answers {}", status.as_u16()))),
        }
        read(reply, usize::try_from(most).unwrap_or(usize::MAX)).await.map(Bytes::from)
    }

    async fn changed_since(&self, since: DateTime<Utc>, page: usize, deleted: bool) -> Result<Changed, Fault> {
        let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
        let (page, size) = (page.to_string(), PAGE.to_string());
        let mut query = vec![("updated_since", &*since), ("order_by", "updated_at"), ("order_type", "asc")];
        query.extend([("page", &*page), ("per_page", &*size)]);
        // A list leaves deleted ones out.
        query.extend(deleted.then_some(("filter", "deleted")));
        let reply = self.call(Method::GET, "tickets", &query, |request| request).await?;
        let tickets: Vec<Ticket> = field(reply, "tickets")?;
        let is_full = tickets.len() == PAGE;
        Ok(Changed { tickets: tickets.iter().map(|ticket| self.remote(ticket)).collect(), is_full })
    }

    fn settles_after(&self) -> TimeDelta {
        let Config { timeout_seconds, search_delay_seconds, .. } = &self.config;
        let timeout = i64::try_from(*timeout_seconds).unwrap_or(i64::MAX / 2000);
        TimeDelta::seconds(timeout + i64::from(*search_delay_seconds))
    }

    fn pause(&self) -> Option<TimeDelta> {
        self.wait()
    }

    fn skew(&self) -> TimeDelta {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).skew
    }
}

/// What was said, as we take it over.
fn heard(said: Conversation) -> RemoteComment {
    let (body, ours) = html::to_text(said.body.as_deref().unwrap_or_default());
    let file = |file: Attachment| RemoteFile { id: file.id.to_string(), name: file.name, url: file.attachment_url };
    RemoteComment {
        id: said.id.to_string(),
        ours,
        body,
        internal: said.private != Some(false),
        by: if said.incoming { By::Mail(user(said.user_id)) } else { By::Staff },
        files: said.attachments.into_iter().map(file).collect(),
    }
}

/// Somebody, by their number.
fn user(id: Option<u64>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// The body of a reply, if it is no longer than it may be.
async fn read(reply: Response, most: usize) -> Result<Vec<u8>, Fault> {
    let (mut stream, mut bytes) = (reply.bytes_stream(), Vec::new());
    while let Some(piece) = stream.try_next().await.map_err(|error| retry(&error.without_url().to_string()))? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > most {
            return Err(refused(&format!("the desk sends more than {most} bytes")));
        }
    }
    Ok(bytes)
}

/// The tag that a ticket of ours bears.
fn tag(ticket: TicketId) -> String {
    format!("vs-{ticket}")
}

/// What a ticket says, and what is known of it, as a table below.
fn described(text: &str, facts: &[(String, String)]) -> String {
    let rows = facts
        .iter()
        .map(|(name, value)| format!("<tr><td>{}</td><td>{}</td></tr>", html::from_text(name), html::from_text(value)));
    format!("<div>{}</div><hr><table>{}</table>", html::from_text(text), rows.collect::<String>())
}

const fn status(state: TicketState) -> u32 {
    match state {
        TicketState::Open => 2,
        TicketState::Pending => 3,
        TicketState::Resolved => 4,
        TicketState::Closed => 5,
    }
}

const fn priority(priority: TicketPriority) -> u32 {
    match priority {
        TicketPriority::Low => 1,
        TicketPriority::Medium => 2,
        TicketPriority::High => 3,
        TicketPriority::Urgent => 4,
    }
}

const fn priority_of(priority: u32) -> Option<TicketPriority> {
    match priority {
        1 => Some(TicketPriority::Low),
        2 => Some(TicketPriority::Medium),
        3 => Some(TicketPriority::High),
        4 => Some(TicketPriority::Urgent),
        _ => None,
    }
}

fn field<T: for<'de> Deserialize<'de>>(mut reply: Value, name: &str) -> Result<T, Fault> {
    serde_json::from_value(reply[name].take()).map_err(unreadable)
}

/// What an error says, field by field, where it does.
fn told(text: &[u8]) -> String {
    let error: Value = serde_json::from_slice(text).unwrap_or_default();
    let part = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    let mut told = vec![part(&error, "description"), part(&error, "message")];
    for wrong in error["errors"].as_array().into_iter().flatten() {
        told.push(format!("{}: {}", part(wrong, "field"), part(wrong, "message")));
    }
    told.retain(|part| !part.is_empty());
    let told = if told.is_empty() { "nothing more".to_owned() } else { told.join("; ") };
    told.chars().take(TOLD).collect()
}

fn unreadable(error: serde_json::Error) -> Fault {
    retry(&format!("the desk's answer cannot be read: {error}"))
}

fn retry(message: &str) -> Fault {
    Fault { class: Class::Retry, message: message.to_owned() }
}

fn refused(message: &str) -> Fault {
    Fault { class: Class::Refused, message: message.to_owned() }
}

fn busy(wait: TimeDelta) -> Fault {
    let message = format!("the desk wants fewer calls: the next in {} s", wait.num_seconds().max(1));
    Fault { class: Class::Busy(wait), message }
}
