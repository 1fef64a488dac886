//! Notifications, for the one whose they are.

use virtualstack_model::Result;
use virtualstack_model::notifications::id::NotificationId;
use virtualstack_model::notifications::kind::{NotificationKind, Severity};
use virtualstack_proto::virtualstack::notifications::v1 as proto;
use virtualstack_proto::virtualstack::notifications::v1::notification;
use virtualstack_store::notifications::notices::{self, Notification};
use virtualstack_store::{AccountTx, Store};

use crate::call::AccountCall;
use crate::call::list::{List as _, page};
use crate::call::message::time;
use crate::call::write::Mutation;
use crate::generated::virtualstack::notifications::v1::NotificationService;

pub(crate) struct Notices {
    pub(crate) store: Store,
}

impl NotificationService for Notices {
    async fn list_notifications(
        &self,
        call: AccountCall<proto::ListNotificationsRequest>,
    ) -> Result<proto::ListNotificationsResponse> {
        let (request, tenant, dismissed) = (call.request.list(), call.tenant_id(), call.request.show_dismissed);
        let list = async |tx: &mut AccountTx| {
            Ok((notices::list(tx, tenant, dismissed, &request).await?, notices::unread(tx, tenant).await?))
        };
        let (listed, unread) = self.store.account(&call.account(), list).await?;
        let page: proto::ListNotificationsResponse = page(listed, message);
        let unread_count = i32::try_from(unread).unwrap_or(i32::MAX);
        Ok(proto::ListNotificationsResponse { unread_count, ..page })
    }

    async fn get_notification(&self, call: AccountCall<proto::GetNotificationRequest>) -> Result<proto::Notification> {
        let (tenant, id) = (call.tenant_id(), NotificationId::parse("name", &call.request.name)?);
        let get = async |tx: &mut AccountTx| notices::get(tx, tenant, id).await;
        self.store.account(&call.account(), get).await.map(message)
    }

    async fn mark_notification_read(
        &self,
        call: AccountCall<proto::MarkNotificationReadRequest>,
    ) -> Result<proto::Notification> {
        self.mark(&call, &call.request.name, false).await
    }

    async fn dismiss_notification(
        &self,
        call: AccountCall<proto::DismissNotificationRequest>,
    ) -> Result<proto::Notification> {
        self.mark(&call, &call.request.name, true).await
    }

    async fn mark_all_notifications_read(
        &self,
        call: AccountCall<proto::MarkAllNotificationsReadRequest>,
    ) -> Result<()> {
        let tenant = call.tenant_id();
        let mark = async |tx: &mut AccountTx| {
            notices::mark_all(tx, tenant).await?;
            tx.audit(&call.audit("notifications"), &[]).await
        };
        call.write(&self.store, mark).await
    }
}

impl Notices {
    async fn mark<R: Mutation + Sync>(
        &self,
        call: &AccountCall<R>,
        name: &str,
        dismiss: bool,
    ) -> Result<proto::Notification> {
        let (tenant, id) = (call.tenant_id(), NotificationId::parse("name", name)?);
        let mark = async |tx: &mut AccountTx| {
            let row = notices::mark(tx, tenant, id, dismiss).await?;
            tx.audit(&call.audit(id.name()), &[]).await?;
            Ok(row)
        };
        self.store.account(&call.account(), mark).await.map(message)
    }
}

fn message(row: Notification) -> proto::Notification {
    let kind = match row.kind {
        NotificationKind::OperationFailed => notification::Kind::OperationFailed,
        NotificationKind::QuotaNearlyUsed => notification::Kind::QuotaNearlyUsed,
        NotificationKind::TicketAnswered => notification::Kind::TicketAnswered,
        NotificationKind::InvitationAccepted => notification::Kind::InvitationAccepted,
        NotificationKind::KeyExpiring => notification::Kind::KeyExpiring,
    };
    let severity = match row.severity {
        Severity::Info => notification::Severity::Info,
        Severity::Warning => notification::Severity::Warning,
    };
    proto::Notification {
        name: row.id.name(),
        uid: row.id.to_string(),
        kind: kind.into(),
        title: row.title,
        body: row.body,
        severity: severity.into(),
        resource: row.resource,
        link: String::new(),
        read_time: row.read_at.map(time),
        dismiss_time: row.dismissed_at.map(time),
        create_time: Some(time(row.created_at)),
    }
}
