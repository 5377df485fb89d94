//! Who may do what: what a token says of a person, and what that allows.

pub mod keys;
pub mod origins;
pub mod own;
pub mod tokens;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{level::Level, name::DocumentName};

/// The most bytes of a user's name in a token (`sub`).
const MAX_USER_BYTES: usize = 256;
/// The most documents and patterns in a token.
const MAX_RULES: usize = 1_000;

/// A document, or all whose names begin alike, and what may be done with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// A document's name; with a `*` at its end, all names that begin so.
    pub name: String,
    /// What may be done.
    pub level: Level,
}

/// What a token says, in the words that it uses (RFC 7519, section 4.1, and our own).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The user.
    pub sub: String,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// The user's name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The user's color, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// What may be done.
    #[serde(default)]
    pub documents: Vec<Rule>,
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access(Option<Arc<Claims>>);

/// Why somebody may not do what they asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// There is no token.
    #[error(
        "a token is needed: as ?token=, as Authorization: Bearer, or as WebSocket subprotocol \"quire, <token>\""
    )]
    Missing,
    /// The token is not good; the text says why, and never what is in it.
    #[error("the token is not accepted: {0}")]
    Token(String),
    /// The token is good, and does not allow this.
    #[error("the token of {user:?} allows {} {document:?}, and {needed:?} is needed", allowed(.level))]
    Level {
        /// Whose token.
        user: String,
        /// Which document.
        document: String,
        /// What it allows.
        level: Option<Level>,
        /// What is needed.
        needed: Level,
    },
}

fn allowed(level: &Option<Level>) -> String {
    match level {
        Some(level) => format!("only {level:?} on"),
        None => "nothing on".to_owned(),
    }
}

impl Access {
    /// For everybody, where nobody is asked who they are.
    pub fn anonymous() -> Self {
        Self(None)
    }

    /// What a token allows whose signature and times are good.
    pub fn new(claims: Claims) -> Result<Self, AccessError> {
        let refuse = |reason: String| Err(AccessError::Token(reason));
        match claims.sub.len() {
            0 => return refuse("its sub (the user) is empty".to_owned()),
            1..=MAX_USER_BYTES => {}
            bytes => {
                return refuse(format!(
                    "its sub (the user) has {bytes} bytes; at most {MAX_USER_BYTES} are allowed"
                ));
            }
        }
        if claims.documents.len() > MAX_RULES {
            let rules = claims.documents.len();
            return refuse(format!(
                "its documents are {rules}; at most {MAX_RULES} are allowed, use patterns (team/*)"
            ));
        }
        Ok(Self(Some(Arc::new(claims))))
    }

    /// The user, where there is one.
    pub fn user(&self) -> Option<&str> {
        self.0.as_ref().map(|claims| claims.sub.as_str())
    }

    /// The user, to be kept with what they write.
    pub fn author(&self) -> Option<Arc<str>> {
        self.user().map(Into::into)
    }

    /// When it ends; never, where nobody is asked.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|claims| SystemTime::UNIX_EPOCH + Duration::from_secs(claims.exp.min(MAX_EXP)))
    }

    /// The most that may be done with a document.
    pub fn level(&self, document: &DocumentName) -> Option<Level> {
        let Some(claims) = &self.0 else { return Some(Level::Admin) };
        let matching = claims.documents.iter().filter(|rule| rule.matches(document.as_str()));
        matching.map(|rule| rule.level).max()
    }

    /// Refuses who may not do so much with a document, and answers what they may.
    pub fn require(&self, document: &DocumentName, needed: Level) -> Result<Level, AccessError> {
        match self.level(document) {
            Some(level) if level >= needed => Ok(level),
            level => Err(self.lacks(document.as_str().to_owned(), level, needed)),
        }
    }

    /// Refuses who may not do so much with all documents whose names begin so.
    pub fn require_prefix(&self, prefix: &str, needed: Level) -> Result<(), AccessError> {
        let Some(claims) = &self.0 else { return Ok(()) };
        let covers = |rule: &&Rule| rule.name.strip_suffix('*').is_some_and(|all| prefix.starts_with(all));
        let level = claims.documents.iter().filter(covers).map(|rule| rule.level).max();
        match level {
            Some(level) if level >= needed => Ok(()),
            level => Err(self.lacks(format!("{prefix}*"), level, needed)),
        }
    }

    fn lacks(&self, document: String, level: Option<Level>, needed: Level) -> AccessError {
        AccessError::Level { user: self.user().unwrap_or_default().to_owned(), document, level, needed }
    }
}

/// The year 9999: times after it mean never, and cannot be computed with.
const MAX_EXP: u64 = 253_402_300_799;

impl Rule {
    fn matches(&self, document: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => document.starts_with(beginning),
            None => self.name == document,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(rules: &[(&str, Level)]) -> Access {
        let rules = rules.iter().map(|(name, level)| Rule { name: (*name).to_owned(), level: *level });
        Access::new(Claims {
            sub: "alice".to_owned(),
            exp: 1,
            documents: rules.collect(),
            ..Claims::default()
        })
        .unwrap()
    }

    fn level(access: &Access, document: &str) -> Option<Level> {
        access.level(&DocumentName::new(document).unwrap())
    }

    #[test]
    fn the_highest_rule_that_matches_counts() {
        let access = access(&[("team/*", Level::Read), ("team/plan", Level::Write), ("a*b", Level::Admin)]);
        assert_eq!(level(&access, "team/notes"), Some(Level::Read));
        assert_eq!(level(&access, "team/plan"), Some(Level::Write));
        assert_eq!(level(&access, "team"), None);
        // A star elsewhere is a star.
        assert_eq!((level(&access, "a*b"), level(&access, "axb")), (Some(Level::Admin), None));
        assert_eq!(level(&Access::anonymous(), "anything"), Some(Level::Admin));
    }

    #[test]
    fn all_documents_of_a_prefix_need_one_rule_for_all_of_them() {
        let access = access(&[("team/*", Level::Admin), ("*", Level::Read), ("plan", Level::Admin)]);
        let may = |prefix: &str| access.require_prefix(prefix, Level::Admin).is_ok();
        assert!(may("team/") && may("team/a") && !may("team") && !may("") && !may("plan"));
        assert!(access.require_prefix("", Level::Read).is_ok());
        let refused = access.require_prefix("te", Level::Admin).unwrap_err().to_string();
        assert_eq!(refused, "the token of \"alice\" allows only Read on \"te*\", and Admin is needed");
        assert!(Access::anonymous().require_prefix("", Level::Admin).is_ok());
    }

    #[test]
    fn a_refusal_says_what_is_allowed_and_what_is_needed() {
        let plan = DocumentName::new("plan").unwrap();
        let refused = access(&[("plan", Level::Read)]).require(&plan, Level::Admin).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the token of \"alice\" allows only Read on \"plan\", and Admin is needed"
        );
        let refused = access(&[]).require(&plan, Level::Read).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the token of \"alice\" allows nothing on \"plan\", and Read is needed"
        );
    }

    #[test]
    fn claims_are_bounded() {
        let claims = |sub: String, rules: usize| Claims {
            sub,
            documents: vec![Rule { name: "*".to_owned(), level: Level::Read }; rules],
            exp: u64::MAX,
            ..Claims::default()
        };
        assert!(Access::new(claims("u".repeat(256), 1_000)).is_ok_and(|access| access.expires().is_some()));
        for bad in [claims(String::new(), 1), claims("u".repeat(257), 1), claims("u".to_owned(), 1_001)] {
            assert!(matches!(Access::new(bad), Err(AccessError::Token(_))));
        }
    }
}
