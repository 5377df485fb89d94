//! XML fragments as XML, as Yjs's `toString` gives them, with special characters escaped.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value as Json;
use yrs::{
    Any, Out, ReadTxn, Text, Xml, XmlElementRef, XmlFragment, XmlFragmentRef, XmlOut, XmlTextRef,
    types::text::{Diff, YChange},
};

use super::{Exporter, RootKind, json_any};

impl Exporter<'_, '_> {
    pub(super) fn xml(&self, roots: &BTreeMap<String, Option<RootKind>>) -> String {
        let fragments =
            roots.iter().filter(|(_, kind)| **kind == Some(RootKind::Xml)).filter_map(|(name, _)| {
                let content = self.xml_children(&self.transaction.get_xml_fragment(&**name)?);
                Some(format!("<fragment name=\"{}\">{content}</fragment>", escaped(name)))
            });
        format!("<document>{}</document>", fragments.collect::<String>())
    }

    /// What Yjs's `toString` gives, with special characters escaped.
    pub(super) fn xml_children(&self, parent: &XmlFragmentRef) -> String {
        parent.children(self.transaction).map(|child| self.xml_node(child)).collect()
    }

    fn xml_node(&self, node: XmlOut) -> String {
        match node {
            XmlOut::Element(element) => self.xml_element(&element),
            XmlOut::Fragment(fragment) => self.xml_children(&fragment),
            XmlOut::Text(text) => self.xml_text(&text),
        }
    }

    pub(super) fn xml_element(&self, element: &XmlElementRef) -> String {
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

    pub(super) fn xml_text(&self, text: &XmlTextRef) -> String {
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
