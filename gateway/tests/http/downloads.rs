//! Files that come as streams: what is said of them, and what becomes of those that break off.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tonic::{Response, Status};

use crate::support::{Answer, World, wire};

fn piece(data: &str) -> Bytes {
    wire("google.api.HttpBody", json!({"data": data}))
}

/// The first message of a file, and what comes after it.
fn file(size: u32, rest: Vec<Result<Bytes, Status>>) -> Answer {
    let about = json!({
        "@type": "type.googleapis.com/virtualstack.files.v1.File",
        "fileName": "täst \"1\".txt", "sizeBytes": size.to_string(), "sha256": "00",
    });
    let first = json!({"contentType": "text/plain", "data": "aGU=", "extensions": [about]});
    let first = Ok(wire("google.api.HttpBody", first));
    Ok(Response::new(stream::iter(std::iter::once(first).chain(rest).collect::<Vec<_>>()).boxed()))
}

#[tokio::test]
async fn a_file_comes_as_an_attachment_with_its_size() {
    let world = World::start(|_| file(5, vec![Ok(piece("bGw=")), Ok(piece("bw=="))])).await;
    let reply = world.get("/v1/files/7:fetch").await;
    assert_eq!((reply.status.as_u16(), &*reply.text), (200, "hello"));
    let header = |name: &str| reply.headers[name].to_str().expect("text").to_owned();
    assert_eq!(header("content-type"), "text/plain");
    assert_eq!(header("content-length"), "5");
    assert_eq!(
        header("content-disposition"),
        "attachment; filename=\"t_st _1_.txt\"; filename*=UTF-8''t%C3%A4st%20%221%22.txt"
    );
    assert_eq!(header("content-security-policy"), "default-src 'none'; sandbox");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("cache-control"), "no-store");
}

#[tokio::test]
async fn an_error_before_the_file_is_one_like_any_other() {
    let world = World::start(|_| Ok(Response::new(stream::iter([Err(Status::not_found("none"))]).boxed()))).await;
    assert_eq!(world.get("/v1/files/7:fetch").await.status, 404);
    let world = World::start(|_| Err(Status::permission_denied("no"))).await;
    assert_eq!(world.get("/v1/files/7:fetch").await.status, 403);
}

#[tokio::test]
async fn a_file_that_breaks_off_is_none() {
    for rest in [vec![Ok(piece("bGw=")), Err(Status::unavailable("gone"))], vec![Ok(piece("bGw="))]] {
        let world = World::start(move |_| file(5, rest.clone())).await;
        let request = Request::get(format!("http://{}/v1/files/7:fetch", world.address)).body(Full::default());
        // Its headers may not have gone out yet.
        let Ok(reply) = world.try_open(request.expect("a request")).await else { continue };
        assert_eq!(reply.status(), 200, "it had begun");
        assert!(reply.into_body().collect().await.is_err(), "nobody takes it for whole");
    }
}
