//! A document as text, JSON, XML and in the formats of editors, for those who have no Yjs at hand: which roots are
//! meant, and JSON itself; the other formats have a file each.
//!
//! Which kind a root type has is not stored in an update. The guard learns it from what the root holds, and
//! who asks can settle what stays open. A root is never tried as a kind that does not fit what it holds:
//! yrs may not come back from that.

mod delta;
mod html;
mod markdown;
mod prosemirror;
mod quill;
mod text;
mod tree;
mod xml;

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map as JsonMap, Number as JsonNumber, Value as Json, json};
use yrs::{
    Any, Array, ArrayRef, GetString, Map, MapRef, Number, Out, ReadTxn, TextRef, Transact, Transaction,
    XmlElementRef, XmlFragment, XmlOut,
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
