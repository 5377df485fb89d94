//! How large a document is: the bytes of the update that holds all of it, which are counted on the way and right
//! again whenever all of it is encoded, and the blocks that the engine keeps.

use std::cell::Cell;

use crate::{
    guard::Guard,
    update::{Content, Id, Update},
};

/// What a keystroke's update has beside the letter: sender, clock and neighbours. In the whole document the letter
/// stands among those before it, and needs none of that.
const HEADER_BYTES: usize = 20;

/// A document's size, and the largest that it may have.
#[derive(Debug)]
pub(super) struct Size {
    /// About how many bytes; too many rather than too few.
    bytes: Cell<usize>,
    /// About how many blocks.
    blocks: usize,
    max: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { bytes: Cell::new(0), blocks: 0, max: usize::MAX }
    }
}

impl Size {
    pub(super) fn limit(&mut self, max: usize) {
        self.max = max;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Notes how many bytes there were when all of the document was encoded.
    pub(super) fn correct(&self, bytes: usize) {
        self.bytes.set(bytes);
    }

    /// Notes that so much was taken in.
    pub(super) fn grow(&mut self, (bytes, blocks): (usize, usize)) {
        *self.bytes.get_mut() += bytes;
        self.blocks += blocks;
    }

    /// Whether there is space for what an update adds. What only deletes always has space.
    pub(super) fn has_space_for(&self, update: &Update<'_>, known: &Guard) -> bool {
        let bytes = self.bytes.get();
        // Nearly always there is space for all of it, known or not.
        bytes.saturating_add(update.bytes().len()) <= self.max || {
            let added = added(update, known);
            added == 0 || bytes.saturating_add(added) <= self.max
        }
    }
}

/// How many bytes of an update's blocks are not known.
pub(super) fn added(update: &Update<'_>, known: &Guard) -> usize {
    let of_sections = update.sections.iter().map(|section| {
        let next = known.next_clock(section.client);
        let blocks = &update.blocks[section.blocks.clone()];
        let first = section.blocks.start + blocks.partition_point(|block| block.end_clock() <= next);
        update.bytes_of(section, &(first..section.blocks.end)).len()
    });
    of_sections.sum()
}

/// What an update adds, about, to a document that takes in all of it: bytes and blocks.
pub(super) fn growth(update: &Update<'_>) -> (usize, usize) {
    let bytes = update.bytes().len();
    match (&update.sections[..], &update.blocks[..]) {
        ([section], [block])
            if block.content == Content::String
                && block.clock > 0
                && block.origin() == Some(Id { client: section.client, clock: block.clock - 1 }) =>
        {
            (bytes.saturating_sub(HEADER_BYTES).max(block.len as usize), 0)
        }
        // A deletion cuts blocks; that of one who takes back a letter mostly joins what was deleted before.
        (_, blocks) => (bytes, blocks.len() + update.deletes.len().saturating_sub(1)),
    }
}

#[cfg(test)]
mod tests {
    use crate::document::{Document, Received, UpdateError};

    /// The update with which a client inserts a letter at the end of what it has typed so far.
    fn letter(client: u8, clock: u8) -> Vec<u8> {
        match clock {
            0 => vec![1, 1, client, 0, 4, 1, 1, b't', 1, b'x', 0],
            _ => vec![1, 1, client, clock, 0x84, client, clock - 1, 1, b'x', 0],
        }
    }

    #[test]
    fn a_document_takes_what_has_space_and_not_a_byte_more() {
        let mut document = Document::default();
        document.receive(letter(1, 0).into()).unwrap();
        let size = document.measure().unwrap();
        // A block of five bytes, and it may be sent twice.
        document.limit_bytes(size + 4);
        assert_eq!(document.receive(letter(1, 1).into()), Err(UpdateError::Full));
        document.limit_bytes(size + 5);
        for is_news in [true, false] {
            let received = document.receive(letter(1, 1).into()).unwrap();
            assert_eq!(received.news.is_some(), is_news);
        }
        document.limit_bytes(1);
        assert_eq!(document.receive(letter(1, 1).into()), Ok(Received::default()));
        assert!(document.receive(vec![0, 1, 1, 1, 0, 1].into()).unwrap().news.is_some(), "a deletion");
        assert!(document.receive_kept(letter(2, 0).into()).unwrap().news.is_some(), "another node's");
    }

    #[test]
    fn a_typed_text_is_hardly_smaller_than_it_seems_and_never_larger() {
        let mut document = Document::default();
        for client in 1..=10 {
            for clock in 0..100 {
                document.receive(letter(client, clock).into()).unwrap();
            }
        }
        let (seems, blocks) = (document.bytes(), document.blocks());
        let size = document.measure().unwrap();
        assert!((size..2 * size).contains(&seems), "{seems} for {size}");
        assert_eq!((blocks, document.bytes()), (10, size));
    }
}
