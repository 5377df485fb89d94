//! Who may do what, as the server is told: whose tokens are believed, which pages may connect, which proxies speak
//! for others.

use std::{
    fmt,
    net::{AddrParseError, IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Args;
use ipnet::IpNet;

use super::ConfigError;

/// What the server's own tokens say as `iss`.
pub const OWN_ISSUER: &str = "quire";
/// The fewest bytes of a secret: as many as HS256's digest has (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Whose tokens are believed, and where requests may come from.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Authentication {
    /// Ask everybody for a token; implied by a secret, a key or a set of keys
    #[arg(long, env = "QUIRE_AUTH")]
    pub auth: bool,
    /// Let everybody do everything, also where others than this machine reach the server
    #[arg(long, env = "QUIRE_INSECURE_NO_AUTH")]
    pub insecure_no_auth: bool,
    /// File with the secret of the server's own tokens [default: `secret` in the data folder, made when it is needed]
    #[arg(long, env = "QUIRE_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The secret itself, from the variable `QUIRE_SECRET`.
    #[arg(skip)]
    pub secret: Option<Secret>,
    /// File with what verifies another issuer's tokens: a public key (PEM), or a secret
    #[arg(long, env = "QUIRE_JWT_KEY", value_name = "FILE", conflicts_with = "jwt_jwks")]
    pub jwt_key: Option<PathBuf>,
    /// Set of public keys (JWKS) that verify another issuer's tokens
    #[arg(long, env = "QUIRE_JWT_JWKS", value_name = "URL or FILE")]
    pub jwt_jwks: Option<String>,
    /// Algorithms that the other issuer signs with [default: what the key is for; needed with a secret]
    #[arg(long, env = "QUIRE_JWT_ALGORITHMS", value_name = "NAME", value_delimiter = ',')]
    pub jwt_algorithms: Vec<String>,
    /// What the other issuer's tokens say as `iss`
    #[arg(long, env = "QUIRE_JWT_ISSUER", value_name = "TEXT")]
    pub jwt_issuer: Option<String>,
    /// One of these must be in the `aud` of the other issuer's tokens
    #[arg(long, env = "QUIRE_JWT_AUDIENCE", value_name = "TEXT", value_delimiter = ',')]
    pub jwt_audience: Vec<String>,
    /// Origins of pages that may connect besides the server's own, or * for all (https://editor.example.com)
    #[arg(long, env = "QUIRE_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<String>,
    /// Proxies whose X-Forwarded-For is believed: addresses, or networks (10.0.0.0/24)
    #[arg(
        long,
        env = "QUIRE_TRUSTED_PROXIES",
        value_name = "ADDRESS",
        value_delimiter = ',',
        value_parser = network,
        default_value = "127.0.0.0/8,::1/128"
    )]
    pub trusted_proxies: Vec<IpNet>,
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, AddrParseError> {
    text.parse().or_else(|_| text.parse().map(IpAddr::into))
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whoever signs with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Default for Authentication {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1/128"];
        Self {
            auth: false,
            insecure_no_auth: false,
            secret_file: None,
            secret: None,
            jwt_key: None,
            jwt_jwks: None,
            jwt_algorithms: Vec::new(),
            jwt_issuer: None,
            jwt_audience: Vec::new(),
            allow_origin: Vec::new(),
            trusted_proxies: loopback.iter().map(|network| network.parse().expect("a network")).collect(),
        }
    }
}

impl Authentication {
    /// Whether everybody needs a token.
    pub fn is_on(&self) -> bool {
        self.auth
            || self.secret_file.is_some()
            || self.secret.is_some()
            || self.jwt_key.is_some()
            || self.jwt_jwks.is_some()
    }

    /// Refuses settings that contradict each other, or that would let everybody in by mistake.
    pub(super) fn check(&self, listen: SocketAddr, admin: Option<SocketAddr>) -> Result<(), ConfigError> {
        let refuse = |reason: &str| Err(ConfigError::Contradiction(reason.to_owned()));
        if self.insecure_no_auth && self.is_on() {
            return refuse(
                "--insecure-no-auth lets everybody in, and yet there is --auth, a secret or a key: remove one of them",
            );
        }
        let listens = [("--listen", Some(listen)), ("--admin-listen", admin)].into_iter();
        let listens = listens.filter_map(|(flag, address)| Some((flag, address?)));
        let mut open = listens.filter(|(_, address)| !address.ip().is_loopback());
        if let Some((flag, address)) = open.next().filter(|_| !self.insecure_no_auth && !self.is_on()) {
            return Err(ConfigError::Contradiction(format!(
                "{flag} {address} is reached from other machines, and nobody would be asked for a token: \
                 add --auth (and see quire token --help), or --insecure-no-auth where something else keeps strangers out"
            )));
        }
        if let Some(secret) = &self.secret {
            secret.check("QUIRE_SECRET").map_err(ConfigError::Contradiction)?;
        }
        if self.jwt_issuer.as_deref() == Some(OWN_ISSUER) {
            return refuse(
                "--jwt-issuer: \"quire\" is what the server's own tokens say; another issuer needs another name",
            );
        }
        let of_issuer =
            self.jwt_issuer.is_some() || !self.jwt_audience.is_empty() || !self.jwt_algorithms.is_empty();
        if of_issuer && self.jwt_key.is_none() && self.jwt_jwks.is_none() {
            return refuse(
                "--jwt-issuer, --jwt-audience and --jwt-algorithms say what another issuer's tokens are like: its key is missing, --jwt-key or --jwt-jwks",
            );
        }
        Ok(())
    }
}

impl Secret {
    /// Refuses a secret that could be guessed; `from` says where it stands.
    pub fn check(&self, from: &str) -> Result<(), String> {
        match self.0.len() {
            MIN_SECRET_BYTES.. => Ok(()),
            bytes => Err(format!(
                "the secret in {from} has {bytes} bytes; at least {MIN_SECRET_BYTES} are needed, for example: openssl rand -base64 48"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_let_in_by_mistake() {
        let (here, everywhere) = ("127.0.0.1:8080".parse().unwrap(), "0.0.0.0:8080".parse().unwrap());
        let told_nothing = Authentication::default();
        assert!(told_nothing.check(here, None).is_ok());
        let error = told_nothing.check(everywhere, None).unwrap_err().to_string();
        assert!(error.contains("--auth") && error.contains("--insecure-no-auth"), "{error}");
        let error = told_nothing.check(here, Some(everywhere)).unwrap_err().to_string();
        assert!(error.contains("--admin-listen 0.0.0.0:8080"), "{error}");
        let secret = Some(Secret::new("s".repeat(32)));
        assert!(Authentication { secret, ..told_nothing.clone() }.check(everywhere, None).is_ok());
        assert!(
            Authentication { insecure_no_auth: true, ..told_nothing.clone() }.check(everywhere, None).is_ok()
        );
        let both = Authentication { insecure_no_auth: true, auth: true, ..told_nothing.clone() };
        assert!(both.check(here, None).is_err());
        let short = Authentication { secret: Some(Secret::new("short".to_owned())), ..told_nothing };
        let error = short.check(here, None).unwrap_err().to_string();
        assert!(error.contains("5 bytes") && !error.contains("short"), "{error}");
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hidden".to_owned())), "Secret(…)");
    }
}
