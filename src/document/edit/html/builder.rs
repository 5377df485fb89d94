//! Builds blocks of the tags of HTML: which elements are open, where a block may stand, and what is missing for it.

use std::sync::Arc;

use yrs::Any;

use super::{
    super::content::{Content, Element, Run},
    line::{Format, Piece, Spaces, inline, text_node},
    paragraph,
    tags::{Attributes, is_block, mark},
};
use crate::document::export::is_image;

/// How deep elements may lie in each other; what is deeper stands beside what it is in.
const MAX_DEPTH: usize = 60;

/// How many marks may be open at once; others are not seen.
const MAX_MARKS: usize = 60;

/// An element that is open.
#[derive(Debug, Default)]
struct Frame {
    tag: String,
    element: Element,
    /// How many marks were open before it.
    marks: usize,
    /// For an item of a list, whether it is done; none where it is no task.
    checked: Option<bool>,
    /// Whether it goes on behind a picture: if nothing comes, there is no such element.
    is_rest: bool,
}

impl Frame {
    fn new(tag: &str, name: &str) -> Self {
        let element = Element { name: name.into(), ..Element::default() };
        Self { tag: tag.to_owned(), element, ..Self::default() }
    }

    fn is_leaf(&self) -> bool {
        matches!(&*self.element.name, "paragraph" | "heading" | "codeBlock")
    }

    fn is_code(&self) -> bool {
        &*self.element.name == "codeBlock"
    }

    fn set(&mut self, key: &str, value: impl Into<Any>) {
        self.element.attributes.insert(key.to_owned(), value.into());
    }
}

/// What was read so far.
pub(super) struct Builder {
    spaces: Spaces,
    /// The open elements; the first one is the document.
    frames: Vec<Frame>,
    /// The open marks: their tags, names and attributes.
    marks: Vec<(String, Arc<str>, Any)>,
    line: Vec<Piece>,
    /// In something that is not read: its tag, and how often it is open.
    skipped: Option<(String, usize)>,
}

impl Builder {
    /// A document in which nothing is yet.
    pub(super) fn new(spaces: Spaces) -> Self {
        let frames = vec![Frame::new("", "")];
        Self { spaces, frames, marks: Vec::new(), line: Vec::new(), skipped: None }
    }

    /// Reads a start tag.
    pub(super) fn start(&mut self, tag: &str, attributes: &Attributes) {
        if let Some((skipped, depth)) = &mut self.skipped {
            *depth += usize::from(skipped == tag);
            return;
        }
        if let Some(mark) = mark(tag, attributes) {
            match self.top().is_code() {
                true => self.name_language(attributes),
                false if self.marks.len() < MAX_MARKS => self.marks.push(mark),
                false => {}
            }
            return;
        }
        match tag {
            "script" | "style" | "title" | "template" | "textarea" | "select" | "svg" | "math"
            | "noscript" => {
                self.skipped = Some((tag.to_owned(), 1));
            }
            "br" if self.top().is_code() => self.text("\n"),
            "br" => self.line.push(node("hardBreak", Format::new())),
            "img" => self.image(attributes),
            "hr" => {
                self.close_leaf();
                self.add(Element { name: "horizontalRule".into(), ..Element::default() });
            }
            "input" if attributes.get("type") == Some("checkbox") => {
                let item = self.frames.iter_mut().rev().find(|frame| frame.tag == "li");
                if let Some(item) = item {
                    item.checked.get_or_insert(attributes.get("checked").is_some());
                }
            }
            "span" if attributes.get("data-type") == Some("mention") => {
                let told = ["id", "label"].into_iter().filter_map(|key| {
                    Some((Arc::from(key), Any::from(attributes.get(&format!("data-{key}"))?)))
                });
                self.line.push(node("mention", told.collect()));
                self.skipped = Some((tag.to_owned(), 1));
            }
            "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "pre" => self.leaf(tag, attributes),
            "blockquote" => self.open(Frame::new(tag, "blockquote")),
            "ul" => self.open(Frame::new(tag, "bulletList")),
            "ol" => {
                let mut list = Frame::new(tag, "orderedList");
                if let Some(start) = attributes.number("start").filter(|start| *start != 1) {
                    list.set("start", start);
                }
                self.open(list);
            }
            "li" => self.item(attributes),
            "table" => self.open(Frame::new(tag, "table")),
            "tr" => self.row(),
            "td" | "th" => self.cell(tag, attributes),
            _ if is_block(tag) => self.close_leaf(),
            _ => {}
        }
    }

    /// Reads an end tag.
    pub(super) fn end(&mut self, tag: &str) {
        if let Some((skipped, depth)) = &mut self.skipped {
            if skipped == tag {
                *depth -= 1;
                if *depth == 0 {
                    self.skipped = None;
                }
            }
            return;
        }
        match tag {
            // An end without a beginning: browsers make an empty paragraph of it, which nobody means.
            "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "pre" | "blockquote" | "ul" | "ol" | "li"
            | "table" | "tr" | "td" | "th" => self.close(tag),
            _ if is_block(tag) => self.close_leaf(),
            _ => {
                if let Some(at) = self.marks.iter().rposition(|(open, ..)| open == tag) {
                    self.marks.remove(at);
                }
            }
        }
    }

    /// Reads text.
    pub(super) fn text(&mut self, text: &str) {
        if self.skipped.is_some() || text.is_empty() {
            return;
        }
        let format = self.marks.iter().map(|(_, name, attributes)| (name.clone(), attributes.clone()));
        let format = if self.top().is_code() { Format::new() } else { format.collect() };
        self.line.push(Piece::Text(text.to_owned(), format));
    }

    /// Closes everything; the blocks that came of it.
    pub(super) fn finish(mut self) -> Vec<Content> {
        while self.frames.len() > 1 {
            self.pop();
        }
        self.flush();
        self.frames.pop().map(|document| document.element.children).unwrap_or_default()
    }

    fn top(&self) -> &Frame {
        self.frames.last().expect("the document stays open")
    }

    fn top_mut(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the document stays open")
    }

    /// Opens an element that is a block, in a place for blocks.
    fn open(&mut self, frame: Frame) {
        self.close_leaf();
        self.make_place();
        self.push(frame);
    }

    fn push(&mut self, mut frame: Frame) {
        if self.frames.len() < MAX_DEPTH {
            frame.marks = self.marks.len();
            self.frames.push(frame);
        }
    }

    fn leaf(&mut self, tag: &str, attributes: &Attributes) {
        let mut leaf = match tag {
            "p" => Frame::new(tag, "paragraph"),
            "pre" => Frame::new(tag, "codeBlock"),
            _ => {
                let mut heading = Frame::new(tag, "heading");
                heading.set("level", i64::from(tag.as_bytes()[1] - b'0'));
                heading
            }
        };
        if let (Some(side), false) = (attributes.alignment(), tag == "pre") {
            leaf.set("textAlign", side);
        }
        self.open(leaf);
    }

    fn item(&mut self, attributes: &Attributes) {
        let list = self.frames.iter().rposition(|frame| matches!(&*frame.tag, "ul" | "ol" | "td" | "th"));
        match list.filter(|at| matches!(&*self.frames[*at].tag, "ul" | "ol")) {
            Some(list) => {
                self.flush();
                while self.frames.len() > list + 1 {
                    self.pop();
                }
                let mut item = Frame::new("li", "listItem");
                let is_task = attributes.get("data-type") == Some("taskItem");
                item.checked = is_task.then(|| attributes.get("data-checked") == Some("true"));
                self.push(item);
            }
            None => self.close_leaf(),
        }
    }

    fn row(&mut self) {
        let Some(table) = self.frames.iter().rposition(|frame| frame.tag == "table") else {
            return self.close_leaf();
        };
        while self.frames.len() > table + 1 {
            self.pop();
        }
        self.line.clear();
        self.push(Frame::new("tr", "tableRow"));
    }

    fn cell(&mut self, tag: &str, attributes: &Attributes) {
        let place = self.frames.iter().rposition(|frame| matches!(&*frame.tag, "tr" | "table"));
        let Some(place) = place else { return self.close_leaf() };
        if self.frames[place].tag == "table" {
            self.row();
        }
        while self.frames.len() > 1 && !matches!(&*self.top().tag, "tr" | "table") {
            self.pop();
        }
        self.line.clear();
        let mut cell = Frame::new(tag, if tag == "th" { "tableHeader" } else { "tableCell" });
        for key in ["colspan", "rowspan"] {
            if let Some(span) = attributes.number(key).filter(|span| (2..=1_000).contains(span)) {
                cell.set(key, span);
            }
        }
        let widths = attributes.get("colwidth").unwrap_or_default().split(',');
        let widths: Vec<Any> = widths.filter_map(|width| Some(width.parse::<i64>().ok()?.into())).collect();
        if !widths.is_empty() {
            cell.set("colwidth", Any::Array(widths.into()));
        }
        if let Some(side) = attributes.alignment() {
            cell.set("align", side);
        }
        self.push(cell);
    }

    fn image(&mut self, attributes: &Attributes) {
        let Some(source) = attributes.get("src").filter(|source| !source.is_empty() && is_image(source))
        else {
            return;
        };
        let mut image = Element { name: "image".into(), ..Element::default() };
        image.attributes.insert("src".to_owned(), source.into());
        for key in ["alt", "title"] {
            if let Some(value) = attributes.get(key).filter(|value| !value.is_empty()) {
                image.attributes.insert(key.to_owned(), value.into());
            }
        }
        for key in ["width", "height"] {
            if let Some(value) = attributes.number(key) {
                image.attributes.insert(key.to_owned(), value.into());
            }
        }
        // A picture is a block: it parts the paragraph that it is in, and stands before the heading.
        self.flush();
        let leaf = self.top().is_leaf().then(|| self.frames.pop()).flatten();
        match leaf {
            Some(leaf) if &*leaf.element.name == "paragraph" => {
                let attributes = leaf.element.attributes.clone();
                let next =
                    Frame { element: Element { attributes, ..Frame::new("p", "paragraph").element }, ..leaf };
                if !leaf.element.children.is_empty() {
                    self.add(leaf.element);
                }
                self.add(image);
                self.frames.push(Frame { is_rest: true, ..next });
            }
            Some(leaf) => {
                self.add(image);
                self.frames.push(leaf);
            }
            None => self.add(image),
        }
    }

    fn name_language(&mut self, attributes: &Attributes) {
        let classes = attributes.get("class").unwrap_or_default().split_whitespace();
        let language = classes.filter_map(|class| class.strip_prefix("language-")).next().map(str::to_owned);
        if let Some(language) = language.filter(|language| !language.is_empty()) {
            self.top_mut().set("language", language);
        }
    }

    fn close_leaf(&mut self) {
        if self.top().is_leaf() {
            self.pop();
        } else {
            self.flush();
        }
    }

    /// Closes the innermost element of this tag, if there is one in the same cell.
    fn close(&mut self, tag: &str) {
        let is_of_table = matches!(tag, "table" | "tr" | "td" | "th");
        for at in (1..self.frames.len()).rev() {
            if self.frames[at].tag == tag {
                while self.frames.len() > at {
                    self.pop();
                }
                return;
            }
            if !is_of_table && matches!(&*self.frames[at].tag, "td" | "th") {
                break;
            }
        }
        self.close_leaf();
    }

    /// Closes the innermost element.
    fn pop(&mut self) {
        self.flush();
        let Some(Frame { mut element, marks, checked, is_rest, tag }) = self.frames.pop() else { return };
        self.marks.truncate(marks);
        match &*element.name {
            "paragraph" if is_rest && element.children.is_empty() => return,
            "codeBlock" => trim_code(&mut element, self.spaces),
            "blockquote" | "tableCell" | "tableHeader" if element.children.is_empty() => {
                element.children.push(paragraph(Vec::new()));
            }
            "listItem" => {
                let first = element.children.first();
                if !matches!(first, Some(Content::Element(first)) if &*first.name == "paragraph") {
                    element.children.insert(0, paragraph(Vec::new()));
                }
                if let Some(checked) = checked {
                    element.name = "taskItem".into();
                    element.attributes.insert("checked".to_owned(), checked.into());
                }
            }
            "bulletList" | "orderedList" => {
                let is_task =
                    |item: &Content| matches!(item, Content::Element(item) if &*item.name == "taskItem");
                if element.children.iter().any(is_task) {
                    element.name = "taskList".into();
                    element.attributes.clear();
                    for item in &mut element.children {
                        let Content::Element(item) = item else { continue };
                        item.name = "taskItem".into();
                        item.attributes.entry("checked".to_owned()).or_insert(false.into());
                    }
                }
            }
            _ => {}
        }
        let is_made_of_parts = matches!(&*tag, "ul" | "ol" | "table" | "tr");
        if !is_made_of_parts || !element.children.is_empty() {
            self.top_mut().element.children.push(Content::Element(element));
        }
    }

    /// Adds a block that holds no others.
    fn add(&mut self, block: Element) {
        self.make_place();
        self.top_mut().element.children.push(Content::Element(block));
    }

    /// Lists and tables hold nothing but their parts.
    fn make_place(&mut self) {
        match &*self.top().tag {
            "ul" | "ol" => self.push(Frame::new("li", "listItem")),
            "table" => {
                self.push(Frame::new("tr", "tableRow"));
                self.push(Frame::new("td", "tableCell"));
            }
            "tr" => self.push(Frame::new("td", "tableCell")),
            _ => {}
        }
    }

    /// Ends a line: what stands in no paragraph becomes one.
    fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        if self.top().is_code() {
            let code = line
                .into_iter()
                .filter_map(|piece| if let Piece::Text(text, _) = piece { Some(text) } else { None });
            let code: String = code.collect();
            if !code.is_empty() {
                self.top_mut().element.children.push(text_node(vec![Run::new(&code, Format::new())]));
            }
            return;
        }
        let children = inline(line, self.spaces);
        if children.is_empty() {
            return;
        }
        if self.top().is_leaf() {
            return self.top_mut().element.children.extend(children);
        }
        self.make_place();
        self.top_mut().element.children.push(paragraph(children));
    }
}

fn node(name: &str, attributes: Format) -> Piece {
    let attributes = attributes.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    Piece::Node(Content::Element(Element { name: name.into(), attributes, children: Vec::new() }))
}

/// HTML takes away a line break at the beginning. In HTML that is made of Markdown there is one at the end of all code.
fn trim_code(element: &mut Element, spaces: Spaces) {
    let [Content::XmlText { runs, .. }] = &mut element.children[..] else { return };
    let code: String = runs.iter().filter_map(Run::text).collect();
    let code = code.replace("\r\n", "\n");
    let code = code.strip_prefix('\n').unwrap_or(&code);
    let code = code.strip_suffix('\n').filter(|_| spaces == Spaces::Keep).unwrap_or(code);
    match code.is_empty() {
        true => element.children.clear(),
        false => *runs = vec![Run::new(code, Format::new())],
    }
}
