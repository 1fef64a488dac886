//! Watches: what clients are told of changes, over gRPC and REST, and how a stream ends.

mod access;
mod delivery;
mod notices;
mod pages;
mod rest;
mod stream;
mod templates;
mod tickets;
mod times;

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Status, Streaming};
use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1::vm::State;
use virtualstack_proto::virtualstack::compute::v1::{UpdateVmRequest, Vm};
use virtualstack_proto::virtualstack::watch::v1::watch_message::{Resource, Type};
use virtualstack_proto::virtualstack::watch::v1::watch_service_client::WatchServiceClient;
use virtualstack_proto::virtualstack::watch::v1::{WatchMessage, WatchOperationsRequest, WatchVmsRequest};
use virtualstack_server::Config;

use crate::support::{ControlPlane, Session};

/// How long anything may take that should happen now, on a machine that runs many tests at once: half the time that anything
/// here would take that did not happen now.
const SOON: Duration = Duration::from_secs(30);

/// Settings for many calls, with a heartbeat that a test can wait for.
fn settings() -> Config {
    Config {
        auth_per_minute: 10_000,
        auth_per_address_per_minute: 10_000,
        calls_per_second: 100_000,
        calls_burst: 100_000,
        max_watches_per_principal: 100,
        watch_heartbeat_ms: 300,
        ..Config::default()
    }
}

/// An open watch.
struct Watch(Streaming<WatchMessage>);

impl Watch {
    async fn vms(session: &Session, token: &str) -> Result<Self, Status> {
        let request = session.request(WatchVmsRequest { resume_token: token.to_owned() });
        Ok(Self(client(session).watch_vms(request).await?.into_inner()))
    }

    async fn operations(session: &Session, token: &str) -> Result<Self, Status> {
        let request = session.request(WatchOperationsRequest { resume_token: token.to_owned() });
        Ok(Self(client(session).watch_operations(request).await?.into_inner()))
    }

    /// The next message, or how the stream ends.
    async fn next(&mut self) -> Result<WatchMessage, Status> {
        let next = tokio::time::timeout(SOON, self.0.message()).await.expect("a message in time");
        next.map(|message| message.expect("no stream ends without saying why"))
    }

    /// The next message that is no bookmark.
    async fn told(&mut self) -> WatchMessage {
        loop {
            let message = self.next().await.expect("a message");
            if message.r#type() != Type::Bookmark {
                return message;
            }
        }
    }

    /// All that is told up to a message of a type, that one last.
    async fn until(&mut self, desired: Type) -> Vec<WatchMessage> {
        let mut told = Vec::new();
        loop {
            let message = self.next().await.expect("a message");
            told.push(message.clone());
            if message.r#type() == desired {
                return told;
            }
        }
    }

    /// All that is told up to a bookmark that is made from now on, that one last: by then everything was told.
    async fn caught_up(&mut self) -> Vec<WatchMessage> {
        let now = chrono::Utc::now();
        let now = (now.timestamp(), now.timestamp_subsec_nanos().cast_signed());
        let mut told = Vec::new();
        loop {
            told.extend(self.until(Type::Bookmark).await);
            if told.last().and_then(|last| last.change_time).is_some_and(|time| (time.seconds, time.nanos) > now) {
                return told;
            }
        }
    }

    /// Why it ends, within a time, whatever it tells before.
    async fn end(&mut self, within: Duration) -> Status {
        let ending = async {
            loop {
                if let Err(status) = self.next().await {
                    return status;
                }
            }
        };
        tokio::time::timeout(within, ending).await.expect("an end in time")
    }
}

fn client(session: &Session) -> WatchServiceClient<Channel> {
    WatchServiceClient::new(session.channel.clone())
}

fn vm(message: &WatchMessage) -> &Vm {
    match &message.resource {
        Some(Resource::Vm(vm)) => vm,
        other => panic!("a VM, not {other:?}"),
    }
}

fn operation(message: &WatchMessage) -> &Operation {
    match &message.resource {
        Some(Resource::Operation(operation)) => operation,
        other => panic!("an operation, not {other:?}"),
    }
}

fn state(vm: &Vm) -> State {
    State::try_from(vm.state).expect("a state")
}

/// Changes a VM at once.
async fn describe(session: &Session, vm: &str, description: &str) -> Result<Operation, Status> {
    let vm = Vm { name: vm.to_owned(), description: description.to_owned(), ..Default::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["description".to_owned()] });
    let request = UpdateVmRequest { vm: Some(vm), update_mask, ..Default::default() };
    Ok(session.vms().update_vm(session.request(request)).await?.into_inner())
}

/// Writes `count` changes of `bytes` each to a VM, as so many transactions would.
async fn flood(plane: &ControlPlane, vm: &str, count: usize, bytes: usize) {
    plane
        .database
        .execute(&format!(
            "WITH last AS (SELECT * FROM audit.changes WHERE resource = '{vm}' AND kind IS NOT NULL ORDER BY position DESC LIMIT 1), \
             head AS (UPDATE audit.change_heads h SET position = h.position + {count} FROM last WHERE h.tenant_id = last.tenant_id \
                RETURNING h.position - {count} AS start) \
             INSERT INTO audit.changes (tenant_id, position, actor, resource, reason, message, state, kind, after) \
             SELECT tenant_id, start + n, actor, resource, reason, message, state, 'UPDATED', jsonb_set(jsonb_set(after, \
                '{{description}}', to_jsonb(repeat('x', {bytes}))), '{{version}}', to_jsonb((after ->> 'version')::bigint + n)) \
             FROM last, head, generate_series(1, {count}) n"
        ))
        .await;
}
