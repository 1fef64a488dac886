//! Consoles.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A ticket for a console. A secret: whoever has it sees the screen and types. It is stored as JSON, sealed.
#[derive(Clone, Serialize, Deserialize)]
pub struct ConsoleTicket {
    pub url: String,
    pub ticket: String,
    pub protocol: String,
    /// When it is accepted no more.
    pub expires_at: DateTime<Utc>,
}

impl std::fmt::Debug for ConsoleTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleTicket").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::ConsoleTicket;

    #[test]
    fn a_stored_ticket_is_read_and_never_printed() {
        let stored =
            r#"{"url":"wss://host/x","ticket":"secret","protocol":"webmks","expires_at":"2026-01-02T03:04:05Z"}"#;
        let ticket: ConsoleTicket = serde_json::from_str(stored).expect("a ticket");
        assert_eq!(serde_json::to_string(&ticket).expect("JSON"), stored);
        let printed = format!("{ticket:?}");
        assert!(!printed.contains("secret") && !printed.contains("wss://"), "{printed}");
    }
}
