//! What tags and their attributes mean.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use yrs::Any;

use crate::document::export::is_harmless;

/// The attributes of a tag.
pub(super) struct Attributes(pub(super) BTreeMap<String, String>);

impl Attributes {
    /// An attribute's value.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// An attribute that is a whole number.
    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.get(key)?.trim().parse().ok()
    }

    /// To which side its text is aligned.
    pub(super) fn alignment(&self) -> Option<&str> {
        let said = self.get("style").unwrap_or_default().split(';').find_map(|rule| {
            let (property, value) = rule.split_once(':')?;
            property.trim().eq_ignore_ascii_case("text-align").then(|| value.trim())
        });
        said.or(self.get("align")).filter(|side| ["left", "center", "right", "justify"].contains(side))
    }
}

/// The mark that a tag is.
pub(super) fn mark(tag: &str, attributes: &Attributes) -> Option<(String, Arc<str>, Any)> {
    let name = match tag {
        "strong" | "b" => "bold",
        "em" | "i" | "cite" | "dfn" => "italic",
        "s" | "del" | "strike" => "strike",
        "u" | "ins" => "underline",
        "code" | "kbd" | "samp" | "tt" => "code",
        "mark" => "highlight",
        "sub" => "subscript",
        "sup" => "superscript",
        "a" => "link",
        _ => return None,
    };
    let mut said = HashMap::new();
    if name == "link" {
        let address = attributes.get("href").filter(|address| !address.is_empty() && is_harmless(address))?;
        said.insert("href".to_owned(), Any::from(address));
        for key in ["target", "rel", "class", "title"] {
            if let Some(value) = attributes.get(key) {
                said.insert(key.to_owned(), value.into());
            }
        }
    }
    Some((tag.to_owned(), name.into(), Any::from(said)))
}

/// Tags that end a line, beside those that become something.
pub(super) fn is_block(tag: &str) -> bool {
    matches!(
        tag,
        "address"
            | "article"
            | "aside"
            | "body"
            | "caption"
            | "center"
            | "dd"
            | "details"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "head"
            | "header"
            | "html"
            | "main"
            | "nav"
            | "section"
            | "summary"
            | "tbody"
            | "tfoot"
            | "thead"
    )
}
