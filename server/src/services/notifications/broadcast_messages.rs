//! Broadcasts as clients see and write them.

use chrono::{DateTime, Datelike as _, SubsecRound as _, Utc};
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::notifications::broadcast::{AudienceKind, BroadcastState};
use virtualstack_model::notifications::id::BroadcastId;
use virtualstack_model::notifications::kind::Severity;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::notifications::v1 as proto;
use virtualstack_proto::virtualstack::notifications::v1::broadcast;
use virtualstack_store::notifications::broadcasts::{Broadcast, Reach};

use super::audience::Audience;
use crate::call::codec;
use crate::call::message::{date_time, time};

/// Fields that a client may change.
pub(super) const UPDATABLE: [&str; 10] = [
    "title",
    "body",
    "severity",
    "link",
    "audience",
    "start_time",
    "end_time",
    "dismissible",
    "require_acknowledgement",
    "channels",
];

/// Whether a request says something of a field.
pub(super) fn says(desired: &proto::Broadcast, field: &str) -> bool {
    match field {
        "title" => !desired.title.is_empty(),
        "body" => !desired.body.is_empty(),
        "severity" => desired.severity != 0,
        "link" => !desired.link.is_empty(),
        "audience" => desired.audience.is_some(),
        "start_time" => desired.start_time.is_some(),
        "end_time" => desired.end_time.is_some(),
        "dismissible" => desired.dismissible.is_some(),
        "require_acknowledgement" => desired.require_acknowledgement,
        _ => !desired.channels.is_empty(),
    }
}

/// A new draft.
pub(super) fn draft(owner: TenantId, platform: bool) -> Broadcast {
    let now = Utc::now();
    Broadcast {
        tenant_id: owner,
        id: BroadcastId::new(),
        platform,
        title: String::new(),
        body: String::new(),
        severity: Severity::Info,
        link: String::new(),
        audience: AudienceKind::All,
        audience_ids: Vec::new(),
        audience_roles: Vec::new(),
        start_time: None,
        end_time: None,
        active: false,
        dismissible: true,
        require_acknowledgement: false,
        by_mail: false,
        notice_id: None,
        told_at: None,
        created_at: now,
        updated_at: now,
        version: 1,
    }
}

/// Puts the fields that a request names into a broadcast. The rules hold for what comes of it.
pub(super) fn merge(
    row: &mut Broadcast,
    desired: &proto::Broadcast,
    fields: &[&str],
    to: Option<&Audience>,
) -> Result<()> {
    let mut merged = message(row.clone(), None);
    for field in fields {
        match *field {
            "title" => merged.title.clone_from(&desired.title),
            "body" => merged.body.clone_from(&desired.body),
            "severity" => merged.severity = desired.severity,
            "link" => merged.link.clone_from(&desired.link),
            "audience" => merged.audience.clone_from(&desired.audience),
            "start_time" => merged.start_time = desired.start_time,
            "end_time" => merged.end_time = desired.end_time,
            "dismissible" => merged.dismissible = desired.dismissible,
            "require_acknowledgement" => merged.require_acknowledgement = desired.require_acknowledgement,
            _ => merged.channels.clone_from(&desired.channels),
        }
    }
    codec::validate(&proto::CreateBroadcastRequest { broadcast: Some(merged.clone()), ..Default::default() })?;
    if let Some(Audience { kind, ids, roles }) = to {
        let is_new = (*kind, ids, roles) != (row.audience, &row.audience_ids, &row.audience_roles);
        if is_new && row.notice_id.is_some() {
            let message = "it was activated, and its audience stays as it was";
            return Err(Error::precondition("BROADCAST_AUDIENCE_FIXED", row.name(), message));
        }
        (row.audience, row.audience_ids, row.audience_roles) = (*kind, ids.clone(), roles.clone());
    }
    if row.notice_id.is_some() && merged.require_acknowledgement != row.require_acknowledgement {
        let message = "it was activated, and whether it is to be acknowledged stays as it was";
        return Err(Error::precondition("BROADCAST_STATE", row.name(), message));
    }
    row.severity = severity_of(merged.severity());
    row.by_mail = merged.channels().any(|channel| channel == broadcast::Channel::Email);
    (row.title, row.body, row.link) = (merged.title, merged.body, merged.link);
    row.start_time = moment("broadcast.start_time", merged.start_time)?;
    row.end_time = moment("broadcast.end_time", merged.end_time)?;
    row.dismissible = merged.dismissible.unwrap_or(true);
    row.require_acknowledgement = merged.require_acknowledgement;
    if row.start_time.zip(row.end_time).is_some_and(|(start, end)| end <= start) {
        return Err(Error::invalid("broadcast.end_time", "must be after startTime"));
    }
    Ok(())
}

/// A time of the window, as it is kept.
fn moment(field: &str, said: Option<prost_types::Timestamp>) -> Result<Option<DateTime<Utc>>> {
    let at = said.map(|said| date_time(field, said)).transpose()?.map(|at| at.trunc_subsecs(6));
    if at.is_some_and(|at| at.year() < 2000) {
        return Err(Error::invalid(field, "must be a time from the year 2000 on"));
    }
    Ok(at)
}

/// A broadcast as its owner sees it.
pub(super) fn message(row: Broadcast, reach: Option<Reach>) -> proto::Broadcast {
    let count = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
    let names = |of: AudienceKind, name: fn(uuid::Uuid) -> String| match row.audience == of {
        true => row.audience_ids.iter().copied().map(name).collect(),
        false => Vec::new(),
    };
    let mut roles = names(AudienceKind::Roles, |id| RoleId(id).name());
    roles.extend(row.audience_roles.iter().cloned());
    let audience = broadcast::Audience {
        all: row.audience == AudienceKind::All,
        tenants: names(AudienceKind::Tenants, |id| TenantId(id).name()),
        roles,
        users: names(AudienceKind::Users, |id| UserId(id).name()),
    };
    let channels = [Some(broadcast::Channel::InApp), row.by_mail.then_some(broadcast::Channel::Email)];
    proto::Broadcast {
        name: row.name(),
        uid: row.id.to_string(),
        etag: row.etag(),
        state: state(row.window().state(Utc::now())).into(),
        title: row.title,
        body: row.body,
        severity: severity(row.severity).into(),
        link: row.link,
        audience: Some(audience),
        start_time: row.start_time.map(time),
        end_time: row.end_time.map(time),
        active: row.active,
        dismissible: Some(row.dismissible),
        require_acknowledgement: row.require_acknowledgement,
        channels: channels.into_iter().flatten().map(Into::into).collect(),
        reach: reach.map(|Reach { addressed, read, dismissed, mailed }| broadcast::Reach {
            addressed: count(addressed),
            read: count(read),
            dismissed: count(dismissed),
            mailed: count(mailed),
        }),
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
    }
}

const fn severity(severity: Severity) -> broadcast::Severity {
    match severity {
        Severity::Info => broadcast::Severity::Info,
        Severity::Warning => broadcast::Severity::Warning,
        Severity::Critical => broadcast::Severity::Critical,
        Severity::Maintenance => broadcast::Severity::Maintenance,
    }
}

const fn severity_of(said: broadcast::Severity) -> Severity {
    match said {
        broadcast::Severity::Unspecified | broadcast::Severity::Info => Severity::Info,
        broadcast::Severity::Warning => Severity::Warning,
        broadcast::Severity::Critical => Severity::Critical,
        broadcast::Severity::Maintenance => Severity::Maintenance,
    }
}

const fn state(state: BroadcastState) -> broadcast::State {
    match state {
        BroadcastState::Draft => broadcast::State::Draft,
        BroadcastState::Scheduled => broadcast::State::Scheduled,
        BroadcastState::Active => broadcast::State::Active,
        BroadcastState::Ended => broadcast::State::Ended,
    }
}
