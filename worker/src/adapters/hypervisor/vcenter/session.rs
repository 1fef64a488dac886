//! The one session with a vCenter.
//!
//! Sessions that leak bring vCenters down and repeated wrong passwords lock accounts. So however many calls run: one
//! login at a time, whose outcome all that wait for it share; a refused password is not tried again for a while; a session
//! that ended is replaced once per call; and the last one is logged out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::config::{Config, ConfigError, Password};
use super::faults::Error;
use super::soap::{Call, Transport};
use super::xml::{Element, ManagedRef, Xml};

/// A vCenter ends sessions that were idle for 30 minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(5 * 60);
/// How long a refused password is not tried again; accounts are locked after a few tries within minutes.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5 * 60);
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a login gave.
#[derive(Debug)]
pub(super) struct Login {
    cookie: String,
    service: Element,
    /// The account as the vCenter names it, on tasks for instance.
    pub(super) user: String,
    /// What to add to our clock to get the vCenter's.
    clock_offset: TimeDelta,
}

impl Login {
    /// One of the vCenter's own objects, e.g. `searchIndex`.
    pub(super) fn service(&self, name: &str) -> Result<ManagedRef, Error> {
        self.service
            .at(name)
            .and_then(Element::managed)
            .ok_or_else(|| Error::Setup(format!("the server has no {name}; it is no vCenter")))
    }

    /// What says to the vCenter whose call it is.
    pub(super) fn cookie(&self) -> &str {
        &self.cookie
    }

    /// A time of ours on the vCenter's clock.
    pub(super) fn on_its_clock(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        time + self.clock_offset
    }
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Login>>,
    /// When the last try failed, and how.
    failed: Option<(Instant, Error)>,
    /// The password that was refused.
    refused: Option<(Instant, Password, Error)>,
    keep_alive: Option<JoinHandle<()>>,
    closed: bool,
}

/// A session, as needed.
#[derive(Debug)]
pub(super) struct Session {
    config: Config,
    transport: Transport,
    state: Mutex<State>,
}

impl Session {
    pub(super) fn new(config: Config) -> Result<Arc<Self>, ConfigError> {
        let transport = Transport::new(&config, config.check()?)?;
        Ok(Arc::new(Self { config, transport, state: Mutex::default() }))
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Makes a call, with a new session if the old one has ended.
    pub(super) async fn call(self: &Arc<Self>, call: &Call) -> Result<Element, Error> {
        let login = self.login().await?;
        let mut outcome = self.transport.send(Some(&login.cookie), call).await;
        if let Err(error) = &outcome
            && error.is("NotAuthenticated")
        {
            let login = self.login_unless(Some(&login)).await?;
            outcome = self.transport.send(Some(&login.cookie), call).await;
        }
        outcome.map(|reply| reply.body)
    }

    /// Makes a call in one certain session, for objects that live no longer than it.
    pub(super) async fn call_in(&self, login: &Login, call: &Call) -> Result<Element, Error> {
        self.transport.send(Some(&login.cookie), call).await.map(|reply| reply.body)
    }

    /// The present session, or a new one.
    pub(super) async fn login(self: &Arc<Self>) -> Result<Arc<Login>, Error> {
        self.login_unless(None).await
    }

    /// A session other than the one that turned out to have ended.
    async fn login_unless(self: &Arc<Self>, ended: Option<&Arc<Login>>) -> Result<Arc<Login>, Error> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(Error::NotSent("the adapter is closed".into()));
        }
        if let Some(current) = &state.current
            && !ended.is_some_and(|ended| Arc::ptr_eq(ended, current))
        {
            return Ok(Arc::clone(current));
        }
        state.current = None;
        if let Some((at, error)) = &state.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        let password = self.config.read_password().map_err(|e| Error::Setup(e.to_string()))?;
        if let Some((at, refused, error)) = &state.refused
            && at.elapsed() < REFUSAL_HOLDS
            && *refused == password
        {
            return Err(error.clone());
        }
        match self.log_in(&password).await {
            Ok(login) => {
                let login = Arc::new(login);
                state.current = Some(Arc::clone(&login));
                (state.failed, state.refused) = (None, None);
                if state.keep_alive.is_none() {
                    state.keep_alive = Some(tokio::spawn(keep_alive(Arc::downgrade(self))));
                }
                tracing::info!(url = self.config.url, "logged in to the vCenter");
                Ok(login)
            }
            Err(error) => {
                tracing::warn!(url = self.config.url, ?error, "cannot log in to the vCenter");
                if error.is("InvalidLogin") {
                    state.refused = Some((Instant::now(), password, error.clone()));
                }
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn log_in(&self, password: &Password) -> Result<Login, Error> {
        let instance = ManagedRef::new("ServiceInstance", "ServiceInstance");
        let content = self.transport.send(None, &Call::read("RetrieveServiceContent", &instance, Xml::new())).await?;
        let service = content.body.at("returnval").cloned().unwrap_or_default();
        let mut login = Login { cookie: String::new(), service, user: String::new(), clock_offset: TimeDelta::zero() };
        let credentials = Xml::new().text("userName", &self.config.username).text("password", &password.0);
        let reply = self
            .transport
            .send(content.cookie.as_deref(), &Call::read("Login", &login.service("sessionManager")?, credentials))
            .await?;
        login.cookie = reply
            .cookie
            .or(content.cookie)
            .ok_or_else(|| Error::Setup("the server gives no session cookie; it is no vCenter".into()))?;
        reply.body.text_at("returnval/userName").unwrap_or_default().clone_into(&mut login.user);
        if let Some(time) = reply.body.value_at::<DateTime<Utc>>("returnval/loginTime") {
            login.clock_offset = time - Utc::now();
        }
        Ok(login)
    }

    /// Ends the session for good.
    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        if let Some(task) = state.keep_alive.take() {
            task.abort();
        }
        let Some(login) = state.current.take() else { return };
        let Ok(manager) = login.service("sessionManager") else { return };
        let logout = Call::read("Logout", &manager, Xml::new());
        match tokio::time::timeout(LOGOUT_TIMEOUT, self.transport.send(Some(&login.cookie), &logout)).await {
            Ok(Ok(_)) => tracing::info!(url = self.config.url, "logged out of the vCenter"),
            outcome => tracing::warn!(url = self.config.url, ?outcome, "cannot log out of the vCenter"),
        }
    }

    /// Shows the vCenter that the session is in use; forgets it if it has ended.
    async fn touch(&self) {
        let Some(login) = self.state.lock().await.current.clone() else { return };
        let instance = ManagedRef::new("ServiceInstance", "ServiceInstance");
        let outcome = self.transport.send(Some(&login.cookie), &Call::read("CurrentTime", &instance, Xml::new())).await;
        if let Err(error) = outcome
            && error.is("NotAuthenticated")
        {
            let mut state = self.state.lock().await;
            if state.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &login)) {
                state.current = None;
            }
        }
    }
}

/// Runs until the session is closed or dropped.
async fn keep_alive(session: std::sync::Weak<Session>) {
    loop {
        tokio::time::sleep(KEEP_ALIVE).await;
        let Some(session) = session.upgrade() else { return };
        session.touch().await;
    }
}
