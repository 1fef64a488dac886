//! Mail by SMTP, to a relay. Each mail is a connection of its own: mails are few, and a relay closes idle ones.

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::{Error, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::config::{Config, ConfigError, Security};
use super::mailer::{Fault, Mailer, Message, format};

/// Replies to a login that is refused (RFC 4954). That is the operator's to mend, and the mail should go then.
const LOGIN_REFUSED: [u16; 4] = [530, 534, 535, 538];

/// Hands mails to a relay.
pub struct Smtp {
    config: Config,
    from: Mailbox,
    host: String,
    port: u16,
    tls: Tls,
}

impl Smtp {
    /// Reads the password and the authorities to trust; does not call the relay, which may be down for now.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.read_password()?;
        let host = config.host()?.to_owned();
        let parameters = || tls_parameters(config, &host);
        let (port, tls) = match config.smtp_security {
            Security::StartTls => (SUBMISSION_PORT, Tls::Required(parameters()?)),
            Security::Tls => (SUBMISSIONS_PORT, Tls::Wrapper(parameters()?)),
            Security::None => (SMTP_PORT, Tls::None),
        };
        let port = config.smtp_port.unwrap_or(port);
        Ok(Self { from: config.sender()?, config: config.clone(), host, port, tls })
    }

    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, ConfigError> {
        let mut relay =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host).port(self.port).tls(self.tls.clone());
        if let (Some(username), Some(password)) = (&self.config.smtp_username, self.config.read_password()?) {
            relay = relay.credentials(Credentials::new(username.clone(), password.0));
        }
        Ok(relay.build())
    }
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, message: Message) -> Result<(), Fault> {
        let mail = format(message, &self.from)?;
        let transport = self.transport().map_err(|error| Fault { retry: true, message: error.to_string() })?;
        // Over all of it: the library's own time-out is that of connecting.
        let limit = Duration::from_secs(self.config.timeout_seconds);
        match tokio::time::timeout(limit, transport.send(mail)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(fault(&error)),
            Err(_) => {
                let message = format!("the relay took longer than {} s", limit.as_secs());
                Err(Fault { retry: true, message })
            }
        }
    }
}

/// How to check who the relay is.
fn tls_parameters(config: &Config, host: &str) -> Result<TlsParameters, ConfigError> {
    let wrong = |e: &dyn std::fmt::Display| ConfigError::new("smtp_ca_file", e);
    let Some(file) = &config.smtp_ca_file else {
        return TlsParameters::new(host.to_owned()).map_err(|e| ConfigError::new("smtp_security", e));
    };
    let pem = std::fs::read(file).map_err(|e| wrong(&format_args!("{}: {e}", file.display())))?;
    if CertificateDer::pem_slice_iter(&pem).next().is_none() {
        return Err(wrong(&format_args!("{}: holds no certificate", file.display())));
    }
    let authorities = Certificate::from_pem(&pem).map_err(|e| wrong(&e))?;
    let trusting = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
    trusting.add_root_certificate(authorities).build().map_err(|e| wrong(&e))
}

/// A relay that cannot be reached or does not want the mail now may want it later; one that refuses it will not.
fn fault(error: &Error) -> Fault {
    let refused_login = error.status().is_some_and(|code| LOGIN_REFUSED.contains(&u16::from(code)));
    let retry = refused_login || !(error.is_permanent() || error.is_client());
    // A relay's words may quote the address.
    let message = match error.status() {
        Some(code) => format!("the relay answered {code}"),
        None => format!("the relay cannot be used: {error}"),
    };
    Fault { retry, message }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::adapters::Password;
    use crate::adapters::mail::mailer;

    /// A relay that takes one connection. `replies` are what it answers to lines that begin so, instead of "250 OK". What
    /// it was told comes back, line by line.
    async fn relay(replies: &'static [(&'static str, &'static str)]) -> (u16, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let told = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            let (mut told, mut in_mail) = (Vec::new(), false);
            writer.write_all(b"220 relay\r\n").await.expect("written");
            while let Ok(Some(line)) = lines.next_line().await {
                let own = replies.iter().find(|(start, _)| (!in_mail || line == ".") && line.starts_with(start));
                let reply = match (own, line.as_str()) {
                    (Some((_, reply)), _) => reply,
                    (None, "DATA") => "354 go on",
                    (None, ".") => "250 taken",
                    _ => "250 OK",
                };
                if !in_mail || line == "." {
                    writer.write_all(format!("{reply}\r\n").as_bytes()).await.expect("written");
                }
                in_mail = reply.starts_with("354") || (in_mail && line != ".");
                told.push(line);
            }
            told
        });
        (port, told)
    }

    fn mailer(port: u16, config: Config) -> Smtp {
        let host = Some("127.0.0.1".to_owned());
        Smtp::new(&Config { smtp_host: host, smtp_port: Some(port), timeout_seconds: 5, ..config }).expect("a mailer")
    }

    fn plain() -> Config {
        Config { smtp_security: Security::None, ..Config::default() }
    }

    fn message() -> Message {
        mailer::message("ada@example.com", "Hi", "Hello Ada,\n.\nhttps://example.com/x?token=a_b-c\n")
    }

    #[tokio::test]
    async fn a_relay_gets_the_mail() {
        let (port, told) = relay(&[]).await;
        mailer(port, plain()).send(message()).await.expect("sent");
        let told = told.await.expect("a conversation");
        for line in [
            "MAIL FROM:<no-reply@virtualstack.local>",
            "RCPT TO:<ada@example.com>",
            "DATA",
            "Subject: Hi",
            "From: VirtualStack <no-reply@virtualstack.local>",
            "Hello Ada,",
            "..",
            "https://example.com/x?token=a_b-c",
        ] {
            assert!(told.iter().any(|t| t == line), "{line:?} in {told:#?}");
        }
    }

    #[tokio::test]
    async fn an_account_signs_in_with_the_password_of_now() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "old\n").expect("written");
        let (port, told) = relay(&[("EHLO", "250-relay\r\n250 AUTH PLAIN"), ("AUTH", "235 come in")]).await;
        let username = Some("ada".to_owned());
        let password_file = Some(file.path().to_owned());
        let mailer = mailer(port, Config { smtp_username: username, smtp_password_file: password_file, ..plain() });
        std::fs::write(&file, "new\n").expect("written");
        mailer.send(message()).await.expect("sent");
        // base64 of "\0ada\0new".
        assert!(told.await.expect("a conversation").contains(&"AUTH PLAIN AGFkYQBuZXc=".to_owned()));
    }

    #[tokio::test]
    async fn a_fault_says_whether_to_try_again() {
        for (replies, retry) in [
            (&[("RCPT", "451 later")][..], true),
            (&[("MAIL", "421 full")], true),
            (&[(".", "452 full")], true),
            (&[("RCPT", "550 ada@example.com is unknown")], false),
            (&[("DATA", "554 no")], false),
        ] {
            let (port, _told) = relay(replies).await;
            let fault = mailer(port, plain()).send(message()).await.expect_err("refused");
            assert_eq!(fault.retry, retry, "{replies:?}: {fault}");
            assert!(!fault.message.contains("ada@example.com"), "{fault}");
            assert!(fault.message.contains(&replies[0].1[..3]), "{fault}");
        }
        let login = &[("EHLO", "250-relay\r\n250 AUTH PLAIN"), ("AUTH", "535 who are you")];
        let (port, _told) = relay(login).await;
        let password = Some(Password("wrong".to_owned()));
        let config = Config { smtp_username: Some("ada".to_owned()), smtp_password: password, ..plain() };
        assert!(mailer(port, config).send(message()).await.expect_err("refused").retry, "a login can be mended");
    }

    #[tokio::test]
    async fn a_relay_that_is_away_or_silent_may_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let silent = Smtp { config: Config { timeout_seconds: 1, ..plain() }, ..mailer(port, plain()) };
        assert!(silent.send(message()).await.expect_err("no greeting").retry);
        drop(listener);
        assert!(silent.send(message()).await.expect_err("nobody there").retry);
    }

    #[test]
    fn authorities_are_read_when_it_starts() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let config = Config {
            smtp_host: Some("relay.example.com".to_owned()),
            smtp_ca_file: Some(file.path().to_owned()),
            ..Config::default()
        };
        for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(Smtp::new(&config).err().expect("refused").key, "smtp_ca_file", "{text:?}");
        }
        drop(file);
        assert_eq!(Smtp::new(&config).err().expect("refused").key, "smtp_ca_file");
    }

    #[tokio::test]
    async fn without_tls_nothing_is_said_where_tls_is_asked_for() {
        for security in [Security::StartTls, Security::Tls] {
            let (port, told) = relay(&[]).await;
            let config = Config { smtp_security: security, ..Config::default() };
            mailer(port, config).send(message()).await.expect_err("no TLS there");
            let told = told.await.expect("a conversation");
            assert!(!told.iter().any(|line| line.starts_with("MAIL") || line.contains("token")), "{told:?}");
        }
    }
}
