//! API keys.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};
use virtualstack_model::error::Violation;
use virtualstack_model::id::{ApiKeyId, UserId};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_store::iam::api_keys::{ApiKey, IpNetwork, Secret, Terms};
use virtualstack_store::iam::{api_keys as keys, tenants};
use virtualstack_store::{ListRequest, Listed, Store, request_ids};

use super::users::repeat;
use crate::auth::key_format;
use crate::call::caller::Caller;
use crate::call::codec;
use crate::call::status::from_error;
use crate::generated::virtualstack::iam::v1::api_key_service_server::ApiKeyService;
use crate::wire;
use crate::wire::iam::api_key_message;

/// Lets its holder see the keys of all members.
const SEE_ALL: &str = "user:read";

/// Lets its holder delete the keys of all members.
const DELETE_ALL: &str = "user:update";

/// What the owner of a key may change.
const UPDATABLE: [&str; 4] = ["display_name", "permissions", "allowed_cidrs", "expire_time"];

/// How long the secret before a rotation works on, where the request does not say.
const OVERLAP: TimeDelta = TimeDelta::hours(24);

pub(crate) struct ApiKeys {
    pub(crate) store: Store,
}

#[tonic::async_trait]
impl ApiKeyService for ApiKeys {
    async fn list_api_keys(
        &self,
        request: Request<proto::ListApiKeysRequest>,
    ) -> Result<Response<proto::ListApiKeysResponse>, Status> {
        let caller = Caller::of(&request)?;
        let proto::ListApiKeysRequest { page_size, page_token, filter, order_by, show_total } = request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let owner = (!caller.holds(SEE_ALL)).then_some(me(&caller));
        let Listed { rows, next_page_token, total_size } = self
            .store
            .read(&caller.tenant(), async |tx| keys::list(tx, &request, owner).await)
            .await
            .map_err(from_error)?;
        let api_keys = rows.into_iter().map(api_key_message).collect();
        Ok(Response::new(proto::ListApiKeysResponse { api_keys, next_page_token, total_size }))
    }

    async fn get_api_key(&self, request: Request<proto::GetApiKeyRequest>) -> Result<Response<proto::ApiKey>, Status> {
        let caller = Caller::of(&request)?;
        let id = ApiKeyId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let found = self.store.read(&caller.tenant(), async |tx| keys::get(tx, id).await).await;
        let found = found.and_then(|key| if sees(&caller, &key) { Ok(key) } else { Err(keys::missing(id)) });
        found.map(|key| Response::new(api_key_message(key))).map_err(from_error)
    }

    async fn create_api_key(
        &self,
        request: Request<proto::CreateApiKeyRequest>,
    ) -> Result<Response<proto::ApiKey>, Status> {
        let caller = Caller::of(&request)?;
        let repeat = repeat("CreateApiKey", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let request = request.into_inner();
        let wanted = request.api_key.unwrap_or_default();
        let made = self
            .store
            .write(&caller.tenant(), caller.audit("").rehearsed(request.validate_only), async |tx| {
                if let Some(name) = request_ids::answered(tx, &repeat).await? {
                    tx.audit_resource(&name);
                    return keys::get(tx, ApiKeyId::parse("request_id", &name)?).await.map(api_key_message);
                }
                let id = ApiKeyId::new();
                request_ids::remember(tx, &repeat, &id.name()).await?;
                tx.audit_resource(id.name());
                check_permissions(&caller, &wanted.permissions, &[])?;
                let max_days = tenants::current(tx).await?.settings().api_key_max_days;
                let terms = Terms {
                    display_name: wanted.display_name.clone(),
                    permissions: wanted.permissions.clone(),
                    allowed_cidrs: networks(&wanted.allowed_cidrs)?,
                    expires_at: expiry(wanted.expire_time, Utc::now(), max_days)?,
                };
                let minted = key_format::mint(None)?;
                let secret = Secret { public_id: &minted.presented.public_id, digest: &minted.presented.digest };
                let row = keys::insert(tx, id, me(&caller), secret, &terms).await?;
                // Of a rehearsal nothing is kept, so its secret would be none.
                let secret = if request.validate_only { String::new() } else { minted.text };
                Ok(proto::ApiKey { secret, ..api_key_message(row) })
            })
            .await;
        made.map(Response::new).map_err(from_error)
    }

    async fn update_api_key(
        &self,
        request: Request<proto::UpdateApiKeyRequest>,
    ) -> Result<Response<proto::ApiKey>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request.api_key.unwrap_or_default();
        let id = ApiKeyId::parse("api_key.name", &wanted.name).map_err(from_error)?;
        let fields = wire::update_mask(request.update_mask, &UPDATABLE, |field| match field {
            "display_name" => !wanted.display_name.is_empty(),
            "permissions" => !wanted.permissions.is_empty(),
            "allowed_cidrs" => !wanted.allowed_cidrs.is_empty(),
            _ => wanted.expire_time.is_some(),
        })
        .map_err(from_error)?;
        let changed = self
            .store
            .write(&caller.tenant(), caller.audit(id.name()).rehearsed(request.validate_only), async |tx| {
                let before = own(&caller, keys::lock(tx, id).await?)?;
                Error::check_etag(&wanted.etag, &before.etag())?;
                // The rules hold for the key that comes of it, not for the part that was sent.
                let mut merged = api_key_message(before.clone());
                for field in &fields {
                    match *field {
                        "display_name" => merged.display_name.clone_from(&wanted.display_name),
                        "permissions" => merged.permissions.clone_from(&wanted.permissions),
                        "allowed_cidrs" => merged.allowed_cidrs.clone_from(&wanted.allowed_cidrs),
                        _ => merged.expire_time = wanted.expire_time,
                    }
                }
                let merged = proto::CreateApiKeyRequest { api_key: Some(merged), ..Default::default() };
                codec::validate(&merged)?;
                let merged = merged.api_key.unwrap_or_default();
                check_permissions(&caller, &merged.permissions, &before.terms.permissions)?;
                let expires_at = if fields.contains(&"expire_time") {
                    let max_days = tenants::current(tx).await?.settings().api_key_max_days;
                    expiry(merged.expire_time, before.created_at, max_days)?
                } else {
                    before.terms.expires_at
                };
                let terms = Terms {
                    allowed_cidrs: networks(&merged.allowed_cidrs)?,
                    display_name: merged.display_name,
                    permissions: merged.permissions,
                    expires_at,
                };
                keys::update(tx, before, &terms).await
            })
            .await;
        changed.map(|key| Response::new(api_key_message(key))).map_err(from_error)
    }

    async fn delete_api_key(&self, request: Request<proto::DeleteApiKeyRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request)?;
        let repeat = repeat("DeleteApiKey", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let request = request.into_inner();
        let id = ApiKeyId::parse("name", &request.name).map_err(from_error)?;
        self.store
            .write(&caller.tenant(), caller.audit(id.name()), async |tx| {
                if request_ids::answered(tx, &repeat).await?.is_some() {
                    return Ok(());
                }
                request_ids::remember(tx, &repeat, &request.name).await?;
                let key = keys::lock(tx, id).await?;
                let key = if caller.holds(DELETE_ALL) { key } else { own(&caller, key)? };
                Error::check_etag(&request.etag, &key.etag())?;
                keys::delete(tx, &key).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }

    async fn rotate_api_key(
        &self,
        request: Request<proto::RotateApiKeyRequest>,
    ) -> Result<Response<proto::ApiKey>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = ApiKeyId::parse("name", &request.name).map_err(from_error)?;
        let overlap = request.overlap.map_or(OVERLAP, |overlap| {
            TimeDelta::seconds(overlap.seconds) + TimeDelta::nanoseconds(overlap.nanos.into())
        });
        let rotated = self
            .store
            .write(&caller.tenant(), caller.audit(id.name()), async |tx| {
                let key = own(&caller, keys::lock(tx, id).await?)?;
                if key.terms.expires_at.is_some_and(|end| end <= Utc::now()) {
                    return Err(Error::precondition(
                        "API_KEY_EXPIRED",
                        id.name(),
                        "the key has ended; give it a later expireTime first, or create another",
                    ));
                }
                let minted = key_format::mint(Some(&key.public_id))?;
                let row = keys::rotate(tx, &key, &minted.presented.digest, overlap).await?;
                Ok(proto::ApiKey { secret: minted.text, ..api_key_message(row) })
            })
            .await;
        rotated.map(Response::new).map_err(from_error)
    }
}

/// The member whom the caller acts for.
fn me(caller: &Caller) -> UserId {
    caller.principal.access.user
}

fn sees(caller: &Caller, key: &ApiKey) -> bool {
    key.owner_id == me(caller) || caller.holds(SEE_ALL)
}

/// The key if it is the caller's own.
fn own(caller: &Caller, key: ApiKey) -> Result<ApiKey> {
    if key.owner_id == me(caller) {
        Ok(key)
    } else if sees(caller, &key) {
        Err(Error::denied("NOT_YOUR_KEY", "the API key is another member's"))
    } else {
        Err(keys::missing(key.id))
    }
}

/// Refuses permissions that there are not, or that the caller does not hold. Those in `kept` the key has already.
fn check_permissions(caller: &Caller, wanted: &[String], kept: &[String]) -> Result<()> {
    let catalogue: BTreeSet<_> = virtualstack_proto::permissions().map(|permission| permission.code).collect();
    let added = || wanted.iter().enumerate().filter(|(_, code)| !kept.contains(code));
    let unknown = added().filter(|(_, code)| !catalogue.contains(code.as_str()));
    let unknown: Vec<_> = unknown
        .map(|(index, _)| Violation::new(&format!("api_key.permissions[{index}]"), "there is no such permission"))
        .collect();
    if !unknown.is_empty() {
        return Err(Error::invalid_all(unknown));
    }
    caller.principal.access.check_grant(added().map(|(_, code)| code.as_str()))
}

/// Networks in the form that client addresses are compared with.
fn networks(texts: &[String]) -> Result<Vec<IpNetwork>> {
    let network = |(index, text): (usize, &String)| {
        let wrong = |what: &str| Error::invalid(format!("api_key.allowed_cidrs[{index}]"), what);
        match text.parse() {
            Ok(IpNetwork::V6(network)) if network.prefix() >= 96 && network.ip().to_ipv4_mapped().is_some() => {
                Err(wrong("is a network of IPv4; write it as one"))
            }
            network => network.map_err(|_| wrong("must be a network, e.g. 192.0.2.0/24")),
        }
    };
    texts.iter().enumerate().map(network).collect()
}

/// When a key that was made at `made` is to end: as it is wanted, within what the tenant allows.
fn expiry(wanted: Option<Timestamp>, made: DateTime<Utc>, max_days: i32) -> Result<Option<DateTime<Utc>>> {
    const FIELD: &str = "api_key.expire_time";
    let latest = (max_days > 0).then(|| made + TimeDelta::days(max_days.into()));
    let wanted = wanted.map(|time| wire::date_time(FIELD, time)).transpose()?;
    let Some(end) = wanted.or(latest) else { return Ok(None) };
    if end <= Utc::now() {
        return Err(Error::invalid(FIELD, "must be in the future"));
    }
    if latest.is_some_and(|latest| end > latest) {
        let most = format!("must be at most {max_days} days after the key was made, as the tenant's settings say");
        return Err(Error::invalid(FIELD, most));
    }
    Ok(Some(end))
}
