//! A document's name, checked once, at the door: whoever holds a [`DocumentName`] holds a good one.

use std::{fmt, sync::Arc};

/// The longest name of a document, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 1_000;

/// The name by which people know a document: 1 to [`MAX_NAME_BYTES`] bytes, any Unicode but control
/// characters. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentName(Arc<str>);

/// Why a text is not a document's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left of the name.
    #[error("the document's name is empty: give it at least one character")]
    Empty,
    /// The name is longer than [`MAX_NAME_BYTES`].
    #[error("the document's name has {0} bytes; at most {MAX_NAME_BYTES} are allowed")]
    TooLong(usize),
    /// The name holds a control character, such as a line break.
    #[error("the document's name holds the control character U+{0:04X}; remove it")]
    Control(u32),
    /// The bytes between the percent signs are not UTF-8.
    #[error("the document's name is not UTF-8 after percent-decoding")]
    NotUtf8,
}

impl DocumentName {
    /// Checks a name that is already decoded.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(name.len()));
        }
        match name.chars().find(|c| c.is_control()) {
            Some(control) => Err(NameError::Control(control as u32)),
            None => Ok(Self(name.into())),
        }
    }

    /// Checks a name as it stands in a URL's path, percent-encoded.
    pub fn from_path(path: &str) -> Result<Self, NameError> {
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
        Self::new(&decoded.map_err(|_| NameError::NotUtf8)?)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_everything_after_decoding() {
        let name = DocumentName::from_path("team/a%20b/%C3%BC%2F%F0%9F%93%9D").unwrap();
        assert_eq!(name.as_str(), "team/a b/ü/📝");
        assert_eq!(DocumentName::from_path("__proto__").unwrap().as_str(), "__proto__");
    }

    #[test]
    fn a_bad_name_says_what_is_wrong_with_it() {
        assert_eq!(DocumentName::new(""), Err(NameError::Empty));
        assert_eq!(DocumentName::new(&"ü".repeat(501)), Err(NameError::TooLong(1_002)));
        assert!(DocumentName::new(&"ü".repeat(500)).is_ok());
        assert_eq!(DocumentName::from_path("a%0Ab"), Err(NameError::Control(10)));
        assert_eq!(DocumentName::from_path("%ff"), Err(NameError::NotUtf8));
    }
}
