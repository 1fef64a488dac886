//! What an S3 may answer, or not, and what is made of it. Its part plays a port that answers as it is told.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use virtualstack_objects::{Class, Config, Fault, Objects, Secret};

use crate::lab::{key, read, s3_config};

/// Heads of the requests that came.
type Seen = Arc<Mutex<Vec<String>>>;

/// A port that answers each request by its head, and what it has seen. No answer means that none comes.
async fn port(answer: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + 'static) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (seen, answer) = (Seen::default(), Arc::new(answer));
    let told = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (seen, answer) = (Arc::clone(&told), Arc::clone(&answer));
            tokio::spawn(async move { serve(socket, &seen, &*answer).await });
        }
    });
    (port, seen)
}

async fn serve(mut socket: TcpStream, seen: &Seen, answer: &(impl Fn(&str) -> Option<(u16, String)> + Sync)) {
    let mut text = Vec::new();
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut bytes = [0; 4096];
        match socket.read(&mut bytes).await {
            Ok(1..) => text.extend(bytes),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&text).split("\r\n\r\n").next().unwrap_or_default().to_owned();
    seen.lock().expect("a lock").push(head.clone());
    let Some((status, body)) = answer(&head) else { return std::future::pending().await };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nETag: \"1\"\r\nContent-Length: {length}\r\nConnection: close");
    let reply = format!("{head}\r\n\r\n{body}");
    let _ = socket.write_all(reply.as_bytes()).await;
    let _ = socket.shutdown().await;
    // Until the other side has read it: a reset would take it away.
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>because</Message></Error>")
}

fn objects(port: u16) -> Objects {
    let config = Config { request_timeout_seconds: 1, ..s3_config(port, "ada", "hunter2") };
    Objects::open(&config).expect("a store")
}

async fn put(objects: &Objects) -> Result<(), Fault> {
    objects.put(&key("a/b"), vec![Bytes::from_static(b"1")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_has_its_class_and_names_what_to_look_at() {
    for (status, code, class, look_at) in [
        (500, "InternalError", Class::Retry, ""),
        (503, "SlowDown", Class::Retry, ""),
        (502, "", Class::Retry, "HTTP 502"),
        (429, "TooManyRequests", Class::Retry, ""),
        (409, "OperationAborted", Class::Retry, ""),
        (507, "", Class::Full, "HTTP 507"),
        (507, "XMinioStorageFull", Class::Full, ""),
        (400, "QuotaExceeded", Class::Full, ""),
        (403, "QuotaExceeded", Class::Full, ""),
        (404, "NoSuchKey", Class::Missing, ""),
        (404, "", Class::Permanent, "storage.endpoint"),
        (404, "NoSuchBucket", Class::Permanent, "storage.bucket"),
        (403, "InvalidAccessKeyId", Class::Permanent, "storage.access_key"),
        (403, "SignatureDoesNotMatch", Class::Permanent, "storage.secret_key"),
        (403, "AccessDenied", Class::Permanent, "the rights of the user"),
        (403, "", Class::Permanent, "the rights of the user"),
        (403, "RequestTimeTooSkewed", Class::Permanent, "the clock"),
        (301, "PermanentRedirect", Class::Permanent, "storage.region"),
        (400, "AuthorizationHeaderMalformed", Class::Permanent, "storage.region"),
        (405, "MethodNotAllowed", Class::Permanent, "storage.endpoint"),
    ] {
        let body = if code.is_empty() { "<html>a proxy</html>".to_owned() } else { error(code) };
        let (port, seen) = port(move |_| Some((status, body.clone()))).await;
        let objects = objects(port);
        let faults = [
            put(&objects).await.expect_err("refused"),
            read(&objects, &key("a/b"), 0..10).await.expect_err("refused"),
            objects.check().await.expect_err("refused"),
        ];
        for fault in faults {
            assert_eq!(fault.class, class, "{status} {code}: {fault:?}");
            assert!(fault.detail.contains(look_at) && fault.detail.contains(code), "{status} {code}: {fault:?}");
            assert!(!fault.detail.contains("hunter2") && !fault.message.contains(code) | code.is_empty(), "{fault:?}");
        }
        let tries = seen.lock().expect("a lock").len();
        let again = class == Class::Retry && status != 409;
        assert!(if again { (4..=9).contains(&tries) } else { tries == 3 }, "{status} {code}: {tries} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_deleted_is_told() {
    let body = "<DeleteResult><Deleted><Key>a/1</Key></Deleted><Error><Key>a/2</Key><Code>AccessDenied</Code>\
                <Message>no</Message></Error></DeleteResult>";
    let (port, _) = port(|_| Some((200, body.to_owned()))).await;
    let fault = objects(port).delete(&[key("a/1"), key("a/2")]).await.expect_err("refused");
    assert_eq!(fault.class, Class::Permanent, "{fault:?}");
    assert!(fault.detail.contains("a/2"), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_answers_is_given_up_and_asked_once() {
    let (port, seen) = port(|_| None).await;
    let objects = objects(port);
    let fault = put(&objects).await.expect_err("no answer");
    assert_eq!(fault.class, Class::Retry, "{fault:?}");
    assert!(fault.detail.contains("timed out"), "{fault:?}");
    assert_eq!(seen.lock().expect("a lock").len(), 1);
    let fault = read(&objects, &key("a/b"), 0..10).await.expect_err("no answer");
    assert_eq!(fault.class, Class::Retry, "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_not_read_to_it() {
    let (port, _) = port(|_| Some((400, "x".repeat(4 << 20)))).await;
    let fault = put(&objects(port)).await.expect_err("refused");
    assert!(fault.class == Class::Permanent && fault.detail.len() <= 1024, "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_it_may_work_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let fault = put(&objects(port)).await.expect_err("nobody there");
    assert_eq!(fault.class, Class::Retry, "{fault:?}");
}

/// The store knows the new credentials only, and the file has them only once the old ones have been refused.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_refused_are_read_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access");
    std::fs::write(&file, "old\n").expect("written");
    let (port, seen) = port(|head| match head.contains("Credential=new/") {
        true => Some((200, String::new())),
        false => Some((403, error("InvalidAccessKeyId"))),
    })
    .await;
    let config = Config { access_key: None, access_key_file: Some(file.clone()), ..s3_config(port, "", "hunter2") };
    let objects = Objects::open(&config).expect("a store");
    let fault = put(&objects).await.expect_err("refused");
    assert_eq!((fault.class, seen.lock().expect("a lock").len()), (Class::Permanent, 1), "{fault:?}");
    std::fs::write(&file, "new\n").expect("written");
    put(&objects).await.expect("asked again with what is in the file now");
    put(&objects).await.expect("and from then on at once");
    assert_eq!(seen.lock().expect("a lock").len(), 4);
}

#[test]
fn what_cannot_be_opened_names_its_key() {
    let config = || s3_config(1, "ada", "hunter2");
    let key = |config: Config| Objects::open(&config).expect_err("refused").key;
    let none = || Some("/none".into());
    assert_eq!(key(Config { access_key: None, access_key_file: none(), ..config() }), "access_key_file");
    assert_eq!(key(Config { secret_key: None, secret_key_file: none(), ..config() }), "secret_key_file");
    assert_eq!(key(Config { ca_file: none(), ..config() }), "ca_file");
    assert_eq!(key(Config { secret_key: Some(Secret(String::new())), ..config() }), "secret_key");
    assert_eq!(key(Config::default()), "folder");
    let objects = Objects::open(&config()).expect("not asked whether it is there");
    assert_eq!(format!("{objects:?}"), "Objects(S3)");
}
