//! How an operation is done: where it is meant, what may not be done there, and how much may be done at once.

use std::{collections::BTreeMap, time::Instant};

use serde_json::Value as Json;
use yrs::{Any, Array, ArrayRef, Map, Out, TransactionMut, WriteTxn, XmlFragment};

use super::{
    super::{
        content::{Content, Run, out},
        difference::{empty, set},
        json::any,
    },
    All, Occurrence, Operation, SharedKind, Step,
    texts::{Target, attrs, format_at},
};
use crate::document::export::RootKind;

/// In how many places they may change texts: each of them is looked for from the beginning.
const MAX_PLACES: usize = 10_000;
/// How much text they may look through, all together.
const MAX_SEARCHED: usize = 256 << 20;

/// Where a shared type is.
#[derive(Clone, Copy)]
struct Place<'a> {
    root: &'a str,
    /// The way from there.
    path: &'a [Step],
}

/// A part of a text: from a position on, or where a text is found. In an XML type all texts within are looked through.
struct Selection<'a> {
    at: Option<u32>,
    length: Option<u32>,
    find: Option<&'a str>,
    occurrence: Option<Occurrence>,
}

/// What does an operation.
pub(super) struct Doing<'a, 'doc> {
    pub(super) transaction: &'a mut TransactionMut<'doc>,
    /// What each root type is; one that holds nothing becomes what the first operation makes of it.
    pub(super) kinds: &'a mut BTreeMap<String, RootKind>,
    pub(super) left: &'a mut Left,
}

/// How much more may be done.
pub(super) struct Left {
    max_bytes: usize,
    bytes: usize,
    places: usize,
    searched: usize,
}

impl Left {
    /// For operations that put in so many bytes of text at most.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: max_bytes, places: MAX_PLACES, searched: MAX_SEARCHED }
    }

    /// Takes what it needs to put a text, or nothing, into so many places.
    fn take(&mut self, places: usize, text: &str) -> Done<()> {
        self.places = self.places.checked_sub(places).ok_or_else(|| {
            format!("occurrence: the operations change more than {MAX_PLACES} places; send fewer at once")
        })?;
        let bytes = places.saturating_mul(text.len());
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            format!(
                "text: the operations put in more than {} bytes (--max-update); send fewer at once",
                self.max_bytes
            )
        })?;
        Ok(())
    }

    /// Takes what it needs to look through a text.
    fn look_through(&mut self, text: &str) -> Done<()> {
        self.searched = self.searched.checked_sub(text.len()).ok_or_else(|| {
            format!(
                "find: the operations look through more than {MAX_SEARCHED} bytes of text; send fewer at once"
            )
        })?;
        Ok(())
    }
}

/// The first field that is wrong, and why.
type Done<T> = Result<T, String>;

impl Doing<'_, '_> {
    /// Does it, or says which field is wrong, and why.
    pub(super) fn operate(&mut self, operation: &Operation) -> Done<()> {
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
                let parts = self.places(place, *at, before.as_deref(), after.as_deref(), *occurrence)?;
                self.left.take(count(&parts), text)?;
                for (target, places) in parts {
                    for (at, _) in places {
                        target.insert(self.transaction, at, text, format.as_ref());
                    }
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
                let parts = self.selected(place, &selection)?;
                self.left.take(count(&parts), "")?;
                for (target, places) in parts {
                    for (at, length) in places {
                        target.remove(self.transaction, at, length);
                    }
                }
                Ok(())
            }
            Operation::Replace { root, path, at, length, find, occurrence, text } => {
                let selection =
                    Selection { at: *at, length: *length, find: find.as_deref(), occurrence: *occurrence };
                let parts = self.selected(Place { root, path }, &selection)?;
                self.left.take(count(&parts), text)?;
                for (target, places) in parts {
                    // The last place comes first, so that formats are where they were.
                    let formats = target.formats(self.transaction);
                    for (at, length) in places {
                        target.remove(self.transaction, at, length);
                        target.insert_with(self.transaction, at, text, format_at(&formats, at));
                    }
                }
                Ok(())
            }
            Operation::Format { root, path, at, length, find, occurrence, format } => {
                let selection =
                    Selection { at: *at, length: *length, find: find.as_deref(), occurrence: *occurrence };
                let parts = self.selected(Place { root, path }, &selection)?;
                self.left.take(count(&parts), "")?;
                for (target, places) in parts {
                    for (at, length) in places {
                        target.format(self.transaction, at, length, attrs(format));
                    }
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
                set(self.transaction, &value, content, Instant::now());
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
                    set(self.transaction, &value, content, Instant::now());
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
    ) -> Done<Parts> {
        match (at, before, after) {
            (at, None, None) => {
                let target = self.only_text(place)?;
                let text = target.characters(self.transaction);
                let at = at.unwrap_or(text.length());
                text.check("at", at)?;
                Ok(vec![(target, vec![(at, 0)])])
            }
            (None, Some(find), None) => self.found(place, "before", find, occurrence),
            (None, None, Some(find)) => {
                let mut found = self.found(place, "after", find, occurrence)?;
                let places = found.iter_mut().flat_map(|(_, places)| places);
                places.for_each(|(at, length)| *at += *length);
                Ok(found)
            }
            _ => Err("at: only one of at, before and after can say where".to_owned()),
        }
    }

    /// What is selected, the last part first.
    fn selected(&mut self, place: Place<'_>, selection: &Selection<'_>) -> Done<Parts> {
        match *selection {
            Selection { at: Some(at), length: Some(length), find: None, occurrence: None } => {
                let target = self.only_text(place)?;
                let text = target.characters(self.transaction);
                text.check("at", at)?;
                text.check("length", at.saturating_add(length))?;
                Ok(vec![(target, vec![(at, length)])])
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
    ) -> Done<Parts> {
        if find.is_empty() {
            return Err(format!("{field}: it is empty"));
        }
        let mut found: Parts = Vec::new();
        for target in self.texts(place)? {
            let text = target.characters(self.transaction);
            self.left.look_through(&text.0)?;
            let mut places = text.find(find);
            places.reverse();
            found.push((target, places));
        }
        let there = count(&found);
        match occurrence {
            _ if there == 0 => Err(format!("{field}: {find:?} is not there")),
            Some(Occurrence::All(All::All)) => Ok(found),
            Some(Occurrence::Number(number)) => {
                let mut all = found.iter().flat_map(|(target, places)| {
                    places.iter().rev().map(move |place| (target.clone(), vec![*place]))
                });
                let one = number.checked_sub(1).and_then(|before| all.nth(before));
                one.map(|one| vec![one]).ok_or_else(|| {
                    format!("occurrence: {find:?} is there {there} times, and counting begins with 1")
                })
            }
            None if there == 1 => Ok(found),
            None => Err(format!(
                "{field}: {find:?} is there {there} times; say which by \"occurrence\", a number or \"all\""
            )),
        }
    }
}

/// Parts of texts: for each text where they begin and how long they are, the last one first.
type Parts = Vec<(Target, Vec<(u32, u32)>)>;

fn count(parts: &Parts) -> usize {
    parts.iter().map(|(_, places)| places.len()).sum()
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
