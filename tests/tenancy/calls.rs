//! Calls of any rpc by its descriptor, so that a table of rpcs can be walked through.

use std::time::Duration;

use prost::Message as _;
use prost::bytes::Bytes;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use virtualstack_proto::DESCRIPTOR_POOL;
use virtualstack_proto::google::rpc;
use virtualstack_proto::raw::RawCodec;

use crate::support::{ControlPlane, Database, Session};

/// How long a stream that has no more to tell is listened to.
const QUIET: Duration = Duration::from_millis(1_500);

/// Every rpc that a tenant's client can see: ours, and those that we serve from vendored files.
pub(crate) fn rpcs() -> Vec<MethodDescriptor> {
    let ours = |package: &str| package.starts_with("virtualstack.") || package == "google.longrunning";
    DESCRIPTOR_POOL
        .services()
        .filter(|service| ours(service.package_name()))
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect()
}

/// "package.Service.Method" → "/package.Service/Method".
pub(crate) fn path(rpc: &MethodDescriptor) -> String {
    format!("/{}/{}", rpc.parent_service().full_name(), rpc.name())
}

/// Calls an rpc with a request and an answer in JSON.
pub(crate) async fn call(
    channel: &Channel,
    token: Option<&str>,
    rpc: &MethodDescriptor,
    request: Value,
) -> Result<Value, Status> {
    let message = DynamicMessage::deserialize(rpc.input(), request).expect("a sample that fits its rpc's request");
    let json = |answer: Bytes| {
        let answer = DynamicMessage::decode(rpc.output(), answer).expect("an answer of the rpc's type");
        serde_json::to_value(answer).expect("JSON")
    };
    let message = message.encode_to_vec().into();
    if rpc.is_server_streaming() {
        let mut answers = open(channel, bearer(token), &path(rpc), message).await?;
        let mut told = Vec::new();
        // All that comes by itself: after that a stream waits for something to happen.
        while let Ok(answer) = tokio::time::timeout(QUIET, answers.message()).await {
            match answer? {
                Some(answer) => told.push(json(answer)),
                None => break,
            }
        }
        return Ok(Value::Array(told));
    }
    call_raw(channel, token, &path(rpc), message).await.map(json)
}

/// Calls whatever is at `path` with the bytes of a message.
pub(crate) async fn call_raw(
    channel: &Channel,
    token: Option<&str>,
    path: &str,
    message: Bytes,
) -> Result<Bytes, Status> {
    call_with(channel, bearer(token), path, message).await
}

fn bearer(token: Option<&str>) -> Option<(&'static str, String)> {
    token.map(|token| ("authorization", format!("Bearer {token}")))
}

/// The same with a credential of any kind, as metadata. Of a stream, the first message.
pub(crate) async fn call_with(
    channel: &Channel,
    credential: Option<(&'static str, String)>,
    path: &str,
    message: Bytes,
) -> Result<Bytes, Status> {
    if rpcs().iter().any(|rpc| rpc.is_server_streaming() && self::path(rpc) == path) {
        let mut answers = open(channel, credential, path, message).await?;
        return answers.message().await?.ok_or_else(|| Status::internal("the stream ended before its first message"));
    }
    let mut client = client(channel).await;
    Ok(client.unary(with(credential, message), path.parse().expect("a path"), RawCodec).await?.into_inner())
}

async fn open(
    channel: &Channel,
    credential: Option<(&'static str, String)>,
    path: &str,
    message: Bytes,
) -> Result<Streaming<Bytes>, Status> {
    let mut client = client(channel).await;
    let answers = client.server_streaming(with(credential, message), path.parse().expect("a path"), RawCodec).await?;
    Ok(answers.into_inner())
}

async fn client(channel: &Channel) -> Grpc<Channel> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("a connection");
    client
}

fn with(credential: Option<(&'static str, String)>, message: Bytes) -> Request<Bytes> {
    let mut request = Request::new(message);
    if let Some((name, value)) = credential {
        request.metadata_mut().insert(name, value.parse().expect("metadata"));
    }
    request
}

/// All that a caller learns from an error: code, message and details.
pub(crate) fn told(status: &Status) -> Value {
    let details = rpc::Status::decode(status.details()).expect("a google.rpc.Status").details;
    let details: Vec<_> = details
        .into_iter()
        .map(|any| {
            let name = any.type_url.rsplit('/').next().expect("a name");
            let descriptor = DESCRIPTOR_POOL.get_message_by_name(name).expect("a known detail");
            let detail = DynamicMessage::decode(descriptor, any.value.as_slice()).expect("a detail of its type");
            json!({ name: serde_json::to_value(detail).expect("JSON") })
        })
        .collect();
    json!({"code": format!("{:?}", status.code()), "message": status.message(), "details": details})
}

/// A new member of a tenant with one role, signed in.
pub(crate) async fn member(plane: &ControlPlane, email: &str, tenant: &str, role: &str) -> Session {
    plane.member(email, tenant, role).await
}

/// The rows of a query that gives one text column, read as the superuser.
pub(crate) async fn texts(database: &Database, query: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Row {
        value: String,
    }
    let rows: Vec<Row> = database.rows(&format!("SELECT value::text AS value FROM ({query}) AS asked (value)")).await;
    rows.into_iter().map(|row| row.value).collect()
}
