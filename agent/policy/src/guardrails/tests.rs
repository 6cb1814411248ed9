use std::net::SocketAddr;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::context::tests::request;

fn masker() -> Masker {
    let config = PersonalDataConfig::default();
    Masker::new(config.kinds, config.replacement)
}

fn mask(media: &str, body: &str) -> Option<String> {
    match masker().mask(Some(media), body.as_bytes()) {
        Masked::Clean => None,
        Masked::Found(body) => Some(String::from_utf8(body).unwrap()),
        Masked::Unreadable => panic!("unreadable"),
    }
}

#[test]
fn json_keeps_everything_but_what_is_personal() {
    let body = r#"{ "id" : 12345678901234567890123, "price":1.50e1, "note":"a\u00e9\n",
        "email":"jane@acme.example", "call":"ring +33 6 12 34 56 78 at noon",
        "ssn":123456789, "list":["10.1.2.3", true, null, "x"], "jane@acme.example":{"z":0.10} }"#;
    let expected = r#"{ "id" : 12345678901234567890123, "price":1.50e1, "note":"a\u00e9\n",
        "email":"[REDACTED]", "call":"ring [REDACTED] at noon",
        "ssn":0, "list":["[REDACTED]", true, null, "x"], "[REDACTED]":{"z":0.10} }"#;
    assert_eq!(mask("application/json; charset=utf-8", body).unwrap(), expected);
    assert_eq!(mask("application/problem+json", body).unwrap(), expected);
}

#[test]
fn what_is_not_personal_is_not_touched() {
    for body in [
        r#"{"id":"3fa85f64-5717-4562-b3fc-2c963f66afa6","at":"2026-11-26T20:00:00Z","n":1234567890}"#,
        r#"{"email":"","email_verified":true,"status":"SHIPPED","sku":"AB-1234-9"}"#,
        r#"{"text":"see https://shop.example/orders/17 for more"}"#,
        "[]",
        "",
    ] {
        assert_eq!(mask("application/json", body), None, "{body}");
    }
}

#[test]
fn escapes_hide_nothing() {
    let body = r#"{"a":"jane\u0040acme.example","b":"4111\u00201111 1111\t1111"}"#;
    assert_eq!(mask("application/json", body).unwrap(), r#"{"a":"[REDACTED]","b":"[REDACTED]"}"#);
    // Members of a personal field are personal, wherever they are in it.
    let body = r#"{"phones":["5551234567",{"x":"5551234568"}],"y":"5551234567"}"#;
    let masked = mask("application/json", body).unwrap();
    assert!(masked.starts_with(r#"{"phones":["[REDACTED]",{"x":"[REDACTED]"}]"#), "{masked}");
}

#[test]
fn texts_and_forms() {
    let text =
        mask("text/plain", "Dear Jane,\nmail jane@acme.example, or call (555) 123-4567.\nBye");
    assert_eq!(text.unwrap(), "Dear Jane,\nmail [REDACTED], or call [REDACTED]\nBye");
    assert_eq!(
        mask(
            "application/x-www-form-urlencoded",
            "a=1&mail=jane%40acme.example&b=x+y&card=4111+1111+1111+1111"
        ),
        Some("a=1&mail=%5BREDACTED%5D&b=x+y&card=%5BREDACTED%5D".to_owned())
    );
    assert_eq!(
        mask("text/csv", "id;iban\n1;DE89 3704 0044 0532 0130 00\n").unwrap(),
        "id;iban\n1;[REDACTED]\n"
    );
    // A measurement whose digits pass the check of a card number, and a card number.
    assert_eq!(mask("application/json", r#"{"n": -4.370466905538184, "m": [4e15]}"#), None);
    assert_eq!(mask("application/json", r#"[4370466905538184.0]"#).unwrap(), "[0]");
    // What only claims to be JSON is not let through for it.
    assert_eq!(
        mask("application/json", "{\"a\": jane@acme.example").unwrap(),
        "{\"a\": [REDACTED]"
    );
}

#[test]
fn what_cannot_be_read_is_said() {
    let masker = masker();
    assert_eq!(
        masker.mask(Some("application/octet-stream"), b"jane@acme.example"),
        Masked::Unreadable
    );
    assert_eq!(masker.mask(Some("text/plain"), b"\xff\xfe"), Masked::Unreadable);
    assert_eq!(masker.mask(None, b"jane@acme.example"), Masked::Found(b"[REDACTED]".to_vec()));
}

proptest! {
    #[test]
    fn masked_json_is_json_of_the_same_shape(texts in proptest::collection::vec(".{0,30}", 0..8), n in any::<f64>()) {
        let body = json!({"mail": "jane@acme.example", "texts": texts, "n": n, "deep": [[{"a": texts}]]});
        let masked: Value = serde_json::from_str(&mask("application/json", &body.to_string()).unwrap()).unwrap();
        prop_assert_eq!(&masked["mail"], "[REDACTED]");
        prop_assert_eq!(&masked["n"], &body["n"]);
        prop_assert_eq!(masked["texts"].as_array().unwrap().len(), texts.len());
    }

    #[test]
    fn what_was_masked_has_nothing_left(body in ".{0,200}", mail in "[a-z]{1,9}@[a-z]{1,9}\\.(com|example)") {
        let text = format!("{body} {mail} {body}");
        let once = mask("text/plain", &text).unwrap();
        prop_assert!(!once.contains(&mail));
    }

    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for media in [None, Some("application/json"), Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            masker().mask(media, &body);
        }
    }
}

fn check(
    config: Value,
    edit: impl FnOnce(&mut HeaderMap),
    body: Body<'_>,
) -> (Verdict, Decision, BodyNeed) {
    let guardrails = Guardrails::build(&serde_json::from_value(config).unwrap()).unwrap();
    let mut headers = HeaderMap::new();
    edit(&mut headers);
    let mut context = request(&headers);
    let need = guardrails.body_need(&context);
    context.body = body;
    context.path = "/orders/17";
    context.source = SocketAddr::from(([192, 0, 2, 1], 1));
    let mut decision = Decision::default();
    (guardrails.check(&context, &mut decision), decision, need)
}

fn json_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
}

fn code(verdict: Verdict) -> Result<(), (u16, &'static str)> {
    verdict.map_err(|denial| (denial.status.as_u16(), denial.code))
}

#[test]
fn sizes_are_limited() {
    let limit = |limits: Value, edit: fn(&mut HeaderMap), body| {
        code(check(json!({"limits": limits}), edit, body).0)
    };
    assert_eq!(limit(json!({"headers": 80}), json_headers, Body::Unread), Ok(()));
    assert_eq!(
        limit(json!({"headers": 59}), json_headers, Body::Unread),
        Err((431, "headers_too_large"))
    );
    assert_eq!(
        limit(json!({"header_count": 0}), json_headers, Body::Unread),
        Err((431, "headers_too_many"))
    );
    assert_eq!(
        limit(json!({"target": 9}), json_headers, Body::Unread),
        Err((414, "target_too_long"))
    );
    assert_eq!(limit(json!({"target": 10}), json_headers, Body::Unread), Ok(()));
    let long: fn(&mut HeaderMap) = |headers| {
        headers.insert("content-length", HeaderValue::from_static("1025"));
    };
    assert_eq!(limit(json!({"body": "1KiB"}), long, Body::Unread), Err((413, "body_too_large")));
    assert_eq!(
        limit(json!({"body": "1KiB"}), json_headers, Body::Whole(&[b' '; 1025])),
        Err((413, "body_too_large"))
    );
    let (_, decision, need) =
        check(json!({"limits": {"body": "1KiB"}}), json_headers, Body::Unread);
    assert_eq!(decision.obligations.request_body_limit, Some(1024));
    assert_eq!(need, BodyNeed::None, "a limit needs no body");
}

#[test]
fn depth_is_counted_outside_of_texts() {
    let depth = |body: &str| {
        code(
            check(json!({"limits": {"json_depth": 2}}), json_headers, Body::Whole(body.as_bytes()))
                .0,
        )
    };
    assert_eq!(depth(r#"{"a":[1]}"#), Ok(()));
    assert_eq!(depth(r#"{"a":"[[[[\"[[[{{"}"#), Ok(()));
    assert_eq!(depth(r#"{"a":[{}]}"#), Err((400, "json_too_deep")));
    assert_eq!(depth(&"[".repeat(100_000)), Err((400, "json_too_deep")));
    let (verdict, _, need) =
        check(json!({"limits": {"json_depth": 2}}), json_headers, Body::Longer);
    assert_eq!((code(verdict), need), (Err((413, "body_too_large")), BodyNeed::UpTo(1 << 20)));
    let (verdict, _, need) = check(json!({"limits": {"json_depth": 2}}), |_| {}, Body::Unread);
    assert_eq!((code(verdict), need), (Ok(()), BodyNeed::None));
}

#[test]
fn personal_data_is_masked_or_blocked() {
    let with = |action: &str| json!({"personal_data": {"request": action, "response": "off"}});
    let body = Body::Whole(br#"{"a":"jane@acme.example"}"#);
    let (verdict, decision, need) = check(with("mask"), json_headers, body);
    assert_eq!((code(verdict), need), (Ok(()), BodyNeed::UpTo(1 << 20)));
    assert!(decision.obligations.mask_request);
    assert_eq!(decision.masked_body.unwrap(), br#"{"a":"[REDACTED]"}"#);
    assert_eq!(code(check(with("block"), json_headers, body).0), Err((422, "personal_data")));
    let clean = Body::Whole(br#"{"a":"jane"}"#);
    assert_eq!(code(check(with("block"), json_headers, clean).0), Ok(()));
}

#[test]
fn what_cannot_be_checked_passes_or_not_as_configured() {
    let with = |unreadable: &str| json!({"personal_data": {"request": "mask", "response": "off", "unreadable": unreadable}});
    let zipped: fn(&mut HeaderMap) = |headers| {
        json_headers(headers);
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert("content-length", HeaderValue::from_static("9"));
    };
    for (edit, body) in [
        (json_headers as fn(&mut HeaderMap), Body::Longer),
        (zipped, Body::Unread),
        (zipped, Body::Whole(b"x")),
    ] {
        let (verdict, decision, _) = check(with("pass"), edit, body);
        assert_eq!(code(verdict), Ok(()));
        assert_eq!(decision.notes[0].code, "personal_data_unread");
        assert_eq!(code(check(with("refuse"), edit, body).0), Err((415, "body_unreadable")));
    }
    assert_eq!(
        code(check(with("refuse"), |_| {}, Body::Unread).0),
        Ok(()),
        "no body, nothing to read"
    );
}

#[test]
fn responses_are_masked_and_asked_for_uncompressed() {
    let config = json!({"personal_data": {"response": "mask"}});
    let (verdict, decision, _) = check(
        config.clone(),
        |headers| {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(RANGE, HeaderValue::from_static("bytes=3-"));
        },
        Body::Unread,
    );
    assert_eq!(code(verdict), Ok(()));
    assert!(decision.obligations.mask_response);
    assert_eq!(decision.headers_to_remove[0], RANGE);
    assert_eq!(decision.headers_to_set[0], (ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    let guardrails = Guardrails::build(&serde_json::from_value(config).unwrap()).unwrap();
    let mut headers = HeaderMap::new();
    json_headers(&mut headers);
    assert_eq!(guardrails.response_body_need(&headers), BodyNeed::UpTo(1 << 20));
    let (body, note) =
        guardrails.check_response(&headers, Body::Whole(br#"["jane@acme.example"]"#)).unwrap();
    assert_eq!(
        (body.unwrap(), note),
        (br#"["[REDACTED]"]"#.to_vec(), Some("personal_data_masked"))
    );
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/png"));
    assert_eq!(guardrails.response_body_need(&headers), BodyNeed::None);
}

#[test]
fn sections_that_do_nothing_are_refused() {
    let refusal = |config: Value| {
        Guardrails::build(&serde_json::from_value(config).unwrap()).unwrap_err().key
    };
    assert_eq!(refusal(json!({"personal_data": {"kinds": []}})), "personal_data.kinds");
    assert_eq!(refusal(json!({"personal_data": {"response": "off"}})), "personal_data");
    assert_eq!(refusal(json!({"limits": {"json_depth": 0}})), "limits.json_depth");
    let error =
        serde_json::from_value::<GuardrailsConfig>(json!({"personal_data": {"kinds": ["mail"]}}));
    assert!(error.unwrap_err().to_string().contains("email"));
}
