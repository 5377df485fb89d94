//! Gives root types the content that JSON says, in the form in which the export says it. A shared type stays one, and
//! what is new is a plain value, as an application sets it.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use similar::DiffOp;
use xxhash_rust::xxh3::xxh3_128;
use yrs::Any;

use super::{
    content::{Content, Run},
    difference::differences,
    unsaid,
};

/// What is wanted in place of what is present, of which this was said; or where, and why, JSON cannot give it.
pub(super) fn wanted(present: &Content, said: &Json, json: &Json) -> Result<Content, String> {
    if said == json {
        return Ok(present.clone());
    }
    match (present, json) {
        (Content::Any(_), json) => Ok(plain(json)),
        (Content::Text(runs), Json::String(text)) => {
            let said = Run::new(said.as_str().unwrap_or_default(), BTreeMap::new());
            Ok(Content::Text(unsaid::runs(runs, &[said], &[Run::new(text, BTreeMap::new())])))
        }
        (Content::Map(entries), Json::Object(json)) => {
            let entry = |(key, json): (&String, &Json)| {
                let content = match entries.get(key) {
                    Some(present) => {
                        wanted(present, &said[key], json).map_err(|reason| format!("[{key:?}]{reason}"))?
                    }
                    None => plain(json),
                };
                Ok((key.clone(), content))
            };
            json.iter().map(entry).collect::<Result<_, _>>().map(Content::Map)
        }
        (Content::Array(items), Json::Array(json)) => array(items, said, json).map(Content::Array),
        (present, json) => {
            let (is, hint) = match present {
                Content::Text(_) => ("a Y.Text, which takes a string", ""),
                Content::Map(_) => ("a Y.Map, which takes an object", ""),
                Content::Array(_) => ("a Y.Array, which takes an array", ""),
                _ => ("XML, which JSON leaves as it is", "; give it as html or markdown"),
            };
            let given = match json {
                Json::Null => "null",
                Json::Bool(_) => "a boolean",
                Json::Number(_) => "a number",
                Json::String(_) => "another string",
                Json::Array(_) => "an array",
                Json::Object(_) => "an object",
            };
            Err(format!(": here is {is}, and not {given}{hint}"))
        }
    }
}

fn array(items: &[Content], said: &Json, json: &[Json]) -> Result<Vec<Content>, String> {
    let none = Vec::new();
    let said = said.as_array().unwrap_or(&none);
    let keys = |values: &[Json]| {
        values.iter().map(|value| xxh3_128(value.to_string().as_bytes())).collect::<Vec<_>>()
    };
    let mut wanted = Vec::with_capacity(json.len());
    for op in differences(&keys(said), &keys(json)) {
        let (old, new) = (op.old_range(), op.new_range());
        match op {
            DiffOp::Equal { .. } => wanted.extend_from_slice(&items[old]),
            _ => {
                for (at, value) in new.clone().zip(&json[new]) {
                    // What is in the same place is changed, if it can be.
                    let present = old.clone().nth(at - op.new_range().start);
                    let changed = present.and_then(|old| self::wanted(&items[old], &said[old], value).ok());
                    wanted.push(changed.unwrap_or_else(|| plain(value)));
                }
            }
        }
    }
    Ok(wanted)
}

/// What a root type of this kind that holds nothing becomes.
pub(super) fn plain(json: &Json) -> Content {
    Content::Any(any(json))
}

/// A plain value.
pub(super) fn any(json: &Json) -> Any {
    match json {
        Json::Null => Any::Null,
        Json::Bool(value) => Any::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Any::from(whole),
            None => Any::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Any::from(text.as_str()),
        Json::Array(values) => Any::Array(values.iter().map(any).collect()),
        Json::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), any(value)));
            Any::from(entries.collect::<std::collections::HashMap<_, _>>())
        }
    }
}
