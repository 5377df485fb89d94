//! Reads HTML into the structures that Tiptap makes of it. Whatever somebody sends becomes something: tags that are not
//! known leave their text as it is, and what is missing for a structure that an editor takes is added.
//!
//! HTML's own algorithm repeats open tags in each paragraph, so that its output can grow with the square of its input.
//! Here every tag is read once.

mod builder;
mod line;
mod tags;

use html5gum::{Token, Tokenizer, emitters::default::DefaultEmitter};

pub(super) use self::line::Spaces;
use self::{builder::Builder, tags::Attributes};
use super::content::{Content, Element};

/// The blocks of this HTML.
pub(super) fn blocks(html: &str, spaces: Spaces) -> Vec<Content> {
    let mut builder = Builder::new(spaces);
    let mut emitter = DefaultEmitter::default();
    // Without a tree nobody else knows in which elements a tag is no tag.
    emitter.naively_switch_states(true);
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        match token {
            Token::StartTag(tag) => {
                let attributes = tag.attributes.iter().map(|(key, value)| (lossy(key), lossy(value)));
                builder.start(&lossy(&tag.name), &Attributes(attributes.collect()));
            }
            Token::EndTag(tag) => builder.end(&lossy(&tag.name)),
            Token::String(text) => builder.text(&lossy(&text)),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    builder.finish()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A paragraph of this content.
pub(super) fn paragraph(children: Vec<Content>) -> Content {
    Content::Element(Element { name: "paragraph".into(), children, ..Element::default() })
}
