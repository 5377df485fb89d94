//! Edits by the server itself, on behalf of who has no Yjs at hand. They are made on a copy of the document, and what
//! comes of them is an update like any other: it goes past the guard, and everybody is told of it.

pub mod content;
mod difference;
pub mod given;
mod html;
mod json;
mod key;
mod markdown;
pub mod operations;
mod unsaid;

use std::{
    collections::BTreeMap,
    mem::ManuallyDrop,
    time::{Duration, Instant},
};

use bytes::Bytes;
use yrs::{ReadTxn, Transact, TransactionMut};

use self::content::Content;
use super::{
    Document, UpdateError, contained,
    export::{RootKind, learned},
};
use crate::update::Update;

/// How long may be spent on finding small differences; those found by then are taken.
const DEADLINE: Duration = Duration::from_millis(500);

/// The update that an edit makes of a document; none, where it changes nothing. The edit is done on a copy.
pub fn edited<E>(
    document: &Document,
    edit: impl FnOnce(&mut TransactionMut<'_>) -> Result<(), E>,
) -> Result<Result<Option<Bytes>, E>, UpdateError> {
    // Nobody edits the document itself, so that the id of its replica is free for this: all edits of this node have
    // one id, and not one each.
    let mut copy = Document::with_client(document.doc.client_id());
    let whole = document.diff(&Default::default())?;
    let made =
        copy.load_chunks(&[whole]).map_err(|error| UpdateError::Broken(error.to_string())).and_then(|_| {
            contained(|| {
                // A transaction commits when it is dropped; while a panic unwinds that would be a second panic.
                let mut transaction = ManuallyDrop::new(copy.doc.transact_mut());
                let made = edit(&mut transaction).map(|()| transaction.encode_update_v1());
                drop(ManuallyDrop::into_inner(transaction));
                made
            })
        });
    let made = match made {
        Ok(made) => made,
        Err(broken) => {
            std::mem::forget(copy);
            return Err(broken);
        }
    };
    let made = match made {
        Ok(made) => made,
        Err(error) => return Ok(Err(error)),
    };
    let read = Update::read(&made).map_err(|error| UpdateError::Broken(error.to_string()))?;
    let is_empty = read.sections.is_empty() && read.deletes.is_empty();
    // Also where the document holds no subdocument now: what it is given may have some.
    let made = contained(|| read.undisguised().into_owned())?;
    Ok(Ok((!is_empty).then(|| made.into())))
}

/// The update that gives root types of a document this content, by the smallest difference that is found in time; none
/// where they have it.
pub fn difference(
    document: &Document,
    roots: &BTreeMap<String, Content>,
) -> Result<Option<Bytes>, UpdateError> {
    difference_until(document, roots, Instant::now() + DEADLINE)
}

fn difference_until(
    document: &Document,
    roots: &BTreeMap<String, Content>,
    until: Instant,
) -> Result<Option<Bytes>, UpdateError> {
    let made = edited::<std::convert::Infallible>(document, |transaction| {
        for (name, content) in roots {
            difference::give(transaction, name, content, until);
        }
        Ok(())
    })?;
    let Ok(made) = made;
    Ok(made)
}

/// What a document's root types hold, as far as that can be told.
pub fn content(document: &Document) -> Result<BTreeMap<String, Content>, UpdateError> {
    contained(|| {
        let transaction = document.doc.transact();
        let read = |name: &str, kind| match kind {
            RootKind::Text => transaction.get_text(name).map(|text| content::text(&text, &transaction)),
            RootKind::Map => transaction.get_map(name).map(|map| content::map(&map, &transaction)),
            RootKind::Array => transaction.get_array(name).map(|array| content::array(&array, &transaction)),
            RootKind::Xml => {
                transaction.get_xml_fragment(name).map(|fragment| content::fragment(&fragment, &transaction))
            }
        };
        learned(document).filter_map(|(name, kind)| Some((name.to_owned(), read(name, kind)?))).collect()
    })
}

/// A document of its own with this content.
pub fn document_with(roots: &BTreeMap<String, Content>) -> Result<Document, UpdateError> {
    let update = difference(&Document::default(), roots)?.unwrap_or_else(|| Bytes::from_static(&[0, 0]));
    Document::load(&[update]).map_err(|error| UpdateError::Broken(error.to_string()))
}

/// The update that gives a document the content of another one: what that has not is emptied.
pub fn difference_to(
    document: &Document,
    mut other: BTreeMap<String, Content>,
) -> Result<Option<Bytes>, UpdateError> {
    for (name, mut content) in content(document)? {
        content.clear();
        other.entry(name).or_insert(content);
    }
    difference(document, &other)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use yrs::Any;

    use super::{
        content::{Element, Run, Runs},
        *,
    };

    /// Small numbers that look random, the same in every run.
    struct Dice(u64);

    impl Dice {
        fn throw(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }

        fn any(&mut self) -> Any {
            match self.throw(5) {
                0 => Any::Null,
                1 => Any::from(self.throw(3) as i64),
                2 => Any::Bool(true),
                3 => Any::from("x".repeat(self.throw(3) as usize)),
                _ => Any::Array([Any::from(self.throw(2) as f64 + 0.5)].into()),
            }
        }

        fn runs(&mut self) -> Vec<Run> {
            let mut runs = Runs::default();
            for _ in 0..self.throw(5) {
                let mut format: BTreeMap<Arc<str>, Any> = BTreeMap::new();
                if self.throw(3) == 0 {
                    format.insert("bold".into(), Any::Bool(true));
                }
                if self.throw(4) == 0 {
                    format.insert("link".into(), Any::from(HashMap::from([("href".to_owned(), self.any())])));
                }
                let insert = match self.throw(6) {
                    0 => Content::Any(Any::from(HashMap::from([("image".to_owned(), self.any())]))),
                    1 => Content::Map([("in a text".to_owned(), Content::Any(self.any()))].into()),
                    _ => {
                        let words = ["one ", "two", "\u{1f4dd}", "ü", "three three"];
                        let text: String =
                            (0..=self.throw(3)).map(|_| words[self.throw(5) as usize]).collect();
                        Content::Any(Any::from(text))
                    }
                };
                runs.push(Run { insert, format });
            }
            runs.finish()
        }

        fn children(&mut self, depth: u64) -> Vec<Content> {
            let count = self.throw(5);
            (0..count).map(|_| self.node(depth)).collect()
        }

        fn node(&mut self, depth: u64) -> Content {
            if depth == 0 || self.throw(3) == 0 {
                return Content::XmlText { attributes: BTreeMap::new(), runs: self.runs() };
            }
            let name = ["paragraph", "heading", "listItem"][self.throw(3) as usize].into();
            let attributes = (0..self.throw(2)).map(|_| ("level".to_owned(), self.any())).collect();
            Content::Element(Element { name, attributes, children: self.children(depth - 1) })
        }

        fn value(&mut self, depth: u64) -> Content {
            match self.throw(if depth == 0 { 3 } else { 6 }) {
                0..3 => Content::Any(self.any()),
                3 => Content::Text(self.runs()),
                4 => Content::Array((0..self.throw(5)).map(|_| self.value(depth - 1)).collect()),
                _ => Content::Map(self.entries(depth - 1)),
            }
        }

        fn entries(&mut self, depth: u64) -> BTreeMap<String, Content> {
            (0..self.throw(4))
                .map(|_| (["a", "b", "c"][self.throw(3) as usize].to_owned(), self.value(depth)))
                .collect()
        }

        fn roots(&mut self) -> BTreeMap<String, Content> {
            let items = (0..self.throw(6)).map(|_| self.value(2)).collect();
            // A root with nothing but an embedded type could be an array.
            let mut text = Runs::default();
            self.runs().into_iter().for_each(|run| text.push(run));
            text.push_text(".", &BTreeMap::new());
            let text = text.finish();
            [
                ("text".to_owned(), Content::Text(text)),
                ("xml".to_owned(), Content::Fragment(self.children(3))),
                ("map".to_owned(), Content::Map(self.entries(2))),
                ("array".to_owned(), Content::Array(items)),
            ]
            .into()
        }
    }

    /// What is left of it where roots that hold nothing cannot be told.
    fn told(
        mut roots: BTreeMap<String, Content>,
        like: &BTreeMap<String, Content>,
    ) -> BTreeMap<String, Content> {
        for (name, content) in like {
            let mut empty = content.clone();
            empty.clear();
            roots.entry(name.clone()).or_insert(empty);
        }
        roots
    }

    #[test]
    fn any_document_becomes_any_other() {
        let mut dice = Dice(1);
        for round in 0..2_000 {
            let (old, new) = (dice.roots(), dice.roots());
            let mut document = document_with(&old).unwrap();
            assert_eq!(told(content(&document).unwrap(), &old), old, "round {round}");
            let other = content(&document_with(&new).unwrap()).unwrap();
            if let Some(update) = difference_to(&document, other.clone()).unwrap() {
                let received = document.receive(update).unwrap();
                assert!(received.news.is_some() && received.rest.is_none(), "round {round}");
            }
            assert_eq!(told(content(&document).unwrap(), &new), new, "round {round}");
            assert_eq!(difference_to(&document, other).unwrap(), None, "round {round}");
        }
    }

    #[test]
    fn a_word_costs_a_word() {
        let paragraph = |number: usize| {
            let text = format!("This is paragraph {number}, with some words that nobody changes. ").repeat(5);
            let runs = vec![Run::new(&text, BTreeMap::new())];
            let children = vec![Content::XmlText { attributes: BTreeMap::new(), runs }];
            Content::Element(Element { name: "paragraph".into(), children, ..Element::default() })
        };
        let mut paragraphs: Vec<Content> = (0..500).map(paragraph).collect();
        let document =
            document_with(&[("default".to_owned(), Content::Fragment(paragraphs.clone()))].into()).unwrap();
        let Content::Element(element) = &mut paragraphs[250] else { panic!("a paragraph") };
        let Content::XmlText { runs, .. } = &mut element.children[0] else { panic!("a text") };
        *runs = vec![Run::new(&runs[0].text().unwrap().replacen("some", "several", 1), BTreeMap::new())];
        paragraphs.remove(100);
        let update = difference(&document, &[("default".to_owned(), Content::Fragment(paragraphs))].into());
        let bytes = update.unwrap().unwrap().len();
        assert!(bytes < 200, "{bytes} bytes");
    }

    #[test]
    fn edits_of_one_node_have_one_id() {
        let mut document = Document::default();
        for round in 0..10 {
            let text = Content::Text(vec![Run::new(&"x".repeat(round + 1), BTreeMap::new())]);
            let update = difference(&document, &[("text".to_owned(), text)].into()).unwrap().unwrap();
            document.receive(update).unwrap();
        }
        assert_eq!(document.state_vector().iter().count(), 1);
    }
}
