//! What becomes text, and when.

use super::exchange::Build;
use crate::{
    observation::{Content, Node, Observation},
    redact::{RedactConfig, Redactor},
};

fn redactor() -> Redactor {
    Redactor::new([7; 16], RedactConfig::default())
}

fn last_segment(seen: &Observation) -> Option<String> {
    seen.path.last()?.token.text.as_ref().map(|t| t.as_str().to_owned())
}

fn observe(redactor: &mut Redactor, build: &Build) -> Observation {
    redactor.observe(&build.make()).expect("a request")
}

#[test]
fn a_stranger_becomes_text_when_it_recurs_over_two_connections() {
    let mut redactor = redactor();
    let at = |flow| Build::new("GET", "/things/frobnitz").flow(flow);
    assert_eq!(last_segment(&observe(&mut redactor, &at(1))), None);
    assert_eq!(last_segment(&observe(&mut redactor, &at(2))), None);
    assert_eq!(last_segment(&observe(&mut redactor, &at(2))).as_deref(), Some("frobnitz"));
}

#[test]
fn one_connection_repeating_itself_proves_nothing() {
    let mut redactor = redactor();
    for _ in 0..50 {
        let seen = observe(&mut redactor, &Build::new("GET", "/things/frobnitz"));
        assert_eq!(last_segment(&seen), None);
    }
}

#[test]
fn different_request_bodies_are_independent() {
    let mut redactor = redactor();
    let mut last = None;
    for i in 0..3 {
        let build = Build::new("POST", "/things/frobnitz").json(&format!("{{\"n\":{i}}}"));
        last = last_segment(&observe(&mut redactor, &build));
    }
    assert_eq!(last.as_deref(), Some("frobnitz"));
}

fn member_text(seen: &Observation, wanted: usize) -> (Option<String>, Option<String>) {
    let Content::Json(Node::Object { members, .. }) = &seen.request.content else {
        panic!("an object")
    };
    let (token, node) = members.iter().nth(wanted).expect("a member");
    let value = if let Node::String(value) = node { value.text.as_ref() } else { None };
    (token.text.as_ref().map(|t| t.as_str().to_owned()), value.map(|t| t.as_str().to_owned()))
}

#[test]
fn enumerations_become_text_and_persons_never_do() {
    let mut redactor = redactor();
    let mut seen = None;
    for flow in 0..10 {
        let body = r#"{"status":"ACTIVE","city":"Lyon","nickname":"kitty","plan":"alice","color":"b7f3q9z2k1m4n8"}"#;
        seen = Some(observe(&mut redactor, &Build::new("POST", "/things").flow(flow).json(body)));
    }
    let seen = seen.expect("ten");
    assert_eq!(member_text(&seen, 0), (Some("status".into()), Some("ACTIVE".into())));
    assert_eq!(member_text(&seen, 1), (Some("city".into()), None));
    assert_eq!(member_text(&seen, 2), (Some("nickname".into()), None));
    assert_eq!(member_text(&seen, 3), (Some("plan".into()), None));
    assert_eq!(member_text(&seen, 4), (Some("color".into()), None));
}

#[test]
fn the_vocabulary_has_words_and_no_names() {
    let is_text = |segment: &str| {
        last_segment(&observe(&mut redactor(), &Build::new("GET", format!("/{segment}")))).is_some()
    };
    for word in [
        "orders",
        "line-items",
        "createdAt",
        "healthz",
        "user_preferences",
        "OAuth2",
        "sha256",
        "categories",
        "v2",
    ] {
        assert!(is_text(word), "{word}");
    }
    for name in
        ["alice", "dupont", "paris", "john-smith", "mueller", "mark", "order17", "42", "hunter2"]
    {
        assert!(!is_text(name), "{name}");
    }
    let names = crate::redact::vocabulary_words::WORDS
        .split_ascii_whitespace()
        .filter(|w| crate::redact::detect::person_name::is_name(w.as_bytes()))
        .collect::<Vec<_>>();
    assert_eq!(names, Vec::<&str>::new());
}

#[test]
fn keys_of_a_map_of_persons_stay_hashed() {
    let mut redactor = redactor();
    for flow in 0..10 {
        let build =
            Build::new("POST", "/things").flow(flow).json(r#"{"users":{"kittycat":{"id":1}}}"#);
        let seen = observe(&mut redactor, &build);
        assert!(!format!("{seen:?}").contains("kittycat"));
    }
}

#[test]
fn counters_tell_what_was_masked() {
    let mut redactor = redactor();
    let build = Build::new("POST", "/things")
        .header("Cookie", "a=b")
        .json(r#"{"email":"a@b.example","password":"x","frobnitz":1}"#);
    observe(&mut redactor, &build);
    let counters = redactor.counters();
    use crate::observation::Personal::{Cookie, Email, Password};
    assert_eq!(
        counters.masked.into_iter().collect::<Vec<_>>(),
        [(Email, 1), (Cookie, 1), (Password, 1)]
    );
    assert!(counters.tokens_withheld > 0);
}

/// What may be left of a token after many exchanges of all kinds.
fn text_of_key(key: &str) -> bool {
    let mut redactor = redactor();
    (0..40).any(|flow| {
        let json = serde_json::json!({ key: flow, "n": flow }).to_string();
        let seen = observe(&mut redactor, &Build::new("POST", "/things").flow(flow).json(&json));
        member_text(&seen, 0).0.is_some()
    })
}

#[test]
fn short_secrets_and_names_in_any_spelling_stay_hashed() {
    // Base64 of words, passwords of machines; initials, accents, other alphabets of names.
    for key in [
        "dXNlcjpwYXNz",
        "tR5kLm9q",
        "a1b2c3d4",
        "qZrLkXwTnV",
        "jdupont",
        "JDUPONT",
        "dupontj",
        "josé",
        "jose\u{301}",
        "müller",
        "Łukasz",
        "oluwaseun",
        "Nguyen",
        "priya-sharma",
    ] {
        assert!(!text_of_key(key), "{key}");
    }
    for key in ["frobnitz", "größe", "h264", "iPhone", "oauth2Scopes", "utf8", "xmlHTTPPort", "p95"]
    {
        assert!(text_of_key(key), "{key}");
    }
}

#[test]
fn what_persons_are_looked_up_by_is_followed_by_one() {
    for path in ["/users/by-name/kittycat", "/lookup/byUsername/kittycat"] {
        let mut redactor = redactor();
        for flow in 0..40 {
            let seen = observe(&mut redactor, &Build::new("GET", path).flow(flow));
            assert!(!format!("{seen:?}").contains("kittycat"), "{path}");
        }
    }
}

#[test]
fn a_credential_with_a_blank_is_no_scheme() {
    let mut redactor = redactor();
    for flow in 0..40 {
        let build = Build::new("GET", "/things").flow(flow);
        let seen = observe(&mut redactor, &build.header("Authorization", "kittycat sesame"));
        assert!(!format!("{seen:?}").contains("kittycat"));
    }
}

#[test]
fn a_below_b_is_not_b_below_a() {
    let mut redactor = redactor();
    let first = observe(&mut redactor, &Build::new("GET", "/orders/line-items"));
    assert_eq!(last_segment(&first).as_deref(), Some("line-items"));
    let second = observe(&mut redactor, &Build::new("GET", "/line-items/orders"));
    assert_eq!(last_segment(&second).as_deref(), Some("orders"));
}

#[test]
fn words_beside_a_secret_do_not_make_it_a_name() {
    let names = [
        "file.tR5kLm9q",
        "filter[UGFzc3cwcmQh]",
        "MTIzLTQ1LTY3ODk.example.com",
        "12 rue de la Paix",
        "filter[maria@correo.example]",
        "Иван_Петров",
    ];
    for name in names {
        let mut redactor = redactor();
        for flow in 0..40 {
            let build = Build::new("GET", format!("/things/{name}")).flow(flow);
            let seen = observe(&mut redactor, &build);
            let shown = format!("{:?} {:?}", last_segment(&seen), seen.path.last().unwrap().suffix);
            let secret = name.split(['.', '[', ']']).find(|part| part.len() >= 8).unwrap();
            assert!(!shown.contains(secret), "{shown} after {flow}");
        }
    }
    for name in ["filter[UGFzc3cwcmQh]", "sort.tR5kLm9q", "12 rue de la Paix"] {
        let mut redactor = redactor();
        for flow in 0..40 {
            let body = format!("{{\"{name}\":{flow}}}");
            let build = Build::new("POST", "/things").json(&body).flow(flow);
            assert_eq!(member_text(&observe(&mut redactor, &build), 0).0, None, "{name}");
        }
    }
}

#[test]
fn what_reads_as_a_name_or_a_secret_stays_unread_however_often_it_comes() {
    let mut redactor = redactor();
    for text in [
        "mcallister",
        "eriksson",
        "kowalewski",
        "emmaw",
        "van-der-Berg",
        "12-rue-de-la-Paix",
        "deadbeefcafe",
        "c0ffee",
        "file.ABCDE1234F",
        "letmein",
        "qwertyuiop",
        "correct%20horse%20battery%20staple",
    ] {
        for flow in 0..60 {
            let call = Build::new("GET", format!("/things/{text}?{text}=1"))
                .flow(flow)
                .header("X-Kind", text)
                .json(&format!(r#"{{"kind":"{text}","{text}":1}}"#));
            let seen = format!("{:?}", observe(&mut redactor, &call));
            let stem = text.rsplit(['.', '%']).next().unwrap_or(text);
            assert!(!seen.contains(stem), "{text}: {seen}");
        }
    }
}

#[test]
fn a_day_is_a_version_only_where_resources_are_named() {
    let mut redactor = redactor();
    let mut last = |target: &str| {
        let calls = (0..30).map(|flow| Build::new("GET", target).flow(flow));
        let mut seen: Vec<_> = calls.map(|call| observe(&mut redactor, &call)).collect();
        seen.pop().and_then(|seen| Some(seen.path.first()?.token.text.clone()?.as_str().to_owned()))
    };
    assert_eq!(last("/2015-03-31/functions").as_deref(), Some("2015-03-31"));
    let mut redactor = super::admission::redactor();
    for target in ["/births/2015-03-31", "/1985-04-12"] {
        for flow in 0..30 {
            let seen = observe(&mut redactor, &Build::new("GET", target).flow(flow));
            assert_eq!(last_segment(&seen), None, "{target}");
        }
    }
}
