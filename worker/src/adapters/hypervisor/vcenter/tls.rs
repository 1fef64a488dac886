//! Whom a connection trusts: authorities for the vCenter, and for a host that takes disks the one certificate whose thumbprint
//! the vCenter tells.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::config::{Config, ConfigError};
use crate::adapters::tls;

/// Trusts the authorities of the settings, or the system's.
pub(super) fn trusted(config: &Config) -> Result<ClientConfig, ConfigError> {
    tls::trusted(config.ca_file.as_deref()).map_err(|error| ConfigError::new("ca_file", error))
}

/// The thumbprint that was met instead of the one that was expected.
pub(super) type Met = Arc<OnceLock<String>>;

/// Trusts one certificate, by its thumbprint as a vCenter writes it: SHA-1, or SHA-256.
pub(super) fn pinned(thumbprint: &str) -> Result<(ClientConfig, Met), rustls::Error> {
    let met = Met::default();
    let verifier = Arc::new(Pinned::new(thumbprint, &met));
    let config = tls::builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok((config, met))
}

#[derive(Debug)]
struct Pinned {
    expected: String,
    met: Met,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(thumbprint: &str, met: &Met) -> Self {
        let digits: String = thumbprint.chars().filter(char::is_ascii_hexdigit).collect();
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Self { expected: digits.to_lowercase(), met: Arc::clone(met), algorithms }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let of_sha256 = self.expected.len() == 64;
        let found = if of_sha256 { hex(&Sha256::digest(end_entity)) } else { hex(&Sha1::digest(end_entity)) };
        if found == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        self.met.get_or_init(|| found);
        Err(rustls::Error::General("the certificate has another thumbprint".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Digits as thumbprints and manifests have them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_certificate_is_trusted_and_others_are_told() {
        let certificate = CertificateDer::from(b"a certificate".to_vec());
        let sha1 = hex(&Sha1::digest(&certificate));
        let sha256 = hex(&Sha256::digest(&certificate));
        let colons = |digits: &str| {
            let pairs: Vec<_> =
                digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
            pairs.join(":")
        };
        let verify = |thumbprint: &str| {
            let met = Met::default();
            let verifier = Pinned::new(thumbprint, &met);
            let name = ServerName::try_from("host.test").expect("a name");
            (verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()).is_ok(), met.get().cloned())
        };
        assert_eq!(verify(&colons(&sha1)), (true, None));
        assert_eq!(verify(&sha256), (true, None));
        assert_eq!(verify("00:11:22"), (false, Some(sha1)));
        assert_eq!(verify(&"0".repeat(64)), (false, Some(sha256)));
    }
}
