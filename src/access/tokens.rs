//! Checks tokens: whose they are, by their issuer, and whether their signature, times and audience are good. Which
//! algorithm is right is told by the key, never by the token.

use std::{collections::HashSet, path::Path};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, dangerous::insecure_decode_claims, decode, decode_header,
    errors::ErrorKind,
};
use serde::Deserialize;

use super::{
    Access, AccessError, Claims,
    keys::{Key, KeyError, Keys},
    own::{self, SecretError},
};
use crate::config::{Authentication, OWN_ISSUER, Secret};

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How much the clocks of the issuer and of this machine may differ where a token is not good yet, in seconds.
const LEEWAY: u64 = 5;

/// Whose tokens are believed.
pub struct Tokens {
    /// The server's own secret; none where several nodes were not given one.
    own: Option<Own>,
    other: Option<Other>,
}

struct Own {
    secret: Secret,
    key: Key,
}

/// Another issuer.
struct Other {
    keys: Keys,
    issuer: Option<String>,
    audience: Vec<String>,
}

/// Why no token could be checked.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The server's own secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Another issuer's key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The issuer alone, before anything is known to be true.
#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: Option<String>,
}

impl Tokens {
    /// Tokens as the server is told to believe them. `shared`: several nodes keep documents together.
    pub fn new(given: &Authentication, data: &Path, shared: bool) -> Result<Self, TokensError> {
        let (issuer, audience) = (given.jwt_issuer.clone(), given.jwt_audience.clone());
        let other = Keys::new(given)?.map(|keys| Other { keys, issuer, audience });
        let own = match own::secret(given.secret.as_ref(), given.secret_file.as_deref(), data, shared) {
            // With another issuer nobody needs the server's own tokens.
            Err(SecretError::Shared) if other.is_some() => None,
            secret => Some(Own::new(secret?)),
        };
        Ok(Self { own, other })
    }

    /// The server's own secret, to sign with.
    pub fn secret(&self) -> Option<&Secret> {
        self.own.as_ref().map(|own| &own.secret)
    }

    /// Fetches another issuer's keys, so that what is wrong with them stands in the log from the start.
    pub async fn prepare(&self) {
        if let Some(Other { keys: Keys::Set(set), .. }) = &self.other {
            set.prepare().await;
        }
    }

    /// What a token allows, if it is good now.
    pub async fn check(&self, token: &str) -> Result<Access, AccessError> {
        let refuse = |reason: &str| AccessError::Token(reason.to_owned());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refuse(&format!(
                "it has {} bytes; at most {MAX_TOKEN_BYTES} are looked at",
                token.len()
            )));
        }
        let issuer =
            insecure_decode_claims::<Issuer>(token).map_err(|_| refuse("it is no JSON Web Token"))?;
        // Whatever is no algorithm at all is none that is accepted.
        let header = decode_header(token).map_err(|_| refusal(&ErrorKind::InvalidAlgorithm))?;
        if issuer.iss.as_deref() == Some(OWN_ISSUER) {
            let own = self.own.as_ref().ok_or_else(|| refuse("this server has no secret of its own"))?;
            return verify(token, &own.key, Some(OWN_ISSUER), &[]);
        }
        let other = self
            .other
            .as_ref()
            .ok_or_else(|| refuse("its iss is not \"quire\", and no other issuer is known"))?;
        let key = other.keys.find(header.kid.as_deref()).await?;
        verify(token, &key, other.issuer.as_deref(), &other.audience)
    }
}

impl Own {
    fn new(secret: Secret) -> Self {
        let key = DecodingKey::from_secret(secret.expose().as_bytes());
        Self { secret, key: Key { key, algorithms: vec![own::ALGORITHM] } }
    }
}

fn verify(token: &str, key: &Key, issuer: Option<&str>, audience: &[String]) -> Result<Access, AccessError> {
    let mut validation = Validation::new(Algorithm::default());
    validation.algorithms.clone_from(&key.algorithms);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    let mut required = HashSet::from(["exp".to_owned(), "sub".to_owned()]);
    if let Some(issuer) = issuer {
        validation.set_issuer(&[issuer]);
        required.insert("iss".to_owned());
    }
    if !audience.is_empty() {
        validation.set_audience(audience);
        required.insert("aud".to_owned());
    }
    validation.required_spec_claims = required;
    let claims: Claims = decode(token, &key.key, &validation).map_err(|error| refusal(error.kind()))?.claims;
    // Without leeway: a token that has ended ends sessions at that moment.
    let now = jsonwebtoken::get_current_timestamp();
    if claims.exp <= now {
        return Err(refusal(&ErrorKind::ExpiredSignature));
    }
    Access::new(claims)
}

/// Why a token is refused, in words that tell what to do, and nothing of what is in it.
fn refusal(kind: &ErrorKind) -> AccessError {
    let reason = match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not good yet (nbf)",
        ErrorKind::InvalidSignature => "its signature is not good",
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            "its algorithm is not the one that this server is told to accept"
        }
        ErrorKind::InvalidIssuer => "its iss is not the one that this server is told to accept",
        ErrorKind::InvalidAudience => {
            "its aud is not one that this server is told to accept (--jwt-audience)"
        }
        ErrorKind::MissingRequiredClaim(claim) => {
            return AccessError::Token(format!("its claim {claim:?} is missing"));
        }
        ErrorKind::InvalidClaimFormat(claim) => {
            return AccessError::Token(format!("its claim {claim:?} is not a number"));
        }
        ErrorKind::Json(_) => {
            "its claims are not as they must be: sub, exp, \
             and documents as [{\"name\": \"team/*\", \"level\": \"read\", \"write\" or \"admin\"}]"
        }
        _ => "it is no JSON Web Token",
    };
    AccessError::Token(reason.to_owned())
}
