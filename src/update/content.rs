//! Reads what a block holds: how long it is, and nothing in it that could not be read later.

use serde::de::IgnoredAny;

use super::{BINARY, Content, Malformed, SUBDOCUMENT, TypeKind, disguise, read_len};
use crate::{lib0::Reader, name::DocumentName};

/// How deep arrays and objects may nest in one value: yrs reads them recursively.
const MAX_VALUE_DEPTH: u32 = 64;

/// The content of a block and the number of clocks that it spans.
pub(super) fn read(reader: &mut Reader<'_>, kind: u8) -> Result<(Content, u32), Malformed> {
    Ok(match kind {
        1 => (Content::Deleted, read_len(reader)?),
        2 => {
            return Err(Malformed::Rule(
                "the content kind JSON of very old Yjs versions is not supported: open and save the document \
                 with Yjs 13 first",
            ));
        }
        BINARY => (disguise::content_of(reader.bytes()?), 1),
        4 => (Content::String, utf16_len(reader.text()?)),
        5 => {
            check_json(reader.text()?)?;
            (Content::Embed, 1)
        }
        6 => {
            reader.text()?;
            check_json(reader.text()?)?;
            (Content::Format, 1)
        }
        7 => (Content::Type(read_type(reader)?), 1),
        8 => {
            let count = reader.count()?;
            for _ in 0..count {
                read_any(reader, 0)?;
            }
            (Content::Any, count as u32)
        }
        SUBDOCUMENT => {
            read_subdocument(reader)?;
            (Content::Subdocument, 1)
        }
        _ => return Err(Malformed::Rule("a block has a content kind that Yjs 13 does not know")),
    })
}

fn utf16_len(text: &str) -> u32 {
    // Each byte that begins a character is one unit, and one of four bytes is two.
    text.bytes().map(|byte| u32::from(byte & 0xc0 != 0x80) + u32::from(byte >= 0xf0)).sum()
}

fn check_json(text: &str) -> Result<(), Malformed> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(Malformed::Rule("a format or an embedded value is not JSON, or nests deeper than 127")),
    }
}

fn read_type(reader: &mut Reader<'_>) -> Result<TypeKind, Malformed> {
    Ok(match reader.uint()? {
        0 => TypeKind::Array,
        1 => TypeKind::Map,
        2 => TypeKind::Text,
        3 => {
            reader.text()?;
            TypeKind::XmlElement
        }
        4 => TypeKind::XmlFragment,
        5 => return Err(Malformed::Rule("Y.XmlHook is not supported: use Y.XmlElement")),
        6 => TypeKind::XmlText,
        _ => return Err(Malformed::Rule("a shared type is of a kind that Yjs 13 does not know")),
    })
}

/// Reads a subdocument's guid and options. Yjs makes a `Y.Doc` of them in every client, which must not fail there.
fn read_subdocument(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    if DocumentName::new(reader.text()?).is_err() {
        return Err(Malformed::Rule(
            "a subdocument's guid is no document's name: 1 to 1,000 bytes without control characters",
        ));
    }
    if reader.byte()? != OBJECT {
        return Err(Malformed::Rule("a subdocument's options are no object"));
    }
    for _ in 0..reader.count()? {
        // The one would take the guid's place, the other is called as a function.
        if matches!(reader.text()?, "guid" | "gcFilter") {
            return Err(Malformed::Rule("guid and gcFilter are no options of a subdocument"));
        }
        read_any(reader, 1)?;
    }
    Ok(())
}

/// How lib0 marks an object.
const OBJECT: u8 = 118;

/// Reads one value of lib0's `any` encoding.
fn read_any(reader: &mut Reader<'_>, depth: u32) -> Result<(), Malformed> {
    if depth > MAX_VALUE_DEPTH {
        return Err(Malformed::Rule("a value nests deeper than 64"));
    }
    match reader.byte()? {
        // undefined, null, false, true
        127 | 126 | 121 | 120 => {}
        125 => reader.skip_int()?,
        124 => drop(reader.take(4)?),
        123 | 122 => drop(reader.take(8)?),
        119 => drop(reader.text()?),
        OBJECT => {
            for _ in 0..reader.count()? {
                reader.text()?;
                read_any(reader, depth + 1)?;
            }
        }
        117 => {
            for _ in 0..reader.count()? {
                read_any(reader, depth + 1)?;
            }
        }
        116 => drop(reader.bytes()?),
        _ => return Err(Malformed::Rule("a value is of a kind that lib0 does not know")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subdocument(guid: &str, options: &[u8]) -> Result<(Content, u32), Malformed> {
        let mut bytes = Vec::new();
        crate::lib0::write_bytes(&mut bytes, guid.as_bytes());
        bytes.extend_from_slice(options);
        read(&mut Reader::new(&bytes), SUBDOCUMENT)
    }

    /// `{"meta": …}` with so many arrays in each other.
    fn nested(depth: usize) -> Vec<u8> {
        [&[OBJECT, 1, 4, b'm', b'e', b't', b'a'][..], &[117, 1].repeat(depth), &[126]].concat()
    }

    #[test]
    fn a_subdocument_is_one_unit() {
        let longest = "g".repeat(1_000);
        for guid in ["g", "team/plan", "ü 📝", &longest] {
            for options in [&[OBJECT, 0][..], &[OBJECT, 2, 2, b'g', b'c', 121, 0, 127], &nested(63)] {
                assert_eq!(subdocument(guid, options), Ok((Content::Subdocument, 1)), "{guid}: {options:?}");
            }
        }
    }

    #[test]
    fn a_subdocument_that_clients_fail_at_is_refused() {
        let too_long = "g".repeat(1_001);
        for guid in ["", "a\nb", &too_long] {
            let refused = subdocument(guid, &[OBJECT, 0]).unwrap_err().to_string();
            assert!(refused.starts_with("a subdocument's guid is no document's name"), "{refused}");
        }
        let cases: [(&[u8], &str); 6] = [
            (&[126], "a subdocument's options are no object"),
            (&[117, 0], "a subdocument's options are no object"),
            (b"\x76\x01\x04guid\x77\x01x", "guid and gcFilter are no options of a subdocument"),
            (b"\x76\x01\x08gcFilter\x78", "guid and gcFilter are no options of a subdocument"),
            (&nested(64), "a value nests deeper than 64"),
            (&[OBJECT, 0xff, 0xff, 3], "the bytes end in the middle of a value"),
        ];
        for (options, rule) in cases {
            assert_eq!(subdocument("g", options).unwrap_err().to_string(), rule, "{options:?}");
        }
    }
}
