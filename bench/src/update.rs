//! Yjs updates (version 1): makes those of somebody who types, and reads which clocks of which client one brings.
//!
//! Only what text needs is read, and it is read in full: an update that the benchmark could not have caused is an
//! error, not a success.

use crate::lib0::{Reader, write_bytes, write_uint};

/// Letters after which a writer puts the caret into the line before. Nobody types one endless run: engines that join
/// neighbours would copy all of it for each letter.
const LINE: u64 = 40;

/// The name of the text in each document.
const ROOT: &[u8] = b"text";

const STRING: u8 = 4;
const DELETED: u8 = 1;
const SKIP: u8 = 10;
const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_KEY: u8 = 0x20;

/// The update with which a client inserts ASCII letters, of which it has inserted `clock` already, always as many.
pub(crate) fn insertion(client: u64, clock: u64, letters: &str) -> Vec<u8> {
    let line = LINE.max(letters.len() as u64);
    let mut update = vec![1, 1];
    write_uint(&mut update, client);
    write_uint(&mut update, clock);
    if clock == 0 {
        update.extend([STRING, 1]);
        write_bytes(&mut update, ROOT);
    } else if clock.is_multiple_of(line) {
        update.push(STRING | HAS_ORIGIN | HAS_RIGHT_ORIGIN);
        write_id(&mut update, client, clock - line);
        write_id(&mut update, client, clock - line + 1);
    } else {
        update.push(STRING | HAS_ORIGIN);
        write_id(&mut update, client, clock - 1);
    }
    write_bytes(&mut update, letters.as_bytes());
    // Nothing is deleted.
    update.push(0);
    update
}

fn write_id(to: &mut Vec<u8>, client: u64, clock: u64) {
    write_uint(to, client);
    write_uint(to, clock);
}

/// The update that brings nothing.
pub(crate) const NOTHING: &[u8] = &[0, 0];

/// Calls with the client, first clock and length of everything that the update brings; `None` if it cannot be read.
pub(crate) fn ranges(update: &[u8], mut each: impl FnMut(u64, u64, u64)) -> Option<()> {
    let mut reader = Reader(update);
    for _ in 0..reader.uint()? {
        let structs = reader.uint()?;
        let client = reader.uint()?;
        let mut clock = reader.uint()?;
        for _ in 0..structs {
            let info = reader.byte()?;
            let length = match info & 0x1f {
                0 => reader.uint()?,
                SKIP => {
                    clock += reader.uint()?;
                    continue;
                }
                kind => read_item(&mut reader, info, kind)?,
            };
            each(client, clock, length);
            clock += length;
        }
    }
    for _ in 0..reader.uint()? {
        reader.uint()?;
        for _ in 0..reader.uint()? {
            reader.uint()?;
            reader.uint()?;
        }
    }
    reader.0.is_empty().then_some(())
}

/// Its length.
fn read_item(reader: &mut Reader<'_>, info: u8, kind: u8) -> Option<u64> {
    let id = |reader: &mut Reader<'_>| reader.uint().and_then(|_| reader.uint());
    if info & HAS_ORIGIN != 0 {
        id(reader)?;
    }
    if info & HAS_RIGHT_ORIGIN != 0 {
        id(reader)?;
    }
    if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
        match reader.uint()? {
            1 => drop(reader.bytes()?),
            _ => drop(id(reader)?),
        }
        if info & HAS_KEY != 0 {
            reader.bytes()?;
        }
    }
    match kind {
        DELETED => reader.uint(),
        STRING => {
            let letters = reader.bytes()?;
            match letters.is_ascii() {
                true => Some(letters.len() as u64),
                false => Some(str::from_utf8(letters).ok()?.encode_utf16().count() as u64),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use yrs::{Doc, GetString, ReadTxn, StateVector, Text, Transact, Update, updates::decoder::Decode};

    use super::{insertion, ranges};

    #[test]
    fn typed_letters_all_arrive_in_a_real_document() {
        let doc = Doc::new();
        let text = doc.get_or_insert_text("text");
        for clock in 0..200 {
            for client in [1, 2] {
                let update = Update::decode_v1(&insertion(client, clock, "x")).expect("a good update");
                doc.transact_mut().apply_update(update).expect("nothing is missing");
            }
        }
        assert_eq!(text.get_string(&doc.transact()).len(), 400);
    }

    #[test]
    fn what_a_document_holds_is_read_in_full() {
        let doc = Doc::with_client_id(7);
        let text = doc.get_or_insert_text("text");
        text.insert(&mut doc.transact_mut(), 0, "héllo 🌍 world");
        text.remove_range(&mut doc.transact_mut(), 2, 3);
        let update = doc.transact().encode_state_as_update_v1(&StateVector::default());
        let mut clocks = 0;
        ranges(&update, |client, clock, length| {
            assert_eq!((client, clock), (7, clocks));
            clocks += length;
        })
        .expect("a good update");
        assert_eq!(clocks, 14);
    }
}
