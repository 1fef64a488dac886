//! What a customer gone wild can take with uploads: memory, places, room in the store.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use prost::Message as _;
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use virtualstack_proto::google::api::HttpBody;
use virtualstack_proto::virtualstack::compute::v1::template_service_client::TemplateServiceClient;
use virtualstack_proto::virtualstack::compute::v1::{UploadTemplateRequest, UploadTemplateResponse};
use virtualstack_server::Config;

use crate::api::compute::templates::{created, get, put, stored};
use crate::api::refused;
use crate::support::{ControlPlane, Session, reason};

const MIB: usize = 1 << 20;

fn first(name: &str) -> UploadTemplateRequest {
    UploadTemplateRequest { name: name.to_owned(), ..Default::default() }
}

fn piece(data: Vec<u8>) -> UploadTemplateRequest {
    UploadTemplateRequest { body: Some(HttpBody { data: data.into(), ..Default::default() }), ..Default::default() }
}

async fn upload(session: &Session, messages: Vec<UploadTemplateRequest>) -> Result<UploadTemplateResponse, Status> {
    let request = session.request(stream::iter(messages));
    TemplateServiceClient::new(session.channel.clone()).upload_template(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_not_filled_beyond_the_quota() {
    let plane = ControlPlane::without_worker().await;
    let session = plane.tenant("acme").await;
    let rest = session.rest();
    let quota = json!({"limits": {"templates": 5, "templateBytes": (3 * MIB).to_string()}});
    let path = format!("/v1/{}/quota", session.tokens.tenant);
    assert_eq!(plane.operator().await.rest().call("PATCH", &path, Some(quota)).await.0, 200);
    let template = created(&rest, "again-and-again", "OVA").await;
    for _ in 0..6 {
        assert_eq!(put(&rest, &template, None, vec![1; 2 * MIB]).await.0, 200);
        assert_eq!(stored(&plane).await, (1, 1), "what was there before is gone");
    }
    let other = created(&rest, "without-a-length", "OVA").await;
    for _ in 0..3 {
        let refused = upload(&session, vec![first(&other), piece(vec![1; 2 * MIB])]).await.expect_err("refused");
        assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "QUOTA_EXCEEDED".to_owned()));
    }
    assert_eq!(stored(&plane).await, (1, 1), "what was refused is gone");
    assert_eq!(get(&rest, "quota").await["usage"]["templateBytes"], (2 * MIB).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_has_a_place_before_its_first_message() {
    let config = Config { max_uploads_per_principal: 2, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let session = plane.admin().await;
    let rest = session.rest();
    let mut at_work = Vec::new();
    for number in 0..2 {
        let template = created(&rest, &format!("at-work-{number}"), "OVA").await;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(first(&template)).await.expect("it waits");
        let request = session.request(ReceiverStream::new(receiver));
        let mut client = TemplateServiceClient::new(session.channel.clone());
        at_work.push((sender, tokio::spawn(async move { client.upload_template(request).await })));
    }
    let held = "SELECT count(*) FROM compute.user_templates WHERE upload_token IS NOT NULL";
    while plane.database.count(held).await < 2 {
        tokio::task::yield_now().await;
    }
    // One that says nothing is not listened to.
    let silent = session.request(stream::pending::<UploadTemplateRequest>());
    let told = TemplateServiceClient::new(session.channel.clone()).upload_template(silent).await.expect_err("refused");
    assert_eq!((told.code(), reason(&told)), (Code::ResourceExhausted, "TOO_MANY_UPLOADS".to_owned()));
    let template = created(&rest, "crowded", "OVA").await;
    let by_rest = put(&rest, &template, None, vec![1]).await;
    refused(&by_rest, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_UPLOADS");
    for (sender, call) in at_work {
        drop(sender);
        call.await.expect("no panic").expect("it came to its end");
    }
    assert_eq!(put(&rest, &template, None, vec![1]).await.0, 200, "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stalls_or_crawls_ends_and_keeps_what_came() {
    let config = Config { upload_idle_seconds: 1, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let session = plane.admin().await;
    let rest = session.rest();
    for (pause, expected) in
        [(Duration::from_secs(30), "UPLOAD_STALLED"), (Duration::from_millis(50), "UPLOAD_TOO_SLOW")]
    {
        let template = created(&rest, expected, "OVA").await;
        let pieces = stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((piece(vec![7]), ()))
        });
        let messages = stream::iter([first(&template), piece(vec![7; 100])]).chain(pieces);
        let request = session.request(messages);
        let call = TemplateServiceClient::new(session.channel.clone()).upload_template(request).await;
        let told = call.expect_err("it ends");
        assert_eq!((told.code(), reason(&told)), (Code::DeadlineExceeded, expected.to_owned()), "{told:?}");
        let kept = get(&rest, &template).await["uploadedBytes"].as_str().expect("a number").parse::<u32>();
        assert!(kept.is_ok_and(|kept| kept >= 100), "{expected}");
        assert_eq!(put(&rest, &template, None, vec![1]).await.0, 200, "and it is not held");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiny_pieces_have_a_bound_that_large_ones_have_not() {
    let plane = ControlPlane::without_worker().await;
    let session = plane.admin().await;
    let rest = session.rest();
    let template = created(&rest, "crumbs", "OVA").await;
    assert_eq!(put(&rest, &template, Some("bytes 0-0/9000000"), vec![7]).await.0, 200);
    let id = template.trim_start_matches("templates/");
    // As if 1023 more had come, of one byte each.
    plane
        .database
        .execute(&format!(
            "INSERT INTO compute.template_parts (tenant_id, template_id, first_byte, size_bytes, object) \
             SELECT tenant_id, template_id, number, 1, object || '-' || number \
             FROM compute.template_parts, generate_series(1, 1023) number WHERE template_id = '{id}'; \
             UPDATE compute.user_templates SET uploaded_bytes = 1024 WHERE id = '{id}'"
        ))
        .await;
    let (status, told) = put(&rest, &template, Some("bytes 1024-1024/9000000"), vec![7]).await;
    refused(&(status, told), 400, "FAILED_PRECONDITION", "TOO_MANY_PIECES");
    let range = format!("bytes 1024-{}/9000000", 1024 + MIB - 1);
    assert_eq!(put(&rest, &template, Some(&range), vec![7; MIB]).await.0, 200, "larger ones are taken");
    assert_eq!(stored(&plane).await.0, 2, "what was refused is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn later_messages_are_of_the_same_file() {
    let plane = ControlPlane::without_worker().await;
    let session = plane.admin().await;
    let rest = session.rest();
    let (template, other) = (created(&rest, "one", "OVA").await, created(&rest, "other", "OVA").await);
    let second = UploadTemplateRequest { content_range: "bytes 0-0/1".to_owned(), ..first(&other) };
    let told = upload(&session, vec![first(&template), second]).await.expect_err("refused");
    assert_eq!(told.code(), Code::InvalidArgument, "{told:?}");
    let fields: Vec<_> = told.get_details_bad_request().expect("fields").field_violations;
    assert_eq!(fields.iter().map(|of| of.field.as_str()).collect::<Vec<_>>(), ["name", "contentRange"]);
}

/// A message as gRPC puts it on the wire.
fn framed(message: &UploadTemplateRequest) -> Bytes {
    let message = message.encode_to_vec();
    let size = u32::try_from(message.len()).expect("small").to_be_bytes();
    [&[0][..], &size, &message].concat().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_is_not_complete_whatever_its_code() {
    let plane = ControlPlane::without_worker().await;
    let session = plane.admin().await;
    let rest = session.rest();
    for (number, code) in [h2::Reason::NO_ERROR, h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR].into_iter().enumerate()
    {
        let template = created(&rest, &format!("reset-{number}"), "OVA").await;
        let address = plane.grpc.trim_start_matches("http://");
        let socket = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let request =
            http::Request::post(format!("{}/virtualstack.compute.v1.TemplateService/UploadTemplate", plane.grpc))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("authorization", format!("Bearer {}", session.tokens.access_token))
                .body(())
                .expect("a request");
        let (response, mut body) = client.send_request(request, false).expect("sent");
        body.send_data(framed(&first(&template)), false).expect("sent");
        body.send_data(framed(&piece(vec![7; 1000])), false).expect("sent");
        // It is at work.
        let held = "SELECT count(*) FROM compute.user_templates WHERE upload_token IS NOT NULL";
        while plane.database.count(held).await == 0 {
            tokio::task::yield_now().await;
        }
        body.send_reset(code);
        // Once it has let go, what came is kept, and nobody takes it for the whole.
        while put(&rest, &template, Some("bytes 0-0/9"), vec![7]).await.0 == 409 {}
        let seen = get(&rest, &template).await;
        let kept = seen["uploadedBytes"].as_str().expect("a number").parse::<usize>().expect("a number");
        assert!([0, 1, 1000].contains(&kept), "{code:?}: {seen}");
        assert!(["0", "9"].contains(&seen["sizeBytes"].as_str().expect("a number")), "{code:?}: {seen}");
        drop((response, client));
        connection.abort();
    }
}
