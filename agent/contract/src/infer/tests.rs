use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::*;
use crate::{
    described::{Noise, Traffic, with_credential},
    knowledge::ServiceKnowledge,
    observation::{Credential, Method, Observation},
    openapi,
};

pub(super) fn learn(observations: &[Observation]) -> Contract {
    let mut known = ServiceKnowledge::default();
    observations.iter().for_each(|o| known.record(o));
    infer(&known, &InferOptions::default())
}

/// `GET /users/{userId}`
fn called(operation: &Operation) -> String {
    let method = format!("{:?}", operation.method).to_uppercase();
    format!("{method} {}", operation.template)
}

fn operations(contract: &Contract) -> BTreeSet<String> {
    contract.operations.iter().map(called).collect()
}

/// With the names of parameters left out.
pub(super) fn bare(contract: &Contract) -> BTreeSet<String> {
    contract
        .operations
        .iter()
        .map(|o| {
            let segments: Vec<String> = o
                .template
                .split('/')
                .map(|s| match (s.find('{'), s.find('}')) {
                    (Some(0), Some(end)) => format!("{{}}{}", &s[end + 1..]),
                    _ => s.to_owned(),
                })
                .collect();
            format!("{:?} {}", o.method, segments.join("/"))
        })
        .collect()
}

pub(super) fn find<'a>(contract: &'a Contract, call: &str) -> &'a Operation {
    let found = contract.operations.iter().find(|o| called(o) == call);
    found.unwrap_or_else(|| panic!("{call} not in {:?}", operations(contract)))
}

fn user(noise: &mut Noise, id: u64) -> Json {
    let state = ["active", "locked", "invited"][noise.below(3) as usize];
    let name = if noise.below(4) == 0 { Json::Null } else { json!(noise.slug()) };
    json!({ "id": id, "name": name, "state": state, "total": id as f64 * 0.5 })
}

/// A shop: ids, slugs, nested resources, singletons, errors, a scanner.
fn shop(rounds: u64) -> Vec<Observation> {
    let mut noise = Noise(42);
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for round in 0..rounds {
        let id = 100 + noise.below(500);
        let list: Vec<Json> = (0..3).map(|i| user(&mut noise, id + i)).collect();
        all.push(traffic.exchange(
            Method::Get,
            &format!("/api/v1/users?page={round}"),
            None,
            200,
            Some(&json!(list)),
        ));
        let one = user(&mut noise, id);
        all.push(traffic.exchange(
            Method::Get,
            &format!("/api/v1/users/{id}"),
            None,
            200,
            Some(&one),
        ));
        all.push(traffic.exchange(
            Method::Post,
            "/api/v1/users",
            Some(&json!({"name": "x"})),
            201,
            Some(&one),
        ));
        let me = json!({ "id": id, "roles": ["a"], "settings": { "sort": true } });
        all.push(traffic.exchange(Method::Get, "/api/v1/users/me", None, 200, Some(&me)));
        let order = json!({ "id": id * 3, "items": [{ "sku": "k", "count": 2 }], "total": 3 });
        all.push(traffic.exchange(
            Method::Get,
            &format!("/api/v1/users/{id}/orders/{}", id * 3),
            None,
            200,
            Some(&order),
        ));
        all.push(traffic.exchange(
            Method::Post,
            &format!("/api/v1/orders/{}/cancel", id * 3),
            None,
            202,
            None,
        ));
        let slug = noise.slug();
        let product = json!({ "title": slug, "state": "x", "tags": [], "owner": { "id": id } });
        all.push(traffic.exchange(
            Method::Get,
            &format!("/api/v1/products/{slug}"),
            None,
            200,
            Some(&product),
        ));
        let comments = json!({ "data": [{ "message": "m", "created": round }], "total": 1 });
        all.push(traffic.exchange(
            Method::Get,
            &format!("/api/v1/products/{slug}/comments"),
            None,
            200,
            Some(&comments),
        ));
        all.push(traffic.exchange(
            Method::Get,
            "/health",
            None,
            200,
            Some(&json!({ "status": "ok" })),
        ));
        let error = json!({ "error": "none", "message": "no" });
        all.push(traffic.exchange(
            Method::Get,
            &format!("/api/v1/users/{}", id + 7000),
            None,
            404,
            Some(&error),
        ));
        all.push(traffic.exchange(
            Method::Get,
            &format!("/{}.php", noise.slug()),
            None,
            404,
            Some(&error),
        ));
        all.push(traffic.exchange(
            Method::Get,
            &format!("/wp-admin/{}", noise.slug()),
            None,
            404,
            None,
        ));
    }
    all
}

const SHOP: [&str; 9] = [
    "Get /api/v1/users",
    "Get /api/v1/users/{}",
    "Post /api/v1/users",
    "Get /api/v1/users/me",
    "Get /api/v1/users/{}/orders/{}",
    "Post /api/v1/orders/{}/cancel",
    "Get /api/v1/products/{}",
    "Get /api/v1/products/{}/comments",
    "Get /health",
];

#[test]
fn a_shop_is_found_with_precision_and_recall_from_few_samples_and_many() {
    let truth: BTreeSet<String> = SHOP.iter().map(|s| (*s).to_owned()).collect();
    for rounds in [2, 3, 5, 10, 50, 400] {
        let found = bare(&learn(&shop(rounds)));
        let right = found.intersection(&truth).count() as f64;
        let (precision, recall) = (right / found.len() as f64, right / truth.len() as f64);
        assert!(precision == 1.0 && recall == 1.0, "{rounds} rounds: {found:?}");
    }
}

#[test]
fn names_ids_and_tags_read_well() {
    let contract = learn(&shop(30));
    let of = |s: &str| find(&contract, s).operation_id.clone();
    assert_eq!(of("GET /api/v1/users"), "listUsers");
    assert_eq!(of("GET /api/v1/users/{userId}"), "getUser");
    assert_eq!(of("POST /api/v1/users"), "createUser");
    assert_eq!(of("GET /api/v1/users/{userId}/orders/{orderId}"), "getUserOrder");
    assert_eq!(of("POST /api/v1/orders/{orderId}/cancel"), "cancelOrder");
    assert_eq!(of("GET /api/v1/products/{product}"), "getProduct");
    assert_eq!(find(&contract, "GET /health").tag.as_deref(), Some("health"));
    assert_eq!(find(&contract, "GET /api/v1/users").tag.as_deref(), Some("users"));
    let ids: BTreeSet<_> = contract.operations.iter().map(|o| &o.operation_id).collect();
    assert_eq!(ids.len(), contract.operations.len());
}

#[test]
fn failures_attach_to_the_operation_they_called_or_vanish() {
    let contract = learn(&shop(30));
    let get = find(&contract, "GET /api/v1/users/{userId}");
    assert_eq!(get.responses.keys().copied().collect::<Vec<_>>(), [200, 404]);
    assert_eq!(contract.tally.unmatched, 60);
}

#[test]
fn schemas_have_types_nullability_enumerations_and_what_is_required() {
    let contract = learn(&shop(60));
    let users = find(&contract, "GET /api/v1/users");
    let media = &users.responses[&200].content["application/json"];
    let items = media.schema.as_ref().and_then(|s| s.items.as_ref()).expect("an array");
    let name = items.reference.as_ref().expect("shared with the single resource");
    let single = &find(&contract, "GET /api/v1/users/{userId}").responses[&200];
    assert_eq!(
        single.content["application/json"].schema.as_ref().and_then(|s| s.reference.clone()),
        Some(name.clone())
    );
    assert_eq!(name, "User");
    let user = &contract.components[name];
    assert_eq!(user.properties["id"].types, Types::INTEGER);
    assert_eq!(user.properties["total"].types, Types::NUMBER);
    assert_eq!(user.properties["name"].types, Types::STRING.with(Types::NULL));
    assert_eq!(user.properties["state"].enumeration, ["active", "invited", "locked"]);
    assert_eq!(user.required, ["id", "name", "state", "total"]);
    let page = users.parameters.iter().find(|p| p.name == "page").expect("a query parameter");
    assert_eq!(
        (page.place, page.schema.types, page.is_required),
        (Place::Query, Types::INTEGER, true)
    );
}

#[test]
fn slugs_of_words_are_values_where_they_behave_alike_and_came_from_the_service() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    let names = ["books", "toys", "games", "music", "garden", "sports"];
    for round in 0..5 {
        let list: Vec<Json> = names.iter().map(|n| json!({ "name": n, "total": round })).collect();
        all.push(traffic.exchange(Method::Get, "/categories", None, 200, Some(&json!(list))));
        for name in names {
            let one = json!({ "name": name, "total": round, "items": [{ "id": 1, "title": "t" }] });
            all.push(traffic.exchange(
                Method::Get,
                &format!("/categories/{name}"),
                None,
                200,
                Some(&one),
            ));
        }
    }
    assert_eq!(
        bare(&learn(&all)).into_iter().collect::<Vec<_>>(),
        ["Get /categories", "Get /categories/{}"]
    );
}

#[test]
fn resources_of_like_shape_stay_apart() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for round in 0..8 {
        for (name, key) in
            [("users", "roles"), ("orders", "items"), ("posts", "comments"), ("files", "owner")]
        {
            let list = json!({ "data": [{ "id": round, "name": "n", key: "x" }], "total": 1 });
            all.push(traffic.exchange(
                Method::Get,
                &format!("/api/{name}"),
                None,
                200,
                Some(&list),
            ));
        }
    }
    let found = bare(&learn(&all));
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn two_adjacent_parameters_and_suffixes_are_found() {
    let mut traffic = Traffic::default();
    let mut noise = Noise(9);
    let mut all = Vec::new();
    for _ in 0..40 {
        let target = format!("/repos/{}/{}", noise.slug(), noise.slug());
        let repo = json!({ "id": 1, "name": "n", "owner": { "name": "o" }, "created": true });
        all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&repo)));
        let id = noise.below(9999);
        all.push(traffic.exchange(
            Method::Get,
            &format!("/reports/{id}.json"),
            None,
            200,
            Some(&repo),
        ));
        all.push(traffic.exchange(Method::Post, &format!("/orders/{id}:cancel"), None, 200, None));
    }
    let found: Vec<String> = bare(&learn(&all)).into_iter().collect();
    assert_eq!(found, ["Get /reports/{}.json", "Get /repos/{}/{}", "Post /orders/{}:cancel"]);
}

#[test]
fn later_traffic_unmakes_a_decision() {
    let mut traffic = Traffic::default();
    let mut noise = Noise(5);
    let one = json!({ "id": 1, "title": "t" });
    let mut all: Vec<Observation> = (0..4)
        .map(|_| traffic.exchange(Method::Get, "/files/gizmo", None, 200, Some(&json!({ "q": 1 }))))
        .collect();
    let early = bare(&learn(&all));
    for _ in 0..20 {
        let target = format!("/files/{}", noise.slug());
        all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
    }
    let late = bare(&learn(&all));
    assert!(early.len() == 1 && late.contains("Get /files/{}"), "{early:?} {late:?}");
    assert!(late.contains("Get /files/gizmo"), "static beats parameter: {late:?}");
}

#[test]
fn security_is_required_optional_or_absent() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for round in 0..20 {
        let call = |t: &mut Traffic, target: &str| t.exchange(Method::Get, target, None, 200, None);
        let orders = call(&mut traffic, "/orders");
        all.push(with_credential(orders, Credential::Jwt));
        let posts = call(&mut traffic, "/posts");
        all.push(if round % 2 == 0 { with_credential(posts, Credential::Basic) } else { posts });
        all.push(call(&mut traffic, "/health"));
        all.push(traffic.exchange(Method::Get, "/orders", None, 401, None));
    }
    let contract = learn(&all);
    let of = |s: &str| find(&contract, s).security.clone();
    let only = |scheme: &str, is_optional| Security {
        schemes: vec![scheme.to_owned()],
        is_optional,
        ..Security::default()
    };
    assert_eq!(of("GET /orders"), only("bearerAuth", false));
    assert_eq!(of("GET /posts"), only("basicAuth", true));
    assert_eq!(of("GET /health"), Security::default());
    assert_eq!(
        contract.security_schemes["bearerAuth"],
        SecurityScheme::Http { scheme: "bearer".to_owned(), bearer_format: Some("JWT".to_owned()) }
    );
}

#[test]
fn truncation_never_makes_a_property_optional() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for round in 0..30 {
        let full = json!({ "id": round, "name": "n", "total": 2 });
        let mut observation = traffic.exchange(Method::Get, "/cart", None, 200, Some(&full));
        if round % 3 == 0 {
            let body = &mut observation.response.as_mut().expect("a response").body;
            body.is_whole = false;
            if let crate::observation::Content::Json(crate::observation::Node::Object {
                members,
                is_closed,
            }) = &mut body.content
            {
                members.truncate(1);
                *is_closed = false;
            }
            observation.is_complete = false;
        }
        all.push(observation);
    }
    let contract = learn(&all);
    let cart = find(&contract, "GET /cart");
    let schema = cart.responses[&200].content["application/json"].schema.clone().expect("a schema");
    assert_eq!(schema.required, ["id", "name", "total"]);
    assert!(cart.confidence < learn(&shop(30)).operations[0].confidence);
}

#[test]
fn heads_that_were_cut_say_nothing_of_what_they_lack() {
    let mut traffic = Traffic::default();
    let all: Vec<Observation> = (0..30)
        .map(|round| {
            let body = json!({ "id": round });
            let mut observation = traffic.exchange(Method::Get, "/cart", None, 200, Some(&body));
            if round % 3 == 0 {
                (observation.is_request_head_whole, observation.is_complete) = (false, false);
            } else {
                observation.credentials.push(Credential::Basic);
            }
            observation
        })
        .collect();
    let contract = learn(&all);
    let security = &find(&contract, "GET /cart").security;
    assert_eq!(security.schemes, ["basicAuth"]);
    assert!(!security.is_optional);
}

#[test]
fn objects_with_keys_that_vary_are_maps() {
    let mut traffic = Traffic::default();
    let mut noise = Noise(3);
    let all: Vec<Observation> = (0..30)
        .map(|_| {
            let mut map = serde_json::Map::new();
            for _ in 0..4 {
                map.insert(noise.below(100_000).to_string(), json!({ "total": 1 }));
            }
            traffic.exchange(Method::Get, "/status", None, 200, Some(&json!({ "data": map })))
        })
        .collect();
    let contract = learn(&all);
    let schema =
        find(&contract, "GET /status").responses[&200].content["application/json"].schema.clone();
    let data = schema.expect("a schema").properties["data"].clone();
    assert!(data.properties.is_empty());
    assert_eq!(data.values.expect("a map").properties["total"].types, Types::INTEGER);
}

#[test]
fn preflights_and_beside_get_head_make_no_operation() {
    let mut traffic = Traffic::default();
    let mut preflight = traffic.exchange(Method::Options, "/orders", None, 204, None);
    preflight.is_preflight = true;
    let all = vec![
        preflight,
        traffic.exchange(Method::Options, "/users", None, 204, None),
        traffic.exchange(Method::Head, "/users", None, 200, None),
        traffic.exchange(Method::Get, "/users", None, 200, Some(&json!([]))),
        traffic.exchange(Method::Head, "/files", None, 200, None),
    ];
    assert_eq!(bare(&learn(&all)).into_iter().collect::<Vec<_>>(), ["Get /users", "Head /files"]);
}

#[test]
fn the_same_knowledge_in_any_order_gives_the_same_bytes() {
    let all = shop(20);
    let mut forward = ServiceKnowledge::default();
    all.iter().for_each(|o| forward.record(o));
    let mut backward = ServiceKnowledge::default();
    all.iter().rev().for_each(|o| backward.record(o));
    let render = |k: &ServiceKnowledge| openapi::to_yaml(&infer(k, &InferOptions::default()));
    assert_eq!(render(&forward), render(&backward));
    assert!(render(&forward).starts_with("openapi: 3.1.0"));
}

#[test]
fn a_flood_of_slugs_neither_hides_what_is_named_nor_grows_without_bound() {
    let mut noise = Noise(77);
    let mut known = ServiceKnowledge::default();
    let mut traffic = Traffic::default();
    let one = json!({ "id": 1, "title": "t", "owner": { "id": 2 } });
    for i in 0..20_000u64 {
        let target = format!("/products/{}-{}", noise.slug(), noise.slug());
        known.record(&traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
        if i % 1000 == 0 {
            known.record(&traffic.exchange(
                Method::Get,
                "/gadget",
                None,
                200,
                Some(&json!({ "q": 1 })),
            ));
        }
    }
    assert!(known.approximate_bytes() < 1 << 20, "{}", known.approximate_bytes());
    let found = bare(&infer(&known, &InferOptions::default()));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["Get /gadget", "Get /products/{}"]);
}
