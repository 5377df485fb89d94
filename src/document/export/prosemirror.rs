//! The JSON of a ProseMirror document, as `yXmlFragmentToProsemirrorJSON` makes it of an XML fragment. Where that leaves
//! the order of marks to chance, here it is Tiptap's. Text that stands in no paragraph is not put in a list of its own,
//! with which no schema could do anything.

use serde_json::{Map as JsonMap, Value as Json, json};

use super::tree::{Mark, Node};

/// A document with this content.
pub(super) fn document(nodes: Vec<Node>) -> Json {
    json!({ "type": "doc", "content": content(nodes) })
}

fn content(nodes: Vec<Node>) -> Json {
    nodes.into_iter().map(node).collect()
}

fn node(node: Node) -> Json {
    let mut json = JsonMap::new();
    match node {
        Node::Element(element) => {
            json.insert("type".to_owned(), element.name.into());
            if !element.attributes.is_empty() {
                json.insert("attrs".to_owned(), Json::Object(element.attributes.into_iter().collect()));
            }
            if !element.children.is_empty() {
                json.insert("content".to_owned(), content(element.children));
            }
        }
        Node::Run(run) => {
            json.insert("type".to_owned(), "text".into());
            json.insert("text".to_owned(), run.insert);
            if !run.marks.is_empty() {
                json.insert("marks".to_owned(), run.marks.into_iter().map(mark).collect());
            }
        }
    }
    Json::Object(json)
}

fn mark(mark: Mark) -> Json {
    json!({ "type": name(&mark.name), "attrs": mark.attributes })
}

/// Marks that may lie over each other have a hash behind their names in Yjs, as in `comment--0aZ+/9b=`.
fn name(name: &str) -> &str {
    let split = name.len().checked_sub(10).and_then(|at| name.split_at_checked(at));
    let Some((plain, hash)) = split else {
        return name;
    };
    let hashed = hash.strip_prefix("--").is_some_and(|hash| {
        hash.chars().all(|character| character.is_ascii_alphanumeric() || "+/=".contains(character))
    });
    if hashed { plain } else { name }
}
