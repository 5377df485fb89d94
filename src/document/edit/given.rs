//! Gives a document the content that somebody has in another format, by the smallest difference: what people know as
//! "save this file here", while others have it open.

use std::{collections::BTreeMap, fmt, time::Instant};

use bytes::Bytes;
use serde_json::{Map as JsonMap, Value as Json};

use super::{
    DEADLINE,
    content::{Content, Run},
    difference_until, html, json, markdown, unsaid,
};
use crate::document::{
    Document, UpdateError,
    export::{Format, RootKind, export, learned, said_of_nodes},
};

/// The root type that Tiptap uses if nobody names another one.
pub const DEFAULT_ROOT: &str = "default";

/// How many blocks may come at once: each of them is looked for from the beginning.
const MAX_BLOCKS: usize = 20_000;

/// What a document is to hold.
#[derive(Debug, Clone)]
pub enum Given {
    /// Markdown for an XML fragment.
    Markdown(String),
    /// HTML for an XML fragment.
    Html(String),
    /// Text for a text, or for an XML fragment with a paragraph for each line.
    Text(String),
    /// The content of root types by their names; others stay as they are.
    Json(JsonMap<String, Json>),
}

/// Why a document cannot be given this: what is to be changed in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(pub String);

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The update that gives a document this content; none, where it has it. `told` says for which root type it is, and what
/// kinds there are.
pub fn given(
    document: &Document,
    given: &Given,
    told: &Told,
) -> Result<Result<Option<Bytes>, Unfit>, UpdateError> {
    let until = Instant::now() + DEADLINE;
    let wanted = match given {
        Given::Json(roots) => of_json(document, roots, told, until)?,
        _ => of_text(document, given, told, until)?,
    };
    match wanted {
        Ok(wanted) => Ok(Ok(difference_until(document, &wanted, until)?)),
        Err(unfit) => Ok(Err(unfit)),
    }
}

/// The root types that are named, with what they are to be where that is said.
pub type Told = BTreeMap<String, Option<RootKind>>;

/// The root types that should hold something else.
type Wanted = Result<BTreeMap<String, Content>, Unfit>;

fn of_text(document: &Document, given: &Given, told: &Told, until: Instant) -> Result<Wanted, UpdateError> {
    let present = super::content(document)?;
    let (name, kind) = match root(document, given, told) {
        Ok(root) => root,
        Err(unfit) => return Ok(Err(unfit)),
    };
    let wanted = match (given, kind) {
        (Given::Text(text), RootKind::Text) => {
            let runs = match present.get(&name) {
                Some(Content::Text(runs)) => &runs[..],
                _ => &[],
            };
            let said: String = runs.iter().filter_map(Run::text).collect();
            let plain = |text: &str| [Run::new(text, BTreeMap::new())];
            Content::Text(unsaid::runs(runs, &plain(&said), &plain(text), until))
        }
        (given, RootKind::Xml) => {
            let (format, read): (Format, fn(&str) -> Vec<Content>) = match given {
                Given::Html(_) => (Format::Html, |text| html::blocks(text, html::Spaces::Collapse)),
                Given::Markdown(_) => (Format::Markdown, markdown::read),
                _ => (Format::Text, paragraphs),
            };
            let (Given::Markdown(text) | Given::Html(text) | Given::Text(text)) = given else {
                return Ok(Ok(BTreeMap::new()));
            };
            let said = said_of_nodes(document, &name, format)?;
            // Files end with a line break, which is no paragraph; unless an empty one ends the document.
            let ends_empty =
                said.iter().flatten().last().is_some_and(|last| last.is_empty() || last.ends_with('\n'));
            let text = match text.strip_suffix('\n') {
                Some(before) if format == Format::Text && !ends_empty => before,
                _ => text,
            };
            let wanted = read(text);
            if wanted.len() > MAX_BLOCKS {
                let reason = format!("the body: it has {} blocks; the limit is {MAX_BLOCKS}", wanted.len());
                return Ok(Err(Unfit(reason)));
            }
            Content::Fragment(match (present.get(&name), said) {
                (Some(Content::Fragment(present)), Some(said)) => {
                    let said: Vec<Vec<Content>> = said.iter().map(|said| read(said)).collect();
                    unsaid::blocks(present, &said, wanted, until)
                }
                _ => wanted,
            })
        }
        _ => {
            return Ok(Err(Unfit(format!(
                "root: {name:?} is no place for this format: markdown, html and text go into an XML fragment, and \
                 text into a Y.Text"
            ))));
        }
    };
    Ok(Ok(BTreeMap::from([(name, wanted)])))
}

/// Which root type is meant: the one that is named, or the only one that fits.
fn root(document: &Document, given: &Given, told: &Told) -> Result<(String, RootKind), Unfit> {
    let learned: BTreeMap<&str, RootKind> = learned(document).collect();
    match told.iter().collect::<Vec<_>>()[..] {
        [] => {}
        [(name, kind)] => {
            let usual = if matches!(given, Given::Text(_)) { RootKind::Text } else { RootKind::Xml };
            return match learned.get(name.as_str()) {
                Some(is) if kind.is_some_and(|kind| kind != *is) => {
                    Err(Unfit(format!("root: {name:?} is of another kind than it is said to be")))
                }
                is => Ok((name.clone(), is.copied().or(*kind).unwrap_or(usual))),
            };
        }
        _ => return Err(Unfit("root: name one root type; the content goes into one".to_owned())),
    }
    let is_text = matches!(given, Given::Text(_));
    let fits = |kind: RootKind| kind == RootKind::Xml || (is_text && kind == RootKind::Text);
    let fitting: Vec<(&str, RootKind)> =
        learned.iter().filter(|(_, kind)| fits(**kind)).map(|(name, kind)| (*name, *kind)).collect();
    match fitting[..] {
        [(name, kind)] => Ok((name.to_owned(), kind)),
        [] if is_text => Err(Unfit(
            "root: there is no text in the document yet; name the root type, as in root=content".to_owned(),
        )),
        [] => Ok((DEFAULT_ROOT.to_owned(), RootKind::Xml)),
        _ => {
            let names: Vec<_> = fitting.iter().map(|(name, _)| *name).collect();
            Err(Unfit(format!(
                "root: the document has several root types that fit ({}); name one",
                names.join(", ")
            )))
        }
    }
}

fn paragraphs(text: &str) -> Vec<Content> {
    let paragraph = |line: &str| {
        let runs = vec![Run::new(line, BTreeMap::new())];
        let text = Content::XmlText { attributes: BTreeMap::new(), runs };
        html::paragraph(if line.is_empty() { Vec::new() } else { vec![text] })
    };
    text.split('\n').map(paragraph).collect()
}

fn of_json(
    document: &Document,
    roots: &JsonMap<String, Json>,
    told: &Told,
    until: Instant,
) -> Result<Wanted, UpdateError> {
    let present = super::content(document)?;
    let said = match export(document, Format::Json, &BTreeMap::new()) {
        Ok(said) => serde_json::from_slice(&said).unwrap_or(Json::Null),
        Err(error) => return Ok(Err(Unfit(error.to_string()))),
    };
    let mut wanted = BTreeMap::new();
    for (name, json) in roots {
        let is = present.get(name).cloned().or_else(|| match (told.get(name).copied().flatten(), json) {
            (Some(RootKind::Text), _) | (None, Json::String(_)) => Some(Content::Text(Vec::new())),
            (Some(RootKind::Map), _) | (None, Json::Object(_)) => Some(Content::Map(BTreeMap::new())),
            (Some(RootKind::Array), _) | (None, Json::Array(_)) => Some(Content::Array(Vec::new())),
            (Some(RootKind::Xml), _) => Some(Content::Fragment(Vec::new())),
            (None, _) => None,
        });
        // Nobody can tell what an empty root type is, and its export says null.
        let Some(is) = is else {
            if json.is_null() {
                continue;
            }
            let reason =
                format!("{name:?}: a root type holds a string, an object or an array, and not {json}");
            return Ok(Err(Unfit(reason)));
        };
        let said = said.get(name).unwrap_or(&Json::Null);
        match json::wanted(&is, said, json, until) {
            Ok(content) => drop(wanted.insert(name.clone(), content)),
            Err(reason) => return Ok(Err(Unfit(format!("[{name:?}]{reason}")))),
        }
    }
    Ok(Ok(wanted))
}
