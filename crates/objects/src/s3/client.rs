//! HTTP to an S3: TLS, and how long anything may take.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::answer::Answer;
use crate::config::{Config, ConfigError};

/// A client, and what hands it out.
#[derive(Clone, Debug)]
pub(super) struct Client(reqwest::Client);

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(config)?)
            .user_agent(concat!("virtualstack/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            // object_store counts its own.
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(config.connect_timeout_seconds))
            // For the answer to a put, and for each piece of what is read. None for a whole read: whoever reads it may be
            // slower than the store.
            .read_timeout(Duration::from_secs(config.request_timeout_seconds))
            // Shorter than most servers': a connection that dies as we write costs a try.
            .pool_idle_timeout(Duration::from_secs(20))
            .build();
        client.map(Self).map_err(|error| ConfigError::new("endpoint", error))
    }
}

impl HttpConnector for Client {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.call(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        Err(Answer::read(status, response.into_body().bytes_stream()).await.into_error())
    }
}

fn tls(config: &Config) -> Result<rustls::ClientConfig, ConfigError> {
    let broken = |e: &dyn std::fmt::Display| ConfigError::new("ca_file", e);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| broken(&e))?;
    let Some(file) = &config.ca_file else {
        return Ok(builder.with_platform_verifier().map_err(|e| broken(&e))?.with_no_client_auth());
    };
    let pem = fs::read(file).map_err(|e| broken(&format_args!("{}: {e}", file.display())))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|e| broken(&e))?).map_err(|e| broken(&e))?;
    }
    if roots.is_empty() {
        return Err(broken(&format_args!("{}: no certificate in it", file.display())));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
