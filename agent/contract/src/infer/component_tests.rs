//! What is shared, and what it is called.

use serde_json::{Value as Json, json};

use super::{
    Contract, Schema,
    tests::{find, learn},
};
use crate::{
    described::{Noise, Traffic},
    infer::Types,
    observation::Method,
};

fn body<'a>(contract: &'a Contract, call: &str) -> &'a Schema {
    find(contract, call).responses[&200].content["application/json"].schema.as_ref().expect("JSON")
}

fn reference<'a>(contract: &'a Contract, call: &str) -> Option<&'a str> {
    body(contract, call).reference.as_deref()
}

#[test]
fn what_few_samples_lack_does_not_part_an_object_and_null_takes_the_type_of_the_others() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for id in 0..40 {
        let mut one = json!({ "id": id, "name": "n", "total": 1, "created": "2026-01-01" });
        if id % 2 == 0 {
            one["comments"] = json!("c");
        }
        all.push(traffic.exchange(Method::Get, &format!("/orders/{id}"), None, 200, Some(&one)));
        if id < 4 {
            let page = json!({
                "data": [{ "id": id, "name": "n", "total": 1, "created": null }], "page": 1
            });
            all.push(traffic.exchange(Method::Get, "/orders", None, 200, Some(&page)));
        }
    }
    let contract = learn(&all);
    assert_eq!(reference(&contract, "GET /orders/{orderId}"), Some("Order"));
    let page = body(&contract, "GET /orders");
    let items = page.properties["data"].items.as_ref().expect("items");
    assert_eq!(items.reference.as_deref(), Some("Order"));
    let order = &contract.components["Order"];
    assert_eq!(order.required, ["id", "name", "total", "created"].map(str::to_owned).sorted());
    assert_eq!(order.optional, ["comments"]);
    assert_eq!(order.properties["created"].types, Types::STRING.with(Types::NULL));
    assert_eq!(order.properties["created"].format, Some("date"));
}

/// GitHub's `author` is a user, or `{}`.
#[test]
fn what_few_samples_lack_altogether_takes_nothing_from_what_others_always_have() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for id in 0..40 {
        let user = json!({ "id": id, "login": "n", "url": "u", "type": "t", "admin": false });
        let issue = json!({ "number": id, "owner": user });
        all.push(traffic.exchange(Method::Get, &format!("/issues/{id}"), None, 200, Some(&issue)));
        if id < 12 {
            let author = if id % 3 == 0 { json!({}) } else { user };
            let commit = json!({ "sha": id, "author": author });
            let call = format!("/commits/{id}");
            all.push(traffic.exchange(Method::Get, &call, None, 200, Some(&commit)));
        }
    }
    let contract = learn(&all);
    let resolve = |schema: &Schema| {
        let reference = schema.reference.clone();
        reference.map_or_else(|| schema.clone(), |name| contract.components[&name].clone())
    };
    let issue = resolve(body(&contract, "GET /issues/{issueId}"));
    assert_eq!(resolve(&issue.properties["owner"]).required.len(), 5);
    let commit = resolve(body(&contract, "GET /commits/{commitId}"));
    assert_eq!(resolve(&commit.properties["author"]).optional.len(), 5);
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl<const N: usize> Sorted for [String; N] {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}

#[test]
fn what_is_always_there_in_one_and_may_lack_in_the_other_is_not_one() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for id in 0..40 {
        let full = json!({ "id": id, "name": "n", "total": 1, "state": "s", "owner": "o" });
        all.push(traffic.exchange(Method::Get, &format!("/orders/{id}"), None, 200, Some(&full)));
        all.push(traffic.exchange(Method::Get, "/cart", None, 200, Some(&full)));
        let mut less = full.clone();
        if id % 3 == 0 {
            less.as_object_mut().expect("an object").remove("owner");
        }
        all.push(traffic.exchange(Method::Get, &format!("/posts/{id}"), None, 200, Some(&less)));
        all.push(traffic.exchange(Method::Get, "/status", None, 200, Some(&less)));
    }
    let contract = learn(&all);
    let order = reference(&contract, "GET /orders/{orderId}").expect("shared");
    let post = reference(&contract, "GET /posts/{postId}").expect("shared");
    assert_ne!(order, post);
    assert!(contract.components[order].required.contains(&"owner".to_owned()));
    assert!(contract.components[post].optional.contains(&"owner".to_owned()));
}

#[test]
fn places_of_one_object_make_an_enumeration_together() {
    let mut traffic = Traffic::default();
    let mut noise = Noise(3);
    let mut all = Vec::new();
    for id in 0..12 {
        for target in [format!("/orders/{id}"), format!("/users/{id}/orders/{id}")] {
            let state = ["created", "cancel", "error"][noise.below(3) as usize];
            let one: Json = json!({ "id": id, "state": state, "total": 1, "owner": id });
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
        }
    }
    let contract = learn(&all);
    assert_eq!(reference(&contract, "GET /orders/{orderId}"), Some("Order"));
    assert_eq!(
        contract.components["Order"].properties["state"].enumeration,
        ["cancel", "created", "error"]
    );
}

#[test]
fn small_objects_are_one_only_where_they_are_called_alike() {
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for id in 0..12 {
        for resource in ["tags", "roles"] {
            let one = json!({ "id": id, "name": "n" });
            let target = format!("/{resource}/{id}");
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&one)));
            let list = json!([one]);
            let target = format!("/{resource}");
            all.push(traffic.exchange(Method::Get, &target, None, 200, Some(&list)));
        }
    }
    let contract = learn(&all);
    assert_eq!(contract.components.keys().collect::<Vec<_>>(), ["Role", "Tag"]);
}

#[test]
fn what_was_seen_in_every_cut_object_is_required() {
    use crate::observation::{Content, Node};
    let mut traffic = Traffic::default();
    let mut all = Vec::new();
    for round in 0..20 {
        let one = json!({ "id": round, "name": "n", "total": 2 });
        let mut observation = traffic.exchange(Method::Get, "/cart", None, 200, Some(&one));
        let body = &mut observation.response.as_mut().expect("a response").body;
        body.is_whole = false;
        if let Content::Json(Node::Object { members, is_closed }) = &mut body.content {
            members.truncate(2 + round % 2);
            *is_closed = false;
        }
        all.push(observation);
    }
    let contract = learn(&all);
    assert_eq!(body(&contract, "GET /cart").required, ["id", "name"]);
    assert!(body(&contract, "GET /cart").optional.is_empty());
}
