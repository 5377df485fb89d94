//! What editors on ProseMirror make of an XML fragment, read once: nodes with attributes, and text with marks. The
//! formats for people are written from it. It never decides how anything looks.
//!
//! It nests no deeper than shared types do, which the guard bounds (100), so that whoever reads it may recurse.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use yrs::{
    Any, Out, Text, Xml, XmlElementRef, XmlFragment, XmlOut,
    types::text::{Diff, YChange},
};

use super::Exporter;

/// The marks of Tiptap's StarterKit and its neighbours in the order in which its schema sorts them, outermost first.
const RANKS: [&str; 9] =
    ["link", "bold", "code", "italic", "strike", "underline", "highlight", "subscript", "superscript"];

/// A node, or a piece of text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Element(Element),
    Run(Run),
}

/// A node with a name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) attributes: BTreeMap<String, Json>,
    pub(super) children: Vec<Node>,
}

/// Text whose every character has the same marks, or one embedded value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// A string, or else what is embedded.
    pub(super) insert: Json,
    /// Sorted as Tiptap sorts them, others behind by their names.
    pub(super) marks: Vec<Mark>,
}

/// What is said of a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) attributes: Json,
}

impl Element {
    pub(super) fn new(name: &str, children: Vec<Node>) -> Self {
        Self { name: name.to_owned(), attributes: BTreeMap::new(), children }
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.attributes.insert(key.to_owned(), value.into());
        self
    }

    /// The name that Tiptap has for it, where prosemirror-schema-basic and others have another one.
    pub(super) fn kind(&self) -> &str {
        match &*self.name {
            "bullet_list" => "bulletList",
            "ordered_list" => "orderedList",
            "list_item" => "listItem",
            "task_list" => "taskList",
            "task_item" => "taskItem",
            "code_block" => "codeBlock",
            "horizontal_rule" => "horizontalRule",
            "hard_break" | "br" => "hardBreak",
            "table_row" => "tableRow",
            "table_cell" => "tableCell",
            "table_header" => "tableHeader",
            name => name,
        }
    }

    /// An attribute that is a text that says something.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.attributes.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    /// An attribute that is a whole number; some editors write it as text.
    pub(super) fn number(&self, key: &str) -> Option<i64> {
        let value = self.attributes.get(key)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    }

    pub(super) fn is_checked(&self) -> bool {
        matches!(self.attributes.get("checked"), Some(Json::Bool(true)))
    }

    /// The level of a heading.
    pub(super) fn level(&self) -> i64 {
        self.number("level").filter(|level| (1..=6).contains(level)).unwrap_or(1)
    }

    /// The number of an ordered list's first item.
    pub(super) fn start(&self) -> i64 {
        self.number("start").or_else(|| self.number("order")).unwrap_or(1)
    }

    /// The language of a code block.
    pub(super) fn language(&self) -> Option<&str> {
        self.text("language").or_else(|| self.text("params"))
    }

    /// The text within.
    pub(super) fn plain(&self) -> String {
        let plain = self.children.iter().map(|child| match child {
            Node::Run(run) => run.text().to_owned(),
            Node::Element(element) if element.kind() == "hardBreak" => "\n".to_owned(),
            Node::Element(element) => element.plain(),
        });
        plain.collect()
    }

    /// Whether it holds text, rather than blocks.
    pub(super) fn is_inline(&self) -> bool {
        let inline = |child: &Node| match child {
            Node::Run(_) => true,
            Node::Element(element) => matches!(element.kind(), "hardBreak" | "mention" | "emoji"),
        };
        matches!(self.kind(), "paragraph" | "heading") || self.children.iter().any(inline)
    }
}

impl Run {
    pub(super) fn new(insert: Json, mut marks: Vec<Mark>) -> Self {
        let rank = |mark: &Mark| RANKS.iter().position(|name| *name == mark.kind()).unwrap_or(RANKS.len());
        marks.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name)));
        Self { insert, marks }
    }

    /// The text; none where something is embedded.
    pub(super) fn text(&self) -> &str {
        self.insert.as_str().unwrap_or_default()
    }
}

impl Mark {
    /// The name that Tiptap has for it.
    pub(super) fn kind(&self) -> &str {
        match &*self.name {
            "strong" => "bold",
            "em" => "italic",
            "strikethrough" | "s" => "strike",
            name => name,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.attributes.get(key)?.as_str()
    }
}

/// Whether an address may be followed, as Tiptap has it: one of these protocols, or none at all. `javascript:` is not
/// among them, however it is written.
pub(in crate::document) fn is_harmless(address: &str) -> bool {
    const PROTOCOLS: [&str; 10] =
        ["http", "https", "ftp", "ftps", "mailto", "tel", "callto", "sms", "cid", "xmpp"];
    let address: String = address.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let scheme_end = address.find(|c: char| !(c.is_ascii_alphanumeric() || "+.-".contains(c)));
    match scheme_end.map(|end| address.split_at(end)) {
        Some((scheme, rest)) if rest.starts_with(':') => {
            PROTOCOLS.iter().any(|known| scheme.eq_ignore_ascii_case(known))
        }
        // Before a path, a query or a fragment a colon means nothing, and elsewhere no protocol can stand.
        Some((_, rest)) => rest.starts_with(['/', '?', '#']) || !rest.contains(':'),
        None => true,
    }
}

impl Exporter<'_, '_> {
    /// The content of a fragment or an element.
    pub(super) fn nodes(&self, parent: &impl XmlFragment) -> Vec<Node> {
        let mut nodes = Vec::new();
        for child in parent.children(self.transaction) {
            match child {
                XmlOut::Element(element) => nodes.push(Node::Element(self.element(&element))),
                XmlOut::Text(text) => nodes.extend(self.runs(&text).into_iter().map(Node::Run)),
                XmlOut::Fragment(fragment) => nodes.extend(self.nodes(&fragment)),
            }
        }
        nodes
    }

    pub(super) fn element(&self, element: &XmlElementRef) -> Element {
        let attributes = element
            .attributes(self.transaction)
            .filter(|(_, value)| !matches!(value, Out::Any(Any::Undefined)))
            .map(|(key, value)| (key.to_owned(), self.json_value(value)));
        let attributes = attributes.collect();
        Element { name: element.tag().to_string(), attributes, children: self.nodes(element) }
    }

    /// The pieces of a text, as many as Yjs's `toDelta` gives.
    pub(super) fn runs(&self, text: &impl Text) -> Vec<Run> {
        let runs = text.diff(self.transaction, YChange::identity).into_iter();
        let run = |Diff { insert, attributes, .. }: Diff<YChange>| {
            let marks = attributes.iter().flat_map(|attributes| attributes.iter());
            let marks = marks
                .map(|(name, value)| Mark { name: name.to_string(), attributes: super::json_any(value) });
            Run::new(self.json_value(insert), marks.collect())
        };
        runs.map(run).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_could_run_is_seen() {
        for good in ["https://a.b/c:d", "HTTP://a", "mailto:a@b", "a/b:c", "/a:b", "#a:b", "?a:b", "a b", ""]
        {
            assert!(is_harmless(good), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            " JavaScript:x",
            "java\nscript:x",
            "\u{1}javascript:x",
            "data:text/html,x",
            "vbscript:x",
            "java&#115;cript:x",
            "javascript\u{200b}:x",
        ] {
            assert!(!is_harmless(bad), "{bad}");
        }
    }
}
