//! The one error of the product.
//!
//! Each variant is a canonical code that we use. It carries a stable reason and a message for the caller; what went
//! wrong inside is in `source`, which is logged once at the boundary and never sent.

use std::time::Duration;

/// A result with the product's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong inside, for the log.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A field of the request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request, as JSON spells it.
    pub field: String,
    pub description: String,
}

impl Violation {
    /// A field by its path as the .proto spells it, and what is wrong with it.
    pub fn new(path: &str, description: impl Into<String>) -> Self {
        let mut field = String::with_capacity(path.len());
        let mut upper = false;
        // Map keys stand in quotes and stay as they are.
        let (mut quoted, mut escaped) = (false, false);
        for character in path.chars() {
            quoted ^= character == '"' && !escaped;
            escaped = quoted && character == '\\' && !escaped;
            match character {
                '_' if !quoted => upper = true,
                _ if std::mem::take(&mut upper) => field.extend(character.to_uppercase()),
                _ => field.push(character),
            }
        }
        Self { field, description: description.into() }
    }
}

/// What is past a quota, for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// What is counted, as JSON spells it in a quota.
    pub name: &'static str,
    /// What the tenant may have.
    pub limit: i64,
    /// What it has, open operations included.
    pub used: i64,
    /// What the request would add.
    pub asked: i64,
}

/// How often something may be done: as often as `quota` at once, and that many each `window_seconds` in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What is limited, in a word.
    pub name: &'static str,
    pub quota: u32,
    pub window_seconds: u32,
}

/// What a caller is told, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can never work: fields are wrong.
    #[error("{message}")]
    InvalidArgument {
        reason: &'static str,
        message: String,
        /// Every field that is wrong.
        violations: Vec<Violation>,
    },
    /// The state of the system does not allow it.
    #[error("{message}")]
    FailedPrecondition {
        reason: &'static str,
        message: String,
        /// What stands in the way, by full name.
        subject: String,
    },
    /// It is not there, or not for this caller.
    #[error("{resource} not found")]
    NotFound {
        reason: &'static str,
        /// Full name as the caller gave it.
        resource: String,
    },
    /// There is one already.
    #[error("{message}")]
    AlreadyExists {
        reason: &'static str,
        message: String,
        /// Full name or value of what exists.
        resource: String,
    },
    /// Something else got in between; read again and repeat.
    #[error("{message}")]
    Aborted { reason: &'static str, message: String },
    /// A piece of an upload leaves a gap. Reason UPLOAD_OFFSET_MISMATCH.
    #[error("the piece begins at byte {first_byte}, and {uploaded_bytes} bytes are there; go on from there")]
    OffsetMismatch { uploaded_bytes: i64, first_byte: i64 },
    /// Nobody valid is asking.
    #[error("{message}")]
    Unauthenticated { reason: &'static str, message: String },
    /// Somebody valid is asking, who may not.
    #[error("{message}")]
    PermissionDenied { reason: &'static str, message: String },
    /// Too many calls in a short time. Reason RATE_LIMITED.
    #[error("{message}")]
    RateLimited {
        message: String,
        /// When it is worth another try.
        retry_after: Duration,
        limit: RateLimit,
    },
    /// A quota is used up. Reason QUOTA_EXCEEDED.
    #[error("{message}")]
    QuotaExceeded {
        message: String,
        /// Every limit that stands in the way.
        excesses: Vec<Excess>,
    },
    /// More than we take.
    #[error("{message}")]
    ResourceExhausted {
        reason: &'static str,
        message: String,
        /// When it is worth another try, if ever.
        retry_after: Option<Duration>,
    },
    /// Something that we need does not answer now.
    #[error("{message}")]
    Unavailable {
        reason: &'static str,
        message: String,
        /// When it is worth another try.
        retry_after: Duration,
        #[source]
        source: Option<Source>,
    },
    /// The time ran out.
    #[error("{message}")]
    DeadlineExceeded { reason: &'static str, message: String },
    /// There is no such method.
    #[error("{message}")]
    Unimplemented { reason: &'static str, message: String },
    /// A mistake of ours.
    #[error("internal error")]
    Internal {
        #[source]
        source: Source,
    },
}

impl Error {
    /// One field is wrong.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid_all(vec![Violation::new(&field.into(), description)])
    }

    /// Several fields are wrong.
    #[must_use]
    pub fn invalid_all(violations: Vec<Violation>) -> Self {
        let message = violations
            .iter()
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect::<Vec<_>>()
            .join("; ");
        Self::InvalidArgument { reason: "INVALID_FIELDS", message, violations }
    }

    /// It is not there, or not for this caller.
    pub fn not_found(reason: &'static str, resource: impl Into<String>) -> Self {
        Self::NotFound { reason, resource: resource.into() }
    }

    /// The state of `subject` does not allow it.
    pub fn precondition(reason: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::FailedPrecondition { reason, message: message.into(), subject: subject.into() }
    }

    /// There is one already.
    pub fn exists(reason: &'static str, resource: impl Into<String>, message: impl Into<String>) -> Self {
        Self::AlreadyExists { reason, message: message.into(), resource: resource.into() }
    }

    /// Something else got in between.
    pub fn aborted(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Aborted { reason, message: message.into() }
    }

    /// Holds an etag that a caller sent, if any, against the one that the resource has now.
    pub fn check_etag(sent: &str, current: &str) -> Result<()> {
        if sent.is_empty() || sent == current {
            return Ok(());
        }
        Err(Self::aborted("ETAG_MISMATCH", "etag: the resource has changed since it was read; read it again"))
    }

    /// Nobody valid is asking.
    pub fn unauthenticated(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Unauthenticated { reason, message: message.into() }
    }

    /// The caller may not.
    pub fn denied(reason: &'static str, message: impl Into<String>) -> Self {
        Self::PermissionDenied { reason, message: message.into() }
    }

    /// Something that we need does not answer now.
    pub fn unavailable(reason: &'static str, message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unavailable {
            reason,
            message: message.into(),
            retry_after: Duration::from_secs(1),
            source: Some(source.into()),
        }
    }

    /// Limits stand in the way.
    #[must_use]
    pub fn quota(excesses: Vec<Excess>) -> Self {
        let told = |Excess { name, limit, used, asked }: &Excess| {
            format!("{name}: {asked} more were asked for, {used} of {limit} are used")
        };
        let message = format!("the quota is exceeded; {}", excesses.iter().map(told).collect::<Vec<_>>().join("; "));
        Self::QuotaExceeded { message, excesses }
    }

    /// A mistake of ours.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::Internal { source: source.into() }
    }

    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidArgument { reason, .. }
            | Self::FailedPrecondition { reason, .. }
            | Self::NotFound { reason, .. }
            | Self::AlreadyExists { reason, .. }
            | Self::Aborted { reason, .. }
            | Self::Unauthenticated { reason, .. }
            | Self::PermissionDenied { reason, .. }
            | Self::ResourceExhausted { reason, .. }
            | Self::Unavailable { reason, .. }
            | Self::DeadlineExceeded { reason, .. }
            | Self::Unimplemented { reason, .. } => reason,
            Self::OffsetMismatch { .. } => "UPLOAD_OFFSET_MISMATCH",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
            Self::Internal { .. } => "INTERNAL",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_json_spells_them() {
        let name = |path: &str| Violation::new(path, "").field;
        assert_eq!(name("vm.disk_gib"), "vm.diskGib");
        assert_eq!(name(r#"vm.labels["a_b"]"#), r#"vm.labels["a_b"]"#);
        let quotes = r#"vm.labels["a\"b_c\\"].disk_gib"#;
        assert_eq!(name(quotes), quotes.replace("disk_gib", "diskGib"));
        assert_eq!(Error::invalid("page_size", "is wrong").to_string(), "pageSize: is wrong");
    }
}
