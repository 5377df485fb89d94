//! What a format cannot say stays: where somebody gives a document new Markdown, the alignment of a paragraph that is in
//! it as before, and the colour of a word, are not lost.
//!
//! For that there are three things to compare: what is present; what is said of it, which is what comes back if the
//! present content is written in the format and read again; and what is wanted. Where what is wanted was said before, it
//! is what is present.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use similar::DiffOp;
use yrs::Any;

use super::{
    content::{Content, Element, Run, Runs},
    difference::differences,
    key::key,
};

/// The blocks that are wanted, with what was not said of those that are present. For each of these there is what was
/// said of it: nothing, or one block or more.
pub(super) fn blocks(
    present: &[Content],
    said: &[Vec<Content>],
    wanted: Vec<Content>,
    until: Instant,
) -> Vec<Content> {
    let owners: Vec<usize> =
        said.iter().enumerate().flat_map(|(owner, said)| said.iter().map(move |_| owner)).collect();
    let flat: Vec<&Content> = said.iter().flatten().collect();
    let meant = meant(&flat, &wanted, until);
    let mut blocks = Vec::with_capacity(wanted.len());
    // The number of the next block that is present and has not had its turn.
    let mut next = 0;
    let mut wanted = wanted.into_iter().enumerate().peekable();
    while let Some((at, content)) = wanted.next() {
        let Some((first, is_same)) = meant.get(&at).copied() else {
            blocks.push(content);
            continue;
        };
        let owner = owners[first];
        let count = said[owner].len();
        let is_first = first == 0 || owners[first - 1] != owner;
        let is_whole =
            is_first && (0..count).all(|more| meant.get(&(at + more)) == Some(&(first + more, true)));
        if owner >= next {
            // Blocks of which nothing can be said stand where they stood.
            let silent = (next..owner).rev().take_while(|silent| said[*silent].is_empty()).count();
            blocks.extend_from_slice(&present[owner - silent..owner]);
            next = owner + 1;
        }
        if is_whole {
            blocks.push(present[owner].clone());
            for _ in 1..count {
                wanted.next();
            }
        } else if count == 1 && !is_same {
            blocks.push(merged(&present[owner], flat[first], content, until));
        } else {
            blocks.push(content);
        }
    }
    let rest = (next..present.len()).take_while(|rest| said[*rest].is_empty()).count();
    blocks.extend_from_slice(&present[next..next + rest]);
    blocks
}

/// For what is wanted the place of what was said before that it is, or that it was made from, and whether it is the same.
fn meant(said: &[&Content], wanted: &[Content], until: Instant) -> BTreeMap<usize, (usize, bool)> {
    let mut meant = BTreeMap::new();
    let old: Vec<u128> = said.iter().map(|content| key(content)).collect();
    let new: Vec<u128> = wanted.iter().map(key).collect();
    for op in differences(&old, &new, until) {
        let (old, new) = (op.old_range(), op.new_range());
        match op {
            DiffOp::Equal { .. } => meant.extend(new.zip(old.map(|at| (at, true)))),
            DiffOp::Replace { .. } => {
                let said: Vec<&str> = said[old.clone()].iter().map(|content| content.kind()).collect();
                let wanted: Vec<&str> = wanted[new.clone()].iter().map(Content::kind).collect();
                for op in differences(&said, &wanted, until) {
                    if let DiffOp::Equal { old_index, new_index, len } = op {
                        meant.extend(
                            (0..len)
                                .map(|at| (new.start + new_index + at, (old.start + old_index + at, false))),
                        );
                    }
                }
            }
            _ => {}
        }
    }
    meant
}

/// What is wanted in place of one thing, with what was not said of that.
fn merged(present: &Content, said: &Content, wanted: Content, until: Instant) -> Content {
    match (present, said, wanted) {
        (Content::Element(present), Content::Element(said), Content::Element(wanted)) => {
            let attributes = attributes(&present.attributes, &said.attributes, wanted.attributes);
            let children = match present.children.len() == said.children.len() {
                true => {
                    let said: Vec<Vec<Content>> =
                        said.children.iter().map(|child| vec![child.clone()]).collect();
                    blocks(&present.children, &said, wanted.children, until)
                }
                false => wanted.children,
            };
            Content::Element(Element { name: present.name.clone(), attributes, children })
        }
        (
            Content::XmlText { attributes, runs: present },
            Content::XmlText { runs: said, .. },
            Content::XmlText { runs: wanted, .. },
        ) => Content::XmlText { attributes: attributes.clone(), runs: runs(present, said, &wanted, until) },
        (_, _, wanted) => wanted,
    }
}

fn attributes(
    present: &BTreeMap<String, Any>,
    said: &BTreeMap<String, Any>,
    mut wanted: BTreeMap<String, Any>,
) -> BTreeMap<String, Any> {
    for (key, value) in present {
        if said.get(key) == wanted.get(key) {
            wanted.insert(key.clone(), value.clone());
        }
    }
    wanted
}

/// How many marks of a name are looked at for the one that is meant.
const MAX_MARKS: usize = 100;

type Format = BTreeMap<Arc<str>, Any>;

/// A character, or something embedded, with its format.
type Unit<'a> = (Result<char, &'a Content>, &'a Format);

fn units(runs: &[Run]) -> Vec<Unit<'_>> {
    let mut units: Vec<Unit<'_>> = Vec::new();
    for run in runs {
        match run.text() {
            Some(text) => units.extend(text.chars().map(|character| (Ok(character), &run.format))),
            None => units.push((Err(&run.insert), &run.format)),
        }
    }
    units
}

/// The text that is wanted: characters that are there have the format that they have, and between them stands what is
/// embedded there.
pub(super) fn runs(present: &[Run], said: &[Run], wanted: &[Run], until: Instant) -> Vec<Run> {
    let (present, said, wanted) = (units(present), units(said), units(wanted));
    let characters = |units: &[Unit<'_>]| units.iter().filter_map(|unit| unit.0.ok()).collect::<Vec<char>>();
    let (old, new) = (characters(&said), characters(&wanted));
    let mut runs = Runs::default();
    if characters(&present) != old {
        wanted.iter().for_each(|unit| add(&mut runs, unit, unit.1));
        return runs.finish();
    }
    // The places of the characters among what is present; what is embedded in between belongs to the one before.
    let places: Vec<usize> = (0..present.len()).filter(|at| present[*at].0.is_ok()).collect();
    let there = Marks::new(&present);
    let leading = places.first().copied().unwrap_or(present.len());
    present[..leading].iter().for_each(|unit| add(&mut runs, unit, unit.1));
    for op in differences(&old, &new, until) {
        let (from, to) = (op.old_range(), op.new_range());
        if !matches!(op, DiffOp::Equal { .. }) {
            let mut last: Option<(&Format, Format)> = None;
            for unit in &wanted[to] {
                if !last.as_ref().is_some_and(|(wanted, _)| std::ptr::eq(*wanted, unit.1)) {
                    last = Some((unit.1, there.known(unit.1)));
                }
                add(&mut runs, unit, last.as_ref().map_or(unit.1, |(_, known)| known));
            }
            continue;
        }
        for (from, to) in from.zip(to) {
            let is = &present[places[from]];
            let stays = said[from].1 == wanted[to].1;
            add(&mut runs, is, if stays { is.1 } else { wanted[to].1 });
            let end = places.get(from + 1).copied().unwrap_or(present.len());
            present[places[from] + 1..end].iter().for_each(|unit| add(&mut runs, unit, unit.1));
        }
    }
    runs.finish()
}

fn add(runs: &mut Runs, unit: &Unit<'_>, format: &Format) {
    match unit.0 {
        Ok(character) => runs.push_text(character.encode_utf8(&mut [0; 4]), format),
        Err(embedded) => runs.push(Run { insert: embedded.clone(), format: format.clone() }),
    }
}

/// The marks that are there, by their names: some of them, where there are many.
struct Marks<'a>(BTreeMap<&'a str, Vec<&'a Any>>);

impl<'a> Marks<'a> {
    fn new(present: &[Unit<'a>]) -> Self {
        let mut marks: BTreeMap<&str, Vec<&Any>> = BTreeMap::new();
        let mut last: Option<&Format> = None;
        for (_, format) in present {
            if last.is_some_and(|last| std::ptr::eq(last, *format)) {
                continue;
            }
            last = Some(format);
            for (name, value) in *format {
                let known = marks.entry(name).or_default();
                if known.len() < MAX_MARKS && !known.contains(&value) {
                    known.push(value);
                }
            }
        }
        Self(marks)
    }

    /// A format whose marks are those that are there, where they say nothing else: more of the same link is the same
    /// link.
    fn known(&self, wanted: &Format) -> Format {
        let says_no_more = |wanted: &Any, is: &Any| match (wanted, is) {
            (Any::Map(wanted), Any::Map(is)) => wanted.iter().all(|(key, value)| is.get(key) == Some(value)),
            (wanted, is) => wanted == is,
        };
        let known = |(name, value): (&Arc<str>, &Any)| {
            let mut there = self.0.get(&**name).into_iter().flatten();
            let value = there.find(|is| says_no_more(value, is)).copied().unwrap_or(value);
            (name.clone(), value.clone())
        };
        wanted.iter().map(known).collect()
    }
}
