//! API keys.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use prost_types::Timestamp;
use virtualstack_model::error::Violation;
use virtualstack_model::id::ApiKeyId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_store::iam::api_keys::{ApiKey, IpNetwork, Secret, Terms};
use virtualstack_store::iam::{api_keys as keys, tenants};
use virtualstack_store::{Store, TenantTx, Write};

use crate::auth::key_format;
use crate::call::TenantCall;
use crate::call::caller::TenantCaller;
use crate::call::codec;
use crate::call::list::{List as _, page};
use crate::call::message::{date_time, time, update_mask};
use crate::call::write::Answer;
use crate::generated::virtualstack::iam::v1::ApiKeyService;

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

impl ApiKeyService for ApiKeys {
    async fn list_api_keys(&self, call: TenantCall<proto::ListApiKeysRequest>) -> Result<proto::ListApiKeysResponse> {
        let request = call.request.list();
        let owner = (!call.holds(SEE_ALL)).then_some(call.user());
        let listed = keys::list(&mut self.store.single(&call.tenant()), &request, owner).await?;
        Ok(page(listed, message))
    }

    async fn get_api_key(&self, call: TenantCall<proto::GetApiKeyRequest>) -> Result<proto::ApiKey> {
        let id = ApiKeyId::parse("name", &call.request.name)?;
        let key = keys::get(&mut self.store.single(&call.tenant()), id).await?;
        if sees(&call, &key) { Ok(message(key)) } else { Err(keys::missing(id)) }
    }

    async fn create_api_key(&self, call: TenantCall<proto::CreateApiKeyRequest>) -> Result<proto::ApiKey> {
        let desired = call.request.api_key.clone().unwrap_or_default();
        let create = async |tx: &mut TenantTx<Write>| {
            let id = ApiKeyId::new();
            tx.audit_resource(id.name());
            check_permissions(&call, &desired.permissions, &[])?;
            let max_days = tenants::current(tx).await?.settings().api_key_max_days;
            let terms = Terms {
                display_name: desired.display_name.clone(),
                permissions: desired.permissions.clone(),
                allowed_cidrs: networks(&desired.allowed_cidrs)?,
                expires_at: expiry(desired.expire_time, Utc::now(), max_days)?,
            };
            let minted = key_format::mint(None)?;
            let secret = Secret { public_id: &minted.presented.public_id, digest: &minted.presented.digest };
            let row = keys::insert(tx, id, call.user(), secret, &terms).await?;
            // Nothing of a dry run is kept, so its secret would open nothing.
            let secret = if call.request.validate_only { String::new() } else { minted.text };
            Ok(proto::ApiKey { secret, ..message(row) })
        };
        call.write(&self.store, "", create).await
    }

    async fn update_api_key(&self, call: TenantCall<proto::UpdateApiKeyRequest>) -> Result<proto::ApiKey> {
        let desired = call.request.api_key.clone().unwrap_or_default();
        let id = ApiKeyId::parse("api_key.name", &desired.name)?;
        let fields = update_mask(call.request.update_mask.clone(), &UPDATABLE, |field| match field {
            "display_name" => !desired.display_name.is_empty(),
            "permissions" => !desired.permissions.is_empty(),
            "allowed_cidrs" => !desired.allowed_cidrs.is_empty(),
            _ => desired.expire_time.is_some(),
        })?;
        let update = async |tx: &mut TenantTx<Write>| {
            let before = own(&call, keys::lock(tx, id).await?)?;
            Error::check_etag(&desired.etag, &before.etag())?;
            // The rules hold for the key that comes of it, not for the part that was sent.
            let mut merged = message(before.clone());
            for field in &fields {
                match *field {
                    "display_name" => merged.display_name.clone_from(&desired.display_name),
                    "permissions" => merged.permissions.clone_from(&desired.permissions),
                    "allowed_cidrs" => merged.allowed_cidrs.clone_from(&desired.allowed_cidrs),
                    _ => merged.expire_time = desired.expire_time,
                }
            }
            let merged = proto::CreateApiKeyRequest { api_key: Some(merged), ..Default::default() };
            codec::validate(&merged)?;
            let merged = merged.api_key.unwrap_or_default();
            check_permissions(&call, &merged.permissions, &before.terms.permissions)?;
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
            keys::update(tx, before, &terms).await.map(message)
        };
        call.write(&self.store, id.name(), update).await
    }

    async fn delete_api_key(&self, call: TenantCall<proto::DeleteApiKeyRequest>) -> Result<()> {
        let id = ApiKeyId::parse("name", &call.request.name)?;
        let delete = async |tx: &mut TenantTx<Write>| {
            let key = keys::lock(tx, id).await?;
            let key = if call.holds(DELETE_ALL) { key } else { own(&call, key)? };
            Error::check_etag(&call.request.etag, &key.etag())?;
            keys::delete(tx, &key).await
        };
        call.write(&self.store, id.name(), delete).await
    }

    async fn rotate_api_key(&self, call: TenantCall<proto::RotateApiKeyRequest>) -> Result<proto::ApiKey> {
        let id = ApiKeyId::parse("name", &call.request.name)?;
        let overlap = call.request.overlap.map_or(OVERLAP, |overlap| {
            TimeDelta::seconds(overlap.seconds) + TimeDelta::nanoseconds(overlap.nanos.into())
        });
        let rotate = async |tx: &mut TenantTx<Write>| {
            let key = own(&call, keys::lock(tx, id).await?)?;
            if key.terms.expires_at.is_some_and(|end| end <= Utc::now()) {
                return Err(Error::precondition(
                    "API_KEY_EXPIRED",
                    id.name(),
                    "the key has ended; give it a later expireTime first, or create another",
                ));
            }
            let minted = key_format::mint(Some(&key.public_id))?;
            let row = keys::rotate(tx, &key, &minted.presented.digest, overlap).await?;
            Ok(proto::ApiKey { secret: minted.text, ..message(row) })
        };
        call.write(&self.store, id.name(), rotate).await
    }
}

impl Answer<TenantTx<Write>> for proto::ApiKey {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        keys::get(tx, ApiKeyId::parse("request_id", name)?).await.map(message)
    }
}

fn sees(caller: &TenantCaller, key: &ApiKey) -> bool {
    key.owner_id == caller.user() || caller.holds(SEE_ALL)
}

/// The key if it is the caller's own.
fn own(caller: &TenantCaller, key: ApiKey) -> Result<ApiKey> {
    if key.owner_id == caller.user() {
        Ok(key)
    } else if sees(caller, &key) {
        Err(Error::denied("NOT_YOUR_KEY", "the API key is another member's"))
    } else {
        Err(keys::missing(key.id))
    }
}

/// Refuses permissions that there are not, or that the caller does not hold. Those in `kept` the key has already.
fn check_permissions(caller: &TenantCaller, desired: &[String], kept: &[String]) -> Result<()> {
    let catalogue: BTreeSet<_> = virtualstack_proto::permissions().map(|permission| permission.code).collect();
    let added = || desired.iter().enumerate().filter(|(_, code)| !kept.contains(code));
    let unknown = added().filter(|(_, code)| !catalogue.contains(code.as_str()));
    let unknown: Vec<_> = unknown
        .map(|(index, _)| Violation::new(&format!("api_key.permissions[{index}]"), "there is no such permission"))
        .collect();
    if !unknown.is_empty() {
        return Err(Error::invalid_all(unknown));
    }
    caller.access().check_grant(added().map(|(_, code)| code.as_str()))
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

/// When a key that was made at `made` is to end: as the caller says, within what the tenant allows.
fn expiry(desired: Option<Timestamp>, made: DateTime<Utc>, max_days: i32) -> Result<Option<DateTime<Utc>>> {
    const FIELD: &str = "api_key.expire_time";
    let latest = (max_days > 0).then(|| made + TimeDelta::days(max_days.into()));
    let desired = desired.map(|time| date_time(FIELD, time)).transpose()?;
    let Some(end) = desired.or(latest) else { return Ok(None) };
    if end <= Utc::now() {
        return Err(Error::invalid(FIELD, "must be in the future"));
    }
    if latest.is_some_and(|latest| end > latest) {
        let most = format!("must be at most {max_days} days after the key was made, as the tenant's settings say");
        return Err(Error::invalid(FIELD, most));
    }
    Ok(Some(end))
}

/// An API key, without its secret.
pub(crate) fn message(row: ApiKey) -> proto::ApiKey {
    proto::ApiKey {
        name: row.id.name(),
        etag: row.etag(),
        owner: row.owner_id.name(),
        prefix: format!("{}{}", key_format::PREFIX, row.public_id),
        secret: String::new(),
        last_use_time: row.last_used_at.map(time),
        last_use_address: row.last_used_from().map(|address| address.to_string()).unwrap_or_default(),
        previous_secret_expire_time: row.previous_expires_at.map(time),
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
        expire_time: row.terms.expires_at.map(time),
        allowed_cidrs: row.terms.allowed_cidrs.iter().map(ToString::to_string).collect(),
        display_name: row.terms.display_name,
        permissions: row.terms.permissions,
    }
}
