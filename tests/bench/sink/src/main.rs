//! Answers everything at once and with nothing, over HTTP/1.1 and HTTP/2: what a machine pays for requests whatever becomes of
//! them. It prints its port, and serves until it is killed.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "whoever starts it reads the port")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let answer = service_fn(async |_: http::Request<hyper::body::Incoming>| {
                let reply =
                    http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
                Ok::<_, Infallible>(reply.body(Empty::<Bytes>::new()).unwrap_or_default())
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
