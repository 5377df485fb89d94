//! Edits in JSON, for those who have no Yjs library: a list of operations, done in their order, all of them or none.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;
use yrs::{
    Any, Array, ArrayRef, Map, Out, Text, TransactionMut, WriteTxn, XmlFragment,
    types::{Attrs, text::YChange},
};

use super::{
    content::{Content, Run, out},
    difference::{empty, set},
    edited,
    given::Unfit,
    json::any,
};
use crate::document::{Document, UpdateError, export::RootKind};

/// How many operations may come at once: each of them may look through a whole document.
pub const MAX_OPERATIONS: usize = 256;

/// Where a shared type is.
#[derive(Clone, Copy)]
struct Place<'a> {
    root: &'a str,
    /// The way from there.
    path: &'a [Step],
}

/// A step into a shared type.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Step {
    /// Into a map, by its key.
    Key(String),
    /// Into an array or XML, by its number from 0 on.
    Number(u32),
}

/// Which of the places where a text is found are meant.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Occurrence {
    /// One of them, counted from 1.
    Number(usize),
    /// Each of them.
    All(All),
}

/// Each place.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// The only word for it.
    All,
}

/// A part of a text: from a position on, or where a text is found. In an XML type all texts within are looked through.
struct Selection<'a> {
    at: Option<u32>,
    length: Option<u32>,
    find: Option<&'a str>,
    occurrence: Option<Occurrence>,
}

/// The kind of a new shared type.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Yjs's own")]
pub enum SharedKind {
    Text,
    Map,
    Array,
}

/// What is done.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    /// Puts text into a text, or values into an array: at a position, before or after a text that is found, or at the end.
    Insert {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// The position.
        at: Option<u32>,
        /// The text before which it comes.
        before: Option<String>,
        /// The text after which it comes.
        after: Option<String>,
        /// Which of them, where it is found more than once.
        occurrence: Option<Occurrence>,
        /// The text.
        text: Option<String>,
        /// Its format; without one it is that of the text before it.
        format: Option<BTreeMap<String, Json>>,
        /// The values, for an array.
        values: Option<Vec<Json>>,
    },
    /// Takes away a part of a text, or items of an array.
    Delete {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// Where the part begins, counted as in JavaScript.
        at: Option<u32>,
        /// How long it is.
        length: Option<u32>,
        /// The text that is looked for, in XML in all texts within.
        find: Option<String>,
        /// Which of them, where it is found more than once.
        occurrence: Option<Occurrence>,
    },
    /// Puts text in place of a part of a text, in the same format.
    Replace {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// Where the part begins, counted as in JavaScript.
        at: Option<u32>,
        /// How long it is.
        length: Option<u32>,
        /// The text that is looked for, in XML in all texts within.
        find: Option<String>,
        /// Which of them, where it is found more than once.
        occurrence: Option<Occurrence>,
        /// The text.
        text: String,
    },
    /// Gives a part of a text a format.
    Format {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// Where the part begins, counted as in JavaScript.
        at: Option<u32>,
        /// How long it is.
        length: Option<u32>,
        /// The text that is looked for, in XML in all texts within.
        find: Option<String>,
        /// Which of them, where it is found more than once.
        occurrence: Option<Occurrence>,
        /// The format; null takes one away.
        format: BTreeMap<String, Json>,
    },
    /// Sets a key of a map, or an item of an array: the last step of the path names it.
    Set {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// The value.
        value: Json,
        /// Makes a shared type of the value, and not a plain one.
        shared: Option<SharedKind>,
    },
    /// Takes away a key of a map, or an item of an array.
    Remove {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
    },
}

/// The update that these operations make; none, where they change nothing.
pub fn operated(
    document: &Document,
    operations: &[Operation],
) -> Result<Result<Option<Bytes>, Unfit>, UpdateError> {
    if operations.len() > MAX_OPERATIONS {
        let reason = format!("operations: there are {}; the limit is {MAX_OPERATIONS}", operations.len());
        return Ok(Err(Unfit(reason)));
    }
    let mut kinds: BTreeMap<String, RootKind> = document
        .roots()
        .filter_map(|(name, evidence)| Some((name.to_owned(), RootKind::learned(evidence)?)))
        .collect();
    edited(document, |transaction| {
        for (number, operation) in operations.iter().enumerate() {
            let mut doing = Doing { transaction, kinds: &mut kinds };
            doing.operate(operation).map_err(|reason| Unfit(format!("operations[{number}].{reason}")))?;
        }
        Ok(())
    })
}

struct Doing<'a, 'doc> {
    transaction: &'a mut TransactionMut<'doc>,
    /// What each root type is; one that holds nothing becomes what the first operation makes of it.
    kinds: &'a mut BTreeMap<String, RootKind>,
}

/// The first field that is wrong, and why.
type Done<T> = Result<T, String>;

impl Doing<'_, '_> {
    fn operate(&mut self, operation: &Operation) -> Done<()> {
        match operation {
            Operation::Insert {
                root,
                path,
                values: Some(values),
                at,
                before,
                after,
                occurrence,
                text,
                format,
            } => {
                let others = [
                    before.is_some(),
                    after.is_some(),
                    occurrence.is_some(),
                    text.is_some(),
                    format.is_some(),
                ];
                if others.contains(&true) {
                    return Err("values: these go into an array, and only at goes with them".to_owned());
                }
                self.insert_values(Place { root, path }, *at, values)
            }
            Operation::Insert { text: None, .. } => {
                Err("text: there is none, and no values either".to_owned())
            }
            Operation::Insert {
                root, path, text: Some(text), at, before, after, occurrence, format, ..
            } => {
                let place = Place { root, path };
                let places = self.places(place, *at, before.as_deref(), after.as_deref(), *occurrence)?;
                for (target, at) in places {
                    target.insert(self.transaction, at, text, format.as_ref());
                }
                Ok(())
            }
            Operation::Delete { root, path, at, length, find, occurrence } => {
                let place = Place { root, path };
                if let Out::YArray(array) = self.find(place, RootKind::Text)? {
                    let (Some(at), None, None) = (*at, find, occurrence) else {
                        return Err("at: items of an array are deleted by their number".to_owned());
                    };
                    return self.delete_items(&array, at, length.unwrap_or(1));
                }
                let selection =
                    Selection { at: *at, length: *length, find: find.as_deref(), occurrence: *occurrence };
                for (target, at, length) in self.selected(place, &selection)? {
                    target.remove(self.transaction, at, length);
                }
                Ok(())
            }
            Operation::Replace { root, path, at, length, find, occurrence, text } => {
                let selection =
                    Selection { at: *at, length: *length, find: find.as_deref(), occurrence: *occurrence };
                for (target, at, length) in self.selected(Place { root, path }, &selection)? {
                    let format = target.format_at(self.transaction, at);
                    target.remove(self.transaction, at, length);
                    target.insert_with(self.transaction, at, text, format);
                }
                Ok(())
            }
            Operation::Format { root, path, at, length, find, occurrence, format } => {
                let selection =
                    Selection { at: *at, length: *length, find: find.as_deref(), occurrence: *occurrence };
                for (target, at, length) in self.selected(Place { root, path }, &selection)? {
                    target.format(self.transaction, at, length, attrs(format));
                }
                Ok(())
            }
            Operation::Set { root, path, value, shared } => {
                let content = shared_content(value, *shared)?;
                self.set(Place { root, path }, Some(&content))
            }
            Operation::Remove { root, path } => self.set(Place { root, path }, None),
        }
    }

    fn delete_items(&mut self, array: &ArrayRef, at: u32, length: u32) -> Done<()> {
        let items = array.len(self.transaction);
        if at.checked_add(length).is_none_or(|end| end > items) {
            return Err(format!("at: {at} and length {length} reach beyond the {items} items"));
        }
        array.remove_range(self.transaction, at, length);
        Ok(())
    }

    fn insert_values(&mut self, place: Place<'_>, at: Option<u32>, values: &[Json]) -> Done<()> {
        let Out::YArray(array) = self.find(place, RootKind::Array)? else {
            return Err("values: here is no array".to_owned());
        };
        let length = array.len(self.transaction);
        let at = at.unwrap_or(length);
        if at > length {
            return Err(format!("at: {at} is beyond the {length} items"));
        }
        array.insert_range(self.transaction, at, values.iter().map(any).collect::<Vec<Any>>());
        Ok(())
    }

    fn set(&mut self, place: Place<'_>, content: Option<&Content>) -> Done<()> {
        let Some((last, way)) = place.path.split_last() else {
            return Err("path: name the key or the item, as in [\"title\"]".to_owned());
        };
        let parent = Place { path: way, ..place };
        let kind = if matches!(last, Step::Key(_)) { RootKind::Map } else { RootKind::Array };
        match (self.find(parent, kind)?, last, content) {
            (Out::YMap(map), Step::Key(key), Some(content)) => {
                let value = map.insert(self.transaction, key.as_str(), empty(content));
                set(self.transaction, &value, content);
                Ok(())
            }
            (Out::YMap(map), Step::Key(key), None) => match map.remove(self.transaction, key) {
                Some(_) => Ok(()),
                None => Err(format!("path: there is no {key:?}")),
            },
            (Out::YArray(array), Step::Number(at), content) => {
                let length = array.len(self.transaction);
                if *at >= length {
                    return Err(format!("path: there is no item {at} of {length}"));
                }
                array.remove(self.transaction, *at);
                if let Some(content) = content {
                    let value = array.insert(self.transaction, *at, empty(content));
                    set(self.transaction, &value, content);
                }
                Ok(())
            }
            _ => {
                Err("path: the last step must be a key of a map or the number of an array's item".to_owned())
            }
        }
    }

    /// The shared type at a place; a root type that holds nothing becomes one of this kind.
    fn find(&mut self, place: Place<'_>, kind: RootKind) -> Done<Out> {
        let root = place.root;
        let kind = *self.kinds.entry(root.to_owned()).or_insert(kind);
        let mut found = match kind {
            RootKind::Text => Out::YText(self.transaction.get_or_insert_text(root)),
            RootKind::Map => Out::YMap(self.transaction.get_or_insert_map(root)),
            RootKind::Array => Out::YArray(self.transaction.get_or_insert_array(root)),
            RootKind::Xml => Out::YXmlFragment(self.transaction.get_or_insert_xml_fragment(root)),
        };
        for (number, step) in place.path.iter().enumerate() {
            let next = match (&found, step) {
                (Out::YMap(map), Step::Key(key)) => map.get(self.transaction, key),
                (Out::YArray(array), Step::Number(at)) => array.get(self.transaction, *at),
                (Out::YXmlFragment(fragment), Step::Number(at)) => {
                    fragment.get(self.transaction, *at).map(out)
                }
                (Out::YXmlElement(element), Step::Number(at)) => element.get(self.transaction, *at).map(out),
                _ => None,
            };
            let said = match step {
                Step::Key(key) => format!("{key:?}"),
                Step::Number(at) => at.to_string(),
            };
            found = next.ok_or_else(|| format!("path[{number}]: there is no {said}"))?;
        }
        Ok(found)
    }

    /// The text at a place, or those in the XML there.
    fn texts(&mut self, place: Place<'_>) -> Done<Vec<Target>> {
        let mut texts = Vec::new();
        match self.find(place, RootKind::Text)? {
            Out::YText(text) => texts.push(Target::Text(text)),
            Out::YXmlText(text) => texts.push(Target::Xml(text)),
            Out::YXmlFragment(fragment) => self.collect(&fragment, &mut texts),
            Out::YXmlElement(element) => self.collect(&element, &mut texts),
            _ => return Err("path: here is no text".to_owned()),
        }
        Ok(texts)
    }

    fn collect(&self, parent: &impl XmlFragment, texts: &mut Vec<Target>) {
        for child in parent.children(self.transaction) {
            match out(child) {
                Out::YXmlText(text) => texts.push(Target::Xml(text)),
                Out::YXmlElement(element) => self.collect(&element, texts),
                Out::YXmlFragment(fragment) => self.collect(&fragment, texts),
                _ => {}
            }
        }
    }

    /// The only text at a place, where a position says what is meant.
    fn only_text(&mut self, place: Place<'_>) -> Done<Target> {
        match self.find(place, RootKind::Text)? {
            Out::YText(text) => Ok(Target::Text(text)),
            Out::YXmlText(text) => Ok(Target::Xml(text)),
            Out::YXmlFragment(_) | Out::YXmlElement(_) => {
                Err("at: in XML a position means nothing; name a text by its path, or by what is to be found"
                    .to_owned())
            }
            _ => Err("path: here is no text".to_owned()),
        }
    }

    /// Where something is to be inserted, the last place first.
    fn places(
        &mut self,
        place: Place<'_>,
        at: Option<u32>,
        before: Option<&str>,
        after: Option<&str>,
        occurrence: Option<Occurrence>,
    ) -> Done<Vec<(Target, u32)>> {
        match (at, before, after) {
            (at, None, None) => {
                let target = self.only_text(place)?;
                let text = target.characters(self.transaction);
                let at = at.unwrap_or(text.length());
                text.check("at", at)?;
                Ok(vec![(target, at)])
            }
            (None, Some(find), None) => {
                let found = self.found(place, "before", find, occurrence)?;
                Ok(found.into_iter().map(|(target, at, _)| (target, at)).collect())
            }
            (None, None, Some(find)) => {
                let found = self.found(place, "after", find, occurrence)?;
                Ok(found.into_iter().map(|(target, at, length)| (target, at + length)).collect())
            }
            _ => Err("at: only one of at, before and after can say where".to_owned()),
        }
    }

    /// What is selected, the last part first.
    fn selected(&mut self, place: Place<'_>, selection: &Selection<'_>) -> Done<Vec<(Target, u32, u32)>> {
        match *selection {
            Selection { at: Some(at), length: Some(length), find: None, occurrence: None } => {
                let target = self.only_text(place)?;
                let text = target.characters(self.transaction);
                text.check("at", at)?;
                text.check("length", at.saturating_add(length))?;
                Ok(vec![(target, at, length)])
            }
            Selection { at: None, length: None, find: Some(find), occurrence } => {
                self.found(place, "find", find, occurrence)
            }
            _ => Err("find: say what is meant by at and length, or by find".to_owned()),
        }
    }

    /// Where a text is found, the last place first.
    fn found(
        &mut self,
        place: Place<'_>,
        field: &str,
        find: &str,
        occurrence: Option<Occurrence>,
    ) -> Done<Vec<(Target, u32, u32)>> {
        if find.is_empty() {
            return Err(format!("{field}: it is empty"));
        }
        let mut found = Vec::new();
        for target in self.texts(place)? {
            let text = target.characters(self.transaction);
            found.extend(text.find(find).into_iter().map(|(at, length)| (target.clone(), at, length)));
        }
        let count = found.len();
        match occurrence {
            _ if count == 0 => Err(format!("{field}: {find:?} is not there")),
            Some(Occurrence::All(All::All)) => {
                found.reverse();
                Ok(found)
            }
            Some(Occurrence::Number(number)) => match number.checked_sub(1).filter(|at| *at < count) {
                Some(at) => Ok(vec![found.swap_remove(at)]),
                None => {
                    Err(format!("occurrence: {find:?} is there {count} times, and counting begins with 1"))
                }
            },
            None if count == 1 => Ok(found),
            None => Err(format!(
                "{field}: {find:?} is there {count} times; say which by \"occurrence\", a number or \"all\""
            )),
        }
    }
}

/// A text.
#[derive(Debug, Clone)]
enum Target {
    Text(yrs::TextRef),
    Xml(yrs::XmlTextRef),
}

/// The same for both kinds of texts.
macro_rules! either {
    ($target:expr, $text:ident => $do:expr) => {
        match $target {
            Target::Text($text) => $do,
            Target::Xml($text) => $do,
        }
    };
}

impl Target {
    fn characters(&self, transaction: &TransactionMut<'_>) -> Characters {
        let diffs = either!(self, text => text.diff(transaction, YChange::identity));
        let text = diffs.into_iter().map(|diff| match diff.insert {
            Out::Any(Any::String(text)) => text,
            // What is embedded is as long as one character, which is made for this.
            _ => "\u{fffc}".into(),
        });
        Characters(text.collect::<Vec<Arc<str>>>().concat())
    }

    fn insert(
        &self,
        transaction: &mut TransactionMut<'_>,
        at: u32,
        new: &str,
        format: Option<&BTreeMap<String, Json>>,
    ) {
        match format {
            Some(format) => self.insert_with(transaction, at, new, attrs(format)),
            None => either!(self, text => text.insert(transaction, at, new)),
        }
    }

    fn insert_with(&self, transaction: &mut TransactionMut<'_>, at: u32, new: &str, format: Attrs) {
        either!(self, text => text.insert_with_attributes(transaction, at, new, format));
    }

    fn remove(&self, transaction: &mut TransactionMut<'_>, at: u32, length: u32) {
        either!(self, text => text.remove_range(transaction, at, length));
    }

    fn format(&self, transaction: &mut TransactionMut<'_>, at: u32, length: u32, format: Attrs) {
        either!(self, text => text.format(transaction, at, length, format));
    }

    /// The format of the character at this place.
    fn format_at(&self, transaction: &TransactionMut<'_>, at: u32) -> Attrs {
        let mut end = 0;
        let diffs = either!(self, text => text.diff(transaction, YChange::identity));
        let there = diffs.into_iter().find(|diff| {
            end += match &diff.insert {
                Out::Any(Any::String(text)) => text.encode_utf16().count() as u32,
                _ => 1,
            };
            end > at
        });
        there.and_then(|diff| diff.attributes).map(|attributes| *attributes).unwrap_or_default()
    }
}

/// A text as it is searched, with positions as JavaScript counts them.
struct Characters(String);

impl Characters {
    fn length(&self) -> u32 {
        units(&self.0)
    }

    /// Whether a position is one.
    fn check(&self, field: &str, position: u32) -> Done<()> {
        let length = self.length();
        if position > length {
            return Err(format!("{field}: {position} is beyond the end; the text has a length of {length}"));
        }
        let mut at = 0;
        let is_border = position == 0
            || self.0.chars().any(|character| {
                at += character.len_utf16() as u32;
                at == position
            });
        if is_border { Ok(()) } else { Err(format!("{field}: {position} is in the middle of a character")) }
    }

    fn find(&self, find: &str) -> Vec<(u32, u32)> {
        let (mut from, mut at) = (0, 0);
        let length = units(find);
        let found = self.0.match_indices(find).map(|(start, _)| {
            at += units(&self.0[from..start]);
            from = start;
            (at, length)
        });
        found.collect()
    }
}

fn units(text: &str) -> u32 {
    text.encode_utf16().count() as u32
}

fn attrs(format: &BTreeMap<String, Json>) -> Attrs {
    format.iter().map(|(name, value)| (Arc::from(name.as_str()), any(value))).collect()
}

fn shared_content(value: &Json, shared: Option<SharedKind>) -> Done<Content> {
    Ok(match (shared, value) {
        (None, value) => Content::Any(any(value)),
        (Some(SharedKind::Text), Json::String(text)) => Content::Text(vec![Run::new(text, BTreeMap::new())]),
        (Some(SharedKind::Map), Json::Object(entries)) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), Content::Any(any(value))));
            Content::Map(entries.collect())
        }
        (Some(SharedKind::Array), Json::Array(items)) => {
            Content::Array(items.iter().map(|value| Content::Any(any(value))).collect())
        }
        (Some(SharedKind::Text), _) => return Err("value: a text takes a string".to_owned()),
        (Some(SharedKind::Map), _) => return Err("value: a map takes an object".to_owned()),
        (Some(SharedKind::Array), _) => return Err("value: an array takes an array".to_owned()),
    })
}
