//! HTML, as Tiptap's `generateHTML` writes it. Whatever is in a document, nothing in its HTML runs: names of elements
//! and attributes are of a fixed set, all else is escaped, and an address that is more than a way to somewhere is left
//! empty. A node that is not known is a `div`, or a `span` within text, with its name; a mark that is not known leaves
//! its text as it is.

use serde_json::Value as Json;

use super::tree::{Element, Mark, Node, is_harmless};

/// HTML knows no wider cell.
const MAX_COLUMNS: i64 = 1_000;
/// Tiptap's `cellMinWidth`, in pixels.
const MIN_WIDTH: i64 = 25;

/// The HTML of these nodes.
pub(super) fn html(nodes: &[Node]) -> String {
    let mut writer = Writer::default();
    writer.nodes(nodes, false);
    writer.html
}

/// Text as HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '\u{a0}' => html.push_str("&nbsp;"),
            // It cannot stand in HTML at all.
            '\0' => html.push('\u{fffd}'),
            _ => html.push(character),
        }
    }
    html
}

/// The value of an attribute, to stand in quotation marks.
pub(super) fn escaped_value(text: &str) -> String {
    escaped(text).replace('"', "&quot;")
}

#[derive(Default)]
struct Writer {
    html: String,
}

impl Writer {
    /// Neighbours with the same marks stand in the same elements.
    fn nodes(&mut self, nodes: &[Node], inline: bool) {
        let mut open: Vec<&Mark> = Vec::new();
        for node in nodes {
            let marks: Vec<&Mark> = match node {
                Node::Run(run) => run.marks.iter().filter(|mark| tag(mark).is_some()).collect(),
                Node::Element(_) => Vec::new(),
            };
            let kept = open.iter().zip(&marks).take_while(|(open, mark)| open == mark).count();
            self.close(open.drain(kept..).rev());
            for mark in &marks[kept..] {
                self.mark(mark);
                open.push(mark);
            }
            match node {
                Node::Run(run) => self.html.push_str(&escaped(run.text())),
                Node::Element(element) => self.element(element, inline),
            }
        }
        self.close(open.into_iter().rev());
    }

    fn close<'a>(&mut self, marks: impl Iterator<Item = &'a Mark>) {
        for tag in marks.filter_map(tag) {
            self.end(tag);
        }
    }

    fn mark(&mut self, mark: &Mark) {
        let Some(tag) = tag(mark) else { return };
        if tag != "a" {
            return self.start(tag, &[]);
        }
        let or = |key: &str, default: &str| match mark.attributes.get(key) {
            None => Some(default.to_owned()),
            Some(value) => plain(value),
        };
        let href = mark.text("href").unwrap_or_default();
        let href = if is_harmless(href) { href } else { "" };
        self.start(
            "a",
            &[
                ("target", or("target", "_blank")),
                ("rel", or("rel", "noopener noreferrer nofollow")),
                ("class", mark.attributes.get("class").and_then(plain)),
                ("href", Some(href.to_owned())),
                ("title", mark.attributes.get("title").and_then(plain)),
            ],
        );
    }

    fn element(&mut self, element: &Element, inline: bool) {
        let told = |key: &str| element.attributes.get(key).and_then(plain);
        match element.kind() {
            "paragraph" => self.block(element, "p", &[("style", alignment(element, "textAlign"))]),
            "heading" => {
                let style = [("style", alignment(element, "textAlign"))];
                self.block(element, &format!("h{}", element.level()), &style);
            }
            "blockquote" => self.block(element, "blockquote", &[]),
            "bulletList" => self.block(element, "ul", &[]),
            "listItem" => self.block(element, "li", &[]),
            "orderedList" => {
                let start = Some(element.start()).filter(|start| *start != 1).map(|start| start.to_string());
                self.block(
                    element,
                    "ol",
                    &[("start", start), ("type", told("type").filter(|kind| kind != "1"))],
                );
            }
            "taskList" => self.block(element, "ul", &[("data-type", Some("taskList".to_owned()))]),
            "taskItem" => self.task(element),
            "codeBlock" => {
                let class = element.language().map(|language| format!("language-{language}"));
                self.start("pre", &[]);
                self.block(element, "code", &[("class", class)]);
                self.end("pre");
            }
            "horizontalRule" => self.start("hr", &[]),
            "hardBreak" => self.start("br", &[]),
            "image" => {
                let source = element.text("src").filter(|source| is_image(source)).map(str::to_owned);
                let about = ["alt", "title", "width", "height"].map(|key| (key, told(key)));
                self.start("img", &[&[("src", source)], &about[..]].concat());
            }
            "mention" => self.mention(element),
            "table" => self.table(element),
            "tableRow" => self.block(element, "tr", &[]),
            "tableCell" => self.block(element, "td", &cell(element)),
            "tableHeader" => self.block(element, "th", &cell(element)),
            _ => {
                let tag = if inline { "span" } else { "div" };
                self.block(element, tag, &[("data-type", Some(element.name.clone()))]);
            }
        }
    }

    fn block(&mut self, element: &Element, tag: &str, attributes: &[(&str, Option<String>)]) {
        self.start(tag, attributes);
        self.nodes(&element.children, element.is_inline());
        self.end(tag);
    }

    fn task(&mut self, element: &Element) {
        let checked = element.is_checked();
        let kind = ("data-type", Some("taskItem".to_owned()));
        self.start("li", &[("data-checked", Some(checked.to_string())), kind]);
        self.start("label", &[]);
        let checked = checked.then(|| "checked".to_owned());
        self.start("input", &[("type", Some("checkbox".to_owned())), ("checked", checked)]);
        self.html.push_str("<span></span></label>");
        self.block(element, "div", &[]);
        self.end("li");
    }

    fn mention(&mut self, element: &Element) {
        let told = |key: &str| element.attributes.get(key).and_then(plain);
        let sign = told("mentionSuggestionChar").unwrap_or_else(|| "@".to_owned());
        let named = told("label").or_else(|| told("id")).unwrap_or_default();
        let attributes = [
            ("data-type", Some("mention".to_owned())),
            ("data-id", told("id")),
            ("data-label", told("label")),
            ("data-mention-suggestion-char", Some(sign.clone())),
        ];
        self.start("span", &attributes);
        self.html.push_str(&escaped(&format!("{sign}{named}")));
        self.end("span");
    }

    fn table(&mut self, element: &Element) {
        let Some(Node::Element(row)) = element.children.first() else {
            return self.block(element, "table", &[]);
        };
        let mut columns = String::new();
        let (mut total, mut is_fixed) = (0, true);
        for cell in &row.children {
            let Node::Element(cell) = cell else { continue };
            let widths = cell.attributes.get("colwidth").and_then(Json::as_array);
            for column in 0..cell.number("colspan").unwrap_or(1).clamp(1, MAX_COLUMNS) {
                let width = widths.and_then(|widths| widths.get(column as usize)?.as_i64());
                let width = width.filter(|width| (1..=100_000).contains(width));
                is_fixed &= width.is_some();
                total += width.unwrap_or(MIN_WIDTH);
                let kind = if width.is_some() { "width" } else { "min-width" };
                let width = width.unwrap_or(MIN_WIDTH).max(MIN_WIDTH);
                columns.push_str(&format!("<col style=\"{kind}: {width}px;\">"));
            }
        }
        let kind = if is_fixed { "width" } else { "min-width" };
        self.start("table", &[("style", Some(format!("{kind}: {total}px;")))]);
        self.html.push_str(&format!("<colgroup>{columns}</colgroup>"));
        self.block(element, "tbody", &[]);
        self.end("table");
    }

    fn start(&mut self, tag: &str, attributes: &[(&str, Option<String>)]) {
        self.html.push('<');
        self.html.push_str(tag);
        for (key, value) in attributes {
            if let Some(value) = value {
                self.html.push_str(&format!(" {key}=\"{}\"", escaped_value(value)));
            }
        }
        self.html.push('>');
    }

    fn end(&mut self, tag: &str) {
        self.html.push_str("</");
        self.html.push_str(tag);
        self.html.push('>');
    }
}

fn tag(mark: &Mark) -> Option<&'static str> {
    Some(match mark.kind() {
        "link" => "a",
        "bold" => "strong",
        "italic" => "em",
        "strike" => "s",
        "underline" => "u",
        "code" => "code",
        "highlight" => "mark",
        "subscript" => "sub",
        "superscript" => "sup",
        _ => return None,
    })
}

/// A value as an attribute has it; none where there is nothing.
fn plain(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Whether a picture may be fetched from there, or is there itself.
pub(in crate::document) fn is_image(source: &str) -> bool {
    is_harmless(source) || source.starts_with("data:image/") || source.starts_with("blob:")
}

fn alignment(element: &Element, key: &str) -> Option<String> {
    let side = element.text(key)?;
    ["left", "center", "right", "justify"].contains(&side).then(|| format!("text-align: {side};"))
}

fn cell(element: &Element) -> [(&'static str, Option<String>); 4] {
    let span = |key: &str| element.number(key).unwrap_or(1).to_string();
    let widths = element.attributes.get("colwidth").and_then(Json::as_array);
    let widths = widths.map(|widths| widths.iter().filter_map(plain).collect::<Vec<_>>().join(","));
    let style = alignment(element, "align");
    [
        ("colspan", Some(span("colspan"))),
        ("rowspan", Some(span("rowspan"))),
        ("colwidth", widths),
        ("style", style),
    ]
}
