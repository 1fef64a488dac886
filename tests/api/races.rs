//! What many callers do at once.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{ControlPlane, Rest};

#[tokio::test(flavor = "multi_thread")]
async fn of_many_rotations_the_last_and_the_one_before_count() {
    const CALLERS: usize = 50;
    let plane = ControlPlane::without_worker().await;
    let rest = plane.admin().await.rest();
    let body = json!({"displayName": "ci", "permissions": ["vm:read"]});
    let (_, key) = rest.call("POST", "/v1/apiKeys", Some(body)).await;
    let path = format!("/v1/{}:rotate", key["name"].as_str().expect("a name"));
    let replies = join_all((0..CALLERS).map(|_| rest.call("POST", &path, Some(json!({}))))).await;
    assert!(replies.iter().all(|(status, _)| *status == 200), "{replies:?}");
    let version =
        |key: &Value| -> usize { key["etag"].as_str().expect("an etag").trim_matches('"').parse().expect("one") };
    let mut keys: Vec<_> = std::iter::once(key).chain(replies.into_iter().map(|(_, key)| key)).collect();
    keys.sort_by_key(version);
    assert_eq!(
        keys.iter().map(version).collect::<Vec<_>>(),
        (1..=CALLERS + 1).collect::<Vec<_>>(),
        "one after the other"
    );
    let secrets: Vec<_> = keys.iter().map(|key| key["secret"].as_str().expect("a secret").to_owned()).collect();
    assert_eq!(secrets.iter().collect::<BTreeSet<_>>().len(), CALLERS + 1, "no secret is given twice");
    let anonymous = Rest::new(&plane.http, None);
    let works = async |secret: &String| {
        anonymous
            .request("GET", "/v1/vms")
            .header("x-api-key", secret)
            .send()
            .await
            .expect("a reply")
            .status()
            .is_success()
    };
    let working = join_all(secrets.iter().map(works)).await;
    let wanted: Vec<_> = (0..=CALLERS).map(|index| index >= CALLERS - 1).collect();
    assert_eq!(working, wanted);
    let rows = "SELECT count(*) FROM iam.api_keys WHERE generation = 51 AND version = 51";
    assert_eq!(plane.database.count(rows).await, 1);
}
