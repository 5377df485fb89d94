//! Edits in JSON, for those who have no Yjs library: a list of operations, done in their order, all of them or none. How
//! each of them is done has a file of its own.

mod doing;
mod texts;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use self::doing::{Doing, Left};
use super::{edited, given::Unfit};
use crate::document::{
    Document, UpdateError,
    export::{RootKind, learned},
};

/// How many operations may come at once.
pub const MAX_OPERATIONS: usize = 256;
/// A step into a shared type.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Step {
    /// Into a map, by its key.
    Key(String),
    /// Into an array or XML, by its number from 0 on.
    Number(u32),
}

/// Which of the places where a text is found are meant.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Occurrence {
    /// One of them, counted from 1.
    Number(usize),
    /// Each of them.
    All(All),
}

/// Each place.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// The only word for it.
    All,
}

/// The kind of a new shared type.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are Yjs's own")]
pub enum SharedKind {
    Text,
    Map,
    Array,
}

/// What is done.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    /// Puts text into a text, or values into an array: at a position, before or after a text that is found, or at the end.
    Insert {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// The position.
        at: Option<u32>,
        /// The text before which it comes.
        before: Option<String>,
        /// The text after which it comes.
        after: Option<String>,
        /// Which of them, where it is found more than once.
        occurrence: Option<Occurrence>,
        /// The text.
        text: Option<String>,
        /// Its format; without one it is that of the text before it.
        format: Option<BTreeMap<String, Json>>,
        /// The values, for an array.
        values: Option<Vec<Json>>,
    },
    /// Takes away a part of a text, or items of an array.
    Delete {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// Where the part begins, counted as in JavaScript.
        at: Option<u32>,
        /// How long it is.
        length: Option<u32>,
        /// The text that is looked for, in XML in all texts within.
        find: Option<String>,
        /// Which of them, where it is found more than once.
        occurrence: Option<Occurrence>,
    },
    /// Puts text in place of a part of a text, in the same format.
    Replace {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// Where the part begins, counted as in JavaScript.
        at: Option<u32>,
        /// How long it is.
        length: Option<u32>,
        /// The text that is looked for, in XML in all texts within.
        find: Option<String>,
        /// Which of them, where it is found more than once.
        occurrence: Option<Occurrence>,
        /// The text.
        text: String,
    },
    /// Gives a part of a text a format.
    Format {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// Where the part begins, counted as in JavaScript.
        at: Option<u32>,
        /// How long it is.
        length: Option<u32>,
        /// The text that is looked for, in XML in all texts within.
        find: Option<String>,
        /// Which of them, where it is found more than once.
        occurrence: Option<Occurrence>,
        /// The format; null takes one away.
        format: BTreeMap<String, Json>,
    },
    /// Sets a key of a map, or an item of an array: the last step of the path names it.
    Set {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
        /// The value.
        value: Json,
        /// Makes a shared type of the value, and not a plain one.
        shared: Option<SharedKind>,
    },
    /// Takes away a key of a map, or an item of an array.
    Remove {
        /// The root type.
        root: String,
        /// The way from there: keys of maps, and numbers of items or nodes.
        #[serde(default)]
        path: Vec<Step>,
    },
}

/// The update that these operations make; none, where they change nothing. They put in so many bytes of text at most.
pub fn operated(
    document: &Document,
    operations: &[Operation],
    max_bytes: usize,
) -> Result<Result<Option<Bytes>, Unfit>, UpdateError> {
    if operations.len() > MAX_OPERATIONS {
        let reason = format!("operations: there are {}; the limit is {MAX_OPERATIONS}", operations.len());
        return Ok(Err(Unfit(reason)));
    }
    let mut kinds: BTreeMap<String, RootKind> =
        learned(document).map(|(name, kind)| (name.to_owned(), kind)).collect();
    let mut left = Left::new(max_bytes);
    edited(document, |transaction| {
        for (number, operation) in operations.iter().enumerate() {
            let mut doing = Doing { transaction, kinds: &mut kinds, left: &mut left };
            doing.operate(operation).map_err(|reason| Unfit(format!("operations[{number}].{reason}")))?;
        }
        Ok(())
    })
}
