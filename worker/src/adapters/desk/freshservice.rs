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
use super::contract::{Change, Class, Desk, Fault, NewComment, NewTicket, Remote, RemoteComment, RemoteFile};
use super::html;
use crate::adapters::tls;

/// Rows of a page: as many as there may be.
const PAGE: usize = 100;

/// Pages of one list, at most: the rest is read from where it ended.
const PAGES: usize = 10;

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
    deleted: bool,
}

#[derive(Deserialize)]
struct Conversation {
    id: u64,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    private: bool,
    #[serde(default)]
    incoming: bool,
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
        let name = format!("freshservice {}", base.host_str().unwrap_or_default());
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
            let text = response.text().await.map_err(|error| retry(&error.without_url().to_string()))?;
            return if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).map_err(unreadable) };
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
        let text = response.text().await.unwrap_or_default();
        let told = told(&text);
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

    /// A page of tickets after another, until there are no more or enough.
    async fn list(&self, query: &[(&str, &str)]) -> Result<Vec<Ticket>, Fault> {
        let mut all = Vec::new();
        for page in 1..=PAGES {
            let (page, size) = (page.to_string(), PAGE.to_string());
            let mut query = query.to_vec();
            query.extend([("page", &*page), ("per_page", &*size)]);
            let reply = self.call(Method::GET, "tickets", &query, |request| request).await?;
            let tickets: Vec<Ticket> = field(reply, "tickets")?;
            let full = tickets.len() == PAGE;
            all.extend(tickets);
            if !full {
                break;
            }
        }
        Ok(all)
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

    async fn comments(&self, id: &str) -> Result<Vec<RemoteComment>, Fault> {
        let mut all = Vec::new();
        for page in 1.. {
            let (page, size) = (page.to_string(), PAGE.to_string());
            let query = [("page", &*page), ("per_page", &*size)];
            let path = format!("tickets/{id}/conversations");
            let reply = self.call(Method::GET, &path, &query, |request| request).await?;
            let said: Vec<Conversation> = field(reply, "conversations")?;
            let full = said.len() == PAGE;
            all.extend(said.into_iter().map(heard));
            if !full {
                break;
            }
        }
        Ok(all)
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
        if !reply.status().is_success() {
            return Err(self.fault(reply.status(), reply).await);
        }
        let (mut stream, mut bytes) = (reply.bytes_stream(), Vec::new());
        while let Some(piece) = stream.try_next().await.map_err(|error| retry(&error.without_url().to_string()))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > most {
                return Err(refused("a file of the desk's is larger than files of tickets may be"));
            }
        }
        Ok(bytes.into())
    }

    async fn changed_since(&self, since: DateTime<Utc>) -> Result<Vec<Remote>, Fault> {
        let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
        let order = [("updated_since", &*since), ("order_by", "updated_at"), ("order_type", "asc")];
        let mut tickets = self.list(&order).await?;
        // The list leaves deleted ones out.
        let deleted = [order[0], order[1], order[2], ("filter", "deleted")];
        tickets.extend(self.list(&deleted).await?);
        tickets.sort_by_key(|ticket| (ticket.updated_at, ticket.id));
        Ok(tickets.iter().map(|ticket| self.remote(ticket)).collect())
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
        internal: said.private,
        by_requester: said.incoming,
        files: said.attachments.into_iter().map(file).collect(),
    }
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
fn told(text: &str) -> String {
    let error: Value = serde_json::from_str(text).unwrap_or_default();
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
