//! Cuts updates into parts, and makes one of several. It only moves bytes that were read before, so that nothing is
//! encoded anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{Block, CONTENT, ClientId, Clock, HAS_KEY, HAS_ORIGIN, HAS_RIGHT_ORIGIN, Section, Update};
use crate::lib0::{self, ReadError, Reader};

impl<'a> Update<'a> {
    /// The parts of this update that `keep` names, as an update of their own: for each section a run of its
    /// blocks, which need not be all of them. `None` where nothing would be in it.
    /// Blocks that are named as emptied lose their content, which `deletes` deletes.
    pub fn part(
        &self,
        keep: &[Range<usize>],
        deletes: &[(ClientId, Range<Clock>)],
        emptied: &BTreeSet<usize>,
    ) -> Option<Vec<u8>> {
        let kept = || self.sections.iter().zip(keep).filter(|(_, blocks)| !blocks.is_empty());
        let sections = kept().count();
        if sections == 0 && deletes.is_empty() {
            return None;
        }
        let mut part = Vec::new();
        lib0::write_uint(&mut part, sections as u64);
        for (section, blocks) in kept() {
            self.write_blocks(section, blocks, emptied, &mut part);
        }
        write_deletes(deletes, &mut part);
        Some(part)
    }

    /// Some blocks of one section, as an update of their own.
    pub fn part_of_section(
        &self,
        section: usize,
        blocks: &Range<usize>,
        emptied: &BTreeSet<usize>,
    ) -> Vec<u8> {
        let mut part = vec![1];
        self.write_blocks(&self.sections[section], blocks, emptied, &mut part);
        part.push(0);
        part
    }

    fn write_blocks(
        &self,
        section: &Section,
        blocks: &Range<usize>,
        emptied: &BTreeSet<usize>,
        to: &mut Vec<u8>,
    ) {
        lib0::write_uint(to, blocks.len() as u64);
        lib0::write_uint(to, section.client);
        lib0::write_uint(to, u64::from(self.blocks[blocks.start].clock));
        let mut written = blocks.start;
        for &block in emptied.range(blocks.clone()) {
            to.extend_from_slice(self.bytes_of(section, &(written..block)));
            self.write_emptied(section, block, to);
            written = block + 1;
        }
        to.extend_from_slice(self.bytes_of(section, &(written..blocks.end)));
    }

    /// A block as it is written when its content is deleted.
    fn write_emptied(&self, section: &Section, block: usize, to: &mut Vec<u8>) {
        let (info, place, _) = self.taken_apart(section, block);
        to.push(info & !CONTENT | 1);
        to.extend_from_slice(place);
        lib0::write_uint(to, u64::from(self.blocks[block].len));
    }

    /// The parts of a block that is no mere length: its first byte, where it stands, and its content.
    pub(super) fn taken_apart(&self, section: &Section, block: usize) -> (u8, &'a [u8], &'a [u8]) {
        let bytes = self.bytes_of(section, &(block..block + 1));
        let mut reader = Reader::new(bytes);
        let content = reader.byte().and_then(|info| {
            self.skip_place(&mut reader, info)?;
            Ok((info, reader.position()))
        });
        let (info, start) = content.expect("the block was read before");
        (info, &bytes[1..start], &bytes[start..])
    }

    fn skip_place(&self, reader: &mut Reader<'_>, info: u8) -> Result<(), ReadError> {
        let ids = u32::from(info & HAS_ORIGIN != 0) + u32::from(info & HAS_RIGHT_ORIGIN != 0);
        if ids > 0 {
            return (0..2 * ids).try_for_each(|_| reader.uint().map(drop));
        }
        match reader.uint()? {
            0 => (0..2).try_for_each(|_| reader.uint().map(drop))?,
            _ => drop(reader.text()?),
        }
        if info & HAS_KEY != 0 {
            reader.text()?;
        }
        Ok(())
    }

    /// The bytes of some blocks of one section.
    pub fn bytes_of(&self, section: &Section, blocks: &Range<usize>) -> &'a [u8] {
        if blocks.is_empty() {
            return &[];
        }
        let start = match blocks.start == section.blocks.start {
            true => section.start,
            false => self.blocks[blocks.start - 1].end as usize,
        };
        &self.bytes[start..self.blocks[blocks.end - 1].end as usize]
    }
}

/// Makes one update of several that were let in one after the other. It only moves blocks, so it can neither lose
/// nor reorder anything. `None` where blocks overlap or leave a hole: those must be told one by one.
pub fn merge(updates: &[Update<'_>]) -> Option<Vec<u8>> {
    /// Blocks of one section of an update.
    type Piece<'a> = (&'a Update<'a>, &'a Section, Range<usize>);
    let mut blocks: BTreeMap<ClientId, Vec<Piece<'_>>> = BTreeMap::new();
    let mut deletes: BTreeMap<ClientId, Vec<Range<Clock>>> = BTreeMap::new();
    for update in updates {
        for section in &update.sections {
            let before = blocks.entry(section.client).or_default();
            let next = before.last().map(|(update, _, blocks)| update.blocks[blocks.end - 1].end_clock());
            let known = |block: &Block| next.is_some_and(|next| block.end_clock() <= next);
            let first = section.blocks.start + update.blocks[section.blocks.clone()].partition_point(known);
            if first == section.blocks.end {
                continue;
            }
            if next.is_some_and(|next| update.blocks[first].clock != next) {
                return None;
            }
            before.push((update, section, first..section.blocks.end));
        }
        for (client, range) in &update.deletes {
            deletes.entry(*client).or_default().push(range.clone());
        }
    }
    let mut merged = Vec::new();
    lib0::write_uint(&mut merged, blocks.len() as u64);
    for (client, parts) in &blocks {
        lib0::write_uint(&mut merged, parts.iter().map(|(_, _, blocks)| blocks.len() as u64).sum());
        let (update, _, first) = &parts[0];
        lib0::write_uint(&mut merged, *client);
        lib0::write_uint(&mut merged, u64::from(update.blocks[first.start].clock));
        for (update, section, blocks) in parts {
            merged.extend_from_slice(update.bytes_of(section, blocks));
        }
    }
    let mut ranges: Vec<(ClientId, Range<Clock>)> = Vec::new();
    for (client, mut deleted) in deletes {
        deleted.sort_unstable_by_key(|range| range.start);
        for range in deleted {
            match ranges.last_mut() {
                Some((last, before)) if *last == client && range.start <= before.end => {
                    before.end = range.end.max(before.end);
                }
                _ => ranges.push((client, range)),
            }
        }
    }
    write_deletes(&ranges, &mut merged);
    Some(merged)
}

fn write_deletes(deletes: &[(ClientId, Range<Clock>)], to: &mut Vec<u8>) {
    let by_client = || deletes.chunk_by(|a, b| a.0 == b.0);
    lib0::write_uint(to, by_client().count() as u64);
    for ranges in by_client() {
        lib0::write_uint(to, ranges[0].0);
        lib0::write_uint(to, ranges.len() as u64);
        for (_, range) in ranges {
            lib0::write_uint(to, u64::from(range.start));
            lib0::write_uint(to, u64::from(range.end - range.start));
        }
    }
}
