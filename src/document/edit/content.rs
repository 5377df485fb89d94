//! What shared types hold, as plain values: read from a document, or made of something else, such as Markdown.
//!
//! It nests no deeper than shared types do, which the guard bounds (100), so that whoever reads it may recurse.

use std::{collections::BTreeMap, sync::Arc};

use yrs::{
    Any, Array, ArrayRef, Map, MapRef, Out, ReadTxn, Text, Xml, XmlFragment, XmlOut,
    types::{
        Attrs,
        text::{Diff, YChange},
    },
};

/// The content of a shared type, or a plain value.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A plain value.
    Any(Any),
    /// A `Y.Text`.
    Text(Vec<Run>),
    /// A `Y.Map`.
    Map(BTreeMap<String, Content>),
    /// A `Y.Array`.
    Array(Vec<Content>),
    /// A `Y.XmlFragment`.
    Fragment(Vec<Content>),
    /// A `Y.XmlElement`.
    Element(Element),
    /// A `Y.XmlText`.
    XmlText {
        /// Its attributes, which hardly any editor has.
        attributes: BTreeMap<String, Any>,
        /// Its text.
        runs: Vec<Run>,
    },
}

/// The content of an XML element.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Element {
    /// Its name.
    pub name: Arc<str>,
    /// Its attributes.
    pub attributes: BTreeMap<String, Any>,
    /// Elements and texts.
    pub children: Vec<Content>,
}

/// Text whose every character has the same format, or something embedded.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// A string is text; everything else is embedded.
    pub insert: Content,
    /// The format.
    pub format: BTreeMap<Arc<str>, Any>,
}

impl Content {
    /// Leaves nothing in it.
    pub fn clear(&mut self) {
        match self {
            Self::Any(any) => *any = Any::Null,
            Self::Text(runs) | Self::XmlText { runs, .. } => runs.clear(),
            Self::Map(entries) => entries.clear(),
            Self::Array(items) | Self::Fragment(items) => items.clear(),
            Self::Element(element) => element.children.clear(),
        }
    }

    /// Which kind of type it is, as far as one can be changed into another one: an element has its name for ever.
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Any(_) => "#any",
            Self::Text(_) => "#text",
            Self::Map(_) => "#map",
            Self::Array(_) => "#array",
            Self::Fragment(_) => "#fragment",
            Self::Element(element) => &element.name,
            Self::XmlText { .. } => "#xml-text",
        }
    }
}

impl Run {
    /// Text with a format.
    pub fn new(text: &str, format: BTreeMap<Arc<str>, Any>) -> Self {
        Self { insert: Content::Any(Any::String(text.into())), format }
    }

    /// The text; none where something is embedded.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.insert {
            Content::Any(Any::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The format, as the engine takes it.
    pub(super) fn attrs(&self) -> Attrs {
        self.format.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

pub(super) fn text(text: &impl Text, transaction: &impl ReadTxn) -> Content {
    Content::Text(runs(text, transaction))
}

pub(super) fn map(map: &MapRef, transaction: &impl ReadTxn) -> Content {
    let entries = map.iter(transaction).map(|(key, value)| (key.to_owned(), read(&value, transaction)));
    Content::Map(entries.collect())
}

pub(super) fn array(array: &ArrayRef, transaction: &impl ReadTxn) -> Content {
    Content::Array(array.iter(transaction).map(|value| read(&value, transaction)).collect())
}

pub(super) fn fragment(fragment: &impl XmlFragment, transaction: &impl ReadTxn) -> Content {
    Content::Fragment(children(fragment, transaction))
}

/// What is in a type, or the value itself.
pub(super) fn read(value: &Out, transaction: &impl ReadTxn) -> Content {
    match value {
        Out::Any(any) => Content::Any(any.clone()),
        Out::YText(value) => text(value, transaction),
        Out::YMap(value) => map(value, transaction),
        Out::YArray(value) => array(value, transaction),
        Out::YXmlFragment(value) => fragment(value, transaction),
        Out::YXmlElement(element) => Content::Element(Element {
            name: element.tag().clone(),
            attributes: attributes(element, transaction),
            children: children(element, transaction),
        }),
        Out::YXmlText(value) => {
            Content::XmlText { attributes: attributes(value, transaction), runs: runs(value, transaction) }
        }
        // Neither gets to the engine.
        Out::YDoc(_) | Out::UndefinedRef(_) => Content::Any(Any::Null),
    }
}

pub(super) fn runs(text: &impl Text, transaction: &impl ReadTxn) -> Vec<Run> {
    let mut runs = Runs::default();
    for Diff { insert, attributes, .. } in text.diff(transaction, YChange::identity) {
        let format = attributes.into_iter().flat_map(|attributes| *attributes).collect();
        runs.push(Run { insert: read(&insert, transaction), format });
    }
    runs.finish()
}

/// Runs that are put together: text joins what is before it where the format is the same.
#[derive(Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    text: String,
    format: BTreeMap<Arc<str>, Any>,
}

impl Runs {
    /// Whether there is nothing yet.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.text.is_empty()
    }

    /// Adds text.
    pub(super) fn push_text(&mut self, text: &str, format: &BTreeMap<Arc<str>, Any>) {
        if self.format != *format {
            self.end_text();
            self.format = format.clone();
        }
        self.text.push_str(text);
    }

    /// Adds text, or something embedded.
    pub(super) fn push(&mut self, run: Run) {
        match run.text() {
            Some(text) => self.push_text(text, &run.format),
            None => {
                self.end_text();
                self.runs.push(run);
            }
        }
    }

    /// All of them.
    pub(super) fn finish(mut self) -> Vec<Run> {
        self.end_text();
        self.runs
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.runs.push(Run::new(&std::mem::take(&mut self.text), self.format.clone()));
        }
    }
}

pub(super) fn attributes(xml: &impl Xml, transaction: &impl ReadTxn) -> BTreeMap<String, Any> {
    let attributes = xml.attributes(transaction).filter_map(|(key, value)| match value {
        Out::Any(Any::Undefined) => None,
        Out::Any(any) => Some((key.to_owned(), any)),
        // No editor keeps a shared type in an attribute.
        _ => None,
    });
    attributes.collect()
}

fn children(parent: &impl XmlFragment, transaction: &impl ReadTxn) -> Vec<Content> {
    parent.children(transaction).map(|child| read(&out(child), transaction)).collect()
}

/// A child as any value.
pub(super) fn out(child: XmlOut) -> Out {
    match child {
        XmlOut::Element(element) => Out::YXmlElement(element),
        XmlOut::Fragment(fragment) => Out::YXmlFragment(fragment),
        XmlOut::Text(text) => Out::YXmlText(text),
    }
}
