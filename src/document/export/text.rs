//! What people read of texts and XML fragments, as plain text.

use std::collections::BTreeMap;

use yrs::{
    Any, GetString, Out, ReadTxn, Text, XmlElementRef, XmlFragment, XmlOut, XmlTextRef, types::text::YChange,
};

use super::{Exporter, RootKind};

impl Exporter<'_, '_> {
    pub(super) fn text(&self, roots: &BTreeMap<String, Option<RootKind>>) -> String {
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

    pub(super) fn element_lines(&self, element: &XmlElementRef, lines: &mut Vec<String>) {
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
}
