use serde_json::json;

use super::*;

fn api(value: Value) -> Result<Api, Refused> {
    serde_json::from_value::<Api>(value).unwrap().complete("acme")
}

fn policy(value: Value) -> Result<Policy, Refused> {
    serde_json::from_value::<Policy>(value).unwrap().complete()
}

fn orders() -> Value {
    json!({"name": "Orders", "path_prefix": "/orders", "backend_url": "http://127.0.0.1:1/v2/"})
}

#[test]
fn what_is_left_out_is_filled_in() {
    let api = api(orders()).unwrap();
    assert_eq!((api.id.as_str(), api.tenant_id.as_str()), ("orders", "acme"));
    assert!(api.activated && api.methods.is_empty());
}

#[test]
fn a_field_that_cannot_be_meant_is_named() {
    for (field, value) in [
        ("id", json!("a/b")),
        ("id", json!("..")),
        ("name", json!(" ")),
        ("tenant_id", json!("a\nb")),
        ("path_prefix", json!("orders")),
        ("path_prefix", json!("/a/../b")),
        ("path_prefix", json!("/a?b")),
        ("backend_url", json!("ftp://x")),
        ("backend_url", json!("http://user:hidden@x:1")),
        ("backend_url", json!("http://x:1/a?b")),
        ("methods", json!(["G T"])),
    ] {
        let mut given = orders();
        given[field] = value.clone();
        let error = api(given).unwrap_err();
        assert_eq!(error.field, field, "{value}");
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
    for (field, value) in [
        ("policy_type", json!("cors")),
        ("config", json!([])),
        ("config", json!({"bogus": 1})),
        ("config", json!({"files": ["/etc/shadow"]})),
    ] {
        let mut given = json!({"name": "p", "policy_type": "rego", "config": {}});
        given[field] = value.clone();
        assert_eq!(policy(given).unwrap_err().field, field, "{value}");
    }
}

#[test]
fn an_api_is_an_upstream_and_a_route() {
    let mut additions = Additions::default();
    let mut given = orders();
    given["methods"] = json!(["get", "POST"]);
    additions.put_api(api(given).unwrap()).unwrap();
    let mut document = Document::default();
    additions.add_to(&mut document);
    assert_eq!(document.upstreams["api:orders"].url.as_deref(), Some("http://127.0.0.1:1"));
    let [route] = &document.routes[..] else { panic!("one") };
    assert_eq!(route.rewrite.as_ref().unwrap().prefix.as_deref(), Some("/v2"));
    let methods: Vec<_> = route.matches.iter().map(|m| m.method.as_deref().unwrap()).collect();
    assert_eq!(methods, ["GET", "POST"]);
    assert_eq!(route.policies, None, "it has the set `default`");
}

#[test]
fn policies_stand_in_place_of_those_of_their_kind() {
    let mut additions = Additions::default();
    additions.put_api(api(orders()).unwrap()).unwrap();
    let put = |additions: &mut Additions, value| additions.put_policy(policy(value).unwrap());
    let limit = |id: &str, limit: u64, priority: i64, api: Option<&str>| {
        json!({"id": id, "name": id, "policy_type": "rate_limit", "priority": priority,
               "config": {"limit": limit, "window_secs": 60}, "api_id": api})
    };
    put(&mut additions, limit("all", 1, 9, None)).unwrap();
    put(&mut additions, limit("low", 2, 1, Some("orders"))).unwrap();
    put(&mut additions, limit("high", 3, 2, Some("orders"))).unwrap();
    put(&mut additions, limit("other", 4, 9, Some("billing"))).unwrap();
    let scopes = json!({"name": "scopes", "policy_type": "scopes", "config": {"any_of": ["a"]}});
    put(&mut additions, scopes).unwrap();
    let mut sets = Policies::new();
    let default = json!({"tenant": {}, "scopes": {"any_of": ["b"]}});
    sets.insert("default".to_owned(), serde_json::from_value(default).unwrap());
    additions.add_sets(&mut sets, "default").unwrap();
    let expected = json!({"tenant": {}, "scopes": {"any_of": ["a"]},
                          "rate_limit": {"consumer": {"requests": 3, "window_seconds": 60}}});
    assert_eq!(sets["api:orders"], serde_json::from_value(expected).unwrap());
    let in_force: Vec<&str> = additions
        .policies
        .values()
        .filter(|policy| additions.is_in_force(policy))
        .map(|policy| policy.id.as_str())
        .collect();
    assert_eq!(in_force, ["high", "scopes"]);
}

#[test]
fn they_are_kept_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("state");
    let (file, mut files) = (AdditionsFile::new(&place), Files::default());
    let mut additions = file.read(&mut files).unwrap();
    assert!(!place.exists(), "nothing is made for nobody");
    additions.put_api(api(orders()).unwrap()).unwrap();
    file.begin().unwrap().keep(&additions, &mut files).unwrap();
    assert!(!files.has_changed(), "what was written here is known here");
    assert_eq!(AdditionsFile::new(&place).read(&mut files).unwrap(), additions);
    use std::os::unix::fs::PermissionsExt;
    for name in ["admin.json", "admin.lock"] {
        let mode = fs::metadata(place.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    fs::write(place.join("admin.json"), "{").unwrap();
    assert!(files.has_changed());
    let error = file.read(&mut files).unwrap_err().to_string();
    assert!(error.contains("admin.json") && error.contains("move it away"), "{error}");
}

#[test]
fn two_agents_change_them_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let add_many = |agent: &str| {
        let file = AdditionsFile::new(dir.path());
        for n in 0..20 {
            let changing = file.begin().unwrap();
            let mut files = Files::default();
            let mut additions = file.read(&mut files).unwrap();
            let mut given = orders();
            given["id"] = json!(format!("{agent}-{n}"));
            additions.put_api(api(given).unwrap()).unwrap();
            changing.keep(&additions, &mut files).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for agent in ["one", "two"] {
            scope.spawn(move || add_many(agent));
        }
    });
    let all = AdditionsFile::new(dir.path()).read(&mut Files::default()).unwrap();
    assert_eq!(all.apis.len(), 40);
}
