//! How the caller wants to be told.

use virtualstack_model::id::UserId;
use virtualstack_model::language::Language;
use virtualstack_model::notifications::kind::{Channel, NotificationKind};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::notifications::v1 as proto;
use virtualstack_proto::virtualstack::notifications::v1::notification_preferences::{self, Preference};
use virtualstack_store::notifications::preferences::Preferences;

use super::messages::{kind_message, kind_of};

/// The field of a request that holds them.
const FIELD: &str = "notification_preferences";

/// Full name of a member's.
pub(super) fn name(user: UserId) -> String {
    format!("{}/notificationPreferences", user.name())
}

/// Refuses a name that is not the caller's own.
pub(super) fn expect_own(said: &str, user: UserId) -> Result<()> {
    if said == "users/me/notificationPreferences" || said == name(user) {
        return Ok(());
    }
    Err(Error::not_found("USER_NOT_FOUND", said.trim_end_matches("/notificationPreferences")))
}

pub(super) fn message(user: UserId, row: &Preferences) -> proto::NotificationPreferences {
    let preference = |kind: &NotificationKind| {
        let channels = Channel::ALL.iter().filter(|channel| row.wants(*kind, **channel));
        Preference {
            kind: kind_message(*kind).into(),
            channels: channels.map(|channel| channel_message(*channel).into()).collect(),
        }
    };
    proto::NotificationPreferences {
        name: name(user),
        preferences: NotificationKind::ALL.iter().map(preference).collect(),
        language: row.language.to_string(),
        etag: row.etag(),
    }
}

/// Puts the fields that an update names into preferences.
pub(super) fn merge(row: &mut Preferences, desired: &proto::NotificationPreferences, fields: &[&str]) -> Result<()> {
    if fields.contains(&"language") {
        let language = Language::from_word(&desired.language);
        let problem =
            || Error::invalid(format!("{FIELD}.language"), format!("must be one of {}", Language::WORDS.join(", ")));
        row.language = language.ok_or_else(problem)?;
    }
    if !fields.contains(&"preferences") {
        return Ok(());
    }
    let mut seen = Vec::new();
    for (number, preference) in desired.preferences.iter().enumerate() {
        let field = |name: &str| format!("{FIELD}.preferences[{number}].{name}");
        let kind = kind_of(preference.kind()).ok_or_else(|| Error::invalid(field("kind"), "is required"))?;
        if seen.contains(&kind) {
            return Err(Error::invalid(field("kind"), format!("{kind} is there already")));
        }
        seen.push(kind);
        let channels: Vec<_> = preference.channels().filter_map(channel_of).collect();
        if kind == NotificationKind::Broadcast && !channels.contains(&Channel::InApp) {
            return Err(Error::invalid(field("channels"), "a BROADCAST is always told IN_APP"));
        }
        for channel in Channel::ALL {
            row.set(kind, *channel, channels.contains(channel));
        }
    }
    Ok(())
}

const fn channel_message(channel: Channel) -> notification_preferences::Channel {
    match channel {
        Channel::InApp => notification_preferences::Channel::InApp,
        Channel::Email => notification_preferences::Channel::Email,
    }
}

const fn channel_of(said: notification_preferences::Channel) -> Option<Channel> {
    match said {
        notification_preferences::Channel::Unspecified => None,
        notification_preferences::Channel::InApp => Some(Channel::InApp),
        notification_preferences::Channel::Email => Some(Channel::Email),
    }
}
