//! What an S3 answers, as what to do about it.

use std::error::Error as StdError;
use std::io;
use std::iter;

use object_store::Error;

use super::answer::Answer;
use crate::fault::{Class, Fault};

/// What stores say of an access key that they do not know, or not any more. The last one is versitygw's.
const UNKNOWN_KEY: &[&str] =
    &["InvalidAccessKeyId", "InvalidClientTokenId", "ExpiredToken", "InvalidToken", "XAdminUserNotFound"];

/// Whether it refuses who asks, so that other credentials might help.
pub(super) fn is_refusal(error: &Error) -> bool {
    let code = code(error);
    status(error) == Some(401) || code == "SignatureDoesNotMatch" || UNKNOWN_KEY.contains(&code.as_str())
}

/// Whether a range begins beyond the end of its object.
pub(super) fn is_beyond(error: &Error) -> bool {
    status(error) == Some(416)
}

/// Whether there is no such object. A status alone does not say so: a proxy that knows no store has the same one.
pub(super) fn is_missing(error: &Error) -> bool {
    code(error) == "NoSuchKey"
}

pub(super) fn fault(error: Error) -> Fault {
    let (status, code) = (status(&error), code(&error));
    let (class, look_at) = class(status, &code, &error);
    let said = said(&error);
    Fault::new(class, look_at.map_or_else(|| said.clone(), |setting| format!("{setting}: {said}")))
}

/// The class, and the setting to look at.
fn class(status: Option<u16>, code: &str, error: &Error) -> (Class, Option<&'static str>) {
    match (status, code) {
        (Some(507), _)
        | (_, "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded" | "InsufficientStorage") => {
            (Class::Full, None)
        }
        (_, "NoSuchBucket" | "InvalidBucketName") => (Class::Permanent, Some("storage.bucket")),
        (_, code) if UNKNOWN_KEY.contains(&code) => (Class::Permanent, Some("storage.access_key")),
        (_, "SignatureDoesNotMatch") => (Class::Permanent, Some("storage.secret_key")),
        (_, "RequestTimeTooSkewed") => (Class::Permanent, Some("the clock of this machine or of the storage")),
        (_, "AuthorizationHeaderMalformed") | (Some(300..400), _) => {
            (Class::Permanent, Some("storage.region or storage.endpoint"))
        }
        (_, "SlowDown" | "InternalError" | "OperationAborted" | "RequestTimeout" | "ServiceUnavailable")
        | (Some(408 | 409 | 425 | 429 | 500..600), _) => (Class::Retry, None),
        (Some(401 | 403), _) | (_, "AccessDenied") => {
            (Class::Permanent, Some("the rights of the user that storage.access_key names"))
        }
        (_, "NoSuchKey") => (Class::Missing, None),
        (Some(400..500), _) => (Class::Permanent, Some("storage.endpoint")),
        _ if is_untrusted(error) => (Class::Permanent, Some("storage.ca_file")),
        _ => (Class::Retry, None),
    }
}

/// An error's source, and so on.
fn causes<'a>(error: &'a Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(error.source(), |cause: &&'a (dyn StdError + 'static)| (*cause).source())
}

fn answer(error: &Error) -> Option<&Answer> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn status(error: &Error) -> Option<u16> {
    answer(error).map(|answer| answer.status)
}

/// The word that it has for what is wrong; of one of many deletes object_store has it in a text.
fn code(error: &Error) -> String {
    let of_delete = || {
        let said = said(error);
        said.split_once("(code: ").and_then(|(_, rest)| rest.split_once(')')).map(|(code, _)| code.to_owned())
    };
    answer(error).map(|answer| answer.code.clone()).or_else(of_delete).unwrap_or_default()
}

/// Whether its certificate is none that we trust: no other try will find a better one.
fn is_untrusted(error: &Error) -> bool {
    causes(error)
        .flat_map(wrapped)
        .any(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
}

/// An error and what it wraps, which errors of I/O do not name as their source.
fn wrapped<'a>(cause: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(cause), |cause: &&'a (dyn StdError + 'static)| {
        let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
        Some(inner as &(dyn StdError + 'static))
    })
}

/// What it says, and what that comes from as far as it is not said already.
fn said(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
