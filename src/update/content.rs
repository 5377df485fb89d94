//! Reads what a block holds: how long it is, and nothing in it that could not be read later.

use serde::de::IgnoredAny;

use super::{Content, Malformed, TypeKind, read_len};
use crate::lib0::Reader;

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
        3 => {
            reader.bytes()?;
            (Content::Binary, 1)
        }
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
        9 => return Err(Malformed::Rule("subdocuments are not supported yet: use documents of their own")),
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
        118 => {
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
