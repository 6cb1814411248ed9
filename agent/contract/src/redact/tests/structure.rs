//! What tells structure from values: neighbours, independence, the look of a word.

use super::exchange::Build;
use crate::{
    observation::{Content, Credential, Node, Observation},
    redact::{RedactConfig, Redactor, vocabulary::is_gibberish},
};

fn redactor() -> Redactor {
    Redactor::new([7; 16], RedactConfig::default())
}

fn observe(redactor: &mut Redactor, build: &Build) -> Observation {
    redactor.observe(&build.make()).expect("a request")
}

fn segment(seen: &Observation, at: usize) -> Option<&str> {
    seen.path[at].token.text.as_ref().map(|t| t.as_str())
}

/// The text of each segment after `count` exchanges over as many connections.
fn after(count: u64, target: &str) -> Vec<Option<String>> {
    let mut redactor = redactor();
    let mut last = Vec::new();
    for flow in 0..count {
        let seen = observe(&mut redactor, &Build::new("GET", target).flow(flow));
        last = seen.path.iter().map(|s| s.token.text.as_ref().map(|t| t.as_str().into())).collect();
    }
    last
}

#[test]
fn versions_are_text_at_once_at_any_depth() {
    for target in ["/things/items/v1", "/accounts/v2", "/things/42/v1.0", "/v3beta1"] {
        assert!(after(1, target).last().is_some_and(Option::is_some), "{target}");
    }
}

#[test]
fn the_only_segment_of_a_place_is_text_whatever_its_shape() {
    for only in ["1.1", "3", "2015-03-31", "Microsoft.PowerBIDedicated", "vbc.prod", "hsqldbqx"] {
        let target = format!("/api/{only}/action");
        assert_eq!(after(2, &target)[1], None, "{only}");
        assert_eq!(after(9, &target)[1].as_deref(), Some(only));
    }
    for value in ["1234567", "-3", "203.0.113.9", "alice", "550e8400-e29b-41d4-a716-446655440000"] {
        assert_eq!(after(40, &format!("/api/{value}/action"))[1], None, "{value}");
    }
}

#[test]
fn a_value_is_no_longer_alone_when_another_comes() {
    let mut redactor = redactor();
    let at = |target: &str, flow| Build::new("GET", target).flow(flow);
    for flow in 0..9 {
        observe(&mut redactor, &at("/orders/3", flow));
    }
    assert_eq!(segment(&observe(&mut redactor, &at("/orders/3", 10)), 1), Some("3"));
    // What was not found is somebody's guess.
    observe(&mut redactor, &at("/orders/4", 11).answer(404, "text/plain", ""));
    assert_eq!(segment(&observe(&mut redactor, &at("/orders/3", 12)), 1), Some("3"));
    observe(&mut redactor, &at("/orders/4", 13));
    assert_eq!(segment(&observe(&mut redactor, &at("/orders/3", 14)), 1), None);
}

/// Words that no list has, as a person's invented names would be.
fn invented(n: usize) -> String {
    let syllables = ["zor", "bla", "qui", "mel", "tar", "vin", "dop", "ras"];
    [n % 8, n / 8 % 8, (n * 5 + 3) % 8].map(|i| syllables[i]).concat()
}

#[test]
fn among_many_strangers_none_becomes_text() {
    let mut redactor = redactor();
    for flow in 0..4000u64 {
        let name = invented(flow as usize % 60);
        let target = format!("/things/{name}/items");
        let seen = observe(&mut redactor, &Build::new("GET", &target).flow(flow));
        assert_eq!(segment(&seen, 1), None, "{name}");
        assert_eq!(segment(&seen, 2), Some("items"));
    }
}

#[test]
fn what_is_called_as_a_function_is_shown_beside_any_number_of_its_kind() {
    let mut redactor = redactor();
    let verbs = ["promote", "resend", "zorble", "mark", "list", "reset", "snurf", "verify"];
    for flow in 0..4u64 {
        for (at, verb) in verbs.iter().enumerate() {
            let name = format!("{verb}Frobnitz{}", ["Zarf", "Quux", "Blarg"][at % 3]);
            let target = format!("/things/{name}");
            let seen = observe(&mut redactor, &Build::new("GET", &target).flow(flow));
            let is_command = !["zorble", "snurf"].contains(verb);
            assert_eq!(segment(&seen, 1).is_some(), flow >= 2 && is_command, "{name} {flow}");
        }
    }
}

#[test]
fn a_part_of_one_thing_is_shown_after_three_exchanges() {
    let shown = |above: [&str; 3]| {
        let mut redactor = redactor();
        let parts = ["inspections", "treatments", "harvests"];
        [0, 1, 2].map(|flow| {
            let shown = parts.map(|part| {
                let target = format!("/things/{}/{part}", above[flow]);
                let build = Build::new("GET", &target).flow(flow as u64);
                segment(&observe(&mut redactor, &build), 2).is_some()
            });
            shown.iter().filter(|is_shown| **is_shown).count()
        })
    };
    assert_eq!(shown(["17", "18", "4"]), [0, 0, 3]);
    assert_eq!(shown(["zorblax", "quibbet", "frumple"]), [0, 0, 0], "they may be names there");
}

#[test]
fn beside_two_persons_no_stranger_becomes_text() {
    let mut redactor = redactor();
    for flow in 0..60 {
        for name in ["alice", "dupont", "zorblax"] {
            let target = format!("/things/{name}");
            let seen = observe(&mut redactor, &Build::new("GET", &target).flow(flow));
            assert!(segment(&seen, 1).is_none() || flow == 0, "{name}");
        }
    }
}

#[test]
fn guesses_that_were_not_found_never_become_text() {
    let mut redactor = redactor();
    for flow in 0..50 {
        let guess = Build::new("GET", "/frobnitz").flow(flow).answer(404, "text/plain", "");
        assert_eq!(segment(&observe(&mut redactor, &guess), 0), None);
    }
}

#[test]
fn one_pooled_connection_still_yields_a_contract() {
    let mut redactor = redactor();
    let mut texts = Vec::new();
    for i in 0..12 {
        let build = Build::new("GET", format!("/things/frobnitz/{}", 1000 + i));
        texts.push(segment(&observe(&mut redactor, &build), 1).is_some());
    }
    assert_eq!(texts.iter().position(|t| *t), Some(8));
}

#[test]
fn the_same_again_later_is_independent_too() {
    let mut redactor = redactor();
    let build = Build::new("GET", "/things/frobnitz");
    let mut first = None;
    for i in 0..20u64 {
        let mut exchange = build.make();
        exchange.started += i * 1_000_000_000;
        let seen = redactor.observe(&exchange).expect("a request");
        first = first.or(segment(&seen, 1).is_some().then_some(i));
    }
    assert_eq!(first, Some(8));
}

/// In how many of 100 exchanges the value of a field was text, with what else came in the field.
fn value_texts(field: &str, value: &str, others: &[&str]) -> usize {
    let mut redactor = redactor();
    let mut count = 0;
    for flow in 0..100u64 {
        for one in others.iter().chain([&value]) {
            let body = format!(r#"{{"{field}":"{one}"}}"#);
            let seen =
                observe(&mut redactor, &Build::new("POST", "/things").flow(flow).json(&body));
            let Content::Json(Node::Object { members, .. }) = &seen.request.content else {
                panic!("an object")
            };
            let Some((_, Node::String(found))) = members.iter().next() else { panic!("a string") };
            count += usize::from(*one == value && found.text.is_some());
        }
    }
    count
}

#[test]
fn members_of_enumerations_become_text_by_their_looks() {
    assert_eq!(value_texts("status", "active", &[]), 98);
    assert_eq!(value_texts("currency", "ZBL", &[]), 93);
    assert_eq!(value_texts("state", "pre_zorblaxed", &["done"]), 93);
    // A word that nobody knows, only in a field that has few values.
    assert_eq!(value_texts("flavour", "zorblax", &["salty"]), 91);
}

#[test]
fn values_that_may_name_somebody_or_be_secret_never_do() {
    let many: Vec<String> = (0..60).map(invented).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(value_texts("flavour", "zorblax", &many), 0);
    for secret in ["kqzvtrbnmx", "hunter2", "xkcdqwfz", "x7kq2", "KQZVTRBNMX"] {
        assert_eq!(value_texts("flavour", secret, &[]), 0, "{secret}");
    }
    for field in [
        "id",
        "deviceId",
        "ref",
        "author",
        "created_by",
        "assignedTo",
        "owner",
        "user",
        "by",
        "reviewers",
        "invite_key",
        "from",
        "player",
    ] {
        assert_eq!(value_texts(field, "zorblax", &[]), 0, "{field}");
    }
    assert_eq!(value_texts("sort_by", "price", &[]), 98);
}

#[test]
fn tells_random_letters_from_words() {
    for word in [
        "kubernetes",
        "bestellungen",
        "rechnung",
        "utilisateurs",
        "fahrzeuge",
        "postgres",
        "webhooks",
        "hypervisor",
        "nginx",
        "zorblax",
        "commandes",
        "pedidos",
        "kundennummer",
        "strassenname",
        "workspaces",
        "frobnitz",
        "onboarding",
    ] {
        assert!(!is_gibberish(word), "{word}");
    }
    let mut state = 7u64;
    let mut told = 0;
    for _ in 0..1000 {
        let random: String = (0..12)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'a' + ((state >> 33) % 26) as u8)
            })
            .collect();
        told += usize::from(is_gibberish(&random));
    }
    assert!(told > 800, "{told} of 1000");
}

#[test]
fn credentials_are_known_by_many_names() {
    let key = "3f9a1c0b7e5d2468ace013579bdf2468";
    for name in [
        "user_key",
        "app_key",
        "app_id",
        "apikey",
        "api_token",
        "auth_token",
        "access_key",
        "subscription-key",
        "token",
        "sig",
        "appid",
    ] {
        let seen = observe(&mut redactor(), &Build::new("GET", format!("/things?{name}={key}")));
        assert!(
            matches!(&seen.credentials[..], [Credential::QueryKey(n)] if n.as_str() == name),
            "{name}"
        );
        assert!(seen.query.is_empty(), "{name}");
    }
    for name in [
        "user-key",
        "app-key",
        "app-id",
        "apikey",
        "api-token",
        "auth-token",
        "access-key",
        "subscription-key",
        "Ocp-Apim-Subscription-Key",
        "x-functions-key",
        "X-RapidAPI-Key",
        "x-app-id",
        "X-Auth-Token",
        "Private-Token",
    ] {
        let seen = observe(&mut redactor(), &Build::new("GET", "/things").header(name, key));
        assert!(matches!(&seen.credentials[..], [Credential::HeaderKey(_)]), "{name}");
        assert!(seen.headers.is_empty(), "{name}");
    }
    // The name that a person gave an application is none.
    let seen = observe(&mut redactor(), &Build::new("GET", "/things?app_id=shop"));
    assert!(seen.credentials.is_empty());
    for name in ["page_token", "limit", "key"] {
        let seen = observe(&mut redactor(), &Build::new("GET", format!("/things?{name}=shop")));
        assert!(seen.credentials.is_empty(), "{name}");
    }
}

#[test]
fn conditional_headers_are_parameters_without_their_values() {
    let mut redactor = redactor();
    for flow in 0..30 {
        let build = Build::new("GET", "/things")
            .flow(flow)
            .header("If-None-Match", "\"zorblax\"")
            .header("If-Modified-Since", "Wed, 21 Oct 2015 07:28:00 GMT")
            .header("If-Match", "active");
        let seen = observe(&mut redactor, &build);
        let names: Vec<_> =
            seen.headers.iter().filter_map(|(t, _)| t.text.as_ref().map(|t| t.as_str())).collect();
        assert_eq!(names, ["If-None-Match", "If-Modified-Since", "If-Match"]);
        assert!(seen.headers.iter().all(|(_, value)| value.text.is_none()));
    }
}

#[test]
fn a_random_value_sent_again_and_again_is_a_credential() {
    let key = "q8Zr2Lk9Xw4Tn7Vb1Yc5Hd3Jf6";
    let mut redactor = redactor();
    let mut found = Vec::new();
    for flow in 0..5 {
        let build = Build::new("GET", format!("/things?legacy={key}&cursor={key}"))
            .flow(flow)
            .header("Private-App", key)
            .header("Idempotency-Key", format!("{flow}{}", key.to_uppercase()).replace('Z', "z7"));
        found.push(observe(&mut redactor, &build).credentials.len());
    }
    assert_eq!(found, [0, 0, 2, 2, 2]);
    // As many values as exchanges: ids of requests, not credentials.
    for n in 0..50u64 {
        let id =
            format!("{:016x}{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), (!n).wrapping_mul(77));
        let seen = observe(&mut redactor, &Build::new("GET", "/").flow(n).header("X-Trail", id));
        assert!(seen.credentials.is_empty());
    }
}

#[test]
fn one_language_is_a_parameter_and_a_list_is_a_browser() {
    let names = |value: &str| {
        let seen =
            observe(&mut redactor(), &Build::new("GET", "/").header("Accept-Language", value));
        seen.headers.len()
    };
    assert_eq!(names("fr-CA"), 1);
    assert_eq!(names("en-US,en;q=0.9"), 0);
}

#[test]
fn names_run_together_are_names() {
    for name in [
        "pavelgoldberg",
        "gracekay",
        "claudelamport",
        "radiakeller",
        "donaldengelbart",
        "marie77curie",
        "juliewagner3",
    ] {
        for target in [format!("/analyses/{name}/items"), format!("/things/42/{name}")] {
            assert!(after(60, &target).iter().all(|t| t.as_deref() != Some(name)), "{target}");
        }
        assert_eq!(value_texts("flavour", name, &[]), 0, "{name}");
    }
    for word in ["victoriametrics", "frobnitz", "zoneminder", "markdowns", "bestellungen"] {
        assert_eq!(after(9, &format!("/things/{word}"))[1].as_deref(), Some(word));
    }
}

#[test]
fn what_stands_below_a_login_is_never_text() {
    for target in
        ["/basic-auth/zorblax/quuxify", "/digest-auth/auth/zorblax/quuxify", "/auth/zorblax"]
    {
        let texts = after(60, target);
        let strange =
            |t: &&Option<String>| t.as_deref().is_some_and(|t| matches!(t, "zorblax" | "quuxify"));
        assert!(!texts.iter().any(|t| strange(&t)), "{target}: {texts:?}");
    }
    assert_eq!(after(1, "/auth/login")[1].as_deref(), Some("login"));
}
