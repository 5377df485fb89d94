//! From which pages browsers may connect. Where nobody is asked for a token, any page that somebody on this machine
//! opens could otherwise read and write every document.

use std::net::IpAddr;

use crate::config::Authentication;

/// The pages that may connect.
#[derive(Debug, Clone)]
pub struct Origins {
    allowed: Vec<String>,
    /// Whether only this machine's own pages may: nobody is asked for a token, and nobody said that this is fine.
    local: bool,
}

impl Origins {
    /// The pages that the server is told to allow.
    pub fn new(given: &Authentication) -> Self {
        let allowed =
            given.allow_origin.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase());
        Self { allowed: allowed.collect(), local: !given.is_on() && !given.insecure_no_auth }
    }

    /// Why a request is refused, if it is: `origin` and `host` are its headers.
    pub fn refuse(&self, origin: Option<&str>, host: Option<&str>) -> Option<String> {
        // Browsers name a host; what checks whether the server lives may not.
        let host = host.unwrap_or("localhost");
        let Some(origin) = origin else {
            // A name that leads to this machine all the same may be another page's (DNS rebinding).
            return (self.local && !is_local(host) && !self.is_allowed_host(host)).then(|| {
                format!("without --auth only this machine is served, and {host:?} is not its name: add --auth or --insecure-no-auth")
            });
        };
        let origin = origin.to_ascii_lowercase();
        let (_, page_host) = origin.split_once("://").unwrap_or_default();
        let same = page_host == host.to_ascii_lowercase() && !page_host.is_empty();
        let fine = match self.local {
            true => is_local(page_host),
            false => same,
        };
        (!fine && !self.allows(&origin))
            .then(|| format!("pages of {origin:?} may not connect: add --allow-origin {origin}"))
    }

    /// Whether a page is named as one that may connect, for answers that say so (CORS).
    pub fn allows(&self, origin: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }

    fn is_allowed_host(&self, host: &str) -> bool {
        self.allowed.iter().any(|allowed| {
            allowed == "*"
                || allowed.split_once("://").is_some_and(|(_, of_page)| of_page.eq_ignore_ascii_case(host))
        })
    }
}

/// Whether a host, with or without a port, is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(allow: &[&str], auth: bool) -> Origins {
        let allow_origin = allow.iter().map(|origin| (*origin).to_owned()).collect();
        Origins::new(&Authentication { allow_origin, auth, ..Authentication::default() })
    }

    #[test]
    fn without_tokens_only_pages_of_this_machine_connect() {
        let local = origins(&[], false);
        for fine in
            ["http://localhost:5173", "http://127.0.0.1:8080", "http://[::1]:8080", "https://a.localhost"]
        {
            assert_eq!(local.refuse(Some(fine), Some("127.0.0.1:8080")), None, "{fine}");
        }
        for evil in
            ["https://evil.example", "null", "http://localhost.evil.example", "http://evil.example:8080", ""]
        {
            assert!(local.refuse(Some(evil), Some("127.0.0.1:8080")).is_some(), "{evil}");
        }
        // The page's own name leads here.
        assert!(local.refuse(Some("http://evil.example"), Some("evil.example")).is_some());
        assert!(local.refuse(None, Some("evil.example:8080")).is_some());
        assert_eq!(local.refuse(None, Some("localhost:8080")), None);
        assert_eq!(local.refuse(None, None), None);
        let named = origins(&["https://editor.example"], false);
        assert_eq!(named.refuse(Some("https://editor.example"), Some("editor.example")), None);
        assert_eq!(named.refuse(None, Some("editor.example")), None);
    }

    #[test]
    fn with_tokens_pages_of_the_server_itself_and_named_ones_connect() {
        let some = origins(&["https://app.example/"], true);
        assert_eq!(some.refuse(Some("https://quire.example"), Some("quire.example")), None);
        assert_eq!(some.refuse(Some("https://APP.example"), Some("quire.example")), None);
        assert_eq!(some.refuse(None, Some("quire.example")), None);
        let refused = some.refuse(Some("https://evil.example"), Some("quire.example")).unwrap();
        assert!(refused.contains("--allow-origin https://evil.example"), "{refused}");
        assert!(some.refuse(Some("null"), Some("")).is_some());
        assert_eq!(origins(&["*"], true).refuse(Some("null"), Some("")), None);
    }
}
