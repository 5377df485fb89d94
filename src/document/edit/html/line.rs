//! A line of HTML: pieces of text with their marks, and nodes between them. Spaces are there only where they are meant.

use std::{collections::BTreeMap, sync::Arc};

use yrs::Any;

use super::super::content::{Content, Run, Runs};

/// What spaces and line breaks in text mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::document::edit) enum Spaces {
    /// Several are one, and none stands at the edge of a block, as in HTML.
    Collapse,
    /// They are meant; line breaks still are what separates words.
    Keep,
}

/// A piece of a line.
pub(super) enum Piece {
    Text(String, Format),
    Node(Content),
}

/// The marks of a text.
pub(super) type Format = BTreeMap<Arc<str>, Any>;

/// A text of these runs.
pub(super) fn text_node(runs: Vec<Run>) -> Content {
    Content::XmlText { attributes: BTreeMap::new(), runs }
}

/// The nodes of a line, with spaces only where they are meant.
pub(super) fn inline(line: Vec<Piece>, spaces: Spaces) -> Vec<Content> {
    let mut nodes = Vec::new();
    let mut runs = Runs::default();
    // A space that comes only if something comes behind it.
    let mut pending: Option<(String, Format)> = None;
    let is_break =
        |node: &Content| matches!(node, Content::Element(element) if &*element.name == "hardBreak");
    for piece in line {
        match piece {
            Piece::Node(node) => {
                let at_edge = runs.is_empty() && nodes.last().is_none_or(is_break);
                match pending.take() {
                    Some((space, format)) if !is_break(&node) && !at_edge => runs.push_text(&space, &format),
                    _ => {}
                }
                if !runs.is_empty() {
                    nodes.push(text_node(std::mem::take(&mut runs).finish()));
                }
                nodes.push(node);
            }
            Piece::Text(text, format) => {
                for word in words(&text) {
                    let at_edge = runs.is_empty() && nodes.last().is_none_or(is_break);
                    let is_space = word.starts_with(is_html_space);
                    let gives_way = spaces == Spaces::Collapse || word.contains('\n');
                    match (is_space && gives_way, pending.take()) {
                        (true, None) if !at_edge => pending = Some((" ".to_owned(), format.clone())),
                        (true, waits) => pending = waits,
                        (false, waits) => {
                            if let Some((space, format)) = waits {
                                runs.push_text(&space, &format);
                            }
                            runs.push_text(word, &format);
                        }
                    }
                }
            }
        }
    }
    if !runs.is_empty() {
        nodes.push(text_node(runs.finish()));
    }
    nodes
}

fn is_html_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

/// Text by turns as words and as what is between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_space = is_html_space(first);
        let end = rest.find(|c| is_html_space(c) != is_space).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}
