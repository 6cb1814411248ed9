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
