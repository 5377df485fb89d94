//! Applications without a Yjs library change documents: in Markdown, HTML, text and JSON, and by operations. Whatever they
//! send changes no more than what is different.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use bytes::Bytes;
use quire::document::{
    Document,
    edit::{
        given::{Given, given},
        operations::{MAX_OPERATIONS, Operation, operated},
    },
    export::{Format, export},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use yrs::{
    Any, Assoc, IndexedSequence, ReadTxn, Text, Transact, WriteTxn, Xml, XmlElementPrelim, XmlFragment,
    XmlTextPrelim, types::Attrs, updates::decoder::Decode,
};

use crate::common::{JSON, PATIENCE, Person, TestServer, new_doc, redis::RedisServer, said, within};

fn data(folder: &str, extension: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let files = files.into_iter().filter(|file| file.extension().is_some_and(|is| is == extension));
    files
        .map(|file| (file.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&file).unwrap()))
        .collect()
}

fn exported(document: &Document, format: Format) -> String {
    String::from_utf8(export(document, format, &BTreeMap::new()).unwrap()).unwrap()
}

/// What a document needs to have this content.
fn needs(document: &Document, content: &Given) -> Option<Bytes> {
    given(document, content, &BTreeMap::new()).unwrap().unwrap_or_else(|unfit| panic!("{unfit}"))
}

fn made_of(content: &Given) -> Document {
    let mut document = Document::default();
    if let Some(update) = needs(&document, content) {
        document.receive(update).unwrap();
    }
    document
}

fn content(format: Format, text: &str) -> Given {
    match format {
        Format::Markdown => Given::Markdown(text.to_owned()),
        Format::Html => Given::Html(text.to_owned()),
        Format::Text => Given::Text(text.to_owned()),
        _ => Given::Json(serde_json::from_str(text).unwrap()),
    }
}

fn is_stable_after_one_pass(name: &str, text: &str, format: Format) {
    let first = made_of(&content(format, text));
    let once = exported(&first, format);
    assert!(once.len() > text.len() / 4, "{name}: most of it is there, {} of {}", once.len(), text.len());
    let second = made_of(&content(format, &once));
    let twice = exported(&second, format);
    if let Some((a, b)) = once.lines().zip(twice.lines()).find(|(a, b)| a != b) {
        panic!("{name}: it is not stable:\n{a:.300}\n{b:.300}");
    }
    assert_eq!(once.len(), twice.len(), "{name}");
    let third = made_of(&content(format, &twice));
    assert!(exported(&third, Format::ProseMirror) == exported(&second, Format::ProseMirror), "{name}");
    assert_eq!(needs(&first, &content(format, &once)), None, "{name}: nothing is different");
}

#[test]
fn markdown_is_stable_after_one_pass() {
    let mut files = data("real-life", "md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    files.extend(
        ["README.md", "SECURITY.md"].map(|name| (name.to_owned(), fs::read(root.join(name)).unwrap())),
    );
    assert!(files.len() > 8);
    for (name, text) in files {
        is_stable_after_one_pass(&name, str::from_utf8(&text).unwrap(), Format::Markdown);
    }
}

#[test]
fn html_is_stable_after_one_pass() {
    let mut files = data("real-life", "html");
    for (name, text) in data("real-life", "md") {
        let mut html = String::new();
        let options = pulldown_cmark::Options::ENABLE_TABLES | pulldown_cmark::Options::ENABLE_TASKLISTS;
        let parser = pulldown_cmark::Parser::new_ext(str::from_utf8(&text).unwrap(), options);
        pulldown_cmark::html::push_html(&mut html, parser);
        files.push((format!("{name}.html"), html.into_bytes()));
    }
    for (name, text) in files {
        is_stable_after_one_pass(&name, str::from_utf8(&text).unwrap(), Format::Html);
    }
}

/// What Tiptap's HTML of the golden documents becomes is what Tiptap had, without what is the default.
#[test]
fn html_of_tiptap_becomes_what_tiptap_had() {
    let mut compared = 0;
    for (name, golden) in data("exports", "json") {
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        // Those say on purpose what HTML cannot say, or what is not let through.
        if matches!(&*name, "several.json" | "delta.json" | "links.json" | "unicode.json") {
            continue;
        }
        let (Some(html), Some(had)) = (golden["html"].as_str(), golden.get("prosemirror")) else { continue };
        let document = made_of(&Given::Html(html.to_owned()));
        let mut is: Value = serde_json::from_str(&exported(&document, Format::ProseMirror)).unwrap();
        let mut had = had.clone();
        plain(&mut is);
        plain(&mut had);
        assert!(is == had, "{name}:\n{is}\n{had}");
        compared += 1;
    }
    assert!(compared >= 5, "{compared}");
}

/// Without attributes that say what goes without saying.
fn plain(value: &mut Value) {
    if let Some(Value::Object(attrs)) = value.get_mut("attrs") {
        let default = |key: &str, value: &Value| {
            value.is_null()
                || matches!((key, value.as_i64()), ("start" | "colspan" | "rowspan", Some(1)))
                || (key == "mentionSuggestionChar" && value == "@")
                || (key == "language" && value == "")
        };
        attrs.retain(|key, value| !default(key, value));
        if attrs.is_empty() {
            value.as_object_mut().unwrap().remove("attrs");
        }
    }
    // The golden lists have items that begin with something else than a paragraph, which no schema takes.
    if value["type"] == "listItem"
        && let Some(Value::Array(content)) = value.get_mut("content")
        && content.len() > 1
        && content[0] == json!({ "type": "paragraph" })
        && content[1]["type"] != "paragraph"
    {
        content.remove(0);
    }
    match value {
        Value::Object(object) => object.values_mut().for_each(plain),
        Value::Array(values) => values.iter_mut().for_each(plain),
        _ => {}
    }
}

#[test]
fn what_was_exported_and_is_put_back_changes_nothing() {
    for (name, update) in data("exports", "update") {
        let document = Document::load(&[update]).unwrap();
        let mut formats = vec![Format::Json];
        if !matches!(&*name, "several.update" | "delta.update") {
            formats.extend([Format::Markdown, Format::Html, Format::Text]);
        }
        for format in formats {
            let text = exported(&document, format);
            assert_eq!(needs(&document, &content(format, &text)), None, "{name} as {format:?}");
        }
    }
}

/// A document of Tiptap's with what Markdown cannot say: an alignment, a colour, a target, and an empty paragraph.
fn letter() -> (yrs::Doc, Document) {
    let doc = new_doc();
    {
        let mut transaction = doc.transact_mut();
        let fragment = transaction.get_or_insert_xml_fragment("default");
        let mut paragraph = |words: &[(&str, Attrs)]| {
            let paragraph = fragment.push_back(&mut transaction, XmlElementPrelim::empty("paragraph"));
            paragraph.insert_attribute(&mut transaction, "textAlign", "center");
            if !words.is_empty() {
                let text = paragraph.push_back(&mut transaction, XmlTextPrelim::new(""));
                for (words, format) in words {
                    let end = text.len(&transaction);
                    text.insert_with_attributes(&mut transaction, end, words, format.clone());
                }
            }
        };
        let colour = Attrs::from([("colour".into(), Any::from("red"))]);
        let link = std::collections::HashMap::from([
            ("href".to_owned(), Any::from("https://example.com")),
            ("target".to_owned(), Any::from("_blank")),
        ]);
        let link = Attrs::from([("link".into(), Any::from(link))]);
        paragraph(&[("Dear ", Attrs::new()), ("Ada", colour), (", see ", Attrs::new()), ("this page", link)]);
        paragraph(&[]);
        paragraph(&[("Yours, Charles", Attrs::new())]);
    }
    let update = doc.transact().encode_diff_v1(&yrs::StateVector::default());
    let document = Document::load(&[update]).unwrap();
    (doc, document)
}

#[test]
fn what_markdown_cannot_say_stays() {
    let (doc, mut document) = letter();
    let markdown = exported(&document, Format::Markdown);
    assert_eq!(markdown, "Dear Ada, see [this page](https://example.com)\n\nYours, Charles\n");
    let wanted = "# News\n\nDear Ada, do see [this page](https://example.com)!\n\nYours, Charles Babbage\n";
    // Her caret stands in the first paragraph, before "Ada".
    let caret = {
        let mut transaction = doc.transact_mut();
        let fragment = transaction.get_or_insert_xml_fragment("default");
        let paragraph = fragment.get(&transaction, 0).unwrap().into_xml_element().unwrap();
        let text = paragraph.get(&transaction, 0).unwrap().into_xml_text().unwrap();
        text.sticky_index(&transaction, 5, Assoc::After).unwrap()
    };
    let update = needs(&document, &Given::Markdown(wanted.to_owned())).unwrap();
    assert!(update.len() < 150, "{} bytes", update.len());
    document.receive(update.clone()).unwrap();
    assert_eq!(exported(&document, Format::Markdown), wanted);
    let html = exported(&document, Format::Html);
    assert_eq!(html.matches("text-align: center").count(), 3, "{html}");
    assert!(
        html.contains("target=\"_blank\"") && html.contains("<p style=\"text-align: center;\"></p>"),
        "{html}"
    );
    assert!(exported(&document, Format::ProseMirror).contains("\"red\""));
    let mut transaction = doc.transact_mut();
    transaction.apply_update(yrs::Update::decode_v1(&update).unwrap()).unwrap();
    assert_eq!(caret.get_offset(&transaction).unwrap().index, 5);
}

#[test]
fn json_keeps_shared_types_and_refuses_what_it_cannot_say() {
    let document = |roots: Value| made_of(&content(Format::Json, &roots.to_string()));
    let mut is =
        document(json!({ "text": "hello", "map": { "a": 1, "b": [1, 2] }, "list": ["x", { "y": 2.5 }] }));
    let said: Value = serde_json::from_str(&exported(&is, Format::Json)).unwrap();
    assert_eq!(said, json!({ "text": "hello", "map": { "a": 1, "b": [1, 2] }, "list": ["x", { "y": 2.5 }] }));
    let update =
        needs(&is, &content(Format::Json, r#"{"text":"hello, you","list":["w","x",{"y":2.5}]}"#)).unwrap();
    is.receive(update).unwrap();
    let said: Value = serde_json::from_str(&exported(&is, Format::Json)).unwrap();
    assert_eq!(
        said,
        json!({ "text": "hello, you", "map": { "a": 1, "b": [1, 2] }, "list": ["w", "x", { "y": 2.5 }] })
    );
    let refused = |document: &Document, roots: Value| {
        let content = content(Format::Json, &roots.to_string());
        given(document, &content, &BTreeMap::new()).unwrap().unwrap_err().0
    };
    assert!(refused(&is, json!({ "text": 1 })).contains("a Y.Text, which takes a string"));
    assert!(refused(&is, json!({ "new": 1 })).contains("\"new\": a root type holds"));
    let (_, letter) = letter();
    assert!(refused(&letter, json!({ "default": "<p>x</p>" })).contains("html or markdown"));
}

#[test]
fn hostile_html_and_markdown_are_cheap_and_harmless() {
    let cases = [
        "<b x=1><p>".repeat(20_000),
        "<ul><li>".repeat(20_000),
        "<table><tr><td>".repeat(20_000),
        "<blockquote>".repeat(50_000),
        "</p></li></td>".repeat(20_000),
        "<a href=\"javascript:alert(1)\">x</a><img src=\"javascript:alert(1)\"><script>alert(1)</script>"
            .to_owned(),
        "<p>".repeat(9_000) + &"<img src=a>".repeat(9_000),
        "a<b>b</b>".repeat(50_000),
        "<table>".to_owned() + &"<tr><td>a<td>b".repeat(10_000),
        "<pre><code class=\"language-x\"><b>\0</b>".to_owned(),
    ];
    for html in cases {
        let document = made_of(&Given::Html(html));
        let exported = exported(&document, Format::Html);
        assert!(!exported.contains("javascript:") && !exported.contains("<script"), "{exported}");
    }
    let many = Given::Html("<p>".repeat(100_000));
    let unfit = given(&Document::default(), &many, &BTreeMap::new()).unwrap().unwrap_err();
    assert!(unfit.0.contains("100000 blocks; the limit is 20000"), "{unfit}");
    // Two texts that are different all over.
    let mut document = made_of(&content(Format::Json, &json!({ "text": "ab".repeat(100_000) }).to_string()));
    let update = needs(&document, &Given::Text("ac".repeat(100_000))).unwrap();
    document.receive(update).unwrap();
    for markdown in ["> ".repeat(20_000), "- ".repeat(20_000), "*a ".repeat(20_000), "[".repeat(20_000)] {
        made_of(&Given::Markdown(markdown));
    }
}

fn operations(list: Value) -> Vec<Operation> {
    serde_json::from_value(list).unwrap()
}

#[test]
fn operations_find_their_place() {
    let mut document = Document::default();
    let mut does = |list: Value| {
        let update = operated(&document, &operations(list), 1_000_000)
            .unwrap()
            .unwrap_or_else(|unfit| panic!("{unfit}"));
        document.receive(update.expect("it changes something")).unwrap();
        serde_json::from_str::<Value>(&exported(&document, Format::Json)).unwrap()
    };
    let is = does(json!([
        { "op": "insert", "root": "t", "text": "one 📝 three three" },
        { "op": "insert", "root": "t", "before": "three", "occurrence": 1, "text": "two, " },
        { "op": "replace", "root": "t", "find": "three", "occurrence": 2, "text": "four" },
        { "op": "delete", "root": "t", "at": 4, "length": 3 },
        { "op": "insert", "root": "t", "at": 0, "text": "Zero, ", "format": { "bold": true } },
        { "op": "insert", "root": "t", "after": "four", "text": "!" },
        { "op": "set", "root": "m", "path": ["title"], "value": "A letter" },
        { "op": "set", "root": "m", "path": ["body"], "value": "text", "shared": "text" },
        { "op": "insert", "root": "m", "path": ["body"], "text": ", more" },
        { "op": "insert", "root": "list", "values": [1, 2, { "three": null }] },
        { "op": "set", "root": "list", "path": [1], "value": "two" },
        { "op": "delete", "root": "list", "at": 0 },
    ]));
    assert_eq!(is["t"], "Zero, one two, three four!");
    assert_eq!(is["m"], json!({ "title": "A letter", "body": "text, more" }));
    assert_eq!(is["list"], json!(["two", { "three": null }]));
    let is = does(json!([
        { "op": "remove", "root": "m", "path": ["title"] },
        { "op": "replace", "root": "t", "find": "Zero", "text": "None" },
        { "op": "format", "root": "t", "find": "o", "occurrence": "all", "format": { "italic": true } },
        { "op": "format", "root": "t", "find": "one two", "format": { "italic": null } },
    ]));
    assert_eq!(is["m"], json!({ "body": "text, more" }));
    let delta: Value = serde_json::from_str(&exported(&document, Format::Delta)).unwrap();
    assert_eq!(delta[0], json!({ "insert": "N", "attributes": { "bold": true } }), "{delta}");
    assert_eq!(delta[1], json!({ "insert": "o", "attributes": { "bold": true, "italic": true } }), "{delta}");
    // In what Tiptap made.
    let (_, mut letter) = letter();
    let list = operations(json!([
        { "op": "replace", "root": "default", "find": "Charles", "text": "C." },
        { "op": "insert", "root": "default", "path": [0, 0], "at": 0, "text": "My " },
    ]));
    letter.receive(operated(&letter, &list, 1_000_000).unwrap().unwrap().unwrap()).unwrap();
    assert!(exported(&letter, Format::Text).starts_with("My Dear Ada"));
    assert!(exported(&letter, Format::Text).ends_with("Yours, C."));
}

#[test]
fn what_operations_put_in_is_bounded() {
    let text = json!({ "text": "a".repeat(9_000) }).to_string();
    let document = made_of(&content(Format::Json, &text));
    let refused = |list: Value| operated(&document, &operations(list), 1_000_000).unwrap().unwrap_err().0;
    let all = |text: &str| json!({ "op": "replace", "root": "text", "find": "a", "occurrence": "all", "text": text });
    let reason = refused(json!([all(&"b".repeat(112))]));
    assert!(
        reason.contains("[0].text: the operations put in more than 1000000 bytes (--max-update)"),
        "{reason}"
    );
    // Each makes it twice as long, and then there are too many places.
    let reason = refused(Value::Array(vec![all("aa"); 40]));
    assert!(reason.contains("[1].occurrence: the operations change more than 10000 places"), "{reason}");
    let list = operations(json!([all("bb")]));
    assert!(operated(&document, &list, 1_000_000).unwrap().is_ok());
}

#[test]
fn a_letter_in_a_large_text_is_cheap() {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(25_000);
    let document = made_of(&content(Format::Json, &json!({ "text": text }).to_string()));
    let start = std::time::Instant::now();
    let update = needs(&document, &Given::Text(format!("{text}!"))).unwrap();
    assert!(update.len() < 100, "{} bytes", update.len());
    let marks = Given::Html("<b>x".repeat(100_000));
    made_of(&marks);
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test]
async fn content_that_does_not_fit_leaves_what_was_deleted() {
    let server = TestServer::start().await;
    let path = "/api/documents/letter";
    assert_eq!(
        server.request_with("PUT", &format!("{path}?format=markdown"), "", b"# Dear").await.status,
        201
    );
    assert_eq!(server.request("DELETE", path, "").await.status, 204);
    said(
        &server.request_with("PUT", &format!("{path}?format=text"), "", b"hello").await,
        422,
        "root=content",
    );
    let markdown = format!("{path}?format=markdown");
    said(&server.request_with("PUT", &markdown, "If-Match: \"x\"\r\n", b"x").await, 412, "read it again");
    assert_eq!(server.post(&format!("{path}/restore"), "", b"").await.status, 204);
    assert_eq!(server.get(&format!("{path}?format=markdown")).await.text(), "# Dear\n");
    server.stop().await;
}

#[tokio::test]
async fn all_operations_are_done_or_none() {
    let server = TestServer::start().await;
    let path = "/api/documents/letter";
    let patch = async |list: Value| {
        let body = json!({ "operations": list }).to_string();
        server.request_with("PATCH", path, JSON, body.as_bytes()).await
    };
    let insert = json!({ "op": "insert", "root": "content", "at": 0, "text": "a 📝 a" });
    let answer = patch(json!([insert])).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let refusals = [
        (
            json!({ "op": "insert", "root": "content", "at": 99, "text": "x" }),
            "operations[1].at: 99 is beyond the end",
        ),
        (
            json!({ "op": "insert", "root": "content", "at": 3, "text": "x" }),
            "operations[1].at: 3 is in the middle",
        ),
        (
            json!({ "op": "replace", "root": "content", "find": "a", "text": "x" }),
            "find: \\\"a\\\" is there 4 times",
        ),
        (json!({ "op": "delete", "root": "content", "find": "b" }), "find: \\\"b\\\" is not there"),
        (json!({ "op": "delete", "root": "content", "find": "" }), "find: it is empty"),
        (json!({ "op": "delete", "root": "content", "find": "a", "occurrence": 9 }), "occurrence:"),
        (json!({ "op": "delete", "root": "content", "at": 0 }), "say what is meant"),
        (json!({ "op": "delete", "root": "content", "at": 0, "length": 99 }), "length: 99"),
        (json!({ "op": "insert", "root": "content", "at": 0, "before": "a", "text": "x" }), "only one of"),
        (json!({ "op": "insert", "root": "content" }), "text: there is none"),
        (json!({ "op": "insert", "root": "content", "values": [1] }), "values: here is no array"),
        (json!({ "op": "insert", "root": "content", "values": [1], "text": "x" }), "only at goes with them"),
        (json!({ "op": "set", "root": "content", "path": [], "value": 1 }), "path: name the key"),
        (json!({ "op": "set", "root": "content", "path": ["a"], "value": 1 }), "the last step must be"),
        (
            json!({ "op": "set", "root": "m", "path": ["a"], "value": 1, "shared": "text" }),
            "value: a text takes",
        ),
        (json!({ "op": "remove", "root": "m", "path": ["a"] }), "path: there is no \\\"a\\\""),
        (json!({ "op": "remove", "root": "m", "path": ["a", "b"] }), "path[0]: there is no"),
        (json!({ "op": "insert", "root": "content", "att": 0, "text": "x" }), "att"),
        (json!({ "op": "jump", "root": "content" }), "jump"),
    ];
    for (operation, reason) in refusals {
        said(&patch(json!([insert, operation])).await, 422, reason);
    }
    said(&patch(vec![insert.clone(); MAX_OPERATIONS + 1].into()).await, 422, "the limit is 256");
    assert_eq!(server.text_of("letter").await, "a 📝 a", "nothing of these was done");
    said(&server.request_with("PATCH", path, "", b"{}").await, 415, "application/json");
    said(&server.request_with("PATCH", path, JSON, b"{").await, 400, "the body");
    let etag = server.get(path).await.header("etag").unwrap().to_owned();
    let body = json!({ "operations": [insert] }).to_string();
    let with_tag = format!("{JSON}If-Match: {etag}\r\n");
    assert_eq!(server.request_with("PATCH", path, &with_tag, body.as_bytes()).await.status, 204);
    said(&server.request_with("PATCH", path, &with_tag, body.as_bytes()).await, 412, "read it again");
    assert_eq!(server.text_of("letter").await, "a 📝 aa 📝 a");
    server.stop().await;
}

/// Waits until a node shows this: what is done on another one is on its way.
async fn shows(server: &TestServer, format: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = server.get(&format!("/api/documents/letter?format={format}")).await.text();
        if shown.contains(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{shown}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn content_comes_to_who_has_the_document_open_elsewhere() {
    let redis = RedisServer::start();
    let on_redis = |config: &mut quire::config::Config| config.redis = Some(redis.url());
    let (near, far) = (TestServer::start_with(on_redis).await, TestServer::start_with(on_redis).await);
    let mut alice = Person::joins(&far, "letter").await;
    let put = async |query: &str, headers: &str, body: &str| {
        near.request_with("PUT", &format!("/api/documents/letter?{query}"), headers, body.as_bytes()).await
    };
    said(&put("format=text", "", "hello").await, 422, "root=content");
    assert_eq!(put("format=text&root=text", "", "hello").await.status, 201);
    within(alice.reads("hello")).await;
    alice.types(" you").await;
    Person::joins(&near, "letter").await.reads("hello you").await;
    let etag = near.get("/api/documents/letter").await.header("etag").unwrap().to_owned();
    assert_eq!(put("format=text", &format!("If-Match: {etag}\r\n"), "hello to you").await.status, 200);
    within(alice.reads("hello to you")).await;
    said(&put("format=text", &format!("If-Match: {etag}\r\n"), "x").await, 412, "read it again");
    said(&put("format=markdown&root=text", "", "# x").await, 422, "no place for this format");
    said(&put("format=word", "", "x").await, 400, "markdown, html, text, json");
    said(&put("formt=text", "", "x").await, 400, "formt");
    said(&put("", "", "x").await, 400, "?format=");
    said(&put("format=json", "", "[]").await, 400, "must be an object");
    said(&put("format=json", "", "{\"text\":{}}").await, 422, "Y.Text");
    let raw = near.request_with("PUT", "/api/documents/letter?format=text", "", &[0xff, 0xfe]).await;
    said(&raw, 400, "UTF-8");
    assert_eq!(put("format=markdown&root=page", "", "# Title\n\n- one\n- two\n").await.status, 200);
    shows(&far, "json", "<heading level=\\\"1\\\">Title</heading>").await;
    assert_eq!(near.request("DELETE", "/api/documents/letter", "").await.status, 204);
    assert_eq!(put("format=html", "", "<p>anew</p>").await.status, 201, "the name begins anew");
    shows(&far, "html", "<p>anew</p>").await;
    assert_eq!(far.get("/api/documents/letter?format=markdown").await.text(), "anew\n");
    near.stop().await;
    far.stop().await;
}
