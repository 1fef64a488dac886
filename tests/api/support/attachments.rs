//! Files of tickets: what is kept of them, and how they are handed out.

use serde_json::{Value, json};
use virtualstack_server::Config;

use super::tickets::{call, get, long, name, world, written};
use crate::api::compute::templates::sum;
use crate::api::{Reply, refused};
use crate::support::{ControlPlane, Rest};

const MIB: usize = 1 << 20;

/// What is not known, or could be run.
const UNKNOWN: &str = "application/octet-stream";

async fn upload(rest: &Rest, ticket: &str, query: &[(&str, &str)], bytes: impl Into<Vec<u8>>) -> Reply {
    let url = format!("http://gateway/v1/{ticket}/attachments:upload");
    let url = reqwest::Url::parse_with_params(&url, query).expect("a URL");
    let request = rest.request("POST", &format!("{}?{}", url.path(), url.query().unwrap_or_default()));
    let reply = request.body(bytes.into()).send().await.expect("a reply");
    (reply.status().as_u16(), reply.json().await.expect("JSON"))
}

/// A file that was sent.
async fn sent(rest: &Rest, ticket: &str, file_name: &str, bytes: impl Into<Vec<u8>>) -> Value {
    let (status, file) = upload(rest, ticket, &[("fileName", file_name)], bytes).await;
    assert_eq!(status, 200, "{file_name:?}: {file}");
    file
}

/// What a download says of itself, and its bytes.
async fn download(rest: &Rest, file: &str) -> (reqwest::header::HeaderMap, Vec<u8>) {
    let reply = rest.request("GET", &format!("/v1/{file}:download")).send().await.expect("a reply");
    assert_eq!(reply.status(), 200);
    (reply.headers().clone(), reply.bytes().await.expect("bytes").to_vec())
}

async fn objects(plane: &ControlPlane) -> usize {
    plane.database.object_keys().len()
}

/// Files that lie about what they are: name, bytes, and what is kept and told.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01".to_vec();
    let bomb = [b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), vec![0; 4096]].concat();
    let html = b"<!DOCTYPE html><script>alert(document.domain)</script>".to_vec();
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>".to_vec();
    vec![
        ("photo.png", html.clone(), "photo.png", "text/html"),
        ("page.html", html.clone(), "page.html", "text/html"),
        ("report.pdf", b"<html><body onload=x>".to_vec(), "report.pdf", "text/html"),
        ("upper.htm", b"<HTML><SCRIPT>".to_vec(), "upper.htm", "text/html"),
        ("blank.txt", b"\n\t <html>".to_vec(), "blank.txt", "text/html"),
        ("image.svg", svg.clone(), "image.svg", "image/svg+xml"),
        ("image.jpg", [b"<?xml version=\"1.0\"?>".to_vec(), svg.clone()].concat(), "image.jpg", "text/xml"),
        ("feed.xml", b"<?xml version=\"1.0\"?><rss/>".to_vec(), "feed.xml", "text/xml"),
        ("script.js", b"alert(1)".to_vec(), "script.js", "text/plain"),
        ("style.css", b"body{background:url(//x)}".to_vec(), "style.css", "text/plain"),
        ("run.sh", b"#!/bin/sh\nrm -rf /\n".to_vec(), "run.sh", "text/x-shellscript"),
        (
            "setup.png.exe",
            b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff".to_vec(),
            "setup.png.exe",
            "application/vnd.microsoft.portable-executable",
        ),
        ("tool", [b"\x7fELF\x02\x01\x01".to_vec(), vec![0; 64]].concat(), "tool", "application/x-executable"),
        ("doc.pdf", b"%PDF-1.7\n1 0 obj<</JS(app.alert(1))>>".to_vec(), "doc.pdf", "application/pdf"),
        ("bomb.zip", bomb, "bomb.zip", "application/zip"),
        ("bomb.gz", [b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), vec![0; 512]].concat(), "bomb.gz", "application/gzip"),
        ("real.png", png.clone(), "real.png", "image/png"),
        ("real.html", png.clone(), "real.html", "image/png"),
        ("../../etc/passwd", b"root:x:0:0".to_vec(), "passwd", "text/plain"),
        ("..\\..\\boot.ini", b"[boot loader]".to_vec(), "boot.ini", "text/plain"),
        ("/absolute/path.txt", b"x".to_vec(), "path.txt", "text/plain"),
        ("C:\\Users\\me\\x.txt", b"x".to_vec(), "x.txt", "text/plain"),
        ("\u{ff0e}\u{ff0e}\u{ff0f}shadow", b"x".to_vec(), "shadow", "text/plain"),
        (
            "invoice\u{202e}fdp.exe",
            b"MZ\x90\0\x03\0\0\0".to_vec(),
            "invoicefdp.exe",
            "application/vnd.microsoft.portable-executable",
        ),
        ("a\r\nSet-Cookie: sid=1.txt", b"x".to_vec(), "aSet-Cookie: sid=1.txt", "text/plain"),
        ("quote\".txt", b"x".to_vec(), "quote\".txt", "text/plain"),
        ("nul\0.txt", b"\0\x01\x02\x03".to_vec(), "nul.txt", UNKNOWN),
        (".htaccess", b"AddType text/html .png".to_vec(), ".htaccess", "text/plain"),
        ("con.txt\u{200b}", b"x".to_vec(), "con.txt", "text/plain"),
        ("latin1.txt", b"caf\xe9 noir".to_vec(), "latin1.txt", UNKNOWN),
        ("one-byte", b"\0".to_vec(), "one-byte", UNKNOWN),
        ("%2e%2e%2fx.txt", b"x".to_vec(), "%2e%2e%2fx.txt", "text/plain"),
    ]
}

/// What may be said to a browser of what it is.
const INERT: [&str; 4] = ["text/plain", "image/png", "application/zip", "application/gzip"];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_says_of_itself_is_not_believed() {
    let (plane, _, member, _) = world().await;
    let rest = member.rest();
    let files = hostile();
    assert!(files.len() >= 30, "{}", files.len());
    let mut ticket = String::new();
    for (number, (said, bytes, kept, sniffed)) in files.into_iter().enumerate() {
        if number % 10 == 0 {
            ticket = name(&written(&rest, &format!("files from {number}")).await).to_owned();
        }
        let file = sent(&rest, &ticket, said, bytes.clone()).await;
        assert_eq!((&file["fileName"], &file["contentType"]), (&json!(kept), &json!(sniffed)), "{said:?}");
        assert_eq!((&file["sizeBytes"], &file["sha256"]), (&json!(bytes.len().to_string()), &json!(sum(&bytes))));
        let (headers, got) = download(&rest, name(&file)).await;
        assert_eq!(got, bytes, "{said:?}");
        let header = |name: &str| headers[name].to_str().expect("text").to_owned();
        let served = if INERT.contains(&sniffed) { sniffed } else { UNKNOWN };
        assert_eq!(header("content-type"), served, "{said:?}");
        assert!(header("content-disposition").starts_with("attachment; filename=\""), "{said:?}");
        assert_eq!(header("content-security-policy"), "default-src 'none'; sandbox");
        assert_eq!((header("x-content-type-options"), header("cache-control")), ("nosniff".into(), "no-store".into()));
        assert_eq!(header("content-length"), bytes.len().to_string());
        assert!(!headers.contains_key("set-cookie"), "{said:?}");
    }
    for key in plane.database.object_keys() {
        let parts: Vec<_> = key.split('/').collect();
        assert!(parts[0] == "attachments" && parts.len() == 4 && parts[3] == "0", "no name of a client's: {key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_have_bounds() {
    let (plane, tenant, member, operator) = world().await;
    let (rest, staff) = (member.rest(), operator.rest());
    let ticket = name(&written(&rest, "It hangs").await).to_owned();
    let file_name = [("fileName", "x")];
    refused(&upload(&rest, &ticket, &file_name, vec![]).await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
    let too_large = upload(&rest, &ticket, &file_name, vec![7; 15 * MIB + 1]).await;
    refused(&too_large, 413, "RESOURCE_EXHAUSTED", "ATTACHMENT_TOO_LARGE");
    for wrong in ["", "..", "\u{200b}", &"x".repeat(256)] {
        let reply = upload(&rest, &ticket, &[("fileName", wrong)], vec![7]).await;
        refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        assert!(reply.1.to_string().contains("fileName"), "{reply:?}");
    }
    assert_eq!(objects(&plane).await, 0, "nothing is left of what was refused");

    // The largest, in two objects.
    let bytes: Vec<u8> = (0..15 * MIB).map(|at| (at / 1000 % 251).to_le_bytes()[0]).collect();
    let large = sent(&rest, &ticket, "large.bin", bytes.clone()).await;
    assert_eq!(objects(&plane).await, 2);
    assert!(download(&rest, name(&large)).await.1 == bytes, "as it was sent");
    for number in 1..10 {
        sent(&rest, &ticket, &format!("{number}.txt"), "x").await;
    }
    let eleventh = upload(&rest, &ticket, &file_name, "x").await;
    refused(&eleventh, 400, "FAILED_PRECONDITION", "TOO_MANY_ATTACHMENTS");
    call(&rest, "DELETE", name(&large), Value::Null).await;
    sent(&rest, &ticket, "another.txt", "x").await;
    let gone = rest.call("GET", &format!("/v1/{}:download", name(&large)), None).await;
    refused(&gone, 404, "NOT_FOUND", "TICKET_ATTACHMENT_NOT_FOUND");
    let usage = "SELECT attachment_bytes FROM support.ticket_usage";
    assert_eq!(plane.database.count(usage).await, 10);

    // What the provider sends is the provider's to delete.
    let other = written(&rest, "Another").await;
    let long = long(&tenant, &other);
    let theirs = sent(&staff, &long, "answer.txt", "try this").await;
    assert_eq!(theirs["author"], "provider");
    let short = format!("{}/attachments/{}", name(&other), theirs["uid"].as_str().expect("an id"));
    assert_eq!(download(&rest, &short).await.1, b"try this");
    let reply = rest.call("DELETE", &format!("/v1/{short}"), None).await;
    refused(&reply, 403, "PERMISSION_DENIED", "ATTACHMENT_OF_PROVIDER");
    call(&staff, "DELETE", name(&theirs), Value::Null).await;

    // A closed ticket takes none.
    call(&rest, "POST", &format!("{}:close", name(&other)), json!({})).await;
    let reply = upload(&rest, name(&other), &file_name, "x").await;
    refused(&reply, 400, "FAILED_PRECONDITION", "TICKET_STATE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_a_bound_of_bytes() {
    let config = Config { max_attachment_bytes_per_tenant: 100, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let rest = plane.tenant("acme").await.rest();
    let ticket = name(&written(&rest, "It hangs").await).to_owned();
    let first = sent(&rest, &ticket, "a", vec![7; 80]).await;
    let reply = upload(&rest, &ticket, &[("fileName", "b")], vec![7; 21]).await;
    refused(&reply, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_ATTACHMENT_BYTES");
    assert_eq!(objects(&plane).await, 1, "what was refused is gone");
    call(&rest, "DELETE", name(&first), Value::Null).await;
    sent(&rest, &ticket, "b", vec![7; 100]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_staff_are_theirs_alone() {
    let (plane, tenant, member, operator) = world().await;
    let (rest, staff) = (member.rest(), operator.rest());
    let ticket = written(&rest, "It hangs").await;
    let (path, long) = (name(&ticket).to_owned(), long(&tenant, &ticket));
    let (status, secret) = upload(&staff, &long, &[("fileName", "PLANTED.txt"), ("internal", "true")], "PLANTED").await;
    assert_eq!((status, &secret["internal"]), (200, &json!(true)), "{secret}");
    sent(&staff, &long, "answer.txt", "an answer").await;
    let names = async |rest: &Rest, at: &str| {
        let listed = get(rest, &format!("{at}/attachments?orderBy=fileName")).await["attachments"].clone();
        let files = listed.as_array().expect("files").clone();
        files.iter().map(|file| file["fileName"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&staff, &long).await, ["answer.txt", "PLANTED.txt"]);
    assert_eq!(names(&rest, &path).await, ["answer.txt"]);
    let short = format!("{path}/attachments/{}", secret["uid"].as_str().expect("an id"));
    for (method, suffix) in [("GET", ""), ("GET", ":download"), ("DELETE", "")] {
        let reply = rest.call(method, &format!("/v1/{short}{suffix}"), None).await;
        refused(&reply, 404, "NOT_FOUND", "TICKET_ATTACHMENT_NOT_FOUND");
    }
    assert_eq!(download(&staff, name(&secret)).await.1, b"PLANTED");
    let told = "SELECT count(*) FROM audit.changes WHERE fields::text LIKE '%PLANTED%' OR after::text LIKE '%PLANTED%' \
        OR message LIKE '%PLANTED%'";
    assert_eq!(plane.database.count(told).await, 0);
    call(&staff, "DELETE", name(&secret), Value::Null).await;
    assert_eq!(names(&staff, &long).await, ["answer.txt"]);
}
