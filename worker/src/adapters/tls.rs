//! TLS of the adapters: ring, and the authorities of a file or of the system.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Untrusted(String);

impl Untrusted {
    fn new(problem: impl Display) -> Self {
        Self(problem.to_string())
    }

    fn of_file(file: &Path, problem: impl fmt::Display) -> Self {
        Self(format!("{}: {problem}", file.display()))
    }
}

pub(super) fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()
}

/// Trusts the authorities of a PEM file, or the system's.
pub(super) fn trusted(ca_file: Option<&Path>) -> Result<ClientConfig, Untrusted> {
    let builder = builder().map_err(Untrusted::new)?;
    let Some(file) = ca_file else {
        return Ok(builder.with_platform_verifier().map_err(Untrusted::new)?.with_no_client_auth());
    };
    let pem = fs::read(file).map_err(|error| Untrusted::of_file(file, error))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(Untrusted::new)?).map_err(Untrusted::new)?;
    }
    if roots.is_empty() {
        return Err(Untrusted::of_file(file, "no certificate in it"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
