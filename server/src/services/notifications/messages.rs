//! Notifications as clients see them.

use virtualstack_model::notifications::id::NotificationId;
use virtualstack_model::notifications::kind::{NotificationKind, Severity};
use virtualstack_proto::virtualstack::notifications::v1 as proto;
use virtualstack_proto::virtualstack::notifications::v1::notification;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Resource;
use virtualstack_store::notifications::notices::{self, Notification};

use crate::call::message::time;
use crate::services::watched::{Compared, Item};

/// Notifications that are watched, at most: a resume token has room for these.
const MOST: i64 = 100;

/// Notifications, as watches tell them.
pub(crate) const NOTICES: Compared = Compared {
    name: "notifications",
    read: |tx, access| {
        Box::pin(async move {
            let rows = notices::latest(tx, access.account, MOST).await?.into_iter().rev();
            Ok(rows.map(|row| Item::new(row.id.0, Resource::Notification(notification_message(row)))).collect())
        })
    },
    gone: |id| {
        let id = NotificationId(id);
        Resource::Notification(proto::Notification { name: id.name(), uid: id.to_string(), ..Default::default() })
    },
};

pub(super) fn notification_message(row: Notification) -> proto::Notification {
    let severity = match row.severity {
        Severity::Info => notification::Severity::Info,
        Severity::Warning => notification::Severity::Warning,
        Severity::Critical => notification::Severity::Critical,
        Severity::Maintenance => notification::Severity::Maintenance,
    };
    proto::Notification {
        name: row.id.name(),
        uid: row.id.to_string(),
        kind: kind_message(row.kind).into(),
        title: row.title,
        body: row.body,
        severity: severity.into(),
        resource: row.resource,
        link: row.link,
        read_time: row.read_at.map(time),
        dismiss_time: row.dismissed_at.map(time),
        create_time: Some(time(row.created_at)),
    }
}

pub(super) const fn kind_message(kind: NotificationKind) -> notification::Kind {
    match kind {
        NotificationKind::Broadcast => notification::Kind::Broadcast,
        NotificationKind::OperationFailed => notification::Kind::OperationFailed,
        NotificationKind::QuotaNearlyUsed => notification::Kind::QuotaNearlyUsed,
        NotificationKind::TicketAnswered => notification::Kind::TicketAnswered,
        NotificationKind::InvitationAccepted => notification::Kind::InvitationAccepted,
        NotificationKind::KeyExpiring => notification::Kind::KeyExpiring,
    }
}

/// The kind that a request says, if it says one.
pub(super) const fn kind_of(said: notification::Kind) -> Option<NotificationKind> {
    match said {
        notification::Kind::Unspecified => None,
        notification::Kind::Broadcast => Some(NotificationKind::Broadcast),
        notification::Kind::OperationFailed => Some(NotificationKind::OperationFailed),
        notification::Kind::QuotaNearlyUsed => Some(NotificationKind::QuotaNearlyUsed),
        notification::Kind::TicketAnswered => Some(NotificationKind::TicketAnswered),
        notification::Kind::InvitationAccepted => Some(NotificationKind::InvitationAccepted),
        notification::Kind::KeyExpiring => Some(NotificationKind::KeyExpiring),
    }
}
