use serde_json::{Value, json};

use super::*;
use crate::{
    described::{Traffic, with_credential},
    infer::{InferOptions, infer},
    knowledge::ServiceKnowledge,
    observation::{Credential, Text},
};

/// A service with every kind of thing that the document can say.
fn contract() -> Contract {
    let mut traffic = Traffic::default();
    let mut known = ServiceKnowledge::default();
    for round in 0..25 {
        let user = json!({ "id": round, "email": "a@b.test", "name": null, "tags": ["a"], "owner": { "id": 1 } });
        let list = traffic.exchange(
            Method::Get,
            "/users?page=1&sort=name",
            None,
            200,
            Some(&json!([user])),
        );
        known.record(&with_credential(list, Credential::HeaderKey(Text::admit("X-Api-Key"))));
        let one = traffic.exchange(Method::Get, &format!("/users/{round}"), None, 200, Some(&user));
        known.record(&with_credential(one, Credential::Jwt));
        known.record(&traffic.exchange(Method::Post, "/users", Some(&user), 201, Some(&user)));
        let mut lost =
            traffic.exchange(Method::Delete, &format!("/users/{round}"), None, 204, None);
        lost.is_complete = round % 2 == 0;
        lost.bytes_lost = 10;
        known.record(&lost);
    }
    infer(&known, &InferOptions { service: "shop".to_owned(), ..InferOptions::default() })
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in {value:#}"))
}

#[test]
fn references_resolve_and_path_parameters_match_their_templates() {
    let document = to_value(&contract());
    let mut stack = vec![&document];
    let mut references = 0;
    while let Some(value) = stack.pop() {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(target)) = object.get("$ref") {
                    at(&document, target.trim_start_matches('#'));
                    references += 1;
                }
                stack.extend(object.values());
            }
            Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    assert!(references >= 3, "{references}");
    for (template, item) in at(&document, "/paths").as_object().expect("paths") {
        for operation in item.as_object().expect("an item").values() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named = parameters.iter().filter(|p| p["in"] == "path");
            let all_there = named.clone().all(|p| {
                p["required"] == true
                    && template.contains(&format!("{{{}}}", p["name"].as_str().unwrap_or("")))
            });
            assert!(all_there && named.count() == template.matches('{').count(), "{template}");
        }
    }
}

#[test]
fn provenance_and_loss_are_in_the_document() {
    let document = to_value(&contract());
    let delete = at(&document, "/paths/~1users~1{userId}/delete");
    assert_eq!(delete["x-stoa-samples"], 25);
    assert_eq!(delete["x-stoa-complete"], 0.52);
    assert_eq!(delete["x-stoa-lost"], 250);
    assert_eq!(delete["x-stoa-first-seen"], "2023-11-14T22:13:24Z");
    assert!(delete["x-stoa-confidence"].as_f64().is_some_and(|c| c > 0.3 && c < 0.8));
    assert_eq!(at(&document, "/x-stoa-personal-data")["email"], 100);
    assert_eq!(at(&document, "/components/schemas/User/properties/email/x-stoa-personal"), "email");
}

#[test]
fn security_is_by_operation() {
    let document = to_value(&contract());
    assert_eq!(at(&document, "/paths/~1users/get/security"), &json!([{ "xApiKeyHeader": [] }]));
    assert_eq!(
        at(&document, "/paths/~1users~1{userId}/get/security"),
        &json!([{ "bearerAuth": [] }])
    );
    assert!(document.pointer("/paths/~1users/post/security").is_none());
    assert_eq!(at(&document, "/components/securitySchemes/xApiKeyHeader/in"), "header");
}

#[test]
fn yaml_and_json_say_the_same_and_hold_no_example() {
    let contract = contract();
    let json: Value = serde_json::from_str(&to_json(&contract)).expect("JSON");
    let yaml: Value = serde_norway::from_str(&to_yaml(&contract)).expect("YAML");
    assert_eq!(json, yaml);
    assert!(!to_json(&contract).contains("example"));
    assert!(!to_json(&contract).contains("a@b.test"));
}

#[test]
fn schemas_are_of_the_dialect_of_3_1() {
    let nullable = crate::infer::Schema {
        types: crate::infer::Types::STRING.with(crate::infer::Types::NULL),
        enumeration: vec!["a".to_owned()],
        ..Default::default()
    };
    assert_eq!(schema_value(&nullable), json!({ "type": ["string", "null"], "enum": ["a", null] }));
    let reference = crate::infer::Schema {
        reference: Some("User".to_owned()),
        is_nullable: true,
        ..Default::default()
    };
    let expected =
        json!({ "anyOf": [{ "$ref": "#/components/schemas/User" }, { "type": "null" }] });
    assert_eq!(schema_value(&reference), expected);
    let value = schema_value(&crate::infer::Schema::default());
    assert_eq!(value, json!({}));
    assert!(jsonschema::draft202012::meta::is_valid(&schema_value(&nullable)));
}
