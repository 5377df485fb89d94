//! Who wrote what: the text of a document with its authors, and what is different between two versions, by whom.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use super::segment::Edits;
use crate::{
    document::pieces::Piece,
    update::{ClientId, Clock, Id, Update},
};

/// What became of a text from one version to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is in both.
    Kept,
    /// It is only in the later one.
    Inserted,
    /// It is only in the earlier one.
    Deleted,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The root type that it is in.
    pub root: String,
    /// What became of it.
    pub change: Change,
    /// Who wrote it; of what was deleted: who deleted it. None where that is not known.
    pub user: Option<Arc<str>>,
    /// The text.
    pub text: String,
}

/// Who made which edits.
#[derive(Debug, Default)]
pub struct Authors {
    inserted: Ranges,
    deleted: Ranges,
}

/// For each client the users of its edits.
#[derive(Debug, Default)]
struct Ranges(HashMap<ClientId, ByFirstClock>);

/// Where each range ends, and whose it is, by where it begins.
type ByFirstClock = BTreeMap<Clock, (Clock, Option<Arc<str>>)>;

impl Authors {
    /// Notes edits that come after those that were noted before.
    pub fn note(&mut self, edits: &Edits) {
        self.note_inserted(edits);
        for authored in edits.iter() {
            let Ok(update) = Update::read(&authored.update) else { continue };
            for (client, range) in &update.deletes {
                self.deleted.note(*client, range.clone(), &authored.user);
            }
        }
    }

    /// Notes of edits only what they insert.
    pub fn note_inserted(&mut self, edits: &Edits) {
        for authored in edits.iter() {
            // What cannot be read has no author.
            let Ok(update) = Update::read(&authored.update) else { continue };
            for section in &update.sections {
                let blocks = &update.blocks[section.blocks.clone()];
                if let (Some(first), Some(last)) = (blocks.first(), blocks.last()) {
                    self.inserted.note(section.client, first.clock..last.end_clock(), &authored.user);
                }
            }
        }
    }

    fn who_inserted(&self, id: Id) -> Option<Arc<str>> {
        self.inserted.user(id)
    }

    fn who_deleted(&self, id: Id) -> Option<Arc<str>> {
        self.deleted.user(id)
    }
}

impl Ranges {
    /// Who was noted first stays: edits that come again are those of who brought them.
    fn note(&mut self, client: ClientId, range: Range<Clock>, user: &Option<Arc<str>>) {
        let ranges = self.0.entry(client).or_default();
        let mut start = range.start;
        if let Some((_, (end, _))) = ranges.range(..=start).next_back() {
            start = start.max(*end);
        }
        while start < range.end {
            let next = ranges.range(start..range.end).next().map(|(next, (end, _))| (*next, *end));
            let (end, go_on) = next.unwrap_or((range.end, range.end));
            if start < end {
                ranges.insert(start, (end, user.clone()));
            }
            start = go_on;
        }
    }

    fn user(&self, id: Id) -> Option<Arc<str>> {
        let (_, (end, user)) = self.0.get(&id.client)?.range(..=id.clock).next_back()?;
        user.clone().filter(|_| id.clock < *end)
    }
}

/// The text of a document, with who wrote it.
pub fn attributed(pieces: &[Piece], authors: &Authors) -> Vec<Part> {
    let mut parts = Vec::new();
    for unit in units(pieces) {
        push(&mut parts, unit.root, Change::Kept, authors.who_inserted(unit.id), unit.character);
    }
    parts
}

/// What is different between two versions of a document. Texts in both come in the same order in both.
pub fn compared(before: &[Piece], after: &[Piece], authors: &Authors) -> Vec<Part> {
    let roots: std::collections::BTreeSet<&str> =
        before.iter().chain(after).map(|piece| piece.root.as_str()).collect();
    let mut parts = Vec::new();
    for root in roots {
        let of_root = |pieces: &[Piece]| -> Vec<Piece> {
            pieces.iter().filter(|piece| piece.root == root).cloned().collect()
        };
        let (before, after) = (of_root(before), of_root(after));
        let ids = |pieces| units(pieces).map(|unit| unit.id).collect::<HashSet<Id>>();
        let (there_before, there_after) = (ids(&before), ids(&after));
        let mut old = units(&before).peekable();
        for unit in units(&after) {
            // What is gone comes before what took its place.
            while let Some(gone) = old.next_if(|old| !there_after.contains(&old.id)) {
                push(&mut parts, root, Change::Deleted, authors.who_deleted(gone.id), gone.character);
            }
            let change = if there_before.contains(&unit.id) { Change::Kept } else { Change::Inserted };
            if change == Change::Kept {
                old.next();
            }
            push(&mut parts, root, change, authors.who_inserted(unit.id), unit.character);
        }
        for gone in old.filter(|old| !there_after.contains(&old.id)) {
            push(&mut parts, root, Change::Deleted, authors.who_deleted(gone.id), gone.character);
        }
    }
    parts
}

/// A character of a text.
struct Unit<'a> {
    root: &'a str,
    id: Id,
    character: char,
}

fn units(pieces: &[Piece]) -> impl Iterator<Item = Unit<'_>> {
    pieces.iter().flat_map(|piece| {
        let mut clock = piece.id.clock;
        piece.text.chars().map(move |character| {
            let id = Id { client: piece.id.client, clock };
            clock += character.len_utf16() as Clock;
            Unit { root: &piece.root, id, character }
        })
    })
}

fn push(parts: &mut Vec<Part>, root: &str, change: Change, user: Option<Arc<str>>, character: char) {
    match parts.last_mut() {
        Some(last) if last.root == root && last.change == change && last.user == user => {
            last.text.push(character)
        }
        _ => parts.push(Part { root: root.to_owned(), change, user, text: character.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(client: ClientId, clock: Clock, text: &str) -> Piece {
        Piece { root: "t".to_owned(), id: Id { client, clock }, text: text.to_owned() }
    }

    fn told(parts: &[Part]) -> String {
        let part = |part: &Part| {
            let sign = match part.change {
                Change::Kept => "",
                Change::Inserted => "+",
                Change::Deleted => "-",
            };
            format!("[{sign}{} {}]", part.user.as_deref().unwrap_or("?"), part.text)
        };
        parts.iter().map(part).collect()
    }

    #[test]
    fn parts_name_who_wrote_and_who_deleted() {
        let mut authors = Authors::default();
        authors.inserted.note(1, 0..10, &Some("alice".into()));
        authors.inserted.note(2, 0..5, &Some("bob".into()));
        // Brought again by somebody else.
        authors.inserted.note(1, 3..12, &Some("carol".into()));
        authors.deleted.note(1, 2..4, &Some("bob".into()));
        let before = [piece(1, 0, "0📝34567")];
        let after =
            [piece(1, 0, "0"), piece(2, 0, "xy"), piece(1, 3, "3456"), piece(1, 10, "ab"), piece(3, 0, "?")];
        let expected = "[alice 0][-? 📝][+bob xy][alice 3456][-? 7][+carol ab][+? ?]";
        assert_eq!(told(&compared(&before, &after, &authors)), expected);
        assert_eq!(told(&attributed(&after, &authors)), "[alice 0][bob xy][alice 3456][carol ab][? ?]");
        let gone = [piece(1, 0, "0"), piece(1, 4, "4567")];
        assert_eq!(
            told(&compared(&[piece(1, 0, "01234567")], &gone, &authors)),
            "[alice 0][-? 1][-bob 23][alice 4567]"
        );
    }
}
