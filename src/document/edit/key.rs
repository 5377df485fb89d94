//! Contents by which they are found again: equal contents have equal keys, in whatever order their maps are kept.

use std::{collections::BTreeMap, fmt::Write};

use xxhash_rust::xxh3::xxh3_128;
use yrs::Any;

use super::content::{Content, Run};

/// Equal for equal contents.
pub(super) fn key(content: &Content) -> u128 {
    let mut text = String::new();
    put(content, &mut text);
    xxh3_128(text.as_bytes())
}

fn put(content: &Content, text: &mut String) {
    // A shared type is not the plain value that holds the same.
    text.push_str(match content {
        Content::Any(_) => "any",
        Content::Text(_) => "text",
        Content::Map(_) => "map",
        Content::Array(_) => "array",
        Content::Fragment(_) => "fragment",
        Content::Element(_) => "element",
        Content::XmlText { .. } => "xml",
    });
    match content {
        Content::Any(any) => put_any(any, text),
        Content::Text(runs) => put_runs(runs, text),
        Content::Map(entries) => put_entries(entries, text, put),
        Content::Array(items) | Content::Fragment(items) => put_all(items, text, put),
        Content::Element(element) => {
            put_debug(&element.name, text);
            put_entries(&element.attributes, text, put_any);
            put_all(&element.children, text, put);
        }
        Content::XmlText { attributes, runs } => {
            put_entries(attributes, text, put_any);
            put_runs(runs, text);
        }
    }
}

fn put_runs(runs: &[Run], text: &mut String) {
    put_all(runs, text, |run, text| {
        put(&run.insert, text);
        put_entries(&run.format, text, put_any);
    });
}

fn put_any(any: &Any, text: &mut String) {
    match any {
        Any::Map(map) => {
            put_entries(&map.iter().collect::<BTreeMap<_, _>>(), text, |any, text| put_any(any, text))
        }
        Any::Array(items) => put_all(items, text, put_any),
        any => put_debug(any, text),
    }
}

fn put_all<T>(items: &[T], text: &mut String, put: fn(&T, &mut String)) {
    text.push('[');
    items.iter().for_each(|item| put(item, text));
    text.push(']');
}

fn put_entries<K: std::fmt::Debug, V>(entries: &BTreeMap<K, V>, text: &mut String, put: fn(&V, &mut String)) {
    text.push('{');
    for (key, value) in entries {
        put_debug(key, text);
        put(value, text);
    }
    text.push('}');
}

fn put_debug(value: &impl std::fmt::Debug, text: &mut String) {
    write!(text, "{value:?},").expect("a string takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_order_of_a_map_makes_no_difference_and_its_values_do() {
        let link = |href: &str| {
            let entries = ["href", "rel", "target", "class"].map(|name| (name.to_owned(), Any::from(href)));
            let format = BTreeMap::from([("link".into(), Any::from(HashMap::from(entries)))]);
            let text = Content::XmlText { attributes: BTreeMap::new(), runs: vec![Run::new("here", format)] };
            Content::Fragment(vec![text])
        };
        for _ in 0..20 {
            assert_eq!(link("#"), link("#"));
            assert_eq!(key(&link("#")), key(&link("#")));
        }
        assert_ne!(key(&link("#")), key(&link("#2")));
    }

    #[test]
    fn a_shared_type_is_not_the_plain_value_that_holds_the_same() {
        let plain = Content::Any(Any::from(HashMap::from([("a".to_owned(), Any::from(1))])));
        let shared = Content::Map(BTreeMap::from([("a".to_owned(), Content::Any(Any::from(1)))]));
        assert_ne!(key(&plain), key(&shared));
        assert_ne!(key(&Content::Array(vec![])), key(&Content::Fragment(vec![])));
    }
}
