//! A text as the delta that Yjs's `toDelta` gives and Quill understands.

use serde_json::{Map as JsonMap, Value as Json};

use super::tree::Run;

/// The operations that insert these pieces.
pub(super) fn operations(runs: Vec<Run>) -> Json {
    runs.into_iter().map(operation).collect()
}

fn operation(run: Run) -> Json {
    let mut operation = JsonMap::from_iter([("insert".to_owned(), run.insert)]);
    if !run.marks.is_empty() {
        let attributes = run.marks.into_iter().map(|mark| (mark.name, mark.attributes));
        operation.insert("attributes".to_owned(), Json::Object(attributes.collect()));
    }
    Json::Object(operation)
}
