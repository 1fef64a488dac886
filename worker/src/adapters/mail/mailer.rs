//! What a mailer does, and the mails that it sends.

use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::{Address, Message as Formatted};
use uuid::Uuid;

/// Sends mail.
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Hands a mail over. Done does not mean that it arrives.
    async fn send(&self, message: Message) -> Result<(), Fault>;
}

/// A mail to one person.
#[derive(Clone)]
pub struct Message {
    pub to: String,
    /// One line; what is no text in it is encoded.
    pub subject: String,
    pub text: String,
}

/// Why a mail was not handed over.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Whether it can work later.
    pub retry: bool,
    pub message: String,
}

/// Builds the mail. The library's types take addresses and encode headers, so that nothing in them starts a header.
pub(super) fn format(message: Message, from: &Mailbox, id: Uuid) -> Result<Formatted, Fault> {
    let permanent = |problem: &str| Fault { retry: false, message: problem.to_owned() };
    let to: Address = message.to.parse().map_err(|_| permanent("the recipient's address is malformed"))?;
    MessageBuilder::new()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(message.subject)
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .header(ContentType::TEXT_PLAIN)
        .body(message.text)
        .map_err(|_| permanent("the mail cannot be built"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(to: &str, subject: &str) -> Result<String, Fault> {
        let from = "VirtualStack <no-reply@example.com>".parse().expect("an address");
        let message =
            Message { to: to.to_owned(), subject: subject.to_owned(), text: "Hello\n.\nBcc: text\n".to_owned() };
        let formatted = format(message, &from, Uuid::now_v7())?.formatted();
        Ok(String::from_utf8(formatted).expect("text"))
    }

    #[test]
    fn a_mail_is_readable_as_it_is() {
        let mail = formatted("ada@example.com", "Welcome").expect("a mail");
        let (head, body) = mail.split_once("\r\n\r\n").expect("a head");
        for line in ["From: VirtualStack <no-reply@example.com>", "To: ada@example.com", "Subject: Welcome"] {
            assert!(head.lines().any(|l| l == line), "{head}");
        }
        assert!(head.contains("Message-ID: <") && head.contains("Date: "), "{head}");
        assert_eq!(body, "Hello\r\n.\r\nBcc: text\r\n");
    }

    #[test]
    fn an_address_is_one_address() {
        for to in [
            "ada@example.com\r\nBcc: eve@example.com",
            "ada@example.com\nBcc: eve@example.com",
            "\"a\r\nBcc: eve\"@example.com",
            "ada@example.com, eve@example.com",
            "ada@example.com> <eve@example.com",
            "Ada <ada@example.com>",
            "ada@example.com\0",
            "ada",
            "",
        ] {
            let fault = formatted(to, "Welcome").expect_err(to);
            assert!(!fault.retry);
            assert!(!fault.message.contains("example.com"), "{fault}");
        }
    }

    #[test]
    fn a_subject_starts_no_header() {
        for subject in
            ["Hi\r\nBcc: eve@example.com", "Hi\nBcc: eve@example.com", "Hi\rBcc: eve@example.com", "Hi\r\n\r\nbody"]
        {
            let mail = formatted("ada@example.com", subject).expect("a mail");
            let (head, body) = mail.split_once("\r\n\r\n").expect("a head");
            assert!(!head.to_lowercase().split(['\r', '\n']).any(|line| line.starts_with("bcc")), "{head}");
            assert_eq!(body, "Hello\r\n.\r\nBcc: text\r\n");
        }
        assert!(formatted("ada@example.com", "Grüße 🐎").expect("a mail").contains("Subject: =?utf-8?"));
    }
}
