use super::*;
use crate::catalog::{Catalog, ConnectionSettings, Defaults, files::Files};
use stoa_policy::{engine::Engine, outside::Outside};

fn catalog(text: &str) -> Result<Catalog, String> {
    let defaults = Defaults {
        listen: "127.0.0.1:0".parse().unwrap(),
        tenant: "default".to_owned(),
        upstream: None,
        look_every: None,
        connections: ConnectionSettings::default(),
    };
    let build = |document: &crate::catalog::document::Document, _: &mut Files| {
        Engine::build(&document.policies, &Outside::default()).map_err(|errors| errors.to_string())
    };
    Catalog::parse("c.yaml", text, &defaults, &build, &mut Files::default())
        .map_err(|e| e.to_string())
}

fn find(catalog: &Catalog, method: &str, url: &str, headers: &[(&str, &str)]) -> Option<String> {
    let url: http::Uri = url.parse().unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let asked = Asked {
        host: url.host().unwrap_or(""),
        path: url.path(),
        query: url.query(),
        method: &method.parse().unwrap(),
        headers: &map,
    };
    catalog.routes.find(&asked).map(|chosen| chosen.route.name.to_string())
}

const UPSTREAM: &str = "upstreams: {u: {url: 'http://127.0.0.1:1'}}\n";

#[test]
fn the_most_specific_route_wins_in_any_order() {
    let routes = [
        "{name: any, upstream: u}",
        "{name: a, upstream: u, matches: [{path: {prefix: /a}}]}",
        "{name: ab, upstream: u, matches: [{path: {prefix: /a/b/}}]}",
        "{name: exact, upstream: u, matches: [{path: {exact: /a/b}}]}",
        "{name: regex, upstream: u, matches: [{path: {regex: '/a/[0-9]+'}}]}",
        "{name: post, upstream: u, matches: [{path: {prefix: /a}, method: POST}]}",
        "{name: header, upstream: u, matches: [{path: {prefix: /a}, headers: {X-V: '2'}}]}",
        "{name: query, upstream: u, matches: [{path: {prefix: /a}, query: {v: {regex: '[23]'}}}]}",
        "{name: host, upstream: u, hosts: [api.example.com]}",
        "{name: wild, upstream: u, hosts: ['*.example.com']}",
        "{name: wilder, upstream: u, hosts: ['*.com']}",
    ];
    let mut reversed = routes;
    reversed.reverse();
    for routes in [routes, reversed] {
        let lines: String = routes.iter().map(|r| format!("- {r}\n")).collect();
        let catalog = catalog(&format!("{UPSTREAM}routes:\n{lines}")).unwrap();
        for (method, url, headers, expected) in [
            ("GET", "http://x/", &[][..], "any"),
            ("GET", "http://x/ab", &[], "any"),
            ("GET", "http://x/a", &[], "a"),
            ("GET", "http://x/a/", &[], "a"),
            ("GET", "http://x/a/c", &[], "a"),
            ("GET", "http://x/a/b", &[], "exact"),
            ("GET", "http://x/a/b/", &[], "ab"),
            ("GET", "http://x/a/b/c", &[], "ab"),
            ("GET", "http://x/a/7", &[], "regex"),
            ("GET", "http://x/a/7x", &[], "a"),
            ("POST", "http://x/a/c", &[], "post"),
            ("POST", "http://x/a/c?v=2", &[("x-v", "2")], "post"),
            ("GET", "http://x/a/c?v=2", &[("x-v", "2")], "header"),
            ("GET", "http://x/a/c", &[("x-v", "1"), ("x-v", "2")], "header"),
            ("GET", "http://x/a/c?w=1&v=%32", &[("x-v", "1")], "query"),
            ("GET", "http://x/a/c?v=4&v=2", &[], "a"),
            ("GET", "http://api.example.com/a", &[], "host"),
            ("GET", "http://b.a.example.com/a", &[], "wild"),
            ("GET", "http://example.com/", &[], "wilder"),
        ] {
            let found = find(&catalog, method, url, headers);
            assert_eq!(found.as_deref(), Some(expected), "{method} {url} {headers:?}");
        }
    }
}

#[test]
fn of_equals_the_first_wins() {
    let text =
        format!("{UPSTREAM}routes: [{{name: one, upstream: u}}, {{name: two, upstream: u}}]");
    assert_eq!(find(&catalog(&text).unwrap(), "GET", "http://x/", &[]).as_deref(), Some("one"));
}

#[test]
fn errors_name_file_key_reason_and_remedy() {
    for (text, parts) in [
        (
            "routes: [{upstream: u}]",
            &["c.yaml", "routes[0].upstream", "`u`", "not in `upstreams`"][..],
        ),
        ("upstreams: {u: {url: 'ftp://x'}}", &["upstreams.u.url", "write http://"]),
        ("upstreams: {u: {}}", &["upstreams.u", "either `url` or `endpoints`"]),
        ("routes: [{bogus: 1}]", &["c.yaml", "bogus", "line 1"]),
        ("routes: [{}]", &["routes[0]", "exactly one of"]),
        ("listeners: [{address: nowhere}]", &["listeners[0].address", "nowhere", "write"]),
        (
            "upstreams: {u: {url: 'http://x:1'}}\nroutes: [{upstream: u, matches: [{path: {regex: '('}}]}]",
            &["routes[0].matches[0].path", "regex"],
        ),
        (
            "upstreams: {u: {url: 'http://x:1'}}\nroutes: [{upstream: u, request: {set: {Host: x}}}]",
            &["routes[0].request.set", "host", "leave it out"],
        ),
        (
            "upstreams: {u: {url: 'http://x:1'}}\nroutes: [{upstream: u, policies: p}]",
            &["routes[0].policies", "not in `policies`"],
        ),
        (
            "listeners: [{address: '1', tls: {certificates: [{certificate: /nowhere, key: /k}]}}]",
            &["listeners[0].tls", "/nowhere", "PEM"],
        ),
        (
            "upstreams: {u: {url: 'http://x:1'}}\n\
             routes: [{name: a, upstream: u, policies: p}, {name: b, upstream: u, policies: q}]\n\
             policies: {p: {circuit_breaker: {}}, q: {circuit_breaker: {failures: 9}}}",
            &["`routes`", "`b` leads to upstream `u`", "an earlier route", "the same one"],
        ),
    ] {
        let error = catalog(text).map(|_| ()).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}
