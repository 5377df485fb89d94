//! Reads Markdown, CommonMark with GitHub's tables, tasks and strikethrough, into the structures that Tiptap makes of it.

use pulldown_cmark::{Options, Parser, html::push_html};

use super::{
    content::Content,
    html::{Spaces, blocks},
};

/// The blocks of this Markdown.
pub(super) fn read(markdown: &str) -> Vec<Content> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS | Options::ENABLE_STRIKETHROUGH;
    let mut html = String::with_capacity(markdown.len() * 3 / 2);
    // By way of HTML, since Markdown may hold any of it.
    push_html(&mut html, Parser::new_ext(markdown, options));
    blocks(&html, Spaces::Keep)
}
