//! Bodies by media type, whole, cut and broken.

use super::exchange::Build;
use crate::{
    observation::{Content, Node},
    redact::{RedactConfig, Redactor},
};

fn read(build: &Build) -> Content {
    let mut redactor = Redactor::new([7; 16], RedactConfig::default());
    redactor.observe(&build.make()).expect("a request").request.content
}

fn json(text: &str) -> Content {
    read(&Build::new("POST", "/").json(text))
}

fn cut_json(text: &str) -> Content {
    read(&Build::new("POST", "/").json(text).cut())
}

/// A node in the fewest signs.
fn sketch(node: &Node) -> String {
    match node {
        Node::Null => "null".into(),
        Node::Bool => "bool".into(),
        Node::Number(n) if n.is_integer => "int".into(),
        Node::Number(_) => "num".into(),
        Node::String(_) => "str".into(),
        Node::Array { items, length, is_closed } => {
            let items = items.iter().map(sketch).collect::<Vec<_>>().join(",");
            format!("[{items};{length}{}", if *is_closed { "]" } else { "" })
        }
        Node::Object { members, is_closed } => {
            let members = members
                .iter()
                .map(|(t, n)| {
                    format!("{}:{}", t.text.as_ref().map_or("?", |t| t.as_str()), sketch(n))
                })
                .collect::<Vec<_>>()
                .join(",");
            format!("{{{members}{}", if *is_closed { "}" } else { "" })
        }
    }
}

#[track_caller]
fn is_sketch(content: &Content, expected: &str) {
    let Content::Json(node) = content else { panic!("{content:?}") };
    assert_eq!(sketch(node), expected);
}

#[test]
fn reads_json() {
    is_sketch(
        &json(r#"{"id":1,"price":1.5,"ok":true,"none":null,"tags":["a","b"]}"#),
        "{id:int,price:num,ok:bool,none:null,tags:[str,str;2]}",
    );
    is_sketch(&json("\u{feff} [ ] "), "[;0]");
    is_sketch(&json("42"), "int");
    is_sketch(&json(r#"{"id":1,"id":"x"}"#), "{id:str}");
    is_sketch(&json(r#"{"i\u0064":NaN}"#), "{id:num}");
    is_sketch(
        &json(r#"{"id":1e400,"total":123456789012345678901234567890}"#),
        "{id:num,total:int}",
    );
}

#[test]
fn a_cut_body_yields_its_prefix() {
    is_sketch(&cut_json(r#"{"id":1,"total":12"#), "{id:int");
    is_sketch(&cut_json(r#"{"id":1,"status":"op"#), "{id:int");
    is_sketch(&cut_json(r#"{"id":1,"sta"#), "{id:int");
    is_sketch(&cut_json(r#"{"id":1,"status":"#), "{id:int");
    is_sketch(&cut_json(r#"{"items":[{"id":1},{"id":2"#), "{items:[{id:int},{;2");
    is_sketch(&cut_json(r#"{"ok":tr"#), "{");
    is_sketch(&cut_json(r#"{"id":1}"#), "{id:int}");
    assert_eq!(cut_json("\"abc"), Content::Empty);
}

#[test]
fn broken_json_is_malformed() {
    for text in [
        "{",
        "{\"id\":}",
        "[1,]",
        "{'id':1}",
        "hello",
        "{\"id\":1}}",
        "\"abc",
        "[1 2]",
        "{\"id\" 1}",
        "nul",
        "1 2",
    ] {
        assert_eq!(json(text), Content::Malformed, "{text}");
    }
}

#[test]
fn bounds_hold() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    assert!(matches!(json(&deep), Content::Json(_)));
    let open = "{\"a\":".repeat(100_000);
    assert!(matches!(cut_json(&open), Content::Json(_)));
    let wide = format!("[{}1]", "1,".repeat(100_000));
    let Content::Json(Node::Array { items, length, is_closed }) = json(&wide) else { panic!() };
    assert_eq!((items.len(), length, is_closed), (16, 100_001, true));
    let keys = (0..5000).map(|i| format!("\"k{i}\":{i}")).collect::<Vec<_>>().join(",");
    let Content::Json(Node::Object { members, is_closed }) = json(&format!("{{{keys}}}")) else {
        panic!()
    };
    assert_eq!((members.len(), is_closed), (256, false));
}

#[test]
fn reads_json_lines_and_sniffs_json() {
    let lines = Build::new("POST", "/").body("application/x-ndjson", "{\"id\":1}\n{\"id\":2}\n");
    assert!(matches!(read(&lines), Content::JsonLines(nodes) if nodes.len() == 2));
    let sequence = Build::new("POST", "/")
        .body("application/json-seq", "\u{1e}{\"id\":1}\n\u{1e}{\"id\":2}\n");
    assert!(matches!(read(&sequence), Content::JsonLines(nodes) if nodes.len() == 2));
    is_sketch(&read(&Build::new("POST", "/").body("text/plain", " {\"id\":1}")), "{id:int}");
    is_sketch(
        &read(
            &Build::new("POST", "/").body("application/problem+json; charset=utf-8", "{\"id\":1}"),
        ),
        "{id:int}",
    );
    assert_eq!(read(&Build::new("POST", "/").body("text/plain", "{no json")), Content::Text);
}

#[test]
fn reads_forms() {
    let form =
        |text: &str| read(&Build::new("POST", "/").body("application/x-www-form-urlencoded", text));
    let Content::Form { fields, is_whole } = form("email=a%40b.example&limit=5&limit=6") else {
        panic!()
    };
    assert_eq!((fields.len(), is_whole), (3, true));
    assert_eq!(fields[0].1.personal, Some(crate::observation::Personal::Email));
    assert_eq!(form("{\"id\": 1}"), Content::Malformed);
}

#[test]
fn reads_multipart() {
    let text = "--XX\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nhello\r\n\
        --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"alice.png\"\r\nContent-Type: image/png\r\n\r\n\0\u{1}\r\n--XX--\r\n";
    let Content::Multipart { parts, is_whole } =
        read(&Build::new("POST", "/").body("multipart/form-data; boundary=XX", text))
    else {
        panic!()
    };
    assert!(is_whole);
    assert_eq!(parts.len(), 2);
    assert!(!parts[0].is_file && parts[0].value.is_some());
    assert!(parts[1].is_file && parts[1].value.is_none());
    assert_eq!(parts[1].media_type.as_ref().map(|t| t.as_str()), Some("image/png"));
    assert_eq!(
        read(&Build::new("POST", "/").body("multipart/form-data; boundary=XX", "nothing")),
        Content::Malformed
    );
}

#[test]
fn other_types_are_named() {
    let of = |media_type: &str| read(&Build::new("POST", "/").body(media_type, "<a/>"));
    assert_eq!(of("application/xml"), Content::Xml);
    assert_eq!(of("application/atom+xml"), Content::Xml);
    assert_eq!(of("text/html"), Content::Text);
    assert_eq!(of("text/event-stream"), Content::EventStream);
    assert_eq!(of("image/png"), Content::Binary);
    assert_eq!(read(&Build::new("GET", "/")), Content::Empty);
}
