//! One SOAP call over HTTP, and what its outcome says about whether it was carried out.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use reqwest::{StatusCode, Url};

use super::config::{Config, ConfigError};
use super::faults::{Error, VimFault};
use super::tls;
use super::xml::{Element, ManagedRef, Xml};

/// The oldest version of the API that has all we ask for; every supported vCenter still speaks it.
const SOAP_ACTION: &str = "urn:vim25/6.7";
const SESSION_COOKIE: &str = "vmware_soap_session";
/// No answer of ours comes near; it only bounds what a broken server can do to us.
const MAX_REPLY: usize = 64 << 20;

/// A call to be made.
#[derive(Debug)]
pub(super) struct Call {
    method: &'static str,
    this: ManagedRef,
    arguments: Xml,
    change: bool,
    /// How much longer than others it may take.
    patience: Duration,
}

impl Call {
    /// One that changes nothing.
    pub(super) fn read(method: &'static str, this: &ManagedRef, arguments: Xml) -> Self {
        Self { method, this: this.clone(), arguments, change: false, patience: Duration::ZERO }
    }

    /// One that changes nothing and is answered when there is something to tell, after `patience` at the latest.
    pub(super) fn wait(method: &'static str, this: &ManagedRef, arguments: Xml, patience: Duration) -> Self {
        Self { patience, ..Self::read(method, this, arguments) }
    }

    /// One that must not be repeated without looking.
    pub(super) fn change(method: &'static str, this: &ManagedRef, arguments: Xml) -> Self {
        Self { change: true, ..Self::read(method, this, arguments) }
    }
}

/// The answer to a call.
#[derive(Debug)]
pub(super) struct Reply {
    /// `<Method>Response`, with a `returnval` in most cases.
    pub(super) body: Element,
    /// The session's cookie, where the server sets it.
    pub(super) cookie: Option<String>,
}

/// HTTP to one vCenter.
#[derive(Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    url: Url,
    timeout: Duration,
}

impl Transport {
    pub(super) fn new(config: &Config, url: Url) -> Result<Self, ConfigError> {
        let http = client(config, tls::trusted(config)?).map_err(|e| ConfigError::new("url", e))?;
        Ok(Self { http, url, timeout: config.request_timeout() })
    }

    /// The client itself, for what is no SOAP.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Where the SOAP service is.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) async fn send(&self, cookie: Option<&str>, call: &Call) -> Result<Reply, Error> {
        let mut request = self
            .http
            .post(self.url.clone())
            .timeout(self.timeout + call.patience)
            .header(CONTENT_TYPE, "text/xml; charset=utf-8")
            .header("SOAPAction", SOAP_ACTION)
            .body(Xml::envelope(call.method, &call.this, &call.arguments));
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let no_answer =
            |detail: String| Error::NoAnswer { change: call.change, detail: format!("{}: {detail}", call.method) };
        let mut response = request.send().await.map_err(|error| match causes(&error) {
            detail if error.is_connect() || error.is_builder() => Error::NotSent(detail),
            detail => no_answer(detail),
        })?;
        let status = response.status();
        let cookie = response
            .headers()
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok()?.split(';').next())
            .find(|pair| pair.starts_with(SESSION_COOKIE))
            .map(str::to_owned);
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(causes(&error)))? {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_REPLY {
                return Err(no_answer("the answer is too long".into()));
            }
        }
        let body = std::str::from_utf8(&text)
            .map_err(|e| e.to_string())
            .and_then(|text| Element::parse(text).map_err(|e| e.to_string()))
            .map(|envelope| envelope.at("Body").and_then(|body| body.children.first()).cloned());
        match body {
            Ok(Some(fault)) if fault.name == "Fault" => Err(Error::Vim(VimFault::from_soap(&fault))),
            Ok(Some(body)) if status == StatusCode::OK => {
                missing_session(&body).map_or(Ok(Reply { body, cookie }), Err)
            }
            // A proxy that has nobody to pass it on to, or a server that will not have it.
            _ if status == StatusCode::SERVICE_UNAVAILABLE || status.is_client_error() => {
                Err(Error::NotSent(format!("{}: HTTP {status}", call.method)))
            }
            Ok(_) => Err(no_answer(format!("HTTP {status} without a SOAP body"))),
            Err(error) => Err(no_answer(format!("HTTP {status}: {error}"))),
        }
    }
}

/// A client as this adapter wants it.
pub(super) fn client(config: &Config, tls: rustls::ClientConfig) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("virtualstack/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(config.request_timeout().min(Duration::from_secs(10)))
        // Shorter than any server's: a connection that dies as we write would make an outcome unknown.
        .pool_idle_timeout(Duration::from_secs(20))
        .build()
}

/// Reads do not fail without a session: they answer, and each property is missing for that reason.
fn missing_session(body: &Element) -> Option<Error> {
    let missing = |object: &Element| {
        object
            .all("missingSet")
            .filter_map(|missing| missing.at("fault"))
            .map(VimFault::from_localized)
            .find(|fault| fault.is("NotAuthenticated"))
    };
    let result = body.at("returnval")?;
    result.all("objects").chain([result]).find_map(missing).map(Error::Vim)
}

/// reqwest's own message leaves out what happened below it.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_without_a_session_is_an_error() {
        let reply = |fault: &str| {
            let text = format!(
                r#"<RetrievePropertiesExResponse xmlns="urn:vim25"
                xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><returnval><objects>
                <obj type="Task">task-9</obj><missingSet><path>info</path><fault><fault xsi:type="{fault}">
                <object type="Task">task-9</object><privilegeId>System.Read</privilegeId></fault>
                <localizedMessage/></fault></missingSet></objects></returnval></RetrievePropertiesExResponse>"#
            );
            missing_session(&Element::parse(&text).expect("well-formed"))
        };
        assert!(reply("NotAuthenticated").is_some_and(|error| error.is("NotAuthenticated")));
        assert!(reply("NoPermission").is_none(), "one property that may not be seen is no reason");
    }
}
