//! Headers ⇄ metadata. From outside only what is listed here goes through; everything else stays out, so that no
//! client can speak in the gateway's or the server's name.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use prost_reflect::{DynamicMessage, ReflectMessage as _};
use tonic::metadata::MetadataMap;
use uuid::Uuid;
use virtualstack_proto::GATEWAY_SECRET;

use crate::problem::{Problem, Violations};
use crate::scalar;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Headers that the server gets as they are.
const PASSED: [HeaderName; 8] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    REQUEST_ID,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    USER_AGENT,
    ACCEPT_LANGUAGE,
    CONTENT_RANGE,
];

/// Fields that have the value of a header where a request has such a field, and whether only an upload's has it from there.
const FILLING: [(&str, HeaderName, bool); 3] = [
    // The event that a stream's client saw last: not the one that it began with, so it counts more than a token in the query,
    // which a client that connects again repeats.
    ("resume_token", HeaderName::from_static("last-event-id"), false),
    // Which part of a file comes, and how much.
    ("content_range", CONTENT_RANGE, true),
    ("content_length", CONTENT_LENGTH, true),
];

/// The metadata of a call.
pub(crate) fn to_server(
    headers: &HeaderMap,
    client: IpAddr,
    secret: Option<&HeaderValue>,
    desk: Option<&HeaderName>,
) -> MetadataMap {
    let mut metadata = HeaderMap::new();
    for name in PASSED.into_iter().chain(desk.cloned()) {
        // All of them: two credentials are for the server to refuse, not for us to choose from.
        for value in headers.get_all(&name) {
            metadata.append(name.clone(), value.clone());
        }
    }
    metadata.extend(HeaderValue::from_str(&client.to_string()).map(|client| (FORWARDED_FOR, client)));
    metadata.extend(secret.map(|secret| (HeaderName::from_static(GATEWAY_SECRET), secret.clone())));
    MetadataMap::from_headers(metadata)
}

/// Who is calling. What a request says of that is believed only as far as trusted proxies wrote it: from the end of
/// the chain up to the first address that is none of theirs. The server gets that one address, and no chain to judge.
pub(crate) fn client(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let told: Vec<_> = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut client = peer;
    for said in told.iter().rev().flat_map(|value| value.rsplit(',')).map(str::trim) {
        let address = said.parse().or_else(|_| said.parse().map(|address: SocketAddr| address.ip()));
        match address {
            Ok(address) if trusted.iter().any(|network| network.contains(&client)) => client = address.to_canonical(),
            _ => break,
        }
    }
    client
}

/// What clients get to see of a reply's metadata.
pub(crate) fn to_client(metadata: &MetadataMap) -> Vec<(HeaderName, HeaderValue)> {
    let metadata = metadata.clone().into_headers();
    let shown = |name: &HeaderName| name.as_str().starts_with("ratelimit") || name == RETRY_AFTER;
    metadata.iter().filter(|(name, _)| shown(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Makes sure that a request has a sane id: its own, or a new one.
pub(crate) fn identify<B>(mut request: http::Request<B>) -> http::Request<B> {
    let is_sane = |id: &&HeaderValue| {
        let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        (1..=64).contains(&id.len()) && id.as_bytes().iter().all(sane)
    };
    let id = request.headers().get(REQUEST_ID).filter(is_sane).cloned();
    if let Some(id) = id.or_else(|| HeaderValue::from_str(&Uuid::now_v7().to_string()).ok()) {
        request.headers_mut().insert(REQUEST_ID, id);
    }
    request
}

/// The deadline that a client names, in gRPC's form: at most eight digits and a unit.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parse = || {
        let text = value.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8 && !digits.starts_with('+'))?;
        Some(match unit {
            "H" => Duration::from_secs(amount * 3600),
            "M" => Duration::from_secs(amount * 60),
            "S" => Duration::from_secs(amount),
            "m" => Duration::from_millis(amount),
            "u" => Duration::from_micros(amount),
            "n" => Duration::from_nanos(amount),
            _ => return None,
        })
    };
    let message = "The header Grpc-Timeout must be up to eight digits and a unit of H, M, S, m, u or n, such as 500m.";
    parse().map(Some).ok_or_else(|| Problem::invalid("INVALID_TIMEOUT", message))
}

/// Sets the fields that headers fill. What is no text is left to the server to refuse.
pub(crate) fn fill(headers: &HeaderMap, is_upload: bool, message: &mut DynamicMessage) -> Result<(), Problem> {
    let mut violations = Violations::default();
    for (name, header, of_uploads) in FILLING {
        let field = message.descriptor().get_field_by_name(name).filter(|field| !field.is_list() && !field.is_map());
        let Some(field) = field.filter(|_| is_upload || !of_uploads) else { continue };
        let mut given = headers.get_all(&header).iter().filter(|value| of_uploads || !value.is_empty());
        let Some(value) = given.next() else { continue };
        match scalar::from_text(&field.kind(), &String::from_utf8_lossy(value.as_bytes())) {
            _ if given.next().is_some() => violations.push(header, "is given twice"),
            // Without it the request would be another one.
            _ if value.is_empty() => violations.push(header, "is empty"),
            Some(value) => message.set_field(&field, value),
            None => violations.push(header, scalar::expected(&field.kind())),
        }
    }
    violations.check()
}

/// Bytes that the header block takes, as HTTP/1 writes it.
pub(crate) fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue, Request};

    use super::{REQUEST_ID, identify, timeout, to_server};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_listed_headers_pass() {
        let metadata = to_server(
            &headers(&[
                ("authorization", "Bearer x"),
                ("grpc-encoding", "gzip"),
                ("x-internal-user", "root"),
                ("connection", "close"),
                ("x-forwarded-for", "1.2.3.4"),
                ("forwarded", "for=1.2.3.4"),
            ]),
            "9.9.9.9".parse().expect("an address"),
            None,
            None,
        )
        .into_headers();
        assert_eq!(metadata.len(), 2);
        assert_eq!(metadata["authorization"], "Bearer x");
        assert_eq!(metadata["x-forwarded-for"], "9.9.9.9");
        let (desk, client) = (HeaderName::from_static("x-desk-secret"), "9.9.9.9".parse().expect("an address"));
        let shown = headers(&[("x-desk-secret", "s3cret"), ("x-desk", "other")]);
        let metadata = to_server(&shown, client, None, Some(&desk)).into_headers();
        assert_eq!((metadata.len(), &metadata["x-desk-secret"]), (2, &HeaderValue::from_static("s3cret")));
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        for (peer, told, client) in [
            ("11.1.2.3:80", "1.2.3.4", "11.1.2.3"),
            ("[::ffff:11.1.2.3]:80", "1.2.3.4", "11.1.2.3"),
            ("10.1.2.3:80", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("10.1.2.3:80", "6.6.6.6,1.2.3.4:5678 , 10.9.9.9", "1.2.3.4"),
            ("10.1.2.3:80", "10.7.7.7", "10.7.7.7"),
            ("10.1.2.3:80", "1.2.3.4, nonsense", "10.1.2.3"),
            ("10.1.2.3:80", "[2001:db8::1]:80", "2001:db8::1"),
            ("10.1.2.3:80", "", "10.1.2.3"),
        ] {
            let told = headers(&[("x-forwarded-for", told)]);
            let peer = peer.parse::<SocketAddr>().expect("an address");
            assert_eq!(super::client(&told, peer.ip(), &trusted).to_string(), client, "{told:?}");
        }
    }

    #[test]
    fn request_ids_are_sane() {
        let id = |text: &'static str| {
            let mut request = Request::new(());
            request.headers_mut().insert(REQUEST_ID, HeaderValue::from_static(text));
            identify(request).headers()[REQUEST_ID].to_str().expect("text").to_owned()
        };
        assert_eq!(id("abc-1.2_3"), "abc-1.2_3");
        for bad in ["", "a b", "a\"b", "x123456789012345678901234567890123456789012345678901234567890123456789"] {
            assert_eq!(id(bad).len(), 36, "{bad}");
        }
    }

    #[test]
    fn deadlines_are_in_the_form_of_grpc() {
        let parsed = |text: &'static str| timeout(&headers(&[("grpc-timeout", text)])).ok().flatten();
        assert_eq!(parsed("500m"), Some(Duration::from_millis(500)));
        assert_eq!(parsed("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parsed("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "5", "S", "5s", "-5S", "+5S", "123456789S", "5 S", "1.5S"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
