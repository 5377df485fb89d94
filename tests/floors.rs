//! Who may import whom: the floors of the house (src/lib.rs), read from the imports themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The floors from the ground up; each name stands for a file and the folder beside it.
const FLOORS: &[&[&str]] = &[
    &[
        "lib0",
        "name",
        "update",
        "state_vector",
        "guard",
        "presence",
        "protocol",
        "document",
        "record",
        "end",
        "level",
    ],
    &["backend", "access", "config", "metrics", "drain", "trace", "troubles", "websocket"],
    &["history", "outbox", "saver", "actor", "capacity", "webhooks"],
    &["hub", "import", "bundle"],
    &["session", "connection", "http"],
    &["lib"],
    &["main", "command"],
];

/// What the ground never touches: it takes values and returns values.
const NOT_ON_THE_GROUND: &[&str] =
    &["tokio", "axum", "tracing", "redis", "rusqlite", "std::time", "std::fs", "async "];

/// What other parts never touch.
const NEVER: &[(&str, &[&str])] = &[
    ("backend", &["yrs", "crate::protocol", "crate::document", "crate::update", "crate::guard"]),
    ("actor", &["crate::hub", "axum", "redis", "rusqlite"]),
    ("session", &["crate::backend", "crate::hub"]),
    ("connection", &["crate::backend", "crate::hub"]),
];

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The source of each part of the house, without comments and its own tests.
fn parts() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&root, &mut files);
    let mut parts: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        let first = file.strip_prefix(&root).unwrap().components().next().unwrap();
        let part = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        parts.entry(part).or_default().extend(code.flat_map(|line| [line, "\n"]));
    }
    parts
}

/// The parts that a source names after `crate::`, also within braces.
fn imports(source: &str) -> BTreeSet<String> {
    let mut imports = BTreeSet::new();
    for rest in source.split("crate::").skip(1) {
        let mut depth = 0;
        let mut name = String::new();
        let mut path_done = false;
        for character in rest.chars() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                'a'..='z' | '0'..='9' | '_' | 'A'..='Z' if depth <= 1 && !path_done => name.push(character),
                ',' if depth == 1 => path_done = false,
                _ => {}
            }
            let named = !name.is_empty() && !character.is_alphanumeric() && character != '_';
            if named {
                imports.insert(std::mem::take(&mut name));
                path_done = true;
            }
            if depth < 0 || (depth == 0 && (named || character == '}')) {
                break;
            }
        }
    }
    imports
}

fn floor_of(part: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&part))
}

#[test]
fn nobody_imports_upwards() {
    let parts = parts();
    assert!(parts.len() > 15, "the sources were read");
    let mut edges = 0;
    for (part, source) in &parts {
        let floor = floor_of(part).unwrap_or_else(|| panic!("src/{part}.rs has no floor: give it one"));
        for import in imports(source) {
            // Names of the lib itself, such as `crate::Server`, are on its floor.
            let lower = floor_of(&import).unwrap_or(5);
            assert!(lower <= floor, "{part} (floor {floor}) imports {import} (floor {lower})");
            edges += 1;
        }
    }
    assert!(edges > 40, "the imports were read");
}

#[test]
fn nobody_imports_in_a_circle() {
    let parts = parts();
    let mut left: BTreeMap<_, BTreeSet<String>> = parts
        .iter()
        .filter(|(part, _)| *part != "lib")
        .map(|(part, source)| {
            let others =
                imports(source).into_iter().filter(|import| import != part && parts.contains_key(import));
            (part.clone(), others.collect())
        })
        .collect();
    while let Some(free) = left.iter().find(|(_, imports)| imports.is_empty()).map(|(part, _)| part.clone()) {
        left.remove(&free);
        for imports in left.values_mut() {
            imports.remove(&free);
        }
    }
    assert!(left.is_empty(), "these import each other: {left:?}");
}

#[test]
fn the_ground_is_pure_and_nobody_knows_more_than_he_should() {
    let parts = parts();
    for part in FLOORS[0] {
        for word in NOT_ON_THE_GROUND {
            assert!(!parts[*part].contains(word), "{part} is on the ground and knows {word:?}");
        }
    }
    for (part, words) in NEVER {
        for word in *words {
            assert!(!parts[*part].contains(word), "{part} knows {word:?}");
        }
    }
    // A histogram observes, too.
    let mut others = parts.iter().filter(|(part, _)| *part != "metrics");
    assert!(others.all(|(_, source)| !source.contains(".observe(")), "return values instead of callbacks");
}
