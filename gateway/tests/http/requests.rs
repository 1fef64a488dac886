//! Paths, queries and bodies → request messages.

use http::Method;
use serde_json::json;

use crate::support::{World, json};

const THING: &str = "test.v1.Thing";

#[tokio::test]
async fn paths_fill_fields() {
    let world = World::echo().await;
    for (path, rpc, message, expected) in [
        ("/v1/things/7", "GetThing", "GetThingRequest", json!({"name": "things/7"})),
        ("/v1/things/a%20b%2Fc", "GetThing", "GetThingRequest", json!({"name": "things/a b%2Fc"})),
        ("/v1/%74hings/x:y", "GetThing", "GetThingRequest", json!({"name": "things/x:y"})),
        ("/v1/shelves/a%2Fb/things/42", "GetThing", "GetThingRequest", json!({"shelf": "a/b", "number": 42})),
        ("/v1/files/a/b%20c", "ReadFile", "ReadFileRequest", json!({"path": "a/b c"})),
        ("/v1/things/7?name=things/8", "GetThing", "GetThingRequest", json!({"name": "things/7"})),
    ] {
        let reply = world.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        let call = world.last();
        assert_eq!(call.path, format!("/test.v1.Things/{rpc}"));
        assert_eq!(json(&format!("test.v1.{message}"), &call.message), expected, "{path}");
    }
    world.get("/v1/things/current").await;
    assert_eq!(world.last().path, "/test.v1.Things/GetCurrentThing", "a literal wins");
    assert_eq!(world.send(Method::DELETE, "/v1/things/current", &[], "").await.status, 200);
    assert_eq!(world.last().path, "/test.v1.Things/DeleteThing", "but only for its own verbs");

    assert_eq!(world.get("/v1/shelves/a/things/many").await.fields(), ["number"]);
    for bad in ["/v1/things/%zz", "/v1/things/%ff", "/v1/files/a/%2"] {
        world.get(bad).await.error(400, "INVALID_ARGUMENT", "MALFORMED_PATH");
    }
}

#[tokio::test]
async fn queries_fill_fields() {
    let world = World::echo().await;
    for (query, expected) in [
        ("pageSize=5&filter=a+b%26c", json!({"pageSize": 5, "filter": "a b&c"})),
        ("page_size=5&show_deleted=true", json!({"pageSize": 5, "showDeleted": true})),
        ("tags=a&tags=b,c", json!({"tags": ["a", "b,c"]})),
        ("color=RED&colors=BLUE&colors=1", json!({"color": "RED", "colors": ["BLUE", "RED"]})),
        ("color=2", json!({"color": "BLUE"})),
        ("range.from=2026-01-02T03:04:05Z", json!({"range": {"from": "2026-01-02T03:04:05Z"}})),
        ("readMask=displayName,part.label", json!({"readMask": "displayName,part.label"})),
        ("readMask=display_name", json!({"readMask": "displayName"})),
        ("maxAge=3.5s&maybe=false", json!({"maxAge": "3.500s", "maybe": false})),
        ("big=18446744073709551615", json!({"big": "18446744073709551615"})),
        ("&&filter=", json!({})),
    ] {
        let reply = world.get(&format!("/v1/things?{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text);
        assert_eq!(json("test.v1.ListThingsRequest", &world.last().message), expected, "{query}");
    }
}

#[tokio::test]
async fn wrong_queries_are_named() {
    let world = World::echo().await;
    for (query, field) in [
        ("nonsense=1", "nonsense"),
        ("filter.x=1", "filter.x"),
        ("pageSize=many", "pageSize"),
        ("pageSize=3000000000", "pageSize"),
        ("pageSize=", "pageSize"),
        ("pageSize=1&page_size=2", "page_size"),
        ("showDeleted=yes", "showDeleted"),
        ("color=PINK", "color"),
        ("range=x", "range"),
        ("range.from=yesterday", "range.from"),
        ("labels=x", "labels"),
        ("labels.a=x", "labels.a"),
        ("maxAge=5", "maxAge"),
    ] {
        assert_eq!(world.get(&format!("/v1/things?{query}")).await.fields(), [field], "{query}");
    }
    let both = world.get("/v1/things?nonsense=1&pageSize=x").await;
    assert_eq!(both.fields(), ["nonsense", "pageSize"]);
    world.get("/v1/things?filter=%zz").await.error(400, "INVALID_ARGUMENT", "MALFORMED_QUERY");
    let reply = world.json(Method::POST, "/v1/things?thing.displayName=x", "{}").await;
    assert_eq!(reply.fields(), ["thing.displayName"]);
    assert_eq!(world.json(Method::POST, "/v1/things/7:start?graceful=true", "{}").await.fields(), ["graceful"]);
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn credentials_do_not_belong_in_queries() {
    let world = World::echo().await;
    for name in ["access_token", "api_key", "apiKey", "authorization", "X-API-Key", "key", "token", "auth"] {
        for path in ["/v1/things", "/v1/things/7", "/nowhere"] {
            let reply = world.get(&format!("{path}?{name}=s3cr3t")).await;
            reply.error(400, "INVALID_ARGUMENT", "CREDENTIAL_IN_QUERY");
            assert!(!reply.text.contains("s3cr3t") && reply.text.contains(name));
        }
    }
}

#[tokio::test]
async fn bodies_fill_fields() {
    let world = World::echo().await;
    let thing = json!({
        "displayName": "x\u{1F600}", "color": "BLUE", "big": "-9007199254740993", "small": 4294967295u32, "ratio": 0.5,
        "flag": true, "data": "AAH/", "tags": ["a", ""], "labels": {"a.b/c": "d"}, "byNumber": {"-7": {"label": "l"}},
        "part": {"parts": [{"size": 1}, {}]}, "createTime": "2026-01-02T03:04:05.120Z", "ttl": "1.500s", "maybe": 0,
        "extra": {"x": [null, 1.0, {"y": "z"}]}, "left": "", "note": "",
        "any": {"@type": "type.googleapis.com/test.v1.Thing.Part", "label": "in any"},
    });
    let path = "/v1/things?requestId=r";
    let got = world.accepted(Method::POST, path, &thing.to_string(), "test.v1.CreateThingRequest").await;
    assert_eq!(got, json!({"thing": thing, "requestId": "r"}));

    for (body, expected) in [
        (r#"{"display_name": "x"}"#, json!({"displayName": "x"})),
        (
            r#"{"color": 2, "big": 5, "small": "7", "ratio": "NaN"}"#,
            json!({"color": "BLUE", "big": "5", "small": 7, "ratio": "NaN"}),
        ),
        (r#"{"small": 7.0, "data": "_-8"}"#, json!({"small": 7, "data": "/+8="})),
        (r#"{"tags": null, "part": null, "left": null, "right": "r"}"#, json!({"right": "r"})),
        (r#"{"createTime": "2026-01-02T05:04:05+02:00"}"#, json!({"createTime": "2026-01-02T03:04:05Z"})),
        ("{}", json!({})),
        (" \n{}\n", json!({})),
        ("", json!({})),
    ] {
        let got = world.accepted(Method::POST, "/v1/things", body, "test.v1.CreateThingRequest").await;
        assert_eq!(got, json!({"thing": expected}), "{body}");
    }
    let got = world.accepted(Method::POST, "/v1/things/7:start", r#"{"graceful": true}"#, "test.v1.StartThingRequest");
    assert_eq!(got.await, json!({"name": "things/7", "graceful": true}));
    let got = world.accepted(Method::POST, "/v1/things/7:start", "", "test.v1.StartThingRequest").await;
    assert_eq!(got, json!({"name": "things/7"}));
}

#[tokio::test]
async fn a_patch_names_its_resource_in_the_path() {
    let world = World::echo().await;
    let path = "/v1/things/7?updateMask=displayName,part.size";
    for body in [r#"{"displayName": "x"}"#, r#"{"name": "things/7", "displayName": "x"}"#] {
        let got = world.accepted(Method::PATCH, path, body, "test.v1.UpdateThingRequest").await;
        assert_eq!(
            got,
            json!({"thing": {"name": "things/7", "displayName": "x"}, "updateMask": "displayName,part.size"})
        );
    }
    let reply = world.json(Method::PATCH, path, r#"{"name": "things/8"}"#).await;
    assert_eq!(reply.fields(), ["thing.name"]);
    let reply = world.json(Method::POST, "/v1/things/7:start", r#"{"name": "things/8"}"#).await;
    assert_eq!(reply.fields(), ["name"]);
}

#[tokio::test]
async fn wrong_bodies_are_named_field_by_field() {
    let world = World::echo().await;
    for (body, fields) in [
        (r#"{"nonsense": 1}"#, vec!["thing.nonsense"]),
        (r#"{"displayName": 1, "color": "PINK", "zzz": 2}"#, vec!["thing.color", "thing.displayName", "thing.zzz"]),
        (r#"{"flag": "true"}"#, vec!["thing.flag"]),
        (r#"{"big": 1.5}"#, vec!["thing.big"]),
        (r#"{"small": -1}"#, vec!["thing.small"]),
        (r#"{"small": 4294967296}"#, vec!["thing.small"]),
        (r#"{"ratio": "inf"}"#, vec!["thing.ratio"]),
        (r#"{"data": "?"}"#, vec!["thing.data"]),
        (r#"{"tags": "a"}"#, vec!["thing.tags"]),
        (r#"{"tags": ["a", 1, null]}"#, vec!["thing.tags[1]", "thing.tags[2]"]),
        (r#"{"labels": []}"#, vec!["thing.labels"]),
        (r#"{"labels": {"a": 1}}"#, vec![r#"thing.labels["a"]"#]),
        // A key as JSON writes it, whatever stands in it.
        (r#"{"labels": {"a]\"b\u0001_\u0301": 1}}"#, vec!["thing.labels[\"a]\\\"b\\u0001_\u{301}\"]"]),
        (r#"{"byNumber": {"x": {}}}"#, vec![r#"thing.byNumber["x"]"#]),
        (r#"{"part": {"parts": [{}, {"size": "big"}]}}"#, vec!["thing.part.parts[1].size"]),
        (r#"{"part": [1]}"#, vec!["thing.part"]),
        (r#"{"createTime": "2026-13-01T00:00:00Z"}"#, vec!["thing.createTime"]),
        (r#"{"createTime": 5}"#, vec!["thing.createTime"]),
        (r#"{"ttl": "5"}"#, vec!["thing.ttl"]),
        (r#"{"left": "a", "right": "b"}"#, vec!["thing.right"]),
        (r#"{"displayName": "a", "display_name": "b"}"#, vec!["thing.display_name"]),
        (r#"{"any": {"@type": "type.googleapis.com/no.Such"}}"#, vec!["thing.any"]),
        ("[]", vec!["thing"]),
    ] {
        assert_eq!(world.json(Method::POST, "/v1/things", body).await.fields(), fields, "{body}");
    }
    assert_eq!(world.json(Method::POST, "/v1/things/7:start", "7").await.fields(), [""]);
    let reply = world.json(Method::POST, "/v1/things", r#"{"small": "hunter2"}"#).await;
    assert!(!reply.text.contains("hunter2"), "values are not repeated");
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn malformed_json_tells_where() {
    let world = World::echo().await;
    for (body, expected) in [
        (&b"{\"displayName\": \"x\""[..], "line 1 column 19"),
        (b"{\n \"flag\": tru }", "line 2"),
        (b"{\"flag\": true, \"flag\": false}", "\"flag\" is given twice"),
        (b"{} x", "trailing characters at line 1 column 4"),
        (b"{\"displayName\": \"\xff\"}", "line 1"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
    ] {
        let reply = world.json(Method::POST, "/v1/things", body).await;
        let message = reply.error(400, "INVALID_ARGUMENT", "MALFORMED_JSON");
        assert!(message.contains(expected), "{message}");
    }
    let deep = format!("{}{}", r#"{"part":"#.repeat(5000), "}".repeat(5000));
    world.json(Method::POST, "/v1/things", deep).await.error(400, "INVALID_ARGUMENT", "MALFORMED_JSON");
}

#[tokio::test]
async fn media_types_are_checked() {
    let world = World::echo().await;
    for good in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
        let reply = world.send(Method::POST, "/v1/things", &[("content-type", good)], "{}").await;
        assert_eq!(reply.status, 200, "{good}");
    }
    for bad in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", ""] {
        let reply = world.send(Method::POST, "/v1/things", &[("content-type", bad)], "{}").await;
        reply.error(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
    }
    world.send(Method::POST, "/v1/things", &[], "{}").await.error(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(world.send(Method::POST, "/v1/things", &[], "").await.status, 200, "no body needs no type");
    let zipped = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let reply = world.send(Method::POST, "/v1/things", &zipped, "{}").await;
    reply.error(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
    world.json(Method::DELETE, "/v1/things/7", "{}").await.error(400, "INVALID_ARGUMENT", "BODY_NOT_ALLOWED");
}

#[tokio::test]
async fn raw_bodies_go_through_as_they_are() {
    let world = World::echo().await;
    let headers = [("content-type", "image/png"), ("content-range", "bytes 0-3/8")];
    let reply = world.send(Method::PUT, "/v1/things/7:upload", &headers, &b"\x00\xff{}"[..]).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let call = world.last();
    assert_eq!(
        json("test.v1.UploadThingRequest", &call.message),
        json!({"name": "things/7", "content": {"contentType": "image/png", "data": "AP97fQ=="}})
    );
    assert_eq!(call.metadata["content-range"], "bytes 0-3/8");
    assert_eq!(json(THING, &bytes::Bytes::new()), json!({}));
}
