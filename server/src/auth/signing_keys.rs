//! Keys that access tokens are signed with: kept in the database, private halves sealed, shared by all servers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use ed25519_dalek::SigningKey as Ed25519Key;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use virtualstack_model::log::{Actor, Audit, Outcome};
use virtualstack_model::{Error, Result};
use virtualstack_store::changes::notify::AccessEvent;
use virtualstack_store::iam::signing_keys::{self, SigningKey};
use virtualstack_store::{MasterKey, Store, SystemPurpose, SystemScope};

use crate::config::Config;

/// Where the public keys are, for whoever verifies our tokens.
pub(crate) const JWKS_PATH: &str = "/.well-known/jwks.json";

/// The keys are read again for an unknown id at most this often.
const REREAD: Duration = Duration::from_secs(1);

/// The keys are read again this often, whatever is asked: how long a new one, or the end of one, may go unseen.
const RELOAD: Duration = Duration::from_secs(10);

/// Servers learn of a new key a little later, and their clocks differ, by less than this.
const MARGIN: TimeDelta = TimeDelta::minutes(5);

/// What private keys are sealed for.
const PURPOSE: &str = "iam.signing_keys";

/// An Ed25519 private key in PKCS #8 is these bytes and then the seed (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The keys, as this server knows them.
#[derive(Clone)]
pub(crate) struct Keys {
    store: Store,
    master: MasterKey,
    known: Arc<RwLock<Arc<Known>>>,
    /// One reads at a time, so that what was read later is kept.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// When they were last read for an id that nobody knew: strangers can make ids up.
    looked: Arc<Mutex<Option<Instant>>>,
    heard: Arc<Notify>,
}

/// Keys that were read together.
struct Known {
    signing: (String, EncodingKey),
    verifying: HashMap<String, Verifying>,
}

/// A public key.
struct Verifying {
    key: DecodingKey,
    jwk: Value,
    retired_at: Option<DateTime<Utc>>,
}

impl Verifying {
    fn is_good(&self) -> bool {
        self.retired_at.is_none_or(|end| end > Utc::now())
    }
}

impl Keys {
    /// Reads the keys, and makes the first one.
    pub(crate) async fn load(store: Store, master: MasterKey) -> Result<Self> {
        let known = Arc::new(RwLock::new(Arc::new(read(&store, &master).await?)));
        Ok(Self { store, master, known, reading: Arc::default(), looked: Arc::default(), heard: Arc::default() })
    }

    /// Reads the keys again.
    pub(crate) async fn reload(&self) -> Result<()> {
        let _turn = self.reading.lock().await;
        let fresh = Arc::new(read(&self.store, &self.master).await?);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Hears that keys may have come or gone.
    pub(crate) fn hear(&self, event: AccessEvent) {
        if matches!(event, AccessEvent::SigningKeys | AccessEvent::Unknown) {
            self.heard.notify_one();
        }
    }

    /// Reads the keys again when there is reason to, and now and then without one, until `stop`.
    pub(crate) async fn keep_fresh(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD) => {}
                () = self.heard.notified() => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.reload().await {
                // Those that are known still sign and verify.
                tracing::warn!(
                    source = std::error::Error::source(&error).map(ToString::to_string),
                    "cannot read the signing keys: {error}"
                );
            }
        }
    }

    /// The key to sign with, and its id.
    pub(crate) fn signing(&self) -> (String, EncodingKey) {
        self.known().signing.clone()
    }

    /// The key of this id. An unknown one may be newer than what was read, so it is looked for once.
    pub(crate) async fn verifying(&self, kid: &str) -> Result<Option<DecodingKey>> {
        if let Some(key) = self.known().verifying.get(kid) {
            return Ok(key.is_good().then(|| key.key.clone()));
        }
        // Only what looks like an id of ours is worth a question to the database.
        if Uuid::try_parse(kid).is_err() {
            return Ok(None);
        }
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|looked| looked.elapsed() < REREAD) {
                return Ok(None);
            }
            *looked = Some(Instant::now());
        }
        self.reload().await?;
        Ok(self.known().verifying.get(kid).map(|key| key.key.clone()))
    }

    /// Whether a key is known and good.
    pub(crate) fn knows(&self, kid: &str) -> bool {
        self.known().verifying.get(kid).is_some_and(Verifying::is_good)
    }

    /// The public keys as a JSON Web Key Set.
    pub(crate) fn jwks(&self) -> Value {
        let known = self.known();
        let mut good: Vec<_> = known.verifying.iter().filter(|(_, key)| key.is_good()).collect();
        // Ids sort by the time they were made.
        good.sort_by(|(a, _), (b, _)| b.cmp(a));
        json!({"keys": good.into_iter().map(|(_, key)| &key.jwk).collect::<Vec<_>>()})
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes a new key to sign with. The others verify until the last token that they may have signed has expired, or, with
/// `revoke`, not any more: that ends every access token, though no session.
pub async fn rotate_keys(store: &Store, master: &MasterKey, config: &Config, revoke: bool) -> Result<()> {
    // Refuses another master key than the servers have, who could not use what it seals.
    read(store, master).await?;
    let fresh = generate(master)?;
    let overlap = if revoke { -MARGIN } else { TimeDelta::seconds(config.access_token_seconds) + MARGIN };
    let retire_at = Utc::now() + overlap;
    let audit = Audit {
        action: "admin.keys.rotate".to_owned(),
        actor: Actor::System("admin"),
        resource: format!("signingKeys/{}", fresh.kid),
        request_id: String::new(),
        client_address: None,
        traceparent: None,
        outcome: Outcome::Done,
    };
    store
        .system(system(), async |tx| {
            signing_keys::rotate(tx, &fresh, retire_at).await?;
            tx.audit(None, &audit).await
        })
        .await
}

async fn read(store: &Store, master: &MasterKey) -> Result<Known> {
    let read = async || store.system(system(), async |tx| signing_keys::list(tx).await).await;
    let mut rows = read().await?;
    if rows.is_empty() {
        let first = generate(master)?;
        store.system(system(), async |tx| signing_keys::insert_first(tx, &first).await).await?;
        rows = read().await?;
    }
    let newest = rows.first().ok_or_else(|| Error::internal("there is no signing key"))?;
    let seed = master.open(PURPOSE, &newest.sealed_key)?;
    let signing = (newest.kid.clone(), EncodingKey::from_ed_der(&[PKCS8_ED25519.as_slice(), &seed].concat()));
    let mut verifying = HashMap::new();
    for row in &rows {
        let x = URL_SAFE_NO_PAD.encode(&row.public_key);
        let key = DecodingKey::from_ed_components(&x).map_err(Error::internal)?;
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": row.kid, "x": x});
        verifying.insert(row.kid.clone(), Verifying { key, jwk, retired_at: row.retired_at });
    }
    Ok(Known { signing, verifying })
}

fn generate(master: &MasterKey) -> Result<SigningKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Error::internal)?;
    let public_key = Ed25519Key::from_bytes(&seed).verifying_key().to_bytes().to_vec();
    Ok(SigningKey {
        kid: Uuid::now_v7().to_string(),
        public_key,
        sealed_key: master.seal(PURPOSE, &seed)?,
        created_at: Utc::now(),
        retired_at: None,
    })
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "the keys are of all tenants")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::SigningKeys)
}
