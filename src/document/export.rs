//! A document as text, JSON, XML and in the formats of editors, for those who have no Yjs at hand: which roots are
//! meant, and JSON, text and XML themselves; the other formats have a file each.
//!
//! Which kind a root type has is not stored in an update. The guard learns it from what the root holds, and
//! who asks can settle what stays open. A root is never tried as a kind that does not fit what it holds:
//! yrs may not come back from that.

mod delta;
mod html;
mod markdown;
mod prosemirror;
mod quill;
mod tree;

use std::{collections::BTreeMap, fmt::Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map as JsonMap, Number as JsonNumber, Value as Json, json};
use yrs::{
    Any, Array, ArrayRef, GetString, Map, MapRef, Number, Out, ReadTxn, Text, TextRef, Transact, Transaction,
    Xml, XmlElementRef, XmlFragment, XmlFragmentRef, XmlOut, XmlTextRef,
    types::text::{Diff, YChange},
};

pub(super) use self::{html::is_image, tree::is_harmless};

use self::tree::Node;
use super::{Document, UpdateError, contained};
use crate::{
    guard::RootEvidence,
    state_vector::StateVector,
    update::{Revealed, reveal},
};

/// What a document can be exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The whole document as a Yjs update, version 1.
    Update,
    /// Its Yjs state vector.
    StateVector,
    /// Every root type with its content.
    Json,
    /// The text alone.
    Text,
    /// The XML fragments.
    Xml,
    /// The XML fragments as ProseMirror documents.
    ProseMirror,
    /// The texts as Quill deltas.
    Delta,
    /// What editors show of the XML fragments and texts, for browsers.
    Html,
    /// The same, as CommonMark with GitHub's extensions.
    Markdown,
}

/// What a root type can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are Yjs's own")]
pub enum RootKind {
    Text,
    Map,
    Array,
    Xml,
}

/// Why a document cannot be exported as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The root type holds what its alleged kind cannot hold.
    #[error("the root type {name:?} cannot be read as {asked}: it holds {holds}")]
    WrongKind {
        /// The name of the root type.
        name: String,
        /// As what it was to be read.
        asked: &'static str,
        /// What is in it.
        holds: &'static str,
    },
    /// The document engine failed.
    #[error(transparent)]
    Engine(#[from] UpdateError),
}

impl Format {
    /// All of them, with the names by which they are asked for.
    pub const NAMES: [(&str, Self); 9] = [
        ("update", Self::Update),
        ("state-vector", Self::StateVector),
        ("json", Self::Json),
        ("text", Self::Text),
        ("xml", Self::Xml),
        ("prosemirror", Self::ProseMirror),
        ("delta", Self::Delta),
        ("html", Self::Html),
        ("markdown", Self::Markdown),
    ];

    /// The media type of what is exported.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Update | Self::StateVector => "application/octet-stream",
            Self::Json | Self::ProseMirror | Self::Delta => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
            Self::Markdown => "text/markdown; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
        }
    }
}

impl RootKind {
    /// All of them, with the names by which they are told.
    pub const NAMES: [(&str, Self); 4] =
        [("text", Self::Text), ("map", Self::Map), ("array", Self::Array), ("xml", Self::Xml)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// The kind that fits what a root was seen to hold; none where that could be any.
    pub(super) fn learned(evidence: RootEvidence) -> Option<Self> {
        match evidence {
            RootEvidence { text: true, .. } => Some(Self::Text),
            // An array may hold XML elements; a fragment holds nothing else.
            RootEvidence { array: true, .. } => Some(Self::Array),
            RootEvidence { xml: true, .. } => Some(Self::Xml),
            RootEvidence { map: true, .. } => Some(Self::Map),
            _ => None,
        }
    }
}

/// Exports a document; `told` settles the kinds of root types that cannot be learned from what they hold.
pub fn export(
    document: &Document,
    format: Format,
    told: &BTreeMap<String, RootKind>,
) -> Result<Vec<u8>, ExportError> {
    if format == Format::Update {
        return Ok(document.diff(&StateVector::default())?.into());
    }
    if format == Format::StateVector {
        return Ok(document.state_vector().write());
    }
    let roots = kinds(document, told)?;
    contained(|| {
        let transaction = document.doc.transact();
        let exporter = Exporter { transaction: &transaction };
        match format {
            Format::Json => exporter.json(&roots).to_string(),
            Format::Text => exporter.text(&roots),
            Format::ProseMirror => exporter.prosemirror(&roots).to_string(),
            Format::Delta => exporter.delta(&roots).to_string(),
            Format::Html => exporter.html(&roots),
            Format::Markdown => {
                let roots = exporter.blocks(&roots).into_iter();
                markdown::markdown(&roots.flat_map(|(_, nodes)| nodes).collect::<Vec<_>>())
            }
            Format::Xml | Format::Update | Format::StateVector => exporter.xml(&roots),
        }
    })
    .map(String::into_bytes)
    .map_err(ExportError::Engine)
}

/// What a format says of each node in an XML fragment. None of a fragment that holds text beside its nodes, and of formats
/// that are not for people.
pub(super) fn said_of_nodes(
    document: &Document,
    root: &str,
    format: Format,
) -> Result<Option<Vec<String>>, UpdateError> {
    contained(|| {
        let transaction = document.doc.transact();
        let exporter = Exporter { transaction: &transaction };
        let fragment = transaction.get_xml_fragment(root)?;
        let elements = fragment.children(&transaction).map(XmlOut::into_xml_element);
        let elements = elements.collect::<Option<Vec<XmlElementRef>>>()?;
        let said = |element: &XmlElementRef| {
            let nodes = [Node::Element(exporter.element(element))];
            match format {
                Format::Html => html::html(&nodes),
                Format::Markdown => markdown::markdown(&nodes),
                _ => {
                    let mut lines = Vec::new();
                    exporter.element_lines(element, &mut lines);
                    lines.join("\n")
                }
            }
        };
        Some(elements.iter().map(said).collect())
    })
}

/// The kinds of the root types that tell them by what they hold.
pub(super) fn learned(document: &Document) -> impl Iterator<Item = (&str, RootKind)> {
    document.roots().filter_map(|(name, evidence)| Some((name, RootKind::learned(evidence)?)))
}

/// What each root type is to be read as.
fn kinds(
    document: &Document,
    told: &BTreeMap<String, RootKind>,
) -> Result<BTreeMap<String, Option<RootKind>>, ExportError> {
    let mut kinds: BTreeMap<String, Option<RootKind>> =
        told.iter().map(|(name, kind)| (name.clone(), Some(*kind))).collect();
    for (name, evidence) in document.roots() {
        let learned = RootKind::learned(evidence);
        match told.get(name) {
            None => drop(kinds.insert(name.to_owned(), learned)),
            Some(asked) if fits(*asked, evidence) => {}
            Some(asked) => {
                return Err(ExportError::WrongKind {
                    name: name.to_owned(),
                    asked: asked.name(),
                    holds: learned.map_or("", RootKind::name),
                });
            }
        }
    }
    Ok(kinds)
}

fn fits(asked: RootKind, evidence: RootEvidence) -> bool {
    match asked {
        // A text may hold embedded types beside its text.
        RootKind::Text => evidence.text || (!evidence.xml && !evidence.array),
        RootKind::Xml | RootKind::Array => !evidence.text,
        RootKind::Map => !evidence.text && !evidence.xml && !evidence.array,
    }
}

struct Exporter<'a, 'doc> {
    transaction: &'a Transaction<'doc>,
}

impl Exporter<'_, '_> {
    fn json(&self, roots: &BTreeMap<String, Option<RootKind>>) -> Json {
        let transaction = self.transaction;
        let value = |name: &str, kind: RootKind| match kind {
            RootKind::Text => transaction.get_text(name).map(|text| self.json_text(&text)),
            RootKind::Map => transaction.get_map(name).map(|map| self.json_map(&map)),
            RootKind::Array => transaction.get_array(name).map(|array| self.json_array(&array)),
            RootKind::Xml => transaction.get_xml_fragment(name).map(|xml| self.xml_children(&xml).into()),
        };
        let values = roots.iter().map(|(name, kind)| {
            // Nobody can tell what an empty root is.
            (name.clone(), kind.and_then(|kind| value(name, kind)).unwrap_or(Json::Null))
        });
        Json::Object(values.collect())
    }

    fn json_text(&self, text: &TextRef) -> Json {
        text.get_string(self.transaction).into()
    }

    fn json_map(&self, map: &MapRef) -> Json {
        let entries = map.iter(self.transaction).map(|(key, value)| (key.to_owned(), self.json_value(value)));
        // Sorted, so that equal documents are equal texts.
        let entries: BTreeMap<_, _> = entries.collect();
        Json::Object(JsonMap::from_iter(entries))
    }

    fn json_array(&self, array: &ArrayRef) -> Json {
        array.iter(self.transaction).map(|value| self.json_value(value)).collect()
    }

    fn json_value(&self, value: Out) -> Json {
        match value {
            Out::Any(any) => json_any(&any),
            Out::YText(text) => self.json_text(&text),
            Out::YArray(array) => self.json_array(&array),
            Out::YMap(map) => self.json_map(&map),
            Out::YXmlElement(element) => self.xml_element(&element).into(),
            Out::YXmlFragment(fragment) => self.xml_children(&fragment).into(),
            Out::YXmlText(text) => self.xml_text(&text).into(),
            // Neither gets to the engine.
            Out::YDoc(_) | Out::UndefinedRef(_) => Json::Null,
        }
    }

    fn text(&self, roots: &BTreeMap<String, Option<RootKind>>) -> String {
        let texts = roots.iter().filter_map(|(name, kind)| match kind {
            Some(RootKind::Text) => Some(self.transaction.get_text(&**name)?.get_string(self.transaction)),
            Some(RootKind::Xml) => {
                let mut lines = Vec::new();
                self.lines(&self.transaction.get_xml_fragment(&**name)?, &mut lines);
                Some(lines.join("\n"))
            }
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n\n")
    }

    /// The lines of an XML tree: one for each element that holds text itself, or nothing.
    fn lines(&self, parent: &impl XmlFragment, lines: &mut Vec<String>) {
        for child in parent.children(self.transaction) {
            match child {
                XmlOut::Text(text) => lines.push(self.plain(&text)),
                XmlOut::Element(element) => self.element_lines(&element, lines),
                XmlOut::Fragment(fragment) => self.lines(&fragment, lines),
            }
        }
    }

    fn element_lines(&self, element: &XmlElementRef, lines: &mut Vec<String>) {
        let mut children = element.children(self.transaction).peekable();
        let holds_text = |child: &XmlOut| matches!(child, XmlOut::Text(_));
        if children.peek().is_none() || children.any(|child| holds_text(&child)) {
            lines.push(self.line(element));
        } else {
            self.lines(element, lines);
        }
    }

    fn line(&self, parent: &impl XmlFragment) -> String {
        let texts = parent.children(self.transaction).map(|child| match child {
            XmlOut::Text(text) => self.plain(&text),
            // The names that Tiptap and ProseMirror, and HTML have for it.
            XmlOut::Element(element) if matches!(&**element.tag(), "hardBreak" | "hard_break" | "br") => {
                "\n".to_owned()
            }
            XmlOut::Element(element) => self.line(&element),
            XmlOut::Fragment(fragment) => self.line(&fragment),
        });
        texts.collect()
    }

    fn plain(&self, text: &XmlTextRef) -> String {
        let inserted = text.diff(self.transaction, YChange::identity).into_iter().map(|diff| diff.insert);
        inserted
            .filter_map(|insert| if let Out::Any(Any::String(text)) = insert { Some(text) } else { None })
            .fold(String::new(), |mut all, text| {
                all.push_str(&text);
                all
            })
    }

    fn xml(&self, roots: &BTreeMap<String, Option<RootKind>>) -> String {
        let fragments =
            roots.iter().filter(|(_, kind)| **kind == Some(RootKind::Xml)).filter_map(|(name, _)| {
                let content = self.xml_children(&self.transaction.get_xml_fragment(&**name)?);
                Some(format!("<fragment name=\"{}\">{content}</fragment>", escaped(name)))
            });
        format!("<document>{}</document>", fragments.collect::<String>())
    }

    fn prosemirror(&self, roots: &BTreeMap<String, Option<RootKind>>) -> Json {
        let fragments = roots.iter().filter(|(_, kind)| **kind == Some(RootKind::Xml));
        let documents = fragments.map(|(name, _)| {
            let fragment = self.transaction.get_xml_fragment(&**name);
            let nodes = fragment.map(|fragment| self.nodes(&fragment)).unwrap_or_default();
            (name.clone(), prosemirror::document(nodes))
        });
        alone_or_by_name(documents.collect())
    }

    fn delta(&self, roots: &BTreeMap<String, Option<RootKind>>) -> Json {
        let texts = roots.iter().filter(|(_, kind)| **kind == Some(RootKind::Text));
        let deltas = texts.map(|(name, _)| {
            let text = self.transaction.get_text(&**name);
            let runs = text.map(|text| self.runs(&text)).unwrap_or_default();
            (name.clone(), delta::operations(runs))
        });
        alone_or_by_name(deltas.collect())
    }

    /// What people see of each XML fragment and text.
    fn blocks(&self, roots: &BTreeMap<String, Option<RootKind>>) -> Vec<(String, Vec<Node>)> {
        let blocks = roots.iter().filter_map(|(name, kind)| match kind {
            Some(RootKind::Xml) => Some((name, self.nodes(&self.transaction.get_xml_fragment(&**name)?))),
            Some(RootKind::Text) => {
                Some((name, quill::nodes(self.runs(&self.transaction.get_text(&**name)?))))
            }
            _ => None,
        });
        blocks.map(|(name, blocks)| (name.clone(), blocks)).collect()
    }

    fn html(&self, roots: &BTreeMap<String, Option<RootKind>>) -> String {
        let roots = self.blocks(roots);
        if let [(_, nodes)] = &roots[..] {
            return html::html(nodes);
        }
        let sections = roots.iter().map(|(name, nodes)| {
            let name = html::escaped_value(name);
            format!("<section data-root=\"{name}\">{}</section>", html::html(nodes))
        });
        sections.collect()
    }

    /// What Yjs's `toString` gives, with special characters escaped.
    fn xml_children(&self, parent: &XmlFragmentRef) -> String {
        parent.children(self.transaction).map(|child| self.xml_node(child)).collect()
    }

    fn xml_node(&self, node: XmlOut) -> String {
        match node {
            XmlOut::Element(element) => self.xml_element(&element),
            XmlOut::Fragment(fragment) => self.xml_children(&fragment),
            XmlOut::Text(text) => self.xml_text(&text),
        }
    }

    fn xml_element(&self, element: &XmlElementRef) -> String {
        let tag = xml_name(element.tag());
        let attributes =
            element.attributes(self.transaction).map(|(key, value)| (key.to_owned(), self.json_value(value)));
        let attributes: BTreeMap<_, _> = attributes.collect();
        let mut xml = format!("<{tag}");
        for (key, value) in &attributes {
            write_attribute(&mut xml, key, value);
        }
        xml.push('>');
        xml.extend(element.children(self.transaction).map(|child| self.xml_node(child)));
        write!(xml, "</{tag}>").expect("a String takes everything");
        xml
    }

    fn xml_text(&self, text: &XmlTextRef) -> String {
        let mut xml = String::new();
        for Diff { insert, attributes, .. } in text.diff(self.transaction, YChange::identity) {
            let formats: BTreeMap<_, _> = attributes
                .iter()
                .flat_map(|attributes| attributes.iter())
                .map(|(key, value)| (&**key, value))
                .collect();
            for (key, value) in &formats {
                write!(xml, "<{}", xml_name(key)).expect("a String takes everything");
                if let Any::Map(values) = value {
                    for (key, value) in values.iter().collect::<BTreeMap<_, _>>() {
                        write_attribute(&mut xml, key, &json_any(value));
                    }
                }
                xml.push('>');
            }
            match insert {
                Out::Any(Any::String(text)) => xml.push_str(&escaped(&text)),
                Out::YXmlElement(element) => xml.push_str(&self.xml_element(&element)),
                // Other embedded values have no place in XML, as in Yjs's own export.
                _ => {}
            }
            for key in formats.keys().rev() {
                write!(xml, "</{}>", xml_name(key)).expect("a String takes everything");
            }
        }
        xml
    }
}

/// The only value as it is, several as an object with the names of their roots.
fn alone_or_by_name(mut values: Vec<(String, Json)>) -> Json {
    match values.len() {
        1 => values.remove(0).1,
        _ => Json::Object(values.into_iter().collect()),
    }
}

fn json_any(any: &Any) -> Json {
    match any {
        Any::Null | Any::Undefined => Json::Null,
        Any::Bool(value) => (*value).into(),
        Any::Number(Number::Int(value)) => (*value).into(),
        // JavaScript's large whole numbers are whole numbers.
        Any::Number(Number::Float(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
            (*value as i64).into()
        }
        // JSON has no number for infinity and the like.
        Any::Number(Number::Float(value)) => JsonNumber::from_f64(*value).map_or(Json::Null, Json::Number),
        Any::String(text) => text.as_ref().into(),
        Any::Buffer(bytes) => match reveal(bytes) {
            Revealed::Subdocument(guid) => json!({ "guid": guid }),
            Revealed::Bytes(bytes) => BASE64_STANDARD.encode(bytes).into(),
        },
        Any::Array(values) => values.iter().map(json_any).collect(),
        Any::Map(values) => {
            let sorted: BTreeMap<_, _> = values.iter().collect();
            Json::Object(sorted.into_iter().map(|(key, value)| (key.clone(), json_any(value))).collect())
        }
    }
}

fn write_attribute(xml: &mut String, key: &str, value: &Json) {
    let value = match value {
        Json::String(text) => escaped(text),
        other => escaped(&other.to_string()),
    };
    write!(xml, " {}=\"{value}\"", xml_name(key)).expect("a String takes everything");
}

/// Text for XML, where some characters must be written otherwise and some cannot be written at all.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(character),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A name for XML: what a name cannot hold becomes an underscore.
fn xml_name(name: &str) -> String {
    let fits = |(index, character): (usize, char)| match character {
        '_' => true,
        '-' | '.' | '0'..='9' => index > 0,
        _ => character.is_alphabetic(),
    };
    let name: String = name.char_indices().map(|at| if fits(at) { at.1 } else { '_' }).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}
