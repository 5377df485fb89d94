//! Subdocuments as the document engine gets them: as bytes. yrs uses memory after it was freed where a subdocument is
//! deleted, never frees a document that held one, and forgets some of a subdocument's options; bytes it leaves as they
//! are. In a document both are the same: one unit, which is never joined with another.
//!
//! What is in disguise begins with a mark, behind which stands what it is. Bytes of a client that begin with the mark
//! are disguised too, so that nothing can be sent that comes out as something else.

use std::borrow::Cow;

use super::{BINARY, CONTENT, Content, SUBDOCUMENT, Update};
use crate::lib0::{self, Reader};

/// With what everything in disguise begins, and hardly anything else.
const MARK: &[u8] = b"\0subdoc\0";

/// What bytes in the engine are to clients.
#[derive(Debug, PartialEq, Eq)]
pub enum Revealed<'a> {
    /// A subdocument with this guid.
    Subdocument(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// What bytes in the engine are to clients. Bytes within other values are never disguised: they may look so, but who
/// can write them can write anything else as well.
pub fn reveal(bytes: &[u8]) -> Revealed<'_> {
    let Some((&kind, content)) = bytes.strip_prefix(MARK).and_then(<[u8]>::split_first) else {
        return Revealed::Bytes(bytes);
    };
    let mut reader = Reader::new(content);
    let revealed = match kind {
        SUBDOCUMENT => reader.text().map(Revealed::Subdocument),
        _ => reader.bytes().map(Revealed::Bytes),
    };
    revealed.unwrap_or(Revealed::Bytes(bytes))
}

/// How bytes of a client count.
pub(super) fn content_of(bytes: &[u8]) -> Content {
    if bytes.starts_with(MARK) { Content::Marked } else { Content::Binary }
}

impl<'a> Update<'a> {
    /// This update as the engine gets it.
    pub fn disguised(&self) -> Cow<'a, [u8]> {
        self.rewritten(|kind, content| {
            let mut disguised = Vec::new();
            lib0::write_bytes(&mut disguised, &[MARK, &[kind], content].concat());
            (BINARY, disguised)
        })
    }

    /// This update as clients get it; it comes from the engine.
    pub fn undisguised(&self) -> Cow<'a, [u8]> {
        self.rewritten(|_, disguised| {
            let bytes = Reader::new(disguised).bytes().expect("the block was read before");
            let (kind, content) = bytes[MARK.len()..].split_first().expect("the mark is from a disguise");
            (*kind, content.to_vec())
        })
    }

    /// This update with another kind and content in every block that is disguised, or is to be.
    fn rewritten(&self, rewrite: impl Fn(u8, &[u8]) -> (u8, Vec<u8>)) -> Cow<'a, [u8]> {
        if !self.has_subdocuments {
            return self.bytes.into();
        }
        let mut rewritten = Vec::with_capacity(self.bytes.len());
        let mut copied = 0;
        for section in &self.sections {
            for index in section.blocks.clone() {
                if !self.blocks[index].content.is_disguised() {
                    continue;
                }
                let (info, place, content) = self.taken_apart(section, index);
                let end = self.blocks[index].end as usize;
                let start = end - content.len() - place.len() - 1;
                let (kind, content) = rewrite(info & CONTENT, content);
                rewritten.extend_from_slice(&self.bytes[copied..start]);
                rewritten.push(info & !CONTENT | kind);
                rewritten.extend_from_slice(place);
                rewritten.extend_from_slice(&content);
                copied = end;
            }
        }
        rewritten.extend_from_slice(&self.bytes[copied..]);
        rewritten.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values before, between and behind a subdocument and bytes, and a deletion.
    fn update(kind: u8, content: &[u8]) -> Vec<u8> {
        let block = [&[0x80 | kind, 1, 0][..], content].concat();
        [
            &[1, 4, 1, 0, 8, 1, 1, b'a', 1, 126][..],
            &block,
            &[0xc3, 1, 1, 1, 0, 1, 7],
            &block,
            &[1, 1, 1, 1, 1],
        ]
        .concat()
    }

    fn bytes(content: &[u8]) -> Vec<u8> {
        let mut written = Vec::new();
        lib0::write_bytes(&mut written, content);
        written
    }

    #[test]
    fn what_went_to_the_engine_comes_back_as_it_was() {
        let subdocument = update(SUBDOCUMENT, &[1, b'g', 118, 1, 4, b'm', b'e', b't', b'a', 125, 5]);
        let in_disguise = Update::read(&subdocument).unwrap().disguised().into_owned();
        // Nobody can send what comes out as a subdocument, nor what comes out as that.
        let forged = update(BINARY, &bytes(&[MARK, &[SUBDOCUMENT, 1, b'g', 118, 0]].concat()));
        let forged_twice = Update::read(&forged).unwrap().disguised().into_owned();
        let cut = update(BINARY, &bytes(MARK));
        for sent in [subdocument, in_disguise, forged, forged_twice, cut] {
            let read = Update::read(&sent).unwrap();
            let disguised = read.disguised();
            let given = Update::read(&disguised).unwrap();
            assert!(given.blocks.iter().all(|block| block.content != Content::Subdocument));
            assert_ne!(disguised, sent);
            assert_eq!(given.undisguised(), sent);
        }
    }

    #[test]
    fn an_update_without_subdocuments_is_left_as_it_is() {
        let sent = update(BINARY, &bytes(b"\0subdoc"));
        let read = Update::read(&sent).unwrap();
        assert!(matches!(read.disguised(), Cow::Borrowed(same) if same == sent));
        assert!(matches!(read.undisguised(), Cow::Borrowed(same) if same == sent));
    }

    #[test]
    fn bytes_are_revealed_as_what_was_sent() {
        assert_eq!(reveal(b"plain"), Revealed::Bytes(b"plain"));
        let marked = |kind, content: &[u8]| [MARK, &[kind], content].concat();
        assert_eq!(reveal(&marked(SUBDOCUMENT, &[1, b'g', 118, 0])), Revealed::Subdocument("g"));
        assert_eq!(reveal(&marked(BINARY, &bytes(MARK))), Revealed::Bytes(MARK));
        for looks_so in [marked(SUBDOCUMENT, &[9]), marked(BINARY, &[9]), MARK.to_vec()] {
            assert_eq!(reveal(&looks_so), Revealed::Bytes(&looks_so));
        }
    }
}
