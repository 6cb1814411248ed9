//! What holds for any bytes at all.

use proptest::prelude::*;

use super::exchange::Build;
use crate::{
    observation::{Content, Node, Observation, Token, Value},
    redact::{RedactConfig, Redactor, detect::detect_str},
};

fn texts_of_token(token: &Token, into: &mut Vec<String>) {
    into.extend(token.text.as_ref().map(|t| t.as_str().to_owned()));
}

fn texts_of_pairs(pairs: &[(Token, Value)], into: &mut Vec<String>) {
    for (token, value) in pairs {
        texts_of_token(token, into);
        into.extend(value.text.as_ref().map(|t| t.as_str().to_owned()));
    }
}

fn texts_of_node(node: &Node, into: &mut Vec<String>) {
    match node {
        Node::String(value) => into.extend(value.text.as_ref().map(|t| t.as_str().to_owned())),
        Node::Array { items, .. } => items.iter().for_each(|n| texts_of_node(n, into)),
        Node::Object { members, .. } => members.iter().for_each(|(t, n)| {
            texts_of_token(t, into);
            texts_of_node(n, into);
        }),
        _ => {}
    }
}

fn texts(seen: &Observation) -> Vec<String> {
    let mut all = Vec::new();
    for segment in &seen.path {
        texts_of_token(&segment.token, &mut all);
        all.extend(segment.value.text.as_ref().map(|t| t.as_str().to_owned()));
    }
    texts_of_pairs(&seen.query, &mut all);
    texts_of_pairs(&seen.headers, &mut all);
    texts_of_pairs(&seen.cookies, &mut all);
    match &seen.request.content {
        Content::Json(node) => texts_of_node(node, &mut all),
        Content::JsonLines(nodes) => nodes.iter().for_each(|n| texts_of_node(n, &mut all)),
        Content::Form { fields, .. } => texts_of_pairs(fields, &mut all),
        Content::Multipart { parts, .. } => {
            parts.iter().for_each(|p| texts_of_token(&p.name, &mut all))
        }
        _ => {}
    }
    all
}

fn media_type() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "application/json",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=B",
        "text/plain",
        "",
        ";;=\";",
    ])
}

/// Bytes that look enough like the grammars to get deep into the readers.
fn structured() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u00e9",
        "\\ud800",
        "1",
        "-1.5e3",
        "null",
        "tru",
        "NaN",
        "\"id\":",
        "\"email\":\"a@b.example\"",
        "--B",
        "\r\n",
        "\r\n\r\n",
        "Content-Disposition: form-data; name=\"x\"",
        "&",
        "=",
        "%",
        "%41",
        "%2",
        "+",
        "/",
        "..",
        ";",
        "?",
        " ",
        "4111111111111111",
        "\u{feff}",
        "é",
        "users",
        ".json",
        "::1",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn never_panics_and_no_text_holds_a_hit(
        target in prop_oneof![structured(), prop::collection::vec(any::<u8>(), 0..200)],
        body in prop_oneof![structured(), prop::collection::vec(any::<u8>(), 0..400)],
        header in prop_oneof![structured(), prop::collection::vec(any::<u8>(), 0..100)],
        media_type in media_type(),
        is_cut in any::<bool>(),
    ) {
        let mut redactor = Redactor::new([9; 16], RedactConfig::default());
        let mut build = Build::new("POST", &target)
            .header("X-Thing", &header)
            .header("Cookie", &header)
            .header("Authorization", &header)
            .header("Host", &header)
            .body(media_type, &body)
            .answer(200, media_type, &body)
            .answer_header("Location", &target);
        if is_cut {
            build = build.cut();
        }
        for flow in 0..4 {
            let seen = redactor.observe(&build.clone().flow(flow).make()).expect("a request");
            for text in texts(&seen) {
                prop_assert_eq!(detect_str(&text), None, "{}", text);
            }
        }
    }

    #[test]
    fn a_prefix_of_json_is_never_malformed(cut_at in 0usize..120) {
        let whole = r#"{"id":12,"items":[{"price":1.5e2,"ok":true,"tags":["a","\u00e9\n"]},null],"total":-3,"x":false}"#;
        let prefix = whole.as_bytes().get(..cut_at.min(whole.len())).unwrap_or_default();
        let mut redactor = Redactor::new([9; 16], RedactConfig::default());
        let build = Build::new("POST", "/").body("application/json", prefix).cut();
        let seen = redactor.observe(&build.make()).expect("a request");
        prop_assert_ne!(seen.request.content, Content::Malformed);
    }

    #[test]
    fn detectors_take_any_bytes(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            "[0-9 .()+-]{0,600}".prop_map(String::into_bytes),
            "[A-Z0-9]{1,4}[0-9]{250,400}".prop_map(String::into_bytes),
            "[0-9a-f:.@%]{0,300}".prop_map(String::into_bytes),
        ],
    ) {
        let profile = crate::redact::alphabet::Profile::of(&bytes);
        let found = crate::redact::detect::detect(&bytes, profile);
        prop_assert_eq!(found, crate::redact::detect::detect(&bytes, profile));
    }
}
