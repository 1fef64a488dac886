//! What a mailer does, and the mails that it sends.

use async_trait::async_trait;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder, MultiPart};
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
    /// The same as HTML.
    pub html: String,
    /// Where a reader's program asks for no more mails like it (RFC 8058).
    pub unsubscribe: Option<String>,
    /// What tells that it is the same mail, if it is sent twice.
    pub id: Uuid,
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
pub(super) fn format(message: Message, from: &Mailbox) -> Result<Formatted, Fault> {
    let permanent = |problem: &str| Fault { retry: false, message: problem.to_owned() };
    let to: Address = message.to.parse().map_err(|_| permanent("the recipient's address is malformed"))?;
    let mut mail = MessageBuilder::new()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        // What begins an encoded word (RFC 2047) is none of ours: readers would show something else.
        .subject(message.subject.replace("=?", "= ?"))
        .message_id(Some(format!("<{}@{}>", message.id, from.email.domain())));
    if let Some(url) = message.unsubscribe {
        // As it is: folded in the middle, nobody could open it.
        let header =
            |name: HeaderName, value: String| HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value);
        mail = mail
            .raw_header(header(HeaderName::new_from_ascii_str("List-Unsubscribe"), format!("<{url}>")))
            .raw_header(header(
                HeaderName::new_from_ascii_str("List-Unsubscribe-Post"),
                "List-Unsubscribe=One-Click".to_owned(),
            ));
    }
    let both = MultiPart::alternative_plain_html(message.text, message.html);
    mail.multipart(both).map_err(|_| permanent("the mail cannot be built"))
}

/// A mail of tests.
#[cfg(test)]
pub(super) fn message(to: &str, subject: &str, text: &str) -> Message {
    let html = format!("<p>{text}</p>\n");
    let (to, subject, text) = (to.to_owned(), subject.to_owned(), text.to_owned());
    Message { to, subject, text, html, unsubscribe: None, id: Uuid::now_v7() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(to: &str, subject: &str) -> Message {
        message(to, subject, "Hello\n.\nBcc: text\n")
    }

    fn formatted(message: Message) -> Result<String, Fault> {
        let from = "VirtualStack <no-reply@example.com>".parse().expect("an address");
        let formatted = format(message, &from)?.formatted();
        Ok(String::from_utf8(formatted).expect("text"))
    }

    #[test]
    fn a_subject_is_shown_as_it_was_checked() {
        let mail = formatted(hello("ada@example.com", "=?utf-8?Q?fdp=E2=80=AEexe?=")).expect("a mail");
        assert!(mail.contains("\r\nSubject: = ?utf-8?Q?fdp=E2=80=AEexe?=\r\n"), "{mail}");
    }

    #[test]
    fn a_mail_is_readable_as_it_is() {
        let mail = formatted(hello("ada@example.com", "Welcome")).expect("a mail");
        let (head, body) = mail.split_once("\r\n\r\n").expect("a head");
        for line in ["From: VirtualStack <no-reply@example.com>", "To: ada@example.com", "Subject: Welcome"] {
            assert!(head.lines().any(|l| l == line), "{head}");
        }
        assert!(head.contains("Message-ID: <") && head.contains("Date: "), "{head}");
        assert!(!head.contains("List-Unsubscribe"), "{head}");
        assert!(body.contains("\r\n\r\nHello\r\n.\r\nBcc: text\r\n"), "{body}");
        assert!(body.contains("Content-Type: text/html; charset=utf-8") && body.contains("<p>Hello"), "{body}");
    }

    #[test]
    fn one_click_is_offered_in_one_line() {
        let url = format!("https://example.com/v1/notifications:unsubscribe?token={}", "x".repeat(300));
        let mail = Message { unsubscribe: Some(url.clone()), ..hello("ada@example.com", "Hi") };
        let mail = formatted(mail).expect("a mail");
        let is_there = |line: &str| mail.lines().any(|l| l == line);
        assert!(is_there(&format!("List-Unsubscribe: <{url}>")), "{mail}");
        assert!(is_there("List-Unsubscribe-Post: List-Unsubscribe=One-Click"), "{mail}");
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
            let fault = formatted(hello(to, "Welcome")).expect_err(to);
            assert!(!fault.retry);
            assert!(!fault.message.contains("example.com"), "{fault}");
        }
    }

    #[test]
    fn a_subject_starts_no_header() {
        for subject in
            ["Hi\r\nBcc: eve@example.com", "Hi\nBcc: eve@example.com", "Hi\rBcc: eve@example.com", "Hi\r\n\r\nbody"]
        {
            let mail = formatted(hello("ada@example.com", subject)).expect("a mail");
            let (head, body) = mail.split_once("\r\n\r\n").expect("a head");
            assert!(!head.to_lowercase().split(['\r', '\n']).any(|line| line.starts_with("bcc")), "{head}");
            assert!(body.contains("\r\n\r\nHello\r\n.\r\nBcc: text\r\n"), "{body}");
        }
        assert!(formatted(hello("ada@example.com", "Grüße 🐎")).expect("a mail").contains("Subject: =?utf-8?"));
    }
}
