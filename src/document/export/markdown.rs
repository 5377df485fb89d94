//! Markdown: CommonMark with GitHub's tables, tasks and strikethrough. Text that would be read as markup is escaped, so
//! that a parser finds what people wrote. Where Markdown has no word for something, or where its asterisks would not be
//! understood between these neighbours, the HTML that it allows within text stands instead (`<u>`, `<strong>`). Empty
//! paragraphs are left out.

use super::{
    html::is_image,
    tree::{Element, Mark, Node, is_harmless},
};

/// The most columns that a cell takes in a table.
const MAX_COLUMNS: i64 = 100;
/// CommonMark reads no longer number before a list's item.
const MAX_NUMBER: i64 = 999_999_999;

/// The Markdown of these blocks.
pub(super) fn markdown(nodes: &[Node]) -> String {
    let mut markdown = blocks(nodes).join("\n\n");
    if !markdown.is_empty() {
        markdown.push('\n');
    }
    markdown
}

/// What a block is to the one behind it, which must not become a part of it.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Bullets(bool),
    Numbers(bool),
    Quote,
    Other,
}

fn blocks(nodes: &[Node]) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut before = Before::Other;
    let mut rest = nodes;
    while let Some(first) = rest.first() {
        let inline = rest.iter().take_while(|node| is_inline(node)).count();
        let (block, now) = match first {
            Node::Element(element) if inline == 0 => {
                rest = &rest[1..];
                block(element, before)
            }
            _ => {
                let (text, after) = rest.split_at(inline);
                rest = after;
                (lines(text, "\\\n"), Before::Other)
            }
        };
        if block.is_empty() {
            continue;
        }
        if now == Before::Quote && before == Before::Quote {
            blocks.push("<!-- -->".to_owned());
        }
        before = now;
        blocks.push(block);
    }
    blocks
}

fn is_inline(node: &Node) -> bool {
    match node {
        Node::Run(_) => true,
        Node::Element(element) => matches!(element.kind(), "hardBreak" | "mention"),
    }
}

fn block(element: &Element, before: Before) -> (String, Before) {
    let children = &element.children[..];
    let block = match element.kind() {
        "heading" => {
            let signs = "#".repeat(element.level() as usize);
            format!("{signs} {}", lines(children, "<br>")).trim_end().to_owned()
        }
        "paragraph" => lines(children, "\\\n"),
        "blockquote" => return (prefixed(&blocks(children).join("\n\n"), "> ", "> "), Before::Quote),
        "bulletList" | "taskList" => {
            let other = before == Before::Bullets(false);
            let sign = if other { "*" } else { "-" };
            return (list(children, |_| format!("{sign} ")), Before::Bullets(other));
        }
        "orderedList" => {
            let other = before == Before::Numbers(false);
            let sign = if other { ")" } else { "." };
            let start = element.start().clamp(0, MAX_NUMBER);
            let number = |index: usize| start.saturating_add(index as i64).min(MAX_NUMBER);
            return (list(children, |index| format!("{}{sign} ", number(index))), Before::Numbers(other));
        }
        "codeBlock" => code_block(element),
        // Unlike the others it cannot be taken for an item of a list.
        "horizontalRule" => "___".to_owned(),
        "image" => image(element),
        "table" => table(children),
        _ if element.is_inline() => lines(children, "\\\n"),
        _ => blocks(children).join("\n\n"),
    };
    (block, Before::Other)
}

fn list(items: &[Node], sign: impl Fn(usize) -> String) -> String {
    let mut is_loose = false;
    let mut written = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Node::Element(item) = item else { continue };
        let mut sign = sign(index);
        let indent = " ".repeat(sign.len());
        let content = blocks(&item.children);
        let paragraph = matches!(item.children.first(), Some(Node::Element(first)) if first.kind() == "paragraph" && !first.children.is_empty());
        if item.kind() == "taskItem" && paragraph {
            sign.push_str(if item.is_checked() { "[x] " } else { "[ ] " });
        }
        is_loose |= content.len() > 1;
        written.push(prefixed(&content.join("\n\n"), &sign, &indent));
    }
    written.join(if is_loose { "\n\n" } else { "\n" })
}

/// Lines with a prefix before the first and one before the others; nothing stands at the end of an empty line.
fn prefixed(text: &str, first: &str, others: &str) -> String {
    let lines = text.split('\n').enumerate().map(|(index, line)| {
        let prefix = if index == 0 { first } else { others };
        if line.is_empty() { prefix.trim_end().to_owned() } else { format!("{prefix}{line}") }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn code_block(element: &Element) -> String {
    let code = element.plain().replace('\r', " ").replace('\0', "\u{fffd}");
    let fence = "`".repeat(longest_ticks(&code).max(2) + 1);
    let fits = |c: &char| c.is_alphanumeric() || "+-_.#".contains(*c);
    let language: String = element.language().unwrap_or_default().chars().filter(fits).collect();
    format!("{fence}{language}\n{code}\n{fence}")
}

fn longest_ticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

fn image(element: &Element) -> String {
    let Some(source) = element.text("src").filter(|source| is_image(source)) else { return String::new() };
    let alt = element.text("alt").map(|text| escaped(text, false)).unwrap_or_default();
    format!("![{alt}]({})", target(source, element.text("title")))
}

/// Where a link or a picture leads, and its title.
fn target(address: &str, title: Option<&str>) -> String {
    let escape = |text: &str, signs: &str| -> String {
        text.chars().fold(String::new(), |mut all, c| {
            if signs.contains(c) {
                all.push('\\');
            }
            all.push(if c.is_control() { ' ' } else { c });
            all
        })
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#@!$'*+,;=%".contains(c);
    let mut target = match !address.is_empty() && address.chars().all(is_plain) {
        true => address.to_owned(),
        false => format!("<{}>", escape(address, "\\<>&|")),
    };
    if let Some(title) = title.filter(|title| !title.trim().is_empty()) {
        target.push_str(&format!(" \"{}\"", escape(title, "\\\"&|<")));
    }
    target
}

fn table(rows: &[Node]) -> String {
    let mut signs = Vec::new();
    let mut written: Vec<Vec<String>> = Vec::new();
    for row in rows {
        let Node::Element(row) = row else { continue };
        let mut cells = Vec::new();
        for cell in &row.children {
            let Node::Element(cell) = cell else { continue };
            cells.push(cell_text(cell));
            if written.is_empty() {
                signs.push(match cell.text("align") {
                    Some("left") => ":---",
                    Some("center") => ":---:",
                    Some("right") => "---:",
                    _ => "---",
                });
            }
            for _ in 1..cell.number("colspan").unwrap_or(1).min(MAX_COLUMNS) {
                cells.push(String::new());
                if written.is_empty() {
                    signs.push("---");
                }
            }
        }
        written.push(cells);
    }
    let Some(columns) = written.first().map(Vec::len).filter(|columns| *columns > 0) else {
        return String::new();
    };
    // A row with more cells than the first loses them, so that they go into the last.
    let line = |cells: &[String]| {
        let (kept, rest) = cells.split_at(cells.len().min(columns));
        let mut line = format!("| {}", kept.join(" | "));
        rest.iter().for_each(|cell| line.push_str(&format!("<br>{cell}")));
        line.push_str(&" |".repeat(columns + 1 - kept.len()));
        line
    };
    let mut lines: Vec<String> = written.iter().map(|cells| line(cells)).collect();
    lines.insert(1, format!("| {} |", signs.join(" | ")));
    lines.join("\n")
}

/// A cell holds one line.
fn cell_text(cell: &Element) -> String {
    if cell.is_inline() {
        return lines(&cell.children, "<br>");
    }
    let parts = cell.children.iter().map(|child| match child {
        Node::Element(block) if block.is_inline() && block.kind() != "codeBlock" => {
            lines(&block.children, "<br>")
        }
        Node::Element(block) if block.kind() == "image" => image(block),
        Node::Element(block) => escaped(&block.plain(), true),
        Node::Run(run) => escaped(run.text(), true),
    });
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("<br>")
}

/// A piece of a line.
enum Piece<'a> {
    /// Escaped text, with its first and last character before it was.
    Text(String, Option<char>, Option<char>),
    /// What needs no care: a link's bracket, code, a picture.
    Other(String),
    Break,
    Open(&'a Mark, usize),
    Close(&'a Mark, usize),
}

/// The lines of a block; between them stands the break.
fn lines(nodes: &[Node], line_break: &str) -> String {
    let pieces = pieces(nodes);
    let is_safe = safe_pairs(&pieces);
    let mut text = String::new();
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Text(escaped, ..) => match text.is_empty() || text.ends_with('\n') {
                true => text.push_str(&at_line_start(escaped)),
                false => text.push_str(escaped),
            },
            Piece::Other(other) => {
                // With this sign before it a link would be a picture.
                if other.starts_with('[') && text.ends_with('!') {
                    text.insert(text.len() - 1, '\\');
                }
                text.push_str(other);
            }
            Piece::Break => {
                keep_spaces_at_end(&mut text);
                text.push_str(if index + 1 == pieces.len() { "<br>" } else { line_break });
            }
            Piece::Open(mark, pair) => text.push_str(&sign(mark, is_safe[*pair], true)),
            Piece::Close(mark, pair) => text.push_str(&sign(mark, is_safe[*pair], false)),
        }
    }
    keep_spaces_at_end(&mut text);
    text
}

fn pieces(nodes: &[Node]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut open: Vec<(&Mark, usize)> = Vec::new();
    let mut pairs = 0;
    for node in nodes {
        let marks: Vec<&Mark> = match node {
            Node::Run(run) => run.marks.iter().filter(|mark| is_known(mark)).collect(),
            Node::Element(_) => Vec::new(),
        };
        let kept = open.iter().zip(&marks).take_while(|((open, _), mark)| open == *mark).count();
        pieces.extend(open.drain(kept..).rev().map(|(mark, pair)| close(mark, pair)));
        for mark in &marks[kept..] {
            pieces.push(match mark.kind() {
                "link" => Piece::Other("[".to_owned()),
                _ => Piece::Open(mark, pairs),
            });
            open.push((mark, pairs));
            pairs += 1;
        }
        match node {
            Node::Run(run) if run.marks.iter().any(|mark| mark.kind() == "code") => {
                pieces.push(Piece::Other(code(run.text())));
            }
            Node::Run(run) => pieces.push(text(run.text())),
            Node::Element(element) => match element.kind() {
                "hardBreak" => pieces.push(Piece::Break),
                "image" => pieces.push(Piece::Other(image(element))),
                "mention" => {
                    let sign = element.text("mentionSuggestionChar").unwrap_or("@");
                    let named = element.text("label").or(element.text("id")).unwrap_or_default();
                    pieces.push(text(&format!("{sign}{named}")));
                }
                _ => pieces.push(text(&element.plain())),
            },
        }
    }
    pieces.extend(open.into_iter().rev().map(|(mark, pair)| close(mark, pair)));
    pieces
}

fn close(mark: &Mark, pair: usize) -> Piece<'_> {
    match mark.kind() {
        "link" => {
            Piece::Other(format!("]({})", target(mark.text("href").unwrap_or_default(), mark.text("title"))))
        }
        _ => Piece::Close(mark, pair),
    }
}

fn text(text: &str) -> Piece<'static> {
    Piece::Text(escaped(text, false), text.chars().next(), text.chars().next_back())
}

fn is_known(mark: &Mark) -> bool {
    match mark.kind() {
        "link" => mark.text("href").is_some_and(|address| !address.is_empty() && is_harmless(address)),
        "bold" | "italic" | "strike" | "underline" | "highlight" | "subscript" | "superscript" => true,
        _ => false,
    }
}

/// For each pair of signs, whether a parser would take asterisks for what they are: with a letter or a number within,
/// and none outside. The rules know more cases than these, and no parser all of them.
fn safe_pairs(pieces: &[Piece<'_>]) -> Vec<bool> {
    let mut is_safe = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Open(_, pair) => {
                is_safe.resize(is_safe.len().max(pair + 1), true);
                let outside = pieces[..index].iter().rev().find(|piece| !matches!(piece, Piece::Open(..)));
                let inside = pieces[index..].iter().find(|piece| !matches!(piece, Piece::Open(..)));
                is_safe[*pair] &= is_border(outside, false) && is_word(inside, true);
            }
            Piece::Close(_, pair) => {
                let inside = pieces[..index].iter().rev().find(|piece| !matches!(piece, Piece::Close(..)));
                let outside = pieces[index..].iter().find(|piece| !matches!(piece, Piece::Close(..)));
                is_safe[*pair] &= is_border(outside, true) && is_word(inside, false);
            }
            _ => {}
        }
        // Numbers are given to links too.
        if let Piece::Open(_, pair) | Piece::Close(_, pair) = piece {
            is_safe.resize(is_safe.len().max(pair + 1), true);
        }
    }
    is_safe
}

fn is_border(piece: Option<&Piece<'_>>, is_behind: bool) -> bool {
    match piece {
        None | Some(Piece::Break) => true,
        Some(Piece::Other(text)) => {
            let beside = if is_behind { text.chars().next() } else { text.chars().next_back() };
            beside.is_none_or(|c| c.is_ascii_punctuation())
        }
        Some(Piece::Text(_, first, last)) => {
            let beside = if is_behind { first } else { last };
            beside.is_none_or(|c| c.is_whitespace() || c.is_ascii_punctuation())
        }
        Some(Piece::Open(..) | Piece::Close(..)) => false,
    }
}

fn is_word(piece: Option<&Piece<'_>>, is_first: bool) -> bool {
    match piece {
        Some(Piece::Text(_, first, last)) => {
            (if is_first { first } else { last }).is_some_and(char::is_alphanumeric)
        }
        _ => false,
    }
}

fn sign(mark: &Mark, is_safe: bool, is_start: bool) -> String {
    let (sign, tag) = match mark.kind() {
        "bold" => ("**", "strong"),
        "italic" => ("*", "em"),
        "strike" => ("~~", "del"),
        "underline" => ("", "u"),
        "highlight" => ("", "mark"),
        "subscript" => ("", "sub"),
        _ => ("", "sup"),
    };
    match (is_safe && !sign.is_empty(), is_start) {
        (true, _) => sign.to_owned(),
        (false, true) => format!("<{tag}>"),
        (false, false) => format!("</{tag}>"),
    }
}

fn code(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ").replace('\0', "\u{fffd}");
    // A parser of tables looks for these before it looks for code.
    if text.contains('|') {
        return format!("<code>{}</code>", escaped(&text, false));
    }
    let ticks = "`".repeat(longest_ticks(&text) + 1);
    let is_padded = text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']);
    let space = if is_padded && !text.chars().all(|c| c == ' ') { " " } else { "" };
    format!("{ticks}{space}{text}{space}{ticks}")
}

/// Text that is read as itself; its lines are kept apart by a character of theirs, or by breaks.
fn escaped(text: &str, breaks: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let rest = rest.as_str();
        let is_markup = match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '~' | '|' | '#' => true,
            // Addresses that GitHub makes links of.
            ':' => rest.starts_with("//"),
            '.' => ends_with_www(&escaped),
            _ => false,
        };
        match c {
            '\n' if breaks => escaped.push_str("<br>"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\0' => escaped.push('\u{fffd}'),
            c => {
                if is_markup {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
        }
    }
    escaped
}

fn ends_with_www(text: &str) -> bool {
    text.len().checked_sub(3).and_then(|at| text.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case("www"))
}

/// Escapes what means something only where a line begins.
fn at_line_start(text: &str) -> String {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (before, rest) = text.split_at(digits);
    let means = if digits == 0 { &['-', '+', '=', ':'][..] } else { &['.', ')'][..] };
    if rest.starts_with(means) {
        return format!("{before}\\{rest}");
    }
    let spaces = text.len() - text.trim_start_matches([' ', '\t']).len();
    format!("{}{}", written_out(&text[..spaces]), &text[spaces..])
}

/// Spaces at the end of a line are taken away where they are not written otherwise.
fn keep_spaces_at_end(text: &mut String) {
    let end = text.trim_end_matches([' ', '\t']).len();
    let spaces = written_out(&text[end..]);
    text.truncate(end);
    text.push_str(&spaces);
}

fn written_out(spaces: &str) -> String {
    spaces.replace(' ', "&#32;").replace('\t', "&#9;")
}
