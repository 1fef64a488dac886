//! Keys that access tokens are signed with: kept in the database, private halves sealed, shared by all servers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use ed25519_dalek::SigningKey as Ed25519Key;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};
use uuid::Uuid;
use virtualstack_model::{Error, Result};
use virtualstack_store::signing_keys::{self, SigningKey};
use virtualstack_store::{Store, SystemPurpose};

use crate::seal::MasterKey;

/// Where the public keys are, for whoever verifies our tokens.
pub(crate) const JWKS_PATH: &str = "/.well-known/jwks.json";

/// The keys are read again for an unknown id at most this often.
const REREAD: Duration = Duration::from_secs(1);

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
    /// When they were last read for an id that nobody knew: strangers can make ids up.
    looked: Arc<Mutex<Option<Instant>>>,
}

/// Keys that were read together.
struct Known {
    signing: (String, EncodingKey),
    verifying: HashMap<String, DecodingKey>,
    jwks: Value,
}

impl Keys {
    /// Reads the keys, and makes the first one.
    pub(crate) async fn load(store: Store, master: MasterKey) -> Result<Self> {
        let known = Arc::new(RwLock::new(Arc::new(read(&store, &master).await?)));
        Ok(Self { store, master, known, looked: Arc::default() })
    }

    /// The key to sign with, and its id.
    pub(crate) fn signing(&self) -> (String, EncodingKey) {
        self.known().signing.clone()
    }

    /// The key of this id. An unknown one may be newer than what was read, so it is looked for once.
    pub(crate) async fn verifying(&self, kid: &str) -> Result<Option<DecodingKey>> {
        if let Some(key) = self.known().verifying.get(kid) {
            return Ok(Some(key.clone()));
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
        let fresh = Arc::new(read(&self.store, &self.master).await?);
        let key = fresh.verifying.get(kid).cloned();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(key)
    }

    /// Whether a key is known and good.
    pub(crate) fn knows(&self, kid: &str) -> bool {
        self.known().verifying.contains_key(kid)
    }

    /// The public keys as a JSON Web Key Set.
    pub(crate) fn jwks(&self) -> Value {
        self.known().jwks.clone()
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn read(store: &Store, master: &MasterKey) -> Result<Known> {
    let read = async || store.system(SystemPurpose::SigningKeys, async |tx| signing_keys::list(tx).await).await;
    let mut rows = read().await?;
    if rows.is_empty() {
        let first = generate(master)?;
        store.system(SystemPurpose::SigningKeys, async |tx| signing_keys::insert_first(tx, &first).await).await?;
        rows = read().await?;
    }
    let newest = rows.first().ok_or_else(|| Error::internal("there is no signing key"))?;
    let seed = master.open(PURPOSE, &newest.sealed_key)?;
    let signing = (newest.kid.clone(), EncodingKey::from_ed_der(&[PKCS8_ED25519.as_slice(), &seed].concat()));
    let mut verifying = HashMap::new();
    let mut jwks = Vec::new();
    for row in &rows {
        let x = URL_SAFE_NO_PAD.encode(&row.public_key);
        verifying.insert(row.kid.clone(), DecodingKey::from_ed_components(&x).map_err(Error::internal)?);
        jwks.push(json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": row.kid, "x": x}));
    }
    Ok(Known { signing, verifying, jwks: json!({ "keys": jwks }) })
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
