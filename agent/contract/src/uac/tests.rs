use serde_json::{Value, json};

use super::*;
use crate::{
    described::Traffic,
    infer::{InferOptions, infer},
    knowledge::ServiceKnowledge,
};

fn contract(service: &str) -> Contract {
    let mut traffic = Traffic::default();
    let mut known = ServiceKnowledge::default();
    for round in 0..12 {
        let order = json!({ "id": round, "owner": { "id": 1, "name": "n" }, "items": [{ "id": 1, "name": "n" }] });
        known.record(&traffic.exchange(
            Method::Get,
            "/orders?page=1",
            None,
            200,
            Some(&json!([order])),
        ));
        known.record(&traffic.exchange(
            Method::Put,
            &format!("/orders/{round}"),
            Some(&order),
            200,
            Some(&order),
        ));
        known.record(&traffic.exchange(
            Method::Delete,
            &format!("/orders/{round}"),
            None,
            204,
            None,
        ));
    }
    infer(&known, &InferOptions { service: service.to_owned(), ..InferOptions::default() })
}

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).expect("the schema compiles")
}

#[test]
fn documents_are_valid_whatever_the_service_is_called() {
    let validator = validator();
    let long = "x".repeat(400);
    for service in ["shop", "A", "", "Ünïcode & Co.", "-a-", "a b_c.d", long.as_str()] {
        let value = to_value(&contract(service), &UacOptions::default()).expect("has operations");
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{service}: {errors:?}");
    }
}

#[test]
fn the_schema_refuses_what_is_not_a_contract() {
    let validator = validator();
    let good = to_value(&contract("shop"), &UacOptions::default()).expect("has operations");
    for (pointer, bad) in [
        ("/name", json!("a")),
        ("/version", json!("1.0")),
        ("/tenant_id", json!("")),
        ("/classification", json!("X")),
        ("/endpoints", json!([])),
        ("/endpoints/0/methods", json!(["TRACE"])),
        ("/status", json!("ready")),
    ] {
        let mut value = good.clone();
        *value.pointer_mut(pointer).expect(pointer) = bad;
        assert!(!validator.is_valid(&value), "{pointer}");
    }
    let mut published = good.clone();
    published["status"] = json!("published");
    published["endpoints"][0]["backend_url"] = json!("");
    assert!(!validator.is_valid(&published), "published without a backend");
}

#[test]
fn schemas_stand_alone_and_policies_follow_the_classification() {
    let options = UacOptions { classification: Classification::VeryHigh, ..UacOptions::default() };
    let value = to_value(&contract("shop"), &options).expect("has operations");
    assert_eq!(
        value["required_policies"],
        json!(["rate-limit", "auth-jwt", "mtls", "audit-logging"])
    );
    for endpoint in value["endpoints"].as_array().expect("endpoints") {
        for key in ["input_schema", "output_schema"] {
            if let Some(schema) = endpoint.get(key) {
                assert!(jsonschema::draft202012::new(schema).is_ok(), "{schema:#}");
                assert!(!schema.to_string().contains("#/components/"), "{schema}");
            }
        }
    }
    let put = &value["endpoints"][1];
    assert_eq!(
        (put["path"].as_str(), put["methods"][0].as_str()),
        (Some("/orders/{orderId}"), Some("PUT"))
    );
    assert_eq!(put["backend_url"], "http://shop.test");
    assert!(
        put["input_schema"]["required"].as_array().is_some_and(|r| r.contains(&json!("orderId")))
    );
}

#[test]
fn no_operation_is_no_contract() {
    let empty = infer(&ServiceKnowledge::default(), &InferOptions::default());
    assert_eq!(to_value(&empty, &UacOptions::default()), None);
}
