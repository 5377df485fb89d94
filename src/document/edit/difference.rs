//! Gives shared types other content with few changes, so that carets stay where they are and other people's edits keep
//! their places.
//!
//! Sequences are compared by Myers' algorithm, texts by the character. Where two sequences are so different that this
//! would take long, what is found by then is good enough: a larger difference is as right as a small one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::Instant,
};

use similar::{Algorithm, DiffOp, capture_diff_deadline};
use xxhash_rust::xxh3::xxh3_128;
use yrs::{
    Any, Array, ArrayRef, In, Map, MapPrelim, MapRef, Out, Text, TransactionMut, WriteTxn, Xml,
    XmlElementPrelim, XmlFragment, XmlFragmentPrelim,
    types::{
        Attrs, Delta,
        array::ArrayPrelim,
        text::{DeltaPrelim, YChange},
        xml::{XmlDeltaPrelim, XmlIn},
    },
};

use super::{
    content::{Content, Run, attributes, out, read, runs},
    key::key,
};

/// How many differences there may be between two sequences; beyond, all that lies between the first and the last one is
/// taken for different. Each of them is looked for from the beginning.
const MAX_DIFFERENCES: usize = 2_000;

/// Gives a root type this content.
pub(super) fn give(transaction: &mut TransactionMut<'_>, root: &str, content: &Content, until: Instant) {
    match content {
        Content::Text(runs) => {
            let text = transaction.get_or_insert_text(root);
            set_text(transaction, &text, runs, until);
        }
        Content::Map(entries) => {
            let map = transaction.get_or_insert_map(root);
            set_map(transaction, &map, entries, until);
        }
        Content::Array(items) => {
            let array = transaction.get_or_insert_array(root);
            set_array(transaction, &array, items, until);
        }
        Content::Fragment(children) => {
            let fragment = transaction.get_or_insert_xml_fragment(root);
            set_children(transaction, &fragment, children, until);
        }
        // No root type is one of these.
        Content::Any(_) | Content::Element(_) | Content::XmlText { .. } => {}
    }
}

/// Gives a shared type the content of one of its kind.
pub(super) fn set(transaction: &mut TransactionMut<'_>, shared: &Out, content: &Content, until: Instant) {
    match (shared, content) {
        (Out::YText(text), Content::Text(runs)) => set_text(transaction, text, runs, until),
        (Out::YMap(map), Content::Map(entries)) => set_map(transaction, map, entries, until),
        (Out::YArray(array), Content::Array(items)) => set_array(transaction, array, items, until),
        (Out::YXmlFragment(fragment), Content::Fragment(children)) => {
            set_children(transaction, fragment, children, until);
        }
        (Out::YXmlElement(element), Content::Element(wanted)) => {
            set_attributes(transaction, element, &wanted.attributes);
            set_children(transaction, element, &wanted.children, until);
        }
        (Out::YXmlText(text), Content::XmlText { attributes, runs }) => {
            set_attributes(transaction, text, attributes);
            set_text(transaction, text, runs, until);
        }
        // Values are replaced, and types only compared with those of their kind.
        _ => {}
    }
}

fn set_map(
    transaction: &mut TransactionMut<'_>,
    map: &MapRef,
    wanted: &BTreeMap<String, Content>,
    until: Instant,
) {
    let present: BTreeMap<String, Out> =
        map.iter(transaction).map(|(key, value)| (key.to_owned(), value)).collect();
    for key in present.keys().filter(|key| !wanted.contains_key(*key)) {
        map.remove(transaction, key);
    }
    for (key, content) in wanted {
        match present.get(key) {
            Some(value) => {
                let is = read(value, transaction);
                if is == *content {
                    continue;
                }
                if is.kind() == content.kind() && !matches!(content, Content::Any(_)) {
                    set(transaction, value, content, until);
                    continue;
                }
            }
            None if matches!(content, Content::Any(Any::Undefined)) => continue,
            None => {}
        }
        let value = map.insert(transaction, key.as_str(), empty(content));
        set(transaction, &value, content, until);
    }
}

fn set_attributes(transaction: &mut TransactionMut<'_>, xml: &impl Xml, wanted: &BTreeMap<String, Any>) {
    let present = attributes(xml, transaction);
    for key in present.keys().filter(|key| !wanted.contains_key(*key)) {
        xml.remove_attribute(transaction, key);
    }
    for (key, value) in wanted.iter().filter(|(key, value)| present.get(*key) != Some(*value)) {
        xml.insert_attribute(transaction, key.as_str(), value.clone());
    }
}

fn set_array(transaction: &mut TransactionMut<'_>, array: &ArrayRef, wanted: &[Content], until: Instant) {
    let values: Vec<Out> = array.iter(transaction).collect();
    let present: Vec<Content> = values.iter().map(|value| read(value, transaction)).collect();
    for step in steps(&present, wanted, until) {
        match step {
            Step::Remove { at, count } => array.remove_range(transaction, at as u32, count as u32),
            Step::Insert { at, from } => {
                for content in wanted[from].iter().rev() {
                    let value = array.insert(transaction, at as u32, empty(content));
                    set(transaction, &value, content, until);
                }
            }
            Step::Change { at, to } => set(transaction, &values[at], &wanted[to], until),
        }
    }
}

fn set_children<P: XmlFragment>(
    transaction: &mut TransactionMut<'_>,
    parent: &P,
    wanted: &[Content],
    until: Instant,
) {
    let nodes: Vec<Out> = parent.children(transaction).map(out).collect();
    let present: Vec<Content> = nodes.iter().map(|node| read(node, transaction)).collect();
    for step in steps(&present, wanted, until) {
        match step {
            Step::Remove { at, count } => parent.remove_range(transaction, at as u32, count as u32),
            // The last one first: then all have the same place, and none is looked for behind the others.
            Step::Insert { at, from } => {
                for content in wanted[from].iter().rev() {
                    let Some(node) = empty_node(content) else { continue };
                    let node = out(parent.insert(transaction, at as u32, node));
                    set(transaction, &node, content, until);
                }
            }
            Step::Change { at, to } => set(transaction, &nodes[at], &wanted[to], until),
        }
    }
}

/// A step from one sequence to another.
enum Step {
    Remove { at: usize, count: usize },
    Insert { at: usize, from: Range<usize> },
    Change { at: usize, to: usize },
}

/// The steps from one sequence to another, from its end to its beginning, so that places before are what they were.
fn steps(present: &[Content], wanted: &[Content], until: Instant) -> Vec<Step> {
    let keys = |contents: &[Content]| contents.iter().map(key).collect::<Vec<_>>();
    let mut steps = Vec::new();
    for op in differences(&keys(present), &keys(wanted), until).into_iter().rev() {
        let (old, new) = (op.old_range(), op.new_range());
        match op {
            DiffOp::Equal { .. } => {}
            DiffOp::Delete { .. } => steps.push(Step::Remove { at: old.start, count: old.len() }),
            DiffOp::Insert { .. } => steps.push(Step::Insert { at: old.start, from: new }),
            // Of what is in the same place, that of the same kind is changed.
            DiffOp::Replace { .. } => {
                let kinds = |contents: &[Content]| contents.iter().map(shared_kind).collect::<Vec<_>>();
                let inner = differences(&kinds(&present[old.clone()]), &kinds(&wanted[new.clone()]), until);
                for op in inner.into_iter().rev() {
                    let (at, from) = (old.start + op.old_range().start, new.start + op.new_range().start);
                    let (count, inserted) = (op.old_range().len(), op.new_range().len());
                    if let DiffOp::Equal { len, .. } = op {
                        let changed = |index: usize| present[at + index] != wanted[from + index];
                        let indices = (0..len).rev().filter(|index| changed(*index));
                        steps.extend(indices.map(|index| Step::Change { at: at + index, to: from + index }));
                        continue;
                    }
                    if count > 0 {
                        steps.push(Step::Remove { at, count });
                    }
                    if inserted > 0 {
                        steps.push(Step::Insert { at, from: from..from + inserted });
                    }
                }
            }
        }
    }
    steps
}

/// Equal for contents of which one can be changed into the other: plain values cannot.
fn shared_kind(content: &Content) -> u128 {
    match content {
        Content::Any(_) => key(content),
        shared => xxh3_128(shared.kind().as_bytes()),
    }
}

/// What is different between two sequences, as far as that is found in time.
pub(super) fn differences<T: Eq + std::hash::Hash + Ord>(
    old: &[T],
    new: &[T],
    until: Instant,
) -> Vec<DiffOp> {
    let found = capture_diff_deadline(Algorithm::Myers, old, 0..old.len(), new, 0..new.len(), Some(until));
    if found.len() <= MAX_DIFFERENCES {
        return found;
    }
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let end =
        old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(old, new)| old == new).count();
    let (old_len, new_len) = (old.len() - start - end, new.len() - start - end);
    vec![
        DiffOp::Equal { old_index: 0, new_index: 0, len: start },
        DiffOp::Replace { old_index: start, old_len, new_index: start, new_len },
        DiffOp::Equal { old_index: start + old_len, new_index: start + new_len, len: end },
    ]
}

/// A shared type with nothing in it, or the value itself.
pub(super) fn empty(content: &Content) -> In {
    match content {
        Content::Any(any) => In::Any(any.clone()),
        Content::Text(_) => In::Text(DeltaPrelim::default()),
        Content::Map(_) => In::Map(MapPrelim::default()),
        Content::Array(_) => In::Array(ArrayPrelim::default()),
        Content::Fragment(_) => In::XmlFragment(XmlFragmentPrelim::default()),
        Content::Element(element) => In::XmlElement(XmlElementPrelim::empty(element.name.clone())),
        Content::XmlText { .. } => In::XmlText(XmlDeltaPrelim::default()),
    }
}

/// The same for what may be in XML; a plain value may not.
fn empty_node(content: &Content) -> Option<XmlIn> {
    match empty(content) {
        In::XmlElement(element) => Some(XmlIn::Element(element)),
        In::XmlText(text) => Some(XmlIn::Text(text)),
        In::XmlFragment(fragment) => Some(XmlIn::Fragment(fragment)),
        _ => None,
    }
}

/// A text as characters; what is embedded counts as one.
struct Characters<'a> {
    /// A character's number, or one beyond all of them for each thing that is embedded.
    tokens: Vec<u32>,
    /// The run of each.
    runs: Vec<u32>,
    all: &'a [Run],
}

/// The first number that is no character.
const EMBEDDED: u32 = 0x11_0000;

impl<'a> Characters<'a> {
    fn new(all: &'a [Run], embedded: &mut HashMap<u128, u32>) -> Self {
        let (mut tokens, mut runs) = (Vec::new(), Vec::new());
        for (number, run) in (0..).zip(all) {
            match run.text() {
                Some(text) => tokens.extend(text.chars().map(u32::from)),
                None => {
                    let next = EMBEDDED + embedded.len() as u32;
                    tokens.push(*embedded.entry(key(&run.insert)).or_insert(next));
                }
            }
            runs.resize(tokens.len(), number);
        }
        Self { tokens, runs, all }
    }

    fn len(&self, range: Range<usize>) -> u32 {
        let length = |token: &u32| char::from_u32(*token).map_or(1, |character| character.len_utf16() as u32);
        self.tokens[range].iter().map(length).sum()
    }

    fn format(&self, at: usize) -> &BTreeMap<Arc<str>, Any> {
        &self.all[self.runs[at] as usize].format
    }

    /// The pieces of a part that are of one run each.
    fn pieces(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for at in range {
            match pieces.last_mut() {
                Some(last) if self.runs[last.start] == self.runs[at] => last.end = at + 1,
                _ => pieces.push(at..at + 1),
            }
        }
        pieces
    }
}

fn set_text<T: Text>(transaction: &mut TransactionMut<'_>, text: &T, wanted: &[Run], until: Instant) {
    let present = runs(text, transaction);
    if present == wanted {
        return;
    }
    let mut embedded = HashMap::new();
    let (old, new) = (Characters::new(&present, &mut embedded), Characters::new(wanted, &mut embedded));
    // One walk through the text, however many changes there are.
    let mut delta: Vec<Delta<In>> = Vec::new();
    for op in differences(&old.tokens, &new.tokens, until) {
        let (removed, inserted) = (op.old_range(), op.new_range());
        if matches!(op, DiffOp::Equal { .. }) {
            delta.extend(retained(&old, &new, removed, inserted));
            continue;
        }
        // Before what is removed, so that it stands in the middle of what stays.
        for piece in new.pieces(inserted) {
            let run = &new.all[new.runs[piece.start] as usize];
            let insert = match &run.insert {
                Content::Any(Any::String(_)) => {
                    let characters = new.tokens[piece].iter().filter_map(|token| char::from_u32(*token));
                    In::Any(Any::from(characters.collect::<String>()))
                }
                shared => empty(shared),
            };
            delta.push(Delta::Inserted(insert, Some(Box::new(run.attrs()))));
        }
        if !removed.is_empty() {
            delta.push(Delta::Deleted(old.len(removed)));
        }
    }
    text.apply_delta(transaction, delta);
    set_format(transaction, text, &new);
    fill(transaction, text, wanted, until);
}

/// The engine mistakes some formats where much changes at once (yrs 0.28): those are set by themselves.
fn set_format<T: Text>(transaction: &mut TransactionMut<'_>, text: &T, new: &Characters<'_>) {
    let present = runs(text, transaction);
    let is = Characters::new(&present, &mut HashMap::new());
    let all = 0..new.tokens.len().min(is.tokens.len());
    let mut at = 0;
    for change in retained(&is, new, all.clone(), all) {
        let Delta::Retain(length, attributes) = change else { continue };
        if let Some(attributes) = attributes {
            text.format(transaction, at, length, *attributes);
        }
        at += length;
    }
}

/// What stays, with the format that it is to have.
fn retained(
    old: &Characters<'_>,
    new: &Characters<'_>,
    from: Range<usize>,
    to: Range<usize>,
) -> Vec<Delta<In>> {
    let mut delta = Vec::new();
    let mut done = 0;
    while done < from.len() {
        let runs = |at: usize| (old.runs[from.start + at], new.runs[to.start + at]);
        let end = (done..from.len()).find(|at| runs(*at) != runs(done)).unwrap_or(from.len());
        let (is, wanted) = (old.format(from.start + done), new.format(to.start + done));
        let keys: BTreeSet<_> = is.keys().chain(wanted.keys()).collect();
        let changed = keys.into_iter().filter(|key| is.get(*key) != wanted.get(*key));
        let changed: Attrs =
            changed.map(|key| (key.clone(), wanted.get(key).cloned().unwrap_or(Any::Null))).collect();
        let attributes = (!changed.is_empty()).then(|| Box::new(changed));
        delta.push(Delta::Retain(new.len(to.start + done..to.start + end), attributes));
        done = end;
    }
    delta
}

/// Gives the shared types in a text, which are where they are wanted, their content.
fn fill<T: Text>(transaction: &mut TransactionMut<'_>, text: &T, wanted: &[Run], until: Instant) {
    let is_shared = |run: &&Run| !matches!(run.insert, Content::Any(_));
    if !wanted.iter().any(|run| is_shared(&run)) {
        return;
    }
    let there = text.diff(transaction, YChange::identity).into_iter().map(|diff| diff.insert);
    let there: Vec<Out> = there.filter(|insert| !matches!(insert, Out::Any(_))).collect();
    for (shared, run) in there.iter().zip(wanted.iter().filter(is_shared)) {
        if read(shared, transaction) != run.insert {
            set(transaction, shared, &run.insert, until);
        }
    }
}
