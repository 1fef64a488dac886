//! A gateway between a client and a gRPC server that does what the test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value as Json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::{Response, Status, Streaming};
use virtualstack_gateway::{Config, Deps, bind};
use virtualstack_proto::raw::RawCodec;

pub(crate) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http");
    let vendor = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/vendor");
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
    let mut compiler = protox::Compiler::new([here, vendor, ours]).expect("the folders are there");
    compiler.include_imports(true).open_file("things.proto").expect("it compiles");
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).expect("it decodes")
});

/// Bytes of a message, from its JSON.
pub(crate) fn wire(message: &str, json: Json) -> Bytes {
    let descriptor = POOL.get_message_by_name(message).expect("a message");
    DynamicMessage::deserialize(descriptor, json).expect("it fits").encode_to_vec().into()
}

/// JSON of a message's bytes, unset and zero values left out.
pub(crate) fn json(message: &str, wire: &Bytes) -> Json {
    let descriptor = POOL.get_message_by_name(message).expect("a message");
    serde_json::to_value(DynamicMessage::decode(descriptor, wire.clone()).expect("it decodes")).expect("it prints")
}

/// What the server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) metadata: HeaderMap,
    pub(crate) message: Bytes,
}

pub(crate) type Answer = Result<Response<BoxStream<'static, Result<Bytes, Status>>>, Status>;
type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync>;
type Taker = Arc<dyn Fn(Upload) -> BoxFuture<'static, Answer> + Send + Sync>;

/// An upload as it comes to the server, whose first message has been read.
pub(crate) struct Upload {
    messages: Streaming<Bytes>,
}

impl Upload {
    /// The next piece. What is no piece of a file is an error of the test.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(wire) = self.messages.message().await? else { return Ok(None) };
        let descriptor = POOL.get_message_by_name("test.v1.UploadTemplateRequest").expect("a message");
        let message = DynamicMessage::decode(descriptor, wire).expect("it decodes");
        assert_eq!(message.fields().count(), 1, "{message}");
        let body = message.get_field_by_name("body").expect("a field");
        let body = body.as_message().expect("a message");
        assert_eq!(body.fields().count(), 1, "{body}");
        Ok(Some(body.get_field_by_name("data").expect("a field").as_bytes().expect("bytes").clone()))
    }
}

/// An answer of one message.
pub(crate) fn once(message: Bytes) -> Answer {
    Ok(Response::new(futures::stream::iter([Ok(message)]).boxed()))
}

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) served: tokio::task::JoinHandle<Result<(), virtualstack_gateway::Error>>,
}

/// A reply, taken whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts that this is an error of the gateway's form; its message.
    pub(crate) fn error(&self, http: u16, status: &str, reason: &str) -> String {
        let json = self.json();
        let error = &json["error"];
        assert_eq!(
            (self.status.as_u16(), &error["code"], &error["status"], &error["details"][0]["reason"]),
            (http, &Json::from(http), &Json::from(status), &Json::from(reason)),
            "{json}"
        );
        assert_eq!(error["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!(error["details"][0]["domain"], "virtualstack");
        assert_eq!(self.headers["content-type"], "application/json");
        assert!(self.headers.contains_key("x-request-id"));
        error["message"].as_str().expect("a message").to_owned()
    }

    /// The fields that the error is about.
    pub(crate) fn fields(&self) -> Vec<String> {
        self.error(400, "INVALID_ARGUMENT", "INVALID_REQUEST");
        let json = self.json();
        let violations = json["error"]["details"][1]["fieldViolations"].as_array().expect("a list").clone();
        violations.iter().map(|violation| violation["field"].as_str().expect("a field").to_owned()).collect()
    }
}

impl World {
    /// A server that answers everything with an empty message.
    pub(crate) async fn echo() -> Self {
        Self::start(|_| once(Bytes::new())).await
    }

    pub(crate) async fn start(handler: impl Fn(Call) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(Config::default(), move |call| futures::future::ready(handler(call)).boxed()).await
    }

    pub(crate) async fn with(
        config: Config,
        handler: impl Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::uploads(config, handler, |_| async { Err(Status::unimplemented("no uploads")) }.boxed()).await
    }

    /// Calls go to `handler`, and so do uploads of which it is only asked whether they may come; `taker` gets the others.
    pub(crate) async fn uploads(
        config: Config,
        handler: impl Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
        taker: impl Fn(Upload) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let upstream = serve(Rpc {
            path: String::new(),
            handler: Arc::new(handler),
            taker: Arc::new(taker),
            calls: calls.clone(),
        })
        .await;
        let config =
            Config { listen: "127.0.0.1:0".parse().expect("valid"), upstream: format!("http://{upstream}"), ..config };
        let deps = Deps { descriptors: POOL.clone(), ..Deps::default() };
        let gateway = bind(config, deps).await.expect("it binds");
        let (stop, stopped) = oneshot::channel::<()>();
        Self {
            address: gateway.local_addr(),
            calls,
            client: Client::builder(TokioExecutor::new()).build_http(),
            stop: Some(stop),
            served: tokio::spawn(gateway.serve(async {
                let _ = stopped.await;
            })),
        }
    }

    /// The last call that reached the server.
    pub(crate) fn last(&self) -> Call {
        self.calls.lock().expect("not poisoned").last().expect("a call").clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.lock().expect("not poisoned").len()
    }

    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        self.try_open(request).await.expect("a reply")
    }

    /// What becomes of a request whose reply may break off.
    pub(crate) async fn try_open(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
        self.client.request(request).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let (parts, body) = self.open(method, path, headers, body).await.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Reply { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn json(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(method, path, &[("content-type", "application/json")], body).await
    }

    /// Sends JSON that is fine; the request message that the server got.
    pub(crate) async fn accepted(&self, method: Method, path: &str, body: &str, message: &str) -> Json {
        let reply = self.json(method, path, body.to_owned()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        json(message, &self.last().message)
    }
}

async fn serve(rpc: Rpc) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let rpc = rpc.clone();
            let service = hyper::service::service_fn(move |request| respond(request, rpc.clone()));
            tokio::spawn(async move {
                let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn respond(request: Request<Incoming>, rpc: Rpc) -> Result<http::Response<tonic::body::Body>, Infallible> {
    if request.method() == Method::GET {
        let body = tonic::body::Body::new(Full::new(Bytes::from_static(b"{\"keys\":[]}")));
        return Ok(http::Response::new(body));
    }
    let rpc = Rpc { path: request.uri().path().to_owned(), ..rpc };
    let mut grpc = tonic::server::Grpc::new(RawCodec);
    Ok(match rpc.path.ends_with("/UploadTemplate") {
        true => grpc.streaming(rpc, request).await,
        false => grpc.server_streaming(rpc, request).await,
    })
}

/// Whatever rpc was called. A call of one answer looks the same as a stream of one.
#[derive(Clone)]
struct Rpc {
    path: String,
    handler: Handler,
    taker: Taker,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl tonic::server::ServerStreamingService<Bytes> for Rpc {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Answer>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (metadata, _, message) = request.into_parts();
        let call = Call { path: self.path.clone(), metadata: metadata.into_headers(), message };
        self.calls.lock().expect("not poisoned").push(call.clone());
        (self.handler)(call)
    }
}

impl tonic::server::StreamingService<Bytes> for Rpc {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Answer>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let rpc = self.clone();
        async move {
            let (metadata, _, mut messages) = request.into_parts();
            let message = messages.message().await?.expect("a first message");
            let call = Call { path: rpc.path, metadata: metadata.into_headers(), message };
            rpc.calls.lock().expect("not poisoned").push(call.clone());
            match json("test.v1.UploadTemplateRequest", &call.message)["validateOnly"].as_bool() {
                Some(true) => (rpc.handler)(call).await,
                _ => (rpc.taker)(Upload { messages }).await,
            }
        }
        .boxed()
    }
}
