//! What a watch by comparison has told: its resume token carries it, so that a client that was cut off is told what is different.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use uuid::Uuid;
use virtualstack_model::Result;
use virtualstack_model::id::TenantId;

use super::watch::{expired, invalid, purpose};
use crate::seal::MasterKey;

/// What a resource was like, in short.
pub type Digest = [u8; 8];

/// Resources that a client was told of, and what each was like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub BTreeMap<Uuid, Digest>);

impl Seen {
    /// A token to go on by: good for this tenant and collection only, and telling nobody anything.
    pub fn token(&self, key: &MasterKey, tenant: TenantId, collection: &str, at: DateTime<Utc>) -> Result<String> {
        let rows = self.0.iter().flat_map(|(id, digest)| [&id.as_bytes()[..], digest].concat());
        let seen: Vec<u8> = at.timestamp_micros().to_be_bytes().into_iter().chain(rows).collect();
        Ok(URL_SAFE_NO_PAD.encode(key.seal(&purpose(tenant, collection), &seen)?))
    }

    /// Reads a token that is no older than `max_age`.
    pub fn of_token(
        key: &MasterKey,
        tenant: TenantId,
        collection: &str,
        token: &str,
        max_age: Duration,
    ) -> Result<Self> {
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let seen = key.open(&purpose(tenant, collection), &sealed).map_err(|_| invalid())?;
        let (at, rows) = seen.split_first_chunk().ok_or_else(invalid)?;
        let at = DateTime::from_timestamp_micros(i64::from_be_bytes(*at)).ok_or_else(invalid)?;
        if (Utc::now() - at).to_std().unwrap_or_default() > max_age {
            return Err(expired());
        }
        let row = |row: &[u8]| {
            let (id, digest) = row.split_first_chunk()?;
            Some((Uuid::from_bytes(*id), digest.try_into().ok()?))
        };
        rows.chunks(24).map(row).collect::<Option<_>>().map(Self).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_for_its_collection_and_a_time() {
        let key = MasterKey::parse(&"07".repeat(32)).expect("a key");
        let seen = Seen((0..100).map(|number| (Uuid::now_v7(), [number; 8])).collect());
        let (tenant, day) = (TenantId::new(), Duration::from_secs(86_400));
        let token = seen.token(&key, tenant, "notifications users/a", Utc::now()).expect("sealed");
        // The contract takes no longer ones.
        assert!(token.len() <= 4096, "{}", token.len());
        let read = |tenant, collection: &str, token: &str| Seen::of_token(&key, tenant, collection, token, day);
        assert_eq!(read(tenant, "notifications users/a", &token).expect("its own"), seen);
        for refused in [
            read(TenantId::new(), "notifications users/a", &token),
            read(tenant, "notifications users/b", &token),
            read(tenant, "notifications users/a", &token[1..]),
            read(tenant, "notifications users/a", "x"),
        ] {
            assert_eq!(refused.expect_err("refused").reason(), "RESUME_TOKEN_INVALID");
        }
        let old = seen.token(&key, tenant, "t", Utc::now() - Duration::from_secs(90_000)).expect("sealed");
        assert_eq!(read(tenant, "t", &old).expect_err("refused").reason(), "RESUME_TOKEN_EXPIRED");
    }
}
