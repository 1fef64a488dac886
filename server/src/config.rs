//! Settings of the server.

use std::net::{Ipv4Addr, SocketAddr};

use chrono::TimeDelta;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use virtualstack_model::Error;

/// Reason of errors that are about a setting.
pub const WRONG_SETTING: &str = "WRONG_SETTING";

/// A setting that cannot be worked with.
pub(crate) fn wrong(key: &str, what: impl std::fmt::Display) -> Error {
    Error::precondition(WRONG_SETTING, key, format!("{key}: {what}"))
}

/// What only the server and somebody else know, such as its gateways, so that the server believes what they say.
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret that is long enough not to be guessed.
    ///
    /// # Errors
    ///
    /// When it is not, or cannot stand in a header.
    pub fn new(key: &str, text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() < 32 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(key, "must be at least 32 letters, digits or signs of ASCII"));
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    /// Whether it is what somebody shows, in a time that tells nothing of it.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        use sha2::{Digest as _, Sha256};
        use subtle::ConstantTimeEq as _;
        Sha256::digest(&self.0).ct_eq(&Sha256::digest(shown)).into()
    }
}

/// What the provider's desk shows when it says that something has changed there: in the path, and in a header.
pub struct DeskWebhook {
    pub path: Secret,
    pub header: HeaderName,
    pub secret: Secret,
}

impl DeskWebhook {
    /// Whether somebody shows both, in a time that tells nothing of them.
    pub(crate) fn is(&self, path: &str, headers: &HeaderMap) -> bool {
        let shown = headers.get(&self.header).map_or(&[][..], HeaderValue::as_bytes);
        self.path.is(path.as_bytes()) & self.secret.is(shown)
    }
}

/// Settings of the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen, for gRPC and grpc-web.
    pub listen: SocketAddr,
    /// Who tokens say issued them: `iss`.
    pub issuer: String,
    /// Whom tokens are for: `aud`.
    pub audience: String,
    /// Seconds that an access token is good for.
    pub access_token_seconds: i64,
    /// Seconds that a session lives without a refresh.
    pub session_seconds: i64,
    /// Whether clients may ask which services there are.
    pub reflection: bool,
    /// Origins of browser frontends that may call; "*" for all.
    pub cors_origins: Vec<String>,
    /// Bytes of a request message at most.
    pub max_request_bytes: usize,
    /// Requests at work at once; more are asked to come back. A member may have an eighth of them, a tenant a quarter, and
    /// those who are not signed in a quarter, a sixteenth for each address.
    pub concurrency_limit: usize,
    /// Connections at once, and of one address; a network of /64 is one with IPv6. Those of gateways that hold the secret are
    /// not counted by address.
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    /// Seconds from a connection to its first request, …
    pub first_request_seconds: u64,
    /// … for the body of a request to arrive, …
    pub request_body_seconds: u64,
    /// … for a reply, or a piece of it, to be read, …
    pub send_seconds: u64,
    /// … and that a connection is kept on which nothing is asked.
    pub idle_seconds: u64,
    /// Seconds that a call may take when its client does not say.
    pub default_timeout_seconds: u64,
    /// Password hashes at work at once, each taking 19 MiB.
    pub concurrent_hashes: usize,
    /// Public calls about passwords and tokens, each kind by itself, that one client may make a minute for one account; 0
    /// for no limit.
    pub auth_per_minute: u32,
    /// The same of all kinds and for all accounts together, by one client's address; 0 for no limit.
    pub auth_per_address_per_minute: u32,
    /// Mails with a token that one address is sent an hour, and that one tenant asks for; 0 for no limit.
    pub mails_per_address_per_hour: u32,
    pub mails_per_tenant_per_hour: u32,
    /// Other calls that one session may make a second in the long run; 0 for no limit.
    pub calls_per_second: u32,
    /// Of those at once, after a rest.
    pub calls_burst: u32,
    /// Watches at most, of this server, and of one tenant, and one session or API key, there.
    pub max_watches: usize,
    pub max_watches_per_tenant: usize,
    pub max_watches_per_principal: usize,
    /// Waits for operations at most, likewise.
    pub max_waits: usize,
    pub max_waits_per_tenant: usize,
    pub max_waits_per_principal: usize,
    /// Uploads at once at most, likewise.
    pub max_uploads: usize,
    pub max_uploads_per_tenant: usize,
    pub max_uploads_per_principal: usize,
    /// Seconds in which a byte of an upload comes, at least.
    pub upload_idle_seconds: u64,
    /// Bytes of a template's file at most.
    pub max_template_bytes: i64,
    /// Seconds that a template waits for the next byte of its file, or for its import.
    pub upload_expiry_seconds: u32,
    /// Downloads of files at once at most, of this server, and of one tenant, and one member, there.
    pub max_downloads: usize,
    pub max_downloads_per_tenant: usize,
    pub max_downloads_per_principal: usize,
    /// Bytes of all files of a tenant's tickets, at most.
    pub max_attachment_bytes_per_tenant: i64,
    /// Tickets of a tenant that are not closed, at most.
    pub max_open_tickets_per_tenant: i32,
    /// Tickets and comments that a tenant writes in an hour, at most.
    pub tickets_per_tenant_per_hour: i64,
    pub ticket_comments_per_tenant_per_hour: i64,
    /// Seconds in which a closed ticket can be opened again by its tenant.
    pub ticket_reopen_seconds: u32,
    /// Whether tickets are answered here, and in no other desk. It is a setting of the desk.
    #[serde(skip)]
    pub desk_is_local: bool,
    /// What a new tenant may have at most, until somebody sets its quota. It has a section of its own.
    #[serde(skip)]
    pub default_quota: DefaultQuota,
    /// Seconds that a watch that was cut off may be taken up again.
    pub watch_resume_seconds: u64,
    /// Milliseconds at most between looks whether a watch may go on, and between messages: where there is none, a bookmark.
    pub watch_heartbeat_ms: u64,
    /// Whether to listen for changed access and for changes to watch, on a connection of its own. Off where the database
    /// is behind a pooler that cannot: caches then find out at the next use, and watches within a second.
    pub listen_for_access: bool,
    /// Seconds to finish what is at work when asked to stop.
    pub drain_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            issuer: "virtualstack".to_owned(),
            audience: "virtualstack".to_owned(),
            access_token_seconds: 15 * 60,
            session_seconds: 30 * 24 * 3600,
            reflection: true,
            cors_origins: Vec::new(),
            max_request_bytes: 4 * 1024 * 1024,
            concurrency_limit: 1024,
            max_connections: 8192,
            max_connections_per_address: 512,
            first_request_seconds: 10,
            request_body_seconds: 20,
            send_seconds: 60,
            idle_seconds: 600,
            default_timeout_seconds: 30,
            concurrent_hashes: 2,
            auth_per_minute: 10,
            auth_per_address_per_minute: 100,
            mails_per_address_per_hour: 20,
            mails_per_tenant_per_hour: 500,
            calls_per_second: 200,
            calls_burst: 400,
            max_watches: 1000,
            max_watches_per_tenant: 200,
            max_watches_per_principal: 20,
            max_waits: 512,
            max_waits_per_tenant: 192,
            max_waits_per_principal: 96,
            max_uploads: 64,
            max_uploads_per_tenant: 16,
            max_uploads_per_principal: 8,
            upload_idle_seconds: 60,
            max_template_bytes: 100 << 30,
            upload_expiry_seconds: 24 * 3600,
            max_downloads: 64,
            max_downloads_per_tenant: 16,
            max_downloads_per_principal: 8,
            max_attachment_bytes_per_tenant: 1 << 30,
            max_open_tickets_per_tenant: 200,
            tickets_per_tenant_per_hour: 100,
            ticket_comments_per_tenant_per_hour: 300,
            ticket_reopen_seconds: 30 * 24 * 3600,
            desk_is_local: true,
            default_quota: DefaultQuota::default(),
            watch_resume_seconds: 24 * 3600,
            watch_heartbeat_ms: 10_000,
            listen_for_access: true,
            drain_seconds: 30,
        }
    }
}

impl Config {
    pub(crate) fn upload_expiry(&self) -> TimeDelta {
        TimeDelta::seconds(self.upload_expiry_seconds.into())
    }
}

/// Limits of a new tenant; what is not set is unlimited.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultQuota {
    pub vms: Option<i64>,
    pub vcpus: Option<i64>,
    pub memory_mib: Option<i64>,
    pub disk_gib: Option<i64>,
    pub snapshots: Option<i64>,
    pub templates: Option<i64>,
    pub template_bytes: Option<i64>,
}

impl Default for DefaultQuota {
    /// Files take room of the provider's from the first byte on, before anybody has said how much.
    fn default() -> Self {
        Self {
            vms: None,
            vcpus: None,
            memory_mib: None,
            disk_gib: None,
            snapshots: None,
            templates: Some(100),
            template_bytes: Some(500 << 30),
        }
    }
}
