//! The document that Quill shows of a delta, as the nodes that ProseMirror would have for it. In a delta a line's break
//! says what the line is: a heading, an item of a list and so on.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::tree::{Element, Mark, Node, Run};

/// Quill indents no further, and nobody nests lists deeper.
const MAX_INDENT: i64 = 8;

/// What stands in a line, and what is said of it.
type Line = (Vec<Node>, BTreeMap<String, Json>);

/// The blocks of these pieces.
pub(super) fn nodes(runs: Vec<Run>) -> Vec<Node> {
    let mut lines = lines(runs).into_iter().peekable();
    let mut blocks = Vec::new();
    while let Some((content, said)) = lines.next() {
        let text = |key: &str| said.get(key).and_then(Json::as_str);
        if let Some(level) = said.get("header").and_then(Json::as_i64) {
            blocks.push(aligned(Element::new("heading", content).with("level", level), &said));
        } else if let Some(kind) = text("list") {
            list_item(&mut blocks, kind, indent(&said), content);
        } else if is_set(&said, "blockquote") {
            let mut quoted = vec![paragraph(content, &said)];
            while let Some((content, said)) = lines.next_if(|(_, said)| is_set(said, "blockquote")) {
                quoted.push(paragraph(content, &said));
            }
            blocks.push(Node::Element(Element::new("blockquote", quoted)));
        } else if is_set(&said, "code-block") {
            let mut code = Element::new("", content).plain();
            let same = |other: &Line| other.1.get("code-block") == said.get("code-block");
            while let Some((content, _)) = lines.next_if(same) {
                code.push('\n');
                code.push_str(&Element::new("", content).plain());
            }
            let language = text("code-block").filter(|language| *language != "plain");
            let code = Node::Run(Run::new(code.into(), Vec::new()));
            let block = Element::new("codeBlock", vec![code]);
            blocks.push(Node::Element(block.with("language", language.map_or(Json::Null, Json::from))));
        } else {
            blocks.push(paragraph(content, &said));
        }
    }
    blocks
}

fn lines(runs: Vec<Run>) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    for run in runs {
        let Some(text) = run.insert.as_str() else {
            line.extend(embedded(&run));
            continue;
        };
        let marks: Vec<Mark> = run.marks.iter().filter_map(mark).collect();
        for (index, text) in text.split('\n').enumerate() {
            if index > 0 {
                let said = run.marks.iter().map(|mark| (mark.name.clone(), mark.attributes.clone()));
                lines.push((std::mem::take(&mut line), said.collect()));
            }
            if !text.is_empty() {
                line.push(Node::Run(Run::new(text.into(), marks.clone())));
            }
        }
    }
    if !line.is_empty() {
        lines.push((line, BTreeMap::new()));
    }
    lines
}

fn embedded(run: &Run) -> Option<Node> {
    let said = |key: &str| run.marks.iter().find(|mark| mark.name == key).map(|mark| mark.attributes.clone());
    let text = |key: &str| run.insert.get(key).and_then(Json::as_str);
    if let Some(source) = text("image") {
        let image = Element::new("image", Vec::new()).with("src", source);
        let image = ["alt", "width", "height"].into_iter().fold(image, |image, key| match said(key) {
            Some(value) => image.with(key, value),
            None => image,
        });
        return Some(Node::Element(image));
    }
    if let Some(source) = text("video") {
        let link = Mark { name: "link".to_owned(), attributes: json!({ "href": source }) };
        return Some(Node::Run(Run::new(source.into(), vec![link])));
    }
    let formula = text("formula")?;
    let code = Mark { name: "code".to_owned(), attributes: json!({}) };
    Some(Node::Run(Run::new(formula.into(), vec![code])))
}

/// What is said of text within a line; none of a line as a whole.
fn mark(mark: &Mark) -> Option<Mark> {
    let named = |name: &str, attributes: Json| Some(Mark { name: name.to_owned(), attributes });
    match (&*mark.name, &mark.attributes) {
        (name @ ("bold" | "italic" | "underline" | "strike" | "code"), Json::Bool(true)) => {
            named(name, json!({}))
        }
        ("link", Json::String(address)) => named("link", json!({ "href": address })),
        ("script", Json::String(kind)) if kind == "sub" => named("subscript", json!({})),
        ("script", Json::String(kind)) if kind == "super" => named("superscript", json!({})),
        _ => None,
    }
}

fn paragraph(content: Vec<Node>, said: &BTreeMap<String, Json>) -> Node {
    aligned(Element::new("paragraph", content), said)
}

fn aligned(element: Element, said: &BTreeMap<String, Json>) -> Node {
    Node::Element(match said.get("align") {
        Some(align) => element.with("textAlign", align.clone()),
        None => element,
    })
}

fn is_set(said: &BTreeMap<String, Json>, key: &str) -> bool {
    said.get(key).is_some_and(|value| !matches!(value, Json::Null | Json::Bool(false)))
}

fn indent(said: &BTreeMap<String, Json>) -> i64 {
    said.get("indent").and_then(Json::as_i64).unwrap_or(0).clamp(0, MAX_INDENT)
}

/// Adds an item to the list at the end, or to the lists within its last item.
fn list_item(blocks: &mut Vec<Node>, kind: &str, indent: i64, content: Vec<Node>) {
    let (list, item) = match kind {
        "ordered" => ("orderedList", "listItem"),
        "checked" | "unchecked" => ("taskList", "taskItem"),
        _ => ("bulletList", "listItem"),
    };
    if indent > 0
        && let Some(Node::Element(last)) = blocks.last_mut()
        && matches!(last.kind(), "orderedList" | "taskList" | "bulletList")
        && let Some(Node::Element(within)) = last.children.last_mut()
    {
        return list_item(&mut within.children, kind, indent - 1, content);
    }
    let mut item = Element::new(item, vec![Node::Element(Element::new("paragraph", content))]);
    if list == "taskList" {
        item = item.with("checked", kind == "checked");
    }
    match blocks.last_mut() {
        Some(Node::Element(last)) if last.name == list => last.children.push(Node::Element(item)),
        _ => blocks.push(Node::Element(Element::new(list, vec![Node::Element(item)]))),
    }
}
