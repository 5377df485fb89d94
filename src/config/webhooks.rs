//! Whom the server tells of what happens to documents, and the secret that signs what it tells.

use std::{fs, path::PathBuf, time::Duration};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use reqwest::Url;

use super::{ConfigError, Secret, values::seconds};

/// The variable that holds the secret: no flag does, since everybody on a machine can see them.
pub(super) const SECRET_VARIABLE: &str = "QUIRE_WEBHOOK_SECRET";
/// How a secret begins, and how many bytes may follow in Base64 (Standard Webhooks, "Signature scheme").
const PREFIX: &str = "whsec_";
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Whom the server tells of what happens to documents.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Webhooks {
    /// Tell this address of what happens to documents (https://app.example.com/quire); needs a secret
    #[arg(id = "webhook", long = "webhook", env = "QUIRE_WEBHOOK", value_name = "URL", hide_env_values = true, value_parser = address)]
    pub url: Option<Url>,
    /// File with the secret that signs what is told: whsec_ and 24 to 64 bytes in Base64
    #[arg(
        id = "webhook-secret-file",
        long = "webhook-secret-file",
        env = "QUIRE_WEBHOOK_SECRET_FILE",
        value_name = "FILE"
    )]
    pub secret_file: Option<PathBuf>,
    /// The secret itself, from the variable `QUIRE_WEBHOOK_SECRET`.
    #[arg(skip)]
    pub secret: Option<Secret>,
    /// How long nobody may have edited a document until its change is told; it is told after ten times that at the latest
    #[arg(id = "webhook-pause", long = "webhook-pause", env = "QUIRE_WEBHOOK_PAUSE", value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub pause: Duration,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self { url: None, secret_file: None, secret: None, pause: Duration::from_secs(2) }
    }
}

impl Webhooks {
    /// Where to tell, and the key that signs it; none where nobody is told.
    pub fn receiver(&self) -> Result<Option<(&Url, Vec<u8>)>, ConfigError> {
        let refuse = |reason: String| Err(ConfigError::Contradiction(reason));
        let has_secret = self.secret.is_some() || self.secret_file.is_some();
        let Some(url) = &self.url else {
            return match has_secret {
                true => {
                    refuse("there is a secret for webhooks, and nobody to tell: add --webhook".to_owned())
                }
                false => Ok(None),
            };
        };
        let (text, from) = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => (secret.expose().to_owned(), SECRET_VARIABLE.to_owned()),
            (None, Some(path)) => match fs::read_to_string(path) {
                Ok(text) => (text, path.display().to_string()),
                Err(error) => {
                    return refuse(format!(
                        "--webhook-secret-file: {} cannot be read: {error}",
                        path.display()
                    ));
                }
            },
            (None, None) => {
                return refuse(format!(
                    "--webhook needs a secret that signs what is told, in {SECRET_VARIABLE} or in the file that \
                     --webhook-secret-file names; make one with: echo \"{PREFIX}$(openssl rand -base64 32)\""
                ));
            }
        };
        let key = text.trim().strip_prefix(PREFIX).and_then(|text| BASE64_STANDARD.decode(text).ok());
        match key {
            Some(key) if KEY_BYTES.contains(&key.len()) => Ok(Some((url, key))),
            Some(key) => refuse(format!(
                "the secret for webhooks in {from} has {} bytes, and {} to {} are allowed; make one with: \
                 echo \"{PREFIX}$(openssl rand -base64 32)\"",
                key.len(),
                KEY_BYTES.start(),
                KEY_BYTES.end(),
            )),
            None => refuse(format!(
                "the secret for webhooks in {from} is not {PREFIX} with Base64 behind it; make one with: \
                 echo \"{PREFIX}$(openssl rand -base64 32)\""
            )),
        }
    }
}

/// An address that can be told something.
fn address(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => Err("an address like https://app.example.com/quire is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_secret_will_do() {
        let receiver = |url: Option<&str>, secret: Option<&str>| {
            let url = url.map(|url| address(url).unwrap());
            let secret = secret.map(|secret| Secret::new(secret.to_owned()));
            let settings = Webhooks { url, secret, ..Webhooks::default() };
            settings.receiver().map(|found| found.map(|(_, key)| key)).map_err(|error| error.to_string())
        };
        let url = Some("https://app.example.com/quire");
        assert_eq!(receiver(None, None), Ok(None));
        assert!(receiver(None, Some("whsec_")).unwrap_err().contains("--webhook"));
        assert!(receiver(url, None).unwrap_err().contains("QUIRE_WEBHOOK_SECRET"));
        let secret = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
        for bytes in [24, 64] {
            assert_eq!(receiver(url, Some(&secret(bytes))), Ok(Some(vec![7; bytes])));
        }
        for bytes in [0, 23, 65] {
            let error = receiver(url, Some(&secret(bytes))).unwrap_err();
            assert!(error.contains(&format!("{bytes} bytes")) && error.contains("24 to 64"), "{error}");
        }
        for bad in ["BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH", "whsec_no base64"] {
            let error = receiver(url, Some(bad)).unwrap_err();
            assert!(error.contains("openssl") && !error.contains(bad), "{error}");
        }
        let missing = Webhooks {
            url: url.map(|url| address(url).unwrap()),
            secret_file: Some("/nowhere/secret".into()),
            ..Webhooks::default()
        };
        assert!(missing.receiver().unwrap_err().to_string().contains("/nowhere/secret"));
    }

    #[test]
    fn an_address_is_one_of_the_web() {
        assert!(address("http://127.0.0.1:9/hook").is_ok());
        assert!(address("ftp://host/").is_err() && address("host:9").is_err() && address("").is_err());
    }
}
