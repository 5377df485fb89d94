//! Documents for applications: what they get is what the JavaScript libraries make of the same documents
//! (tests/data/exports), and nothing in it can do harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use quire::document::{
    Document,
    export::{Format, RootKind, export},
};
use serde_json::{Value, json};
use yrs::{
    Any, Doc, ReadTxn, Text, Transact, WriteTxn, XmlElementPrelim, XmlFragment, XmlTextPrelim, types::Attrs,
};

fn exported(document: &Document, format: Format) -> String {
    String::from_utf8(export(document, format, &BTreeMap::new()).unwrap()).unwrap()
}

fn value(document: &Document, format: Format) -> Value {
    serde_json::from_str(&exported(document, format)).unwrap()
}

/// The golden documents, each with what is expected of it.
fn golden() -> Vec<(String, Document, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/exports");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let updates = files.into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "update"));
    let golden = updates.map(|file| {
        let document = Document::load(&[fs::read(&file).unwrap()]).unwrap();
        let expected = fs::read(file.with_extension("json")).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        (name, document, serde_json::from_slice(&expected).unwrap())
    });
    golden.collect()
}

/// A document that somebody made with yrs.
fn made(edit: impl FnOnce(&mut yrs::TransactionMut<'_>)) -> Document {
    let doc = Doc::with_client_id(1);
    edit(&mut doc.transact_mut());
    let update = doc.transact().encode_diff_v1(&yrs::StateVector::default());
    Document::load(&[update]).unwrap()
}

/// Marks in one order, since Yjs leaves it open.
fn sorted(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::Array(marks)) = object.get_mut("marks") {
                marks.sort_by_key(|mark| mark["type"].to_string());
            }
            object.values_mut().for_each(sorted);
        }
        Value::Array(values) => values.iter_mut().for_each(sorted),
        _ => {}
    }
}

#[test]
fn an_application_gets_what_the_javascript_libraries_give() {
    let mut compared = 0;
    for (name, document, mut expected) in golden() {
        for (key, format) in [("prosemirror", Format::ProseMirror), ("delta", Format::Delta)] {
            if let Some(expected) = expected.get_mut(key) {
                let mut found = value(&document, format);
                sorted(&mut found);
                sorted(expected);
                assert_eq!(found, *expected, "{name} as {key}");
                compared += 1;
            }
        }
        if let Some(expected) = expected.get("html") {
            assert_eq!(exported(&document, Format::Html), expected.as_str().unwrap(), "{name} as html");
            compared += 1;
        }
    }
    assert_eq!(compared, 17, "the golden documents were read");
}

#[test]
fn several_roots_have_their_names() {
    let document = made(|transaction| {
        transaction.get_or_insert_text("title").insert(transaction, 0, "A <title>\nand more");
        for name in ["body", "foot\"er"] {
            let fragment = transaction.get_or_insert_xml_fragment(name);
            let paragraph = fragment.push_back(transaction, XmlElementPrelim::empty("paragraph"));
            paragraph.push_back(transaction, XmlTextPrelim::new(name));
        }
    });
    let doc = |text: &str| {
        let content = json!([{ "type": "text", "text": text }]);
        json!({ "type": "doc", "content": [{ "type": "paragraph", "content": content }] })
    };
    let expected = json!({ "body": doc("body"), "foot\"er": doc("foot\"er") });
    assert_eq!(value(&document, Format::ProseMirror), expected);
    assert_eq!(value(&document, Format::Delta), json!([{ "insert": "A <title>\nand more" }]));
    assert_eq!(
        exported(&document, Format::Html),
        "<section data-root=\"body\"><p>body</p></section>\
         <section data-root=\"foot&quot;er\"><p>foot\"er</p></section>\
         <section data-root=\"title\"><p>A &lt;title&gt;</p><p>and more</p></section>"
    );
}

#[test]
fn a_root_that_does_not_fit_is_left_out_and_an_empty_one_is_given_where_told() {
    let document = made(|transaction| {
        transaction.get_or_insert_text("text").insert(transaction, 0, "x");
    });
    assert_eq!(value(&document, Format::ProseMirror), json!({}));
    let told = BTreeMap::from([("new".to_owned(), RootKind::Xml)]);
    let empty = export(&document, Format::ProseMirror, &told).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&empty).unwrap(), json!({ "type": "doc", "content": [] }));
}

#[test]
fn nothing_in_html_can_run() {
    let evil = "\"><script>alert(1)</script>";
    let document = made(|transaction| {
        let fragment = transaction.get_or_insert_xml_fragment("body");
        let names = ["script", "codeBlock", "image", "mention", "orderedList", "tableCell", "heading", evil];
        for name in names {
            let element = fragment.push_back(transaction, XmlElementPrelim::empty(name));
            for key in
                ["src", "onerror", "language", "type", "id", "label", "textAlign", "level", "align", evil]
            {
                yrs::Xml::insert_attribute(&element, transaction, key, evil);
            }
            let text = element.push_back(transaction, XmlTextPrelim::new(""));
            for (mark, value) in [("link", "javascript:alert(1)"), ("link", evil), (evil, evil)] {
                let attributes =
                    Any::from_json(&json!({ "href": value, "class": evil, "onclick": evil }).to_string());
                let attributes = Attrs::from([(mark.into(), attributes.unwrap())]);
                text.insert_with_attributes(transaction, 0, evil, attributes);
            }
        }
    });
    let html = exported(&document, Format::Html);
    assert!(!html.contains("<script") && !html.contains("javascript:"), "{html}");
    // What is left of it stands within quotation marks or between elements.
    let tags: Vec<_> = html.split('<').skip(1).collect();
    for tag in tags {
        let mut in_value = false;
        let end = tag
            .find(|c| {
                in_value ^= c == '"';
                c == '>' && !in_value
            })
            .expect("every tag ends");
        let names: String = tag[..end].split('"').step_by(2).collect();
        assert!(
            !names.contains("onerror") && !names.contains("onclick") && !names.contains("alert"),
            "{tag}"
        );
    }
    assert!(html.contains("<div data-type=\"script\">"), "{html}");
}

#[test]
fn quills_lines_are_blocks() {
    let (_, document, _) = golden().into_iter().find(|(name, ..)| name == "delta").unwrap();
    let html = exported(&document, Format::Html);
    let parts = [
        "</h1><p><em>bo</em><strong><em>th</em></strong>",
        "<ul><li><p>one</p><ol><li><p>deeper</p></li></ol></li><li><p>two</p></li></ul>",
        "<ul data-type=\"taskList\"><li data-checked=\"true\" data-type=\"taskItem\">",
        "<blockquote><p>quote</p></blockquote>",
        "<pre><code class=\"language-js\">let a = 1\n</code></pre>",
        "<img src=\"https://example.com/a.png\" alt=\"x\"><code>e=mc^2</code>Grüße 👩‍👩‍👧</p>",
    ];
    for part in parts {
        assert!(html.contains(part), "{part} is not in {html}");
    }
}

/// What a parser makes of a document's Markdown.
fn read_markdown(markdown: &str) -> String {
    use pulldown_cmark::Options;
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut html = String::new();
    pulldown_cmark::html::push_html(&mut html, pulldown_cmark::Parser::new_ext(markdown, options));
    html
}

/// Each character of HTML with the marks that it has, without breaks of lines.
fn visible(html: &str) -> Vec<(char, BTreeSet<String>)> {
    let mut open = BTreeSet::new();
    let mut visible = Vec::new();
    for part in html.split('<') {
        let (tag, text) = part.split_once('>').unwrap_or(("", part));
        // A link that leads nowhere is none in Markdown.
        let tag = if tag.ends_with("href=\"\"") { "" } else { tag };
        let name = tag.trim_start_matches('/').split(' ').next().unwrap().replace("del", "s");
        if ["strong", "em", "s", "u", "code", "a", "h1", "h2", "blockquote", "li"].contains(&&*name) {
            let _ = if tag.starts_with('/') { open.remove(&name) } else { open.insert(name) };
        }
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        let text = text.replace("&nbsp;", "\u{a0}").replace("&amp;", "&").replace('\n', "");
        visible.extend(text.chars().map(|c| (c, open.clone())));
    }
    visible
}

#[test]
fn a_parser_of_markdown_finds_what_people_wrote() {
    for (name, document, _) in golden() {
        let markdown = exported(&document, Format::Markdown);
        let (found, html) = (read_markdown(&markdown), exported(&document, Format::Html));
        assert_eq!(visible(&found), visible(&html), "{name}: {markdown}");
        let same = [
            "<ul",
            "<ol",
            "<pre",
            "<h3",
            "<h6",
            "<hr",
            "<img",
            "<table",
            "<tr",
            "type=\"checkbox",
            "start=\"",
        ];
        for part in same {
            let count = |html: &str| html.matches(part).count();
            assert_eq!(count(&found), count(&html), "{name}, {part}: {markdown} is read as {found}");
        }
    }
}

#[test]
fn text_that_looks_like_markdown_stays_text() {
    let pieces = [
        "*",
        "_",
        "`",
        "~",
        "[",
        "](",
        ")",
        "<",
        ">",
        "#",
        "-",
        "+",
        "=",
        "1.",
        "2)",
        "!",
        "|",
        "\\",
        "&amp;",
        " ",
        "a",
        "é",
        "b",
        ":",
        "https://a.b",
        "www.a.b",
        "\u{a0}",
        "\"",
        "👍",
        "  ",
        "\t",
        "---",
        ":--",
        "[x] ",
    ];
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for round in 0..3_000 {
        let document = made(|transaction| {
            let fragment = transaction.get_or_insert_xml_fragment("body");
            let kind = ["paragraph", "heading", "tableCell", "listItem"][next(4)];
            let mut parent = match kind {
                "listItem" => fragment.push_back(transaction, XmlElementPrelim::empty("bulletList")),
                "tableCell" => {
                    let table = fragment.push_back(transaction, XmlElementPrelim::empty("table"));
                    table.push_back(transaction, XmlElementPrelim::empty("tableRow"))
                }
                _ => fragment.push_back(transaction, XmlElementPrelim::empty(kind)),
            };
            if matches!(kind, "listItem" | "tableCell") {
                let item = parent.push_back(transaction, XmlElementPrelim::empty(kind));
                parent = item.push_back(transaction, XmlElementPrelim::empty("paragraph"));
            }
            for _ in 0..1 + next(3) {
                let text = parent.push_back(transaction, XmlTextPrelim::new(""));
                for _ in 0..1 + next(5) {
                    let words: String = (0..1 + next(4)).map(|_| pieces[next(pieces.len())]).collect();
                    let marks = ["bold", "italic", "strike", "underline", "code", "link"];
                    let marks = (0..next(3)).map(|_| {
                        let mark = marks[next(marks.len())];
                        let href = Any::from_json("{\"href\":\"/a b|c>\"}").unwrap();
                        (mark.into(), if mark == "link" { href } else { Any::Map(Default::default()) })
                    });
                    let marks: Attrs = marks.collect();
                    let end = text.len(transaction);
                    text.insert_with_attributes(transaction, end, &words, marks);
                }
                parent.push_back(transaction, XmlElementPrelim::empty("hardBreak"));
            }
        });
        let markdown = exported(&document, Format::Markdown);
        let (found, html) = (read_markdown(&markdown), exported(&document, Format::Html));
        assert_eq!(visible(&found), visible(&html), "round {round}: {markdown} is read as {found}");
    }
}

#[test]
fn what_nests_deeply_is_exported_as_well() {
    let document = made(|transaction| {
        let fragment = transaction.get_or_insert_xml_fragment("body");
        let mut parent = fragment.push_back(transaction, XmlElementPrelim::empty("bulletList"));
        for depth in 0..96 {
            let name = ["listItem", "blockquote", "unknown", "orderedList"][depth % 4];
            parent = parent.push_back(transaction, XmlElementPrelim::empty(name));
        }
        let paragraph = parent.push_back(transaction, XmlElementPrelim::empty("paragraph"));
        paragraph.push_back(transaction, XmlTextPrelim::new("deep"));
    });
    for format in [Format::ProseMirror, Format::Html, Format::Markdown] {
        assert!(exported(&document, format).contains("deep"), "{format:?}");
    }
}
