//! The tokens that the server signs itself, with a secret of its own.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

use super::{Claims, Rule};
use crate::config::{OWN_ISSUER, Secret, TokenRequest};

/// How the server's own tokens are signed.
pub(super) const ALGORITHM: Algorithm = Algorithm::HS256;
/// Where the secret stands in the data folder.
const FILE: &str = "secret";
/// Bytes of a secret that the server makes.
const SECRET_BYTES: usize = 48;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("the secret in {file} cannot be used: {error}")]
    File {
        /// Which file.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// It could be guessed.
    #[error("{0}")]
    Weak(String),
    /// There is no folder of which all nodes know.
    #[error("with --redis, all nodes need the same secret: give it in QUIRE_SECRET or with --secret-file")]
    Shared,
}

/// The secret that is given, or that of the data folder, which is made where it is missing.
pub fn secret(
    given: Option<&Secret>,
    file: Option<&Path>,
    data: &Path,
    shared: bool,
) -> Result<Secret, SecretError> {
    if let Some(secret) = given {
        secret.check("QUIRE_SECRET").map_err(SecretError::Weak)?;
        return Ok(secret.clone());
    }
    let (path, make) = match file {
        Some(path) => (path.to_owned(), false),
        None if shared => return Err(SecretError::Shared),
        None => (data.join(FILE), true),
    };
    let text = match fs::read_to_string(&path) {
        Err(error) if make && error.kind() == io::ErrorKind::NotFound => create(&path),
        read => read,
    };
    let file = path.display().to_string();
    let text = text.map_err(|error| SecretError::File { file: file.clone(), error })?;
    let secret = Secret::new(text.trim_end().to_owned());
    secret.check(&file).map_err(SecretError::Weak)?;
    Ok(secret)
}

/// Makes a secret that only the server's own user may read; of two that make one at once, both use the first.
fn create(path: &Path) -> io::Result<String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    // Whole before it is in its place, so that nobody reads the half of it.
    let new = path.with_extension(std::process::id().to_string());
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(BASE64_STANDARD.encode(bytes).as_bytes())?;
    file.sync_all()?;
    let placed = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    match placed {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::read_to_string(path),
    }
}

/// A token that says this for so long from now.
pub fn sign(secret: &Secret, claims: Claims, ttl: Duration) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = Claims { iss: Some(OWN_ISSUER.to_owned()), exp: (now + ttl).as_secs(), ..claims };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    encode(&Header::new(ALGORITHM), &claims, &key).expect("texts and numbers can be signed with a secret")
}

/// The token that the command line asks for.
pub fn answer(request: TokenRequest) -> Result<String, SecretError> {
    let TokenRequest { document, user, level, ttl, data, secret_file, secret: given } = request;
    let secret = secret(given.as_ref(), secret_file.as_deref(), &data, false)?;
    let documents = document.into_iter().map(|name| Rule { name, level }).collect();
    Ok(sign(&secret, Claims { sub: user, documents, ..Claims::default() }, ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_from_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::TempDir::new().unwrap();
        let data = folder.path().join("data");
        let secret_of = || secret(None, None, &data, false).unwrap();
        assert_eq!(secret_of(), secret_of());
        let mode = fs::metadata(data.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing else is left");
        assert!(matches!(secret(None, None, &data, true), Err(SecretError::Shared)));
    }

    #[test]
    fn a_given_secret_must_be_there_and_long() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("given");
        let of_file = || secret(None, Some(&file), folder.path(), true);
        let refused = || of_file().unwrap_err().to_string();
        assert!(refused().contains("given"));
        fs::write(&file, "short\n").unwrap();
        assert!(refused().contains("5 bytes"), "{}", refused());
        fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(of_file().unwrap().expose().len(), 32);
    }
}
