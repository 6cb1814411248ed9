//! Which siblings are values, and what they are called.

use serde_json::json;

use super::{
    likeness::Behaviour,
    tests::{bare, find, learn},
};
use crate::{
    described::{Noise, Traffic},
    knowledge::ServiceKnowledge,
    observation::{Method, Observation},
};

fn templates(all: &[Observation]) -> Vec<String> {
    bare(&learn(all)).into_iter().collect()
}

#[test]
fn words_that_come_back_in_the_bodies_are_values_and_named_after_their_member() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for _ in 0..8 {
        for (owner, key) in [("orders", "limit"), ("orders", "sort"), ("users", "limit")] {
            let one = json!({ "area": owner, "entry": key, "data": "x" });
            let target = format!("/settings/{owner}/{key}");
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
        }
    }
    assert_eq!(templates(&all), ["Get /settings/{}/{}"]);
    find(&learn(&all), "GET /settings/{area}/{entry}");
}

#[test]
fn a_member_that_names_a_kind_makes_no_value_of_it() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for id in 0..8 {
        for kind in ["users", "orders", "posts"] {
            let one = json!({ "type": kind, "id": id, "tags": [] });
            let target = format!("/api/{kind}/{id}");
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
        }
    }
    assert_eq!(templates(&all), ["Get /api/orders/{}", "Get /api/posts/{}", "Get /api/users/{}"]);
}

#[test]
fn a_closed_set_of_words_is_values_where_each_is_one_thing_of_a_kind() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for round in 0..10 {
        for word in ["books", "toys", "games", "music"] {
            let one = json!({ "title": "t", "total": round, "owner": "o", "created": true });
            let target = format!("/shop/categories/{word}");
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
        }
        for part in ["status", "search"] {
            let page = json!({ "items": [{ "id": round, "state": "s" }], "total": 1, "page": 1 });
            let target = format!("/shop/orders/{part}");
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&page)));
        }
    }
    let found = templates(&all);
    assert_eq!(
        found,
        ["Get /shop/categories/{}", "Get /shop/orders/search", "Get /shop/orders/status"]
    );
}

#[test]
fn the_word_for_one_certain_resource_stays_however_it_behaves() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for id in 0..30 {
        let one = json!({ "id": id, "name": "n", "roles": [], "created": true });
        for target in [format!("/users/{id}"), "/users/me".to_owned()] {
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
        }
    }
    assert_eq!(templates(&all), ["Get /users/me", "Get /users/{}"]);
}

#[test]
fn languages_before_resources_are_one_parameter_and_resources_are_not() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for id in 0..6 {
        for language in ["de", "en", "pt-BR"] {
            for (resource, key) in [("products", "title"), ("posts", "message")] {
                let one = json!({ "id": id, key: "x", "total": 2 });
                let target = format!("/{language}/{resource}/{id}");
                all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
                let list = json!([{ "id": id, key: "x" }]);
                let target = format!("/{language}/{resource}");
                all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&list)));
            }
        }
    }
    assert_eq!(
        templates(&all),
        ["Get /{}/posts", "Get /{}/posts/{}", "Get /{}/products", "Get /{}/products/{}"]
    );
}

#[test]
fn members_that_few_answers_have_do_not_part_siblings() {
    let mut traffic = Traffic::default();
    let mut noise = Noise(11);
    let mut all = Vec::new();
    for _ in 0..6 {
        for label in ["games", "music", "garden", "sports"] {
            let mut one = json!({ "id": 1, "title": "t", "state": "s", "created": true });
            one[noise.slug()] = json!(1);
            let target = format!("/shop/tags/{label}");
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
        }
    }
    assert_eq!(templates(&all), ["Get /shop/tags/{}"]);
}

#[test]
fn files_of_any_kind_are_one_operation_and_representations_are_not() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for round in 0..6 {
        for file in ["logo.svg", "terms.html", "photo.jpg", "banner.png", "price.csv"] {
            let target = format!("/shop/files/{file}");
            all.push(traffic.exchange(Method::Get, &target, None, 200, None));
        }
        for suffix in ["json", "csv"] {
            let target = format!("/shop/reports/{round}.{suffix}");
            let body = json!({ "total": 1 });
            let body = (suffix == "json").then_some(&body);
            all.push(traffic.exchange(Method::Get, &target, None, 200, body));
        }
    }
    assert_eq!(
        templates(&all),
        ["Get /shop/files/{}", "Get /shop/reports/{}.csv", "Get /shop/reports/{}.json"]
    );
    // Files by name and by number are one template still.
    for id in 0..9 {
        let one = json!({ "id": id });
        let target = format!("/shop/files/{id}");
        all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
    }
    assert_eq!(templates(&all).len(), 3);
    let contract = learn(&all);
    let files = contract.operations.iter().filter(|o| o.template.starts_with("/shop/files/"));
    assert_eq!(files.count(), 1);
}

#[test]
fn a_tree_of_files_is_one_path() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for year in 2020..2026 {
        for target in [
            format!("/static/{year}/03/export.csv"),
            "/static/logo.png".to_owned(),
            "/static/img/banner/top.png".to_owned(),
            format!("/static/css/{year}.css"),
        ] {
            all.push(traffic.exchange(Method::Get, &target, None, 200, None));
        }
        all.push(traffic.exchange(Method::Get, "/static/img/none.png", None, 404, None));
    }
    let contract = learn(&all);
    assert_eq!(templates(&all), ["Get /static/{}"]);
    let get = find(&contract, "GET /static/{path}");
    assert!(get.responses.contains_key(&404), "failures below it are its own");
    assert_eq!(contract.tally.unmatched, 0);
}

#[test]
fn places_are_alike_by_what_is_below_values_that_happen_to_be_words() {
    let mut traffic = Traffic::default();
    let parts = ["users", "orders", "items", "comments", "posts", "tags"];
    let mut known = ServiceKnowledge::default();
    for (owner, shelves) in
        [("kestrel", ["books", "toys", "games"]), ("rivet", ["music", "garden", "sports"])]
    {
        for (shelf, part) in shelves.iter().flat_map(|r| parts.map(|p| (r, p))) {
            let many = json!([{ "id": 1, part: "x" }]);
            let target = format!("/{owner}/{shelf}/{part}");
            let one = traffic.exchange(Method::Get, &target, None, 200, Some(&many));
            known.record(&one);
        }
    }
    let owners: Vec<Behaviour> =
        known.stats.paths.children.iter().map(|(_, c)| Behaviour::of(&c.node)).collect();
    let [kestrel, rivet] = owners.as_slice() else { panic!("{owners:?}") };
    let likeness = kestrel.likeness(rivet);
    assert!(likeness.is_informed && likeness.degree > 0.9, "{likeness:?}");
}
