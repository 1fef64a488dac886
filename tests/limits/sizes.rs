//! The largest requests of every rpc, over gRPC, grpc-web and REST: errors have a size, and no connection ends over them.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;
use prost::bytes::Bytes;
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, MethodDescriptor, Value};
use serde_json::json;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_web::GrpcWebClientLayer;
use virtualstack_proto::DESCRIPTOR_POOL;
use virtualstack_proto::raw::RawCodec;

use super::query;
use crate::support::{ControlPlane, Session};
use crate::tenancy::calls::{call_raw, path, rpcs};

/// Bytes that an error may have, in the headers of gRPC and in the body of REST.
const MOST: usize = 16 * 1024;

/// What every text of a request is, and how many elements its lists and maps have.
const SHAPES: [(&str, usize, usize); 5] = [
    // Legal in many fields.
    ("a", 63, 1),
    // Far too long, and larger when it is escaped.
    ("\u{1f600}", 20_000, 1),
    ("\u{1}", 20_000, 1),
    // Far too many, each of them wrong.
    ("\" \\", 1, 5_000),
    // More than is taken at all.
    ("x", 5 << 20, 1),
];

/// The request of an rpc with every field filled.
fn filled(message: &MessageDescriptor, text: &str, count: usize, depth: usize) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    for field in message.fields().filter(|field| field.containing_oneof().is_none()) {
        let one = |number: usize| match field.kind() {
            Kind::String => Some(Value::String(text.to_owned())),
            Kind::Bytes => Some(Value::Bytes(text.to_owned().into())),
            Kind::Message(inner) if inner.full_name() == "google.protobuf.FieldMask" => {
                let mut mask = DynamicMessage::new(inner.clone());
                let paths = (0..count).map(|_| Value::String("displayname".to_owned() + &text[..0])).collect();
                mask.set_field_by_name("paths", Value::List(paths));
                Some(Value::Message(mask))
            }
            Kind::Message(inner) if depth < 3 && !inner.full_name().starts_with("google.") => {
                Some(Value::Message(self::filled(&inner, text, count, depth + 1)))
            }
            Kind::Int32 => Some(Value::I32(i32::try_from(number).unwrap_or(i32::MAX))),
            _ => None,
        };
        let value = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { continue };
            let is_text = |name: &str| entry.get_field_by_name(name).is_some_and(|field| field.kind() == Kind::String);
            if !is_text("key") || !is_text("value") {
                continue;
            }
            let entries =
                (0..count).map(|number| (MapKey::String(format!("{text}{number}")), Value::String(text.to_owned())));
            Value::Map(entries.collect())
        } else if field.is_list() {
            match (0..count).map(one).collect::<Option<Vec<_>>>() {
                Some(elements) => Value::List(elements),
                None => continue,
            }
        } else {
            match one(0) {
                Some(value) => value,
                None => continue,
            }
        };
        filled.set_field(&field, value);
    }
    filled
}

/// What must be so of an error.
fn check(what: &str, status: &Status) {
    let fault = [Code::Internal, Code::Unknown, Code::Unavailable, Code::DataLoss];
    assert!(!fault.contains(&status.code()), "{what}: {status:?}");
    let message: usize = status.message().bytes().map(|byte| if byte.is_ascii_graphic() { 1 } else { 3 }).sum();
    let size = message + status.details().len() * 4 / 3;
    assert!(size < MOST, "{what}: an error of {size} bytes");
}

/// Rpcs whose requests say anything, but for those that end the session which the others need.
fn asked() -> Vec<MethodDescriptor> {
    let says = |rpc: &MethodDescriptor| rpc.input().fields().len() > 0 && rpc.name() != "Logout";
    rpcs().into_iter().filter(says).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_largest_requests_have_a_size_over_grpc() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.admin().await;
    // A stream on the same connection, which lasts as long as that does.
    let alive = alive(&admin).await;
    for rpc in asked() {
        for (text, length, count) in SHAPES {
            let request = filled(&rpc.input(), &text.repeat(length), count, 0).encode_to_vec();
            let what = format!("{} of {} bytes", rpc.full_name(), request.len());
            if let Err(status) =
                call_raw(&admin.channel, Some(&admin.tokens.access_token), &path(&rpc), request.into()).await
            {
                check(&what, &status);
            }
            assert!(alive.load(Ordering::SeqCst), "{what}: the connection has ended");
        }
    }
}

async fn alive(session: &Session) -> Arc<AtomicBool> {
    let mut client = virtualstack_proto::virtualstack::watch::v1::watch_service_client::WatchServiceClient::new(
        session.channel.clone(),
    );
    let mut watch = client.watch_vms(session.request(Default::default())).await.expect("a watch").into_inner();
    let alive = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&alive);
    tokio::spawn(async move {
        while let Ok(Some(_)) = watch.message().await {}
        told.store(false, Ordering::SeqCst);
    });
    alive
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_largest_requests_have_a_size_over_grpc_web() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.admin().await;
    // A connection for each: one that the server has closed is not taken for the next call.
    let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let browser = tower::ServiceBuilder::new().layer(GrpcWebClientLayer::new()).service(http);
    for rpc in asked().iter().filter(|rpc| !rpc.is_server_streaming()) {
        for (text, length, count) in SHAPES {
            let request: Bytes = filled(&rpc.input(), &text.repeat(length), count, 0).encode_to_vec().into();
            let size = request.len();
            let what = format!("{} of {size} bytes", rpc.full_name());
            let mut client = Grpc::with_origin(browser.clone(), plane.grpc.parse().expect("a URL"));
            client.ready().await.expect("a connection");
            let answer = client.unary(admin.request(request), path(rpc).parse().expect("a path"), RawCodec).await;
            match answer {
                // After it has refused what is too large, a server of HTTP/1.1 may close while its client still sends.
                Err(status) if status.source().is_some() && size > 4 << 20 => {}
                Err(status) => check(&what, &status),
                Ok(_) => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_largest_requests_have_a_size_over_rest() {
    let plane = ControlPlane::without_worker().await;
    let (admin, victim) = (plane.admin().await, plane.tenant("acme").await);
    // Others use the gateway's connections to the server meanwhile.
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let others = tokio::spawn(async move {
        let (rest, mut calls) = (victim.rest(), 0);
        let mut end = end;
        while end.try_recv().is_err() {
            assert_eq!(rest.call("GET", "/v1/quota", None).await.0, 200, "call {calls} of another tenant");
            calls += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        calls
    });
    let rest = admin.rest();
    let http = DESCRIPTOR_POOL.get_extension_by_name("google.api.http").expect("the http option");
    for rpc in asked() {
        let options = rpc.options();
        let rule =
            options.get_extension(&http).as_message().cloned().unwrap_or_else(|| DynamicMessage::new(rpc.input()));
        let pattern = ["get", "put", "post", "delete", "patch"].into_iter().find_map(|verb| {
            let path = rule.get_field_by_name(verb)?.as_str()?.to_owned();
            (!path.is_empty()).then_some((verb, path))
        });
        let Some((verb, template)) = pattern else { continue };
        let requests = SHAPES.iter().map(|(text, length, count)| {
            let text = text.repeat(*length);
            // A path as long as may be, and longer.
            let short: String = text.chars().filter(char::is_ascii_alphanumeric).take(9_000).collect();
            let path = in_path(&template, &format!("{short}-"));
            let body = serde_json::to_value(filled(&rpc.input(), &text, *count, 0)).expect("JSON");
            let query = if matches!(verb, "get" | "delete") {
                let filter: String = text.chars().filter(|letter| !letter.is_control()).take(1_000).collect();
                query(&[("filter", &filter), ("orderBy", &filter), ("pageToken", &filter)])
            } else {
                let mask: String = "displayname,".repeat(*count).chars().take(5_000).collect();
                query(&[("updateMask", &mask)])
            };
            let (rest, what) = (&rest, format!("{verb} {template}, texts of {length}, lists of {count}"));
            async move {
                let mut request = rest.request(&verb.to_uppercase(), &format!("{path}{query}"));
                if !matches!(verb, "get" | "delete") {
                    request = request.json(&body);
                }
                // After its own 413 a server of HTTP/1.1 may close, and its client not see the answer.
                let Ok(reply) = request.send().await else {
                    assert!(body.to_string().len() > 4 << 20, "{what}: no answer");
                    return;
                };
                let status = reply.status().as_u16();
                assert!(status < 500, "{what}: {status}");
                if status >= 400 {
                    let body = reply.bytes().await.expect("a body");
                    assert!(body.len() < MOST, "{what}: an error of {} bytes", body.len());
                }
            }
        });
        join_all(requests).await;
    }
    // As it was found: one key after the other, 5000 of them.
    let labels: serde_json::Map<_, _> = (0..5000).map(|number| (format!("-{number}"), json!("\u{1f600}"))).collect();
    let (status, error) = rest.call("POST", "/v1/vms", Some(json!({"displayName": "x", "labels": labels}))).await;
    assert_eq!(status, 400);
    let told = error["error"]["details"].to_string();
    assert!(told.contains("more violations"), "{told}");
    ended.send(()).expect("they go on");
    assert!(others.await.expect("all were answered") > 20);
}

/// A path template with its variables filled.
fn in_path(template: &str, text: &str) -> String {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, behind) = after.split_once('}').expect("a template");
        let form = variable.split_once('=').map_or("*", |(_, form)| form);
        path += before;
        path += &form.replace("**", text).replace('*', text);
        rest = behind;
    }
    path + rest
}
