//! What a desk says of changes there, and what others say in its name.

use serde_json::json;

use crate::support::{ControlPlane, HOOK, Rest};

/// How often the desk was asked for.
const ASKED: &str = "SELECT count(*) FROM support.desk_cursors WHERE asked_at > polled_at";

#[tokio::test(flavor = "multi_thread")]
async fn only_the_desk_has_itself_read_and_everybody_is_answered_alike() {
    let plane = ControlPlane::without_worker().await;
    let cursor = "INSERT INTO support.desk_cursors (desk, read_until, polled_at) VALUES ('freshservice', now(), now())";
    plane.database.execute(cursor).await;
    let nobody = Rest::new(&plane.http, None);
    let (path, header, secret) = HOOK;
    let send = async |path: &str, shown: &[(&str, &str)], body: Vec<u8>| {
        let mut request = nobody.request("POST", &format!("/v1/deskWebhooks/{path}")).body(body);
        for (name, value) in shown {
            request = request.header(*name, *value);
        }
        let reply = request.send().await.expect("a reply");
        let status = reply.status().as_u16();
        let kind = reply.headers().get("content-type").cloned();
        (status, kind, reply.bytes().await.expect("a body").len())
    };
    let hint = json!({"ticket_id": 7, "event": "note_added"}).to_string().into_bytes();
    let long = "x".repeat(2_000);
    for (path, shown) in [
        (path, vec![]),
        (path, vec![(header, "another-secret-of-the-same-length")]),
        (path, vec![("authorization", secret)]),
        (secret, vec![(header, path)]),
        ("another", vec![(header, secret)]),
        (&long, vec![(header, secret)]),
    ] {
        assert_eq!(send(path, &shown, hint.clone()).await, (204, None, 0), "{path} {shown:?}");
        assert_eq!(plane.database.count(ASKED).await, 0, "{path} {shown:?}");
    }
    // Whatever it sends, and however often: it is asked for once, until it was read.
    let asked = "SELECT (extract(epoch FROM asked_at) * 1000000)::bigint FROM support.desk_cursors";
    assert_eq!(send(path, &[(header, secret)], hint).await, (204, None, 0));
    assert_eq!(plane.database.count(ASKED).await, 1);
    let first = plane.database.count(asked).await;
    for body in [vec![], b"ticket=7".to_vec(), vec![0; 10_000]] {
        assert_eq!(send(path, &[(header, secret), ("content-type", "text/plain")], body).await, (204, None, 0));
    }
    assert_eq!(plane.database.count(asked).await, first);
    plane.database.execute("UPDATE support.desk_cursors SET polled_at = now()").await;
    assert_eq!(send(path, &[(header, secret)], Vec::new()).await.0, 204);
    assert_eq!(plane.database.count(ASKED).await, 1);
}
