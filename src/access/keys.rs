//! The keys of another issuer: one from a file, or a set of public keys (JWKS) that changes.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::AccessError;
use crate::config::{Authentication, Secret};

/// How long a set of keys is used before it is looked at again.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// How often a set is looked at again at most, whoever brings unknown keys.
const RETRY: Duration = Duration::from_secs(30);
/// How long a set may take to come.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// The largest set that is read.
const MAX_SET_BYTES: usize = 1024 * 1024;

/// What verifies signatures, and of which kinds.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) key: DecodingKey,
    /// All of one family.
    pub(super) algorithms: Vec<Algorithm>,
}

/// The keys of an issuer.
pub(super) enum Keys {
    One(Box<Key>),
    Set(Arc<Set>),
}

/// A set of keys, and where it comes from.
pub(super) struct Set {
    source: Source,
    /// Which algorithms may be used; empty for all that the keys are for.
    allowed: Vec<Algorithm>,
    known: ArcSwap<Known>,
    /// When it was looked at last; held while it is fetched, so that many who wait ask once.
    asked: Mutex<Option<Instant>>,
}

enum Source {
    File(String),
    Url(String, reqwest::Client),
}

/// The keys of a set with their ids, and when they came.
struct Known {
    keys: Vec<(Option<String>, Key)>,
    at: Option<Instant>,
}

/// Why an issuer's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("--jwt-key or --jwt-jwks: {file} cannot be read: {error}")]
    File {
        /// Which file.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// What is there cannot be used.
    #[error("{0}")]
    Content(String),
}

impl Keys {
    /// The keys that are given; none where none are.
    pub(super) fn new(given: &Authentication) -> Result<Option<Self>, KeyError> {
        let named = given.jwt_algorithms.iter().map(|name| algorithm(name));
        let allowed = named.collect::<Result<Vec<_>, _>>()?;
        if let Some(file) = &given.jwt_key {
            let text = read(file)?;
            return Ok(Some(Self::One(Box::new(Key::of_file(&text, &allowed, file)?))));
        }
        let Some(place) = &given.jwt_jwks else { return Ok(None) };
        let source = match place.starts_with("http://") || place.starts_with("https://") {
            true => Source::Url(place.clone(), client()?),
            false => Source::File(place.clone()),
        };
        let set = Set {
            source,
            allowed,
            known: ArcSwap::from_pointee(Known { keys: Vec::new(), at: None }),
            asked: Mutex::default(),
        };
        if let Source::File(file) = &set.source {
            // A mistake in a file is told at the start.
            set.take(&read(Path::new(file))?).map_err(KeyError::Content)?;
        }
        Ok(Some(Self::Set(Arc::new(set))))
    }

    /// The key with this id, or the only one there is.
    pub(super) async fn find(&self, id: Option<&str>) -> Result<Key, AccessError> {
        let set = match self {
            Self::One(key) => return Ok((**key).clone()),
            Self::Set(set) => set,
        };
        let known = set.known.load();
        let found = known.find(id);
        let fresh = known.at.is_some_and(|at| at.elapsed() < FRESH);
        match found {
            Some(key) if fresh => Ok(key),
            // Good for now: nobody waits for the new one.
            Some(key) => {
                let set = set.clone();
                tokio::spawn(async move { set.refresh().await });
                Ok(key)
            }
            None => {
                set.refresh().await;
                set.known.load().find(id).ok_or_else(|| {
                    AccessError::Token(
                        "none of the issuer's keys (--jwt-jwks) is the one that it names as kid".to_owned(),
                    )
                })
            }
        }
    }
}

impl Known {
    fn find(&self, id: Option<&str>) -> Option<Key> {
        let found = match (id, self.keys.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(id), keys) => keys.iter().find(|(known, _)| known.as_deref() == Some(id)),
        };
        found.map(|(_, key)| key.clone())
    }
}

impl Set {
    /// Fetches the set, unless it is there.
    pub(super) async fn prepare(&self) {
        if self.known.load().at.is_none() {
            self.refresh().await;
        }
    }

    /// Looks at the set again, unless somebody has just done so. What cannot be had or read leaves it as it is.
    async fn refresh(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        *asked = Some(Instant::now());
        let taken = match &self.source {
            Source::File(file) => read(Path::new(file)).map_err(|error| error.to_string()),
            Source::Url(url, client) => fetch(client, url).await,
        };
        match taken.and_then(|text| self.take(&text)) {
            Ok(keys) => info!(keys, "the issuer's keys were read"),
            Err(reason) => warn!(reason, "the issuer's keys cannot be read; those known before stay in use"),
        }
    }

    /// Puts a set in the place of the one before, and answers how many keys of it can be used.
    fn take(&self, text: &str) -> Result<usize, String> {
        let set: JwkSet =
            serde_json::from_str(text).map_err(|error| format!("it is no set of keys (JWKS): {error}"))?;
        let keys = set.keys.iter().filter_map(|jwk| {
            let key = Key::of_jwk(jwk, &self.allowed)?;
            Some((jwk.common.key_id.clone(), key))
        });
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() {
            return Err(
                "the set (--jwt-jwks) has no public key for signatures with an allowed algorithm".to_owned()
            );
        }
        let count = keys.len();
        self.known.store(Arc::new(Known { keys, at: Some(Instant::now()) }));
        Ok(count)
    }
}

impl Key {
    /// A key from a file: public and in PEM, or a secret.
    fn of_file(text: &str, allowed: &[Algorithm], file: &Path) -> Result<Self, KeyError> {
        let refuse =
            |reason: String| Err(KeyError::Content(format!("--jwt-key {}: {reason}", file.display())));
        if !text.contains("-----BEGIN") {
            if allowed.is_empty() {
                return refuse("a secret needs --jwt-algorithms: HS256, HS384 or HS512".to_owned());
            }
            let secret = Secret::new(text.trim_end().to_owned());
            if let Err(reason) = secret.check(&file.display().to_string()) {
                return refuse(reason);
            }
            let key = DecodingKey::from_secret(secret.expose().as_bytes());
            return Self::allowed(key, &[], allowed).map_or_else(|| refuse(not_for(allowed, "a secret")), Ok);
        }
        if text.contains("PRIVATE KEY-----") {
            return refuse("it is a private key, and only the public one is needed here".to_owned());
        }
        let pem = text.as_bytes();
        let made = DecodingKey::from_rsa_pem(pem).map(|key| (key, &[Algorithm::RS256][..], "an RSA key"));
        let made = made.or_else(|_| {
            // Whose curve is P-384 shows in its length alone.
            DecodingKey::from_ec_pem(pem).map(|key| {
                let point = key.try_get_as_bytes().map_or(0, <[u8]>::len);
                let of_curve = if point > 80 { Algorithm::ES384 } else { Algorithm::ES256 };
                let usual =
                    if of_curve == Algorithm::ES384 { &[Algorithm::ES384] } else { &[Algorithm::ES256] };
                (key, &usual[..], "an elliptic curve key")
            })
        });
        let made = made.or_else(|_| {
            DecodingKey::from_ed_pem(pem).map(|key| (key, &[Algorithm::EdDSA][..], "an Ed25519 key"))
        });
        match made {
            Ok((key, usual, kind)) => {
                Self::allowed(key, usual, allowed).map_or_else(|| refuse(not_for(allowed, kind)), Ok)
            }
            Err(_) => refuse(
                "it is no public key in PEM that is known here (RSA, P-256, P-384, Ed25519)".to_owned(),
            ),
        }
    }

    /// A public key of a set that is for signatures; none for any other. A secret in a public place is none.
    fn of_jwk(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        let usual = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => Algorithm::ES256,
                EllipticCurve::P384 => Algorithm::ES384,
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
            _ => return None,
        };
        let key = DecodingKey::from_jwk(jwk).ok()?;
        // The issuer itself may say what the key is for; then it is for nothing else.
        let wanted = match &jwk.common.key_algorithm {
            Some(named) => {
                let named = named.to_string().parse().ok()?;
                if !allowed.is_empty() && !allowed.contains(&named) {
                    return None;
                }
                vec![named]
            }
            None if allowed.is_empty() => vec![usual],
            None => allowed.to_vec(),
        };
        Self::allowed(key, &[usual], &wanted)
    }

    /// The key for those of the allowed algorithms that it is made for; for the usual ones where none are named.
    fn allowed(key: DecodingKey, usual: &[Algorithm], allowed: &[Algorithm]) -> Option<Self> {
        let of_key = |algorithm: &Algorithm| {
            let same_family = key.family().algorithms().contains(algorithm);
            // A curve has one algorithm; the others are chosen freely.
            same_family && (key.family() != AlgorithmFamily::Ec || usual.contains(algorithm))
        };
        let algorithms: Vec<_> = match allowed {
            [] => usual.to_vec(),
            allowed => allowed.iter().copied().filter(of_key).collect(),
        };
        (!algorithms.is_empty()).then_some(Self { key, algorithms })
    }
}

fn not_for(allowed: &[Algorithm], kind: &str) -> String {
    format!("it is {kind}, which is for none of --jwt-algorithms {allowed:?}")
}

fn algorithm(name: &str) -> Result<Algorithm, KeyError> {
    name.parse().map_err(|_| {
        KeyError::Content(format!(
            "--jwt-algorithms: unknown {name:?}; known are HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA"
        ))
    })
}

fn read(file: &Path) -> Result<String, KeyError> {
    fs::read_to_string(file).map_err(|error| KeyError::File { file: file.display().to_string(), error })
}

fn client() -> Result<reqwest::Client, KeyError> {
    let client =
        reqwest::Client::builder().timeout(FETCH_WITHIN).redirect(reqwest::redirect::Policy::none()).build();
    client.map_err(|error| KeyError::Content(format!("--jwt-jwks: {error}")))
}

async fn fetch(client: &reqwest::Client, url: &str) -> Result<String, String> {
    let said = |error: reqwest::Error| error.without_url().to_string();
    let mut answer =
        client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(said)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(said)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_SET_BYTES {
            return Err(format!("it is larger than {MAX_SET_BYTES} bytes"));
        }
    }
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
