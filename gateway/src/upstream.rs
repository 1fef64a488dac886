//! Calls to the gRPC server: bytes in, bytes out, so that no generated code is needed.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, Limited};
use prost::Message as _;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tower::{Service, ServiceExt as _};
use virtualstack_proto::raw::RawCodec;

use crate::config::Config;
use crate::error::Error;

/// Larger plain documents than this the server does not have.
const MAX_DOCUMENT: usize = 1 << 20;

/// Bytes of one reply that may be under way to us and not yet taken. Whoever reads a stream slowly keeps as much, so a
/// connection has room for every stream that it carries: none holds up the others.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes of a reply's headers. The server keeps its errors below 16 KiB.
const MAX_REPLY_HEADERS: u32 = 256 * 1024;
/// Streams that the server allows on a connection.
const STREAMS: u32 = 256;

/// Connections, taken in turn: one carries only as many calls at once as the server allows.
#[derive(Debug)]
struct Channels {
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Channels {
    fn next(&self) -> Channel {
        self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()].clone()
    }
}

/// The connections to the gRPC server. Streams last, and have their own, so that no call waits for one of them to end.
#[derive(Debug)]
pub(crate) struct Upstream {
    calls: Channels,
    streams: Channels,
    /// Each upload has a connection of its own: it sends as fast as it can, and one that stands still holds up none.
    endpoint: Endpoint,
    max_response: usize,
}

impl Upstream {
    /// Prepares the connections, which are made when they are needed.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(config.upstream.clone())
            .and_then(|endpoint| endpoint.user_agent(concat!("virtualstack-gateway/", env!("CARGO_PKG_VERSION"))))
            .ok()
            .filter(|endpoint| endpoint.uri().scheme_str() == Some("http") && endpoint.uri().port().is_some())
            .ok_or_else(|| Error::Upstream(config.upstream.clone()))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * STREAMS)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            // More than the server ever sends, or one large error would end the connection of all others.
            .http2_max_header_list_size(MAX_REPLY_HEADERS)
            .keep_alive_while_idle(true);
        let channels = |count: usize| {
            let channels = (0..count.max(1)).map(|_| endpoint.connect_lazy()).collect();
            Channels { channels, next: AtomicUsize::new(0) }
        };
        // Streams end when they will, so some connections carry more of them than others.
        let for_streams = config.max_streams.div_ceil(STREAMS as usize / 2);
        Ok(Self {
            calls: channels(config.upstream_connections),
            streams: channels(for_streams),
            endpoint,
            max_response: config.max_response_bytes,
        })
    }

    /// Calls an rpc that answers once.
    pub(crate) async fn unary<S>(&self, path: &PathAndQuery, request: Request<S>) -> Result<Response<Bytes>, Status>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        only(call(self.calls.next(), self.max_response, path.clone(), request).await?).await
    }

    /// Calls an rpc that answers once, and sends it a body that is made of messages already. A call that is dropped looks to the
    /// server as if the body had come to its end: tonic takes CANCEL for one. So a body that is to break off has to say so itself,
    /// by an error, and the call has to be awaited.
    pub(crate) fn upload<B>(
        &self,
        path: &PathAndQuery,
        request: Request<()>,
        body: B,
    ) -> impl Future<Output = Result<Response<Bytes>, Status>> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes, Error: Into<tonic::codegen::StdError>> + Send + 'static,
    {
        let mut body = Some(Body::new(body));
        let put = move |request: http::Request<Body>| request.map(|none| body.take().unwrap_or(none));
        let channel = self.endpoint.connect_lazy().map_request(put);
        let response = call(channel, self.max_response, path.clone(), request.map(|()| futures::stream::empty()));
        async move { only(response.await?).await }
    }

    /// Calls an rpc that answers with a stream. The call ends when the stream is dropped.
    pub(crate) async fn streaming<S>(
        &self,
        path: &PathAndQuery,
        request: Request<S>,
    ) -> Result<Response<Streaming<Bytes>>, Status>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        call(self.streams.next(), self.max_response, path.clone(), request).await
    }

    /// Asks whether the server can serve; the text says why not.
    pub(crate) async fn health(&self) -> Result<(), String> {
        /// `grpc.health.v1.HealthCheckResponse`, whose one field is an enum.
        #[derive(Clone, PartialEq, prost::Message)]
        struct Health {
            #[prost(int32, tag = "1")]
            status: i32,
        }
        const SERVING: i32 = 1;

        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let request = Request::new(futures::stream::iter([Bytes::new()]));
        let response = self.unary(&path, request).await.map_err(|status| match status.source() {
            Some(_) => "the gRPC server cannot be reached".to_owned(),
            None => format!("the gRPC server says: {}", status.message()),
        })?;
        let reason = response.metadata().get("reason").and_then(|reason| reason.to_str().ok()).map(str::to_owned);
        match Health::decode(response.into_inner()) {
            Ok(Health { status: SERVING }) => Ok(()),
            _ => Err(reason.unwrap_or_else(|| "the gRPC server is not serving".to_owned())),
        }
    }

    /// Fetches a document that the server has beside its rpcs, over the same connection.
    pub(crate) async fn document(&self, path: &'static str) -> Option<http::Response<Bytes>> {
        let mut channel = self.calls.next();
        std::future::poll_fn(|context| channel.poll_ready(context)).await.ok()?;
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static(path);
        let (parts, body) = channel.call(request).await.ok()?.into_parts();
        let body = Limited::new(body, MAX_DOCUMENT).collect().await.ok()?.to_bytes();
        Some(http::Response::from_parts(parts, body))
    }
}

async fn call<C, S>(
    channel: C,
    max_response: usize,
    path: PathAndQuery,
    request: Request<S>,
) -> Result<Response<Streaming<Bytes>>, Status>
where
    C: Service<http::Request<Body>, Response = http::Response<Body>, Error: Into<tonic::codegen::StdError>>,
    S: Stream<Item = Bytes> + Send + 'static,
{
    let mut client = Grpc::new(channel).max_decoding_message_size(max_response);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    client.streaming(request, path, RawCodec).await
}

/// The one message of a reply.
async fn only(response: Response<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let (metadata, mut messages, extensions) = response.into_parts();
    let message = messages.message().await?.ok_or_else(|| Status::internal("The server sent no reply."))?;
    // The status comes last: a reply counts only once that is known to be good.
    messages.trailers().await?;
    Ok(Response::from_parts(metadata, message, extensions))
}
