//! What all messages are made of, and what update masks say.

use chrono::{DateTime, Utc};
use prost_reflect::ReflectMessage;
use prost_types::{Any, FieldMask, Timestamp};
use virtualstack_model::error::Violation;
use virtualstack_model::{Error, Result};

/// A time, in microseconds as the database keeps it: a row that was just made and one that was read say the same. The one place
/// where replies get their times.
pub(crate) fn time(time: DateTime<Utc>) -> Timestamp {
    // Sub-second microseconds are below 2^20.
    let micros = i32::try_from(time.timestamp_subsec_micros()).unwrap_or_default();
    Timestamp { seconds: time.timestamp(), nanos: micros * 1000 }
}

/// A time that a request says; `field` is named when it is none.
pub(crate) fn date_time(field: &str, time: Timestamp) -> Result<DateTime<Utc>> {
    // The years 1 to 9999, as google.protobuf.Timestamp has them.
    let known = (-62_135_596_800..=253_402_300_799).contains(&time.seconds);
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000 && known);
    let time = nanos.and_then(|nanos| DateTime::from_timestamp(time.seconds, nanos));
    time.ok_or_else(|| Error::invalid(field, "must be a time within the years 1 to 9999"))
}

/// A message in an Any, under its full name.
pub(crate) fn any(message: &impl ReflectMessage) -> Any {
    let name = message.descriptor().full_name().to_owned();
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

/// The fields of an update mask, all of them known. Without a mask, those that `set` says are set; "*" is all.
pub(crate) fn update_mask(
    mask: Option<FieldMask>,
    known: &[&'static str],
    set: impl Fn(&str) -> bool,
) -> Result<Vec<&'static str>> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Ok(known.iter().copied().filter(|field| set(field)).collect());
    }
    if paths == ["*"] {
        return Ok(known.to_vec());
    }
    let (fields, unknown): (Vec<_>, Vec<_>) = paths
        .iter()
        .map(|path| known.iter().copied().find(|field| field == path).ok_or(path))
        .partition(|found| found.is_ok());
    let violations: Vec<_> = unknown
        .into_iter()
        .filter_map(Result::err)
        .map(|path| {
            Violation::new("update_mask", format!("{path:?} cannot be updated; these can: {}", known.join(", ")))
        })
        .collect();
    if violations.is_empty() { Ok(fields.into_iter().flatten().collect()) } else { Err(Error::invalid_all(violations)) }
}
