//! One update on its way past the guard: what of it stands on known ground, and whether that keeps the rules
//! without which yrs corrupts its memory or hangs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use super::{Admitted, Guard, Holder, Kind, Place, Ready, Rest, RootEvidence, Run};
use crate::update::{Block, ClientId, Clock, Content, Id, Malformed, Parent, Section, TypeKind, Update};

/// With more sections than these, yrs gets what is let in step by step: in one update it follows their references
/// with a stack that it searches again and again, and then calls itself once for each section.
const MANY_SECTIONS: usize = 64;
/// Blocks between the same neighbours in one update of many clients.
const MAX_NEIGHBOURS: u32 = 500;
/// How deep shared types may nest: yrs walks them recursively.
const MAX_TYPE_DEPTH: u32 = 100;

/// One update on its way in.
pub(super) struct Entry<'g, 'u> {
    guard: &'g mut Guard,
    update: &'u Update<'u>,
    sections: Vec<SectionEntry>,
    /// What was let in, one after the other: blocks of a section. Only kept where there are many sections.
    steps: Vec<(usize, Range<usize>)>,
    /// Blocks whose content must not reach yrs, and is deleted by the same update.
    emptied: BTreeSet<usize>,
    /// Where each client's ranges are among the update's deletions; made when they are first looked up.
    deletes_of: Option<HashMap<ClientId, Range<usize>>>,
    /// How many blocks stand between the same neighbours; only counted where there are many sections.
    neighbours: HashMap<(Place, Option<Id>, Option<Id>), u32>,
    /// The block that is looked at.
    current: usize,
    before: Before,
}

/// How far one section of the update has come.
struct SectionEntry {
    /// The first block that is not let in yet.
    cursor: usize,
    /// What that block waits for.
    needs: Option<Id>,
    /// The first block that was let in, and its first clock that was not known before.
    added: Option<(usize, Clock)>,
    /// The client's next clock and number of runs before the update came.
    before: (Clock, usize),
}

/// The guard as it was before an update came; what was learned since is behind these marks.
struct Before {
    holders: usize,
    keys: usize,
    /// Root types of which something was learned, with what was known of them.
    roots: Vec<(Arc<str>, Option<RootEvidence>)>,
}

impl<'g, 'u> Entry<'g, 'u> {
    pub(super) fn new(guard: &'g mut Guard, update: &'u Update<'u>) -> Self {
        let sections = update.sections.iter().map(|section| SectionEntry {
            cursor: section.blocks.start,
            needs: None,
            added: None,
            before: guard.clients.get(&section.client).map_or((0, 0), |known| (known.next, known.runs.len())),
        });
        let sections = sections.collect();
        let before = Before { holders: guard.holders.len(), keys: guard.keys.len(), roots: Vec::new() };
        let (steps, emptied, deletes_of) = (Vec::new(), BTreeSet::new(), None);
        let neighbours = HashMap::new();
        Self { guard, update, sections, steps, emptied, deletes_of, neighbours, current: 0, before }
    }

    /// Lets in what stands on known ground, in whatever order the sections need each other.
    pub(super) fn walk(&mut self) -> Result<(), Malformed> {
        if self.sections.len() == 1 {
            return self.advance(0);
        }
        let clients: HashSet<ClientId> = self.update.sections.iter().map(|section| section.client).collect();
        // By what they wait for, so that only those are woken that can go on.
        let mut waiting: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
        let mut queue: VecDeque<usize> = (0..self.sections.len()).collect();
        while let Some(index) = queue.pop_front() {
            let start = self.sections[index].cursor;
            self.advance(index)?;
            if let Some(id) = self.sections[index].needs.filter(|id| clients.contains(&id.client)) {
                waiting.entry(id).or_default().push(index);
            }
            if self.sections[index].cursor > start {
                if let Some((first, _)) = self.sections[index].added {
                    self.steps.push((index, first.max(start)..self.sections[index].cursor));
                }
                let client = self.update.sections[index].client;
                let known = Id { client, clock: 0 }..Id { client, clock: self.guard.next_clock(client) };
                for (_, woken) in waiting.extract_if(known, |_, _| true) {
                    queue.extend(woken);
                }
            }
        }
        Ok(())
    }

    /// Lets in a section's blocks until one of them needs what is not known.
    fn advance(&mut self, index: usize) -> Result<(), Malformed> {
        let section = &self.update.sections[index];
        let blocks = &self.update.blocks;
        self.sections[index].needs = None;
        while self.sections[index].cursor < section.blocks.end {
            self.current = self.sections[index].cursor;
            let block = &blocks[self.current];
            let next = self.guard.next_clock(section.client);
            if block.end_clock() > next {
                self.sections[index].needs = self.missing(section.client, block, next)?;
                if self.sections[index].needs.is_some() {
                    return Ok(());
                }
                let place = self.place(block)?;
                self.check(section.client, block, next, place)?;
                if next == 0 && !self.guard.clients.contains_key(&section.client) {
                    self.guard.crowds.join(section.client)?;
                }
                self.learn(section.client, block, next, place);
                let cursor = self.sections[index].cursor;
                self.sections[index].added.get_or_insert((cursor, next));
            }
            self.sections[index].cursor += 1;
        }
        Ok(())
    }

    /// What a block refers to and nobody knows yet.
    fn missing(&self, client: ClientId, block: &Block, next: Clock) -> Result<Option<Id>, Malformed> {
        if block.content == Content::Skip {
            return Ok(Some(Id { client, clock: block.end_clock() - 1 }));
        }
        if block.clock > next {
            return Ok(Some(Id { client, clock: block.clock - 1 }));
        }
        let parent = match self.update.place(block) {
            Some((Parent::Item(id), _)) => Some(id),
            _ => None,
        };
        for id in [block.origin(), block.right_origin(), parent].into_iter().flatten() {
            if id.client == client && id.clock >= block.clock {
                return Err(Malformed::Rule("a block refers to itself or to what its client made later"));
            }
            if !self.guard.knows(id) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Where a block belongs: where it says, or where its neighbours do.
    fn place(&mut self, block: &Block) -> Result<Option<Place>, Malformed> {
        if block.content == Content::Gc {
            return Ok(None);
        }
        let Some((parent, key)) = self.update.place(block) else {
            // yrs takes the parent of the left neighbour, or of the right one where the left was collected.
            let place_of =
                |id| self.guard.run_at(id).expect("what a block refers to was found to be known").place;
            let (left, right) = (block.origin().and_then(place_of), block.right_origin().and_then(place_of));
            return match (left, right) {
                (Some(left), Some(right)) if left != right => {
                    Err(Malformed::Rule("a block's neighbours belong to different parents or keys"))
                }
                _ => Ok(left.or(right)),
            };
        };
        let holder = match parent {
            Parent::Root(name) => Holder::Root(name.into()),
            Parent::Item(id) => {
                let run = self.guard.run_at(id).expect("what a block refers to was found to be known");
                let depth = match (run.kind, run.place) {
                    (Kind::Type(_), Some(place)) => self.depth(place) + 1,
                    (Kind::Type(_) | Kind::Gone, _) => return Ok(None),
                    _ => return Err(Malformed::Rule("a block's parent is no shared type")),
                };
                if depth > MAX_TYPE_DEPTH {
                    return Err(Malformed::Rule("shared types nest deeper than 100"));
                }
                Holder::Item { id, depth }
            }
        };
        let holder = self.guard.holders.index(holder);
        let key = key.map(|key| self.guard.keys.index(key.into()));
        Ok(Some(Place { holder, key }))
    }

    fn depth(&self, place: Place) -> u32 {
        match self.guard.holders.get(place.holder) {
            Holder::Root(_) => 0,
            Holder::Item { depth, .. } => *depth,
        }
    }

    /// The rules without which yrs corrupts its memory or hangs.
    fn check(
        &mut self,
        client: ClientId,
        block: &Block,
        next: Clock,
        place: Option<Place>,
    ) -> Result<(), Malformed> {
        let kind = kind_of(block.content);
        if block.clock < next {
            let known =
                self.guard.run_at(Id { client, clock: next - 1 }).expect("everything before next is known");
            // What was collected elsewhere may be known here as it was before; yrs does not look at its place.
            if block.content == Content::Gc {
                return Ok(());
            }
            let gone = known.kind == Kind::Gone || kind == Kind::Gone;
            if known.place != place || !(gone || known.kind == kind) {
                return Err(Malformed::Rule("a block continues known content of another place or kind"));
            }
        }
        let Some(place) = place else { return Ok(()) };
        self.count_neighbours(block, place)?;
        if place.key.is_some() {
            if block.right_origin().is_some() {
                return Err(Malformed::Rule("a block under a key has a right neighbour"));
            }
            if block.len > 1 && block.content != Content::Deleted {
                // Yjs joins values that were overwritten, where an UndoManager keeps them.
                if block.content != Content::Any || !self.deletes_all_of(client, block) {
                    return Err(Malformed::Rule("a block under a key has more than one value"));
                }
                self.emptied.insert(self.current);
            }
            if kind == Kind::Text {
                return Err(Malformed::Rule("text, a format or an embedded value stands under a key"));
            }
        }
        match self.guard.holders.get(place.holder) {
            Holder::Item { id, .. } if kind == Kind::Text => match self.guard.run_at(*id).map(|run| run.kind)
            {
                Some(Kind::Type(TypeKind::Text | TypeKind::XmlText)) => Ok(()),
                _ => Err(Malformed::Rule("text, a format or an embedded value stands outside of a text")),
            },
            Holder::Item { .. } => Ok(()),
            Holder::Root(name) => {
                let name = name.clone();
                self.note_root(name, place, kind);
                Ok(())
            }
        }
    }

    /// Many clients at one place cost yrs time that grows with their square: people come there one by one.
    fn count_neighbours(&mut self, block: &Block, place: Place) -> Result<(), Malformed> {
        if self.sections.len() <= MANY_SECTIONS {
            return Ok(());
        }
        let here = self.neighbours.entry((place, block.origin(), block.right_origin())).or_default();
        *here += 1;
        match *here <= MAX_NEIGHBOURS {
            true => Ok(()),
            false => Err(Malformed::Rule("more than 500 edits at one place in one update: send it in parts")),
        }
    }

    /// Whether the update itself deletes everything in a block of its own.
    fn deletes_all_of(&mut self, client: ClientId, block: &Block) -> bool {
        let deletes = &self.update.deletes;
        let of_clients = self.deletes_of.get_or_insert_with(|| {
            let mut at = 0;
            let groups = deletes.chunk_by(|a, b| a.0 == b.0).map(|ranges| {
                at += ranges.len();
                (ranges[0].0, at - ranges.len()..at)
            });
            groups.collect()
        });
        let Some(ranges) = of_clients.get(&client) else { return false };
        let ranges = &deletes[ranges.clone()];
        let first = ranges.partition_point(|(_, range)| range.end <= block.clock);
        let mut left = block.clock;
        for (_, range) in &ranges[first..] {
            if range.start > left || left >= block.end_clock() {
                break;
            }
            left = range.end;
        }
        left >= block.end_clock()
    }

    /// Learns the kind of a root from what it holds.
    fn note_root(&mut self, name: Arc<str>, place: Place, kind: Kind) {
        let roots = &mut self.guard.roots;
        let known = roots.get(&name).copied();
        let mut evidence = known.unwrap_or_default();
        match kind {
            _ if place.key.is_some() => evidence.map = true,
            Kind::Gone => {}
            Kind::Text => evidence.text = true,
            Kind::Type(TypeKind::XmlElement | TypeKind::XmlText) => evidence.xml = true,
            Kind::Value | Kind::Type(_) => evidence.array = true,
        }
        if known != Some(evidence) {
            self.before.roots.push((name.clone(), known));
            roots.insert(name, evidence);
        }
    }

    fn learn(&mut self, client: ClientId, block: &Block, next: Clock, place: Option<Place>) {
        let known = self.guard.clients.entry(client).or_default();
        let kind = if place.is_some() { kind_of(block.content) } else { Kind::Gone };
        if known.runs.last().is_none_or(|last| last.place != place || last.kind != kind) {
            known.runs.push(Run { start: next, place, kind });
        }
        known.next = block.end_clock();
    }

    pub(super) fn finish(self) -> Admitted {
        let Self { update, guard, sections, .. } = &self;
        let adds = update.sections.iter().zip(sections);
        let adds: Vec<_> =
            adds.filter_map(|(section, entry)| Some((section.client, entry.added?.1))).collect();
        // What was known before was not looked at, so it goes no further either.
        let whole = |(section, entry): (&Section, &SectionEntry)| {
            let begins = entry.added.is_some_and(|(first, clock)| {
                first == section.blocks.start && update.blocks[first].clock == clock
            });
            begins && entry.cursor == section.blocks.end
        };
        let all_in = update.sections.iter().zip(sections).all(whole)
            && self.emptied.is_empty()
            && update.deletes.iter().all(|(client, range)| range.end <= guard.next_clock(*client))
            && update.blocks.iter().all(|block| block.content != Content::Skip);
        if !all_in {
            return self.finish_in_parts(adds);
        }
        let ready = match adds.is_empty() && update.deletes.is_empty() {
            true => Ready::Nothing,
            false if sections.len() > MANY_SECTIONS => Ready::Whole(self.in_steps(&update.deletes)),
            false => Ready::Whole(Vec::new()),
        };
        Admitted { ready, rest: None, adds, straddles: false }
    }

    /// Cuts the update into what was let in and what was not.
    fn finish_in_parts(self, adds: Vec<(ClientId, Clock)>) -> Admitted {
        let Self { update, guard, sections, .. } = &self;
        let mut ready_deletes = Vec::new();
        let mut rest_deletes = Vec::new();
        let mut needs: Vec<Id> = sections.iter().filter_map(|section| section.needs).collect();
        for (client, range) in &update.deletes {
            let next = guard.next_clock(*client);
            if range.start < next {
                ready_deletes.push((*client, range.start..range.end.min(next)));
            }
            if range.end > next {
                let missing = range.start.max(next);
                needs.push(Id { client: *client, clock: missing });
                rest_deletes.push((*client, missing..range.end));
            }
        }
        let added = sections.iter().map(|entry| entry.added.map_or(0..0, |(first, _)| first..entry.cursor));
        let ready = match update.part(&added.collect::<Vec<_>>(), &ready_deletes, &self.emptied) {
            None => Ready::Nothing,
            Some(part) if sections.len() > MANY_SECTIONS => Ready::Part(part, self.in_steps(&ready_deletes)),
            Some(part) => Ready::Part(part, Vec::new()),
        };
        let left: Vec<_> = self.left().collect();
        let rest = update.part(&left, &rest_deletes, &BTreeSet::new());
        let straddles = sections.iter().filter_map(|entry| entry.added);
        let straddles = straddles.into_iter().any(|(first, clock)| update.blocks[first].clock < clock);
        Admitted { ready, rest: rest.map(|update| Rest { update, needs }), adds, straddles }
    }

    /// The blocks of each section that were not let in.
    fn left(&self) -> impl Iterator<Item = Range<usize>> {
        self.update.sections.iter().zip(&self.sections).map(|(section, entry)| {
            let left = entry.cursor..section.blocks.end;
            // A hole at its beginning says nothing.
            let hole = !left.is_empty() && self.update.blocks[left.start].content == Content::Skip;
            left.start + usize::from(hole)..left.end
        })
    }

    /// Whether a part of the update was not let in, because it needs what is not known.
    pub(super) fn leaves_something(&self) -> bool {
        let mut deletes = self.update.deletes.iter();
        self.left().any(|left| !left.is_empty())
            || deletes.any(|(client, range)| range.end > self.guard.next_clock(*client))
    }

    /// What was let in as updates each of which stands on what was before it.
    fn in_steps(&self, deletes: &[(ClientId, Range<Clock>)]) -> Vec<Vec<u8>> {
        let blocks = self
            .steps
            .iter()
            .map(|(section, blocks)| self.update.part_of_section(*section, blocks, &self.emptied));
        blocks.chain(self.update.part(&[], deletes, &self.emptied)).collect()
    }

    /// Forgets what this update taught.
    pub(super) fn undo(self) {
        for (section, entry) in self.update.sections.iter().zip(&self.sections) {
            let (next, runs) = entry.before;
            if runs == 0 {
                if self.guard.clients.remove(&section.client).is_some() {
                    self.guard.crowds.leave(section.client);
                }
            } else if let Some(known) = self.guard.clients.get_mut(&section.client) {
                known.next = next;
                known.runs.truncate(runs);
            }
        }
        self.guard.holders.truncate(self.before.holders);
        self.guard.keys.truncate(self.before.keys);
        for (name, evidence) in self.before.roots.into_iter().rev() {
            match evidence {
                Some(evidence) => self.guard.roots.insert(name, evidence),
                None => self.guard.roots.remove(&name),
            };
        }
    }
}

fn kind_of(content: Content) -> Kind {
    match content {
        Content::Gc | Content::Skip | Content::Deleted => Kind::Gone,
        Content::String | Content::Embed | Content::Format => Kind::Text,
        Content::Any | Content::Binary | Content::Marked | Content::Subdocument => Kind::Value,
        Content::Type(kind) => Kind::Type(kind),
    }
}
