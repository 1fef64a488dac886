//! Notifications, for the one whose they are.

use virtualstack_model::log::Actor;
use virtualstack_model::notifications::id::NotificationId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::google::api::HttpBody;
use virtualstack_proto::virtualstack::notifications::v1 as proto;
use virtualstack_store::notifications::preferences::{self as rows, Preferences};
use virtualstack_store::notifications::{notices, unsubscribe as token};
use virtualstack_store::{AccountTx, MasterKey, Store, SystemPurpose, SystemTx};

use super::messages::notification_message;
use super::{preferences, unsubscribe};
use crate::call::list::{List as _, page};
use crate::call::message::update_mask;
use crate::call::write::Mutation;
use crate::call::{AccountCall, PublicCall};
use crate::generated::virtualstack::notifications::v1::NotificationService;

const UPDATABLE: [&str; 2] = ["preferences", "language"];

pub(crate) struct Notices {
    pub(crate) store: Store,
    /// What tokens of mails are sealed with.
    pub(crate) master_key: MasterKey,
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
        let page: proto::ListNotificationsResponse = page(listed, notification_message);
        let unread_count = i32::try_from(unread).unwrap_or(i32::MAX);
        Ok(proto::ListNotificationsResponse { unread_count, ..page })
    }

    async fn get_notification(&self, call: AccountCall<proto::GetNotificationRequest>) -> Result<proto::Notification> {
        let (tenant, id) = (call.tenant_id(), NotificationId::parse("name", &call.request.name)?);
        let get = async |tx: &mut AccountTx| notices::get(tx, tenant, id).await;
        self.store.account(&call.account(), get).await.map(notification_message)
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

    async fn get_notification_preferences(
        &self,
        call: AccountCall<proto::GetNotificationPreferencesRequest>,
    ) -> Result<proto::NotificationPreferences> {
        let (tenant, user) = (call.tenant_id(), call.user());
        preferences::expect_own(&call.request.name, user)?;
        let get = async |tx: &mut AccountTx| rows::get(tx, tenant, user).await;
        let row = self.store.account(&call.account(), get).await?;
        Ok(preferences::message(user, &row))
    }

    async fn update_notification_preferences(
        &self,
        call: AccountCall<proto::UpdateNotificationPreferencesRequest>,
    ) -> Result<proto::NotificationPreferences> {
        let (tenant, user) = (call.tenant_id(), call.user());
        let desired = call.request.notification_preferences.clone().unwrap_or_default();
        preferences::expect_own(&desired.name, user)?;
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| match field {
            "language" => !desired.language.is_empty(),
            _ => !desired.preferences.is_empty(),
        })?;
        let update = async |tx: &mut AccountTx| {
            let change = |row: &mut Preferences| {
                Error::check_etag(&desired.etag, &row.etag())?;
                preferences::merge(row, &desired, &fields)
            };
            let row = rows::change(tx, tenant, user, change).await?;
            tx.audit(&call.audit(preferences::name(user)), &[]).await?;
            Ok(preferences::message(user, &row))
        };
        call.write(&self.store, update).await
    }

    async fn show_unsubscribe(&self, call: PublicCall<proto::ShowUnsubscribeRequest>) -> Result<HttpBody> {
        token::read(&self.master_key, &call.request.token)?;
        Ok(unsubscribe::ask(&call.request.token))
    }

    async fn unsubscribe(&self, call: PublicCall<proto::UnsubscribeRequest>) -> Result<HttpBody> {
        let (tenant, user, kind) = token::read(&self.master_key, &call.request.token)?;
        let audit = call.info.audit(Actor::System("unsubscribe"), preferences::name(user));
        let mute = async |tx: &mut SystemTx| {
            if rows::mute(tx, tenant, user, kind).await? {
                tx.audit(Some(tenant), &audit).await?;
            }
            Ok(())
        };
        self.store.system(call.system(SystemPurpose::Unsubscribe), mute).await?;
        Ok(unsubscribe::done())
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
        self.store.account(&call.account(), mark).await.map(notification_message)
    }
}
