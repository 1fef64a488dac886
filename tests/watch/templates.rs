//! Templates, from the first byte to the end.

use virtualstack_images::make::{Flavour, Ova};
use virtualstack_proto::virtualstack::compute::v1::Template;
use virtualstack_proto::virtualstack::compute::v1::template::{Scope, State};
use virtualstack_proto::virtualstack::watch::v1::watch_message::{Resource, Type};
use virtualstack_proto::virtualstack::watch::v1::{WatchMessage, WatchTemplatesRequest};

use super::{Watch, client, settings};
use crate::api::compute::templates::{created, ended, imported, put, sum};
use crate::support::ControlPlane;

fn template(message: &WatchMessage) -> &Template {
    match &message.resource {
        Some(Resource::Template(template)) => template,
        other => panic!("a template, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_template_is_told_and_others_hear_nothing() {
    let plane = ControlPlane::start_with(settings()).await;
    plane.work(std::sync::Arc::new(virtualstack_worker::NoProbe)).await.detach();
    plane.templates().await;
    let (tenant, other) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let watch = async |session: &crate::support::Session| {
        let request = session.request(WatchTemplatesRequest::default());
        Watch(client(session).watch_templates(request).await.expect("a watch").into_inner())
    };
    let (mut mine, mut theirs) = (watch(&tenant).await, watch(&other).await);
    for watch in [&mut mine, &mut theirs] {
        let snapshot = watch.until(Type::Synced).await;
        assert!(snapshot.len() > 1, "the provider's are in the snapshot");
        assert!(snapshot.iter().rev().skip(1).all(|message| template(message).scope() == Scope::Provider));
    }
    let rest = tenant.rest();
    let file = Ova::new(Flavour::VMware).bytes();
    let name = created(&rest, "watched", "OVA").await;
    assert_eq!(put(&rest, &name, None, file.clone()).await.0, 200);
    imported(&rest, &name, &sum(&file)).await;
    let (_, operation) = rest.call("DELETE", &format!("/v1/{name}"), None).await;
    ended(&rest, &operation).await;
    let told = mine.until(Type::Deleted).await;
    let told: Vec<_> = told.iter().filter(|message| message.r#type() != Type::Bookmark).collect();
    assert!(told.iter().all(|message| template(message).name == name), "{told:?}");
    assert_eq!(told[0].r#type(), Type::Created);
    let mut states: Vec<_> = told.iter().map(|message| template(message).state()).collect();
    states.dedup();
    let expected = [State::Uploading, State::Validating, State::Importing, State::Ready, State::Deleting];
    assert_eq!(states, expected);
    let heard = theirs.caught_up().await;
    assert!(heard.iter().all(|message| message.r#type() == Type::Bookmark), "{heard:?}");
}
