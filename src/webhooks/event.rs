//! What an application is told of, and the words in which it is told.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::name::DocumentName;

/// Something that has happened to a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which one.
    pub document: DocumentName,
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: What,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It was changed, and that is saved.
    Changed {
        /// By whom, as far as tokens tell.
        users: BTreeSet<Arc<str>>,
    },
    /// It was deleted.
    Deleted {
        /// By whom.
        user: Option<String>,
    },
    /// A version of it is saved, or was given a name a moment later.
    Saved(Version),
    /// Somebody has come.
    Began {
        /// Who.
        user: Option<String>,
    },
    /// Somebody has gone.
    Ended {
        /// Who.
        user: Option<String>,
        /// The close code.
        code: u16,
        /// The reason in a word.
        reason: &'static str,
    },
}

/// A version of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Its id, as in the API.
    #[serde(rename = "version")]
    pub id: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whose edits there are since the version before.
    pub users: Vec<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    document: &'a str,
    #[serde(flatten)]
    about: About<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum About<'a> {
    Users { users: Vec<&'a str> },
    User { user: Option<&'a str> },
    Version(&'a Version),
    End { user: Option<&'a str>, code: u16, reason: &'a str },
}

impl Event {
    /// The body that tells it.
    pub(super) fn body(&self) -> Bytes {
        let (kind, about) = match &self.what {
            What::Changed { users } => {
                ("document.changed", About::Users { users: users.iter().map(|user| &**user).collect() })
            }
            What::Deleted { user } => ("document.deleted", About::User { user: user.as_deref() }),
            What::Saved(version) => ("version.saved", About::Version(version)),
            What::Began { user } => ("session.began", About::User { user: user.as_deref() }),
            What::Ended { user, code, reason } => {
                ("session.ended", About::End { user: user.as_deref(), code: *code, reason })
            }
        };
        let at = OffsetDateTime::from(self.at);
        // To the millisecond: more digits are more than some can read.
        let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
        let timestamp = at.format(&Rfc3339).expect("the clock shows a year of ours");
        let data = Data { document: self.document.as_str(), about };
        serde_json::to_vec(&Body { kind, timestamp, data }).expect("texts and numbers are JSON").into()
    }
}

/// Of which document a body tells; none, where it is none of ours.
pub(super) fn document_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Told {
        data: About,
    }
    #[derive(Deserialize)]
    struct About {
        document: String,
    }
    serde_json::from_slice::<Told>(body).ok().map(|told| told.data.document)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_body_says_what_when_and_of_which_document() {
        let body = |what| {
            let document = DocumentName::new("team/plan").unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
            let body = Event { document, at, what }.body();
            assert_eq!(document_of(&body).as_deref(), Some("team/plan"));
            String::from_utf8(body.into()).unwrap()
        };
        let users = ["bob", "alice"].map(Arc::from).into();
        assert_eq!(
            body(What::Changed { users }),
            r#"{"type":"document.changed","timestamp":"2023-11-14T22:13:20.123Z","data":{"document":"team/plan","users":["alice","bob"]}}"#
        );
        let version = Version { id: "0-7".to_owned(), name: None, users: vec!["bob".to_owned()] };
        assert!(
            body(What::Saved(version))
                .ends_with(r#""data":{"document":"team/plan","version":"0-7","name":null,"users":["bob"]}}"#)
        );
        let ended = What::Ended { user: Some("bob".to_owned()), code: 1000, reason: "left" };
        assert!(
            body(ended)
                .ends_with(r#""data":{"document":"team/plan","user":"bob","code":1000,"reason":"left"}}"#)
        );
        assert!(body(What::Began { user: None }).ends_with(r#"{"document":"team/plan","user":null}}"#));
        assert_eq!(document_of(b"{}"), None);
    }
}
