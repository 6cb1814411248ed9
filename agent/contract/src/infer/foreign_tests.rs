//! Services unlike each other: from their traffic to their contract, through redaction and all.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use stoa_wire::exchange::Exchange;

use super::{InferOptions, infer, tests::bare};
use crate::{
    described::Noise,
    knowledge::ServiceKnowledge,
    redact::{RedactConfig, Redactor, tests::exchange::Build},
};

/// Calls with what they answer, each over a connection of its own.
#[derive(Default)]
struct Calls {
    all: Vec<Exchange>,
}

impl Calls {
    fn add(&mut self, method: &str, target: &str, answer: &Json) {
        let flow = self.all.len() as u64;
        let call = Build::new(method, target).flow(flow).answer(
            200,
            "application/json",
            answer.to_string(),
        );
        self.all.push(call.make());
    }

    fn get(&mut self, target: &str, answer: &Json) {
        self.add("GET", target, answer);
    }

    fn templates(&self) -> Vec<String> {
        let mut redactor = Redactor::new([7; 16], RedactConfig::default());
        let mut known = ServiceKnowledge::default();
        let observed = self.all.iter().filter_map(|exchange| redactor.observe(exchange));
        observed.for_each(|observation| known.record(&observation));
        let found: BTreeSet<String> = bare(&infer(&known, &InferOptions::default()));
        found.into_iter().collect()
    }
}

fn key(noise: &mut Noise) -> String {
    format!("{:08x}{:08x}", noise.below(1 << 32), noise.below(1 << 32))
}

#[test]
fn programs_with_extensions_are_operations() {
    let mut calls = Calls::default();
    for id in 0..20 {
        calls.get(&format!("/shop/product.php?id={id}"), &json!({ "id": id, "title": "t" }));
        calls.get("/shop/index.php", &json!({ "products": [] }));
        calls.add("POST", "/account/login.aspx", &json!({ "token": "x" }));
        calls.get("/legacy/viewOrder.do", &json!({ "order": { "id": id } }));
        calls.add("POST", "/Service/Users.svc/GetUser", &json!({ "user": id }));
        calls.get("/cgi-bin/status.cgi", &json!({ "uptime": id }));
    }
    assert_eq!(
        calls.templates(),
        [
            "Get /cgi-bin/status.cgi",
            "Get /legacy/viewOrder.do",
            "Get /shop/index.php",
            "Get /shop/product.php",
            "Post /Service/Users.svc/GetUser",
            "Post /account/login.aspx",
        ]
    );
}

#[test]
fn what_one_path_is_asked_in_a_body_is_one_operation() {
    let mut calls = Calls::default();
    for id in 0..30 {
        calls.add("POST", "/graphql", &json!({ "data": { "user": { "id": id } } }));
        calls.add("POST", "/jsonrpc", &json!({ "jsonrpc": "2.0", "id": id, "result": {} }));
        calls.add("POST", "/soap/StockQuote", &json!({ "price": id }));
    }
    assert_eq!(calls.templates(), ["Post /graphql", "Post /jsonrpc", "Post /soap/StockQuote"]);
}

#[test]
fn procedures_by_name_are_operations_however_many() {
    let mut calls = Calls::default();
    let names = [
        "createUser",
        "getUserById",
        "listOrders",
        "cancelShipment",
        "sendInvoice",
        "archiveThread",
        "resizeWidget",
        "mergeGadgets",
    ];
    for round in 0..12 {
        for name in names {
            calls.add("POST", &format!("/rpc/{name}"), &json!({ "ok": true, "n": round }));
        }
    }
    assert_eq!(calls.templates().len(), names.len(), "{:?}", calls.templates());
}

#[test]
fn custom_methods_are_kept_whatever_they_are_called() {
    let mut calls = Calls::default();
    let mut noise = Noise(3);
    let operation = json!({ "name": "operations/1", "done": false, "metadata": {} });
    for _ in 0..24 {
        let name = noise.slug();
        for verb in ["failover", "injectFault", "setIamPolicy"] {
            calls.add("POST", &format!("/v1/instances/{name}:{verb}"), &operation);
        }
        calls.get(&format!("/v1/instances/{name}"), &json!({ "name": name, "state": "READY" }));
        calls.get("/v1/instances/-/backups", &json!({ "backups": [] }));
    }
    assert_eq!(
        calls.templates(),
        [
            "Get /v1/instances/-/backups",
            "Get /v1/instances/{}",
            "Post /v1/instances/{}:failover",
            "Post /v1/instances/{}:injectFault",
            "Post /v1/instances/{}:setIamPolicy",
        ]
    );
}

#[test]
fn three_formats_of_a_stem_are_a_choice_and_two_are_files() {
    let mut calls = Calls::default();
    let mut noise = Noise(8);
    let answer = json!({ "type": "FeatureCollection", "features": [] });
    for _ in 0..20 {
        for format in ["json", "csv", "kml"] {
            calls.get(&format!("/geo/addresses.{format}"), &answer);
            calls.get(&format!("/geo/sites/{}.{format}", noise.below(90_000)), &answer);
        }
        calls.get("/openapi.json", &json!({ "openapi": "3.1.0" }));
        calls.get("/openapi.yaml", &json!({ "openapi": "3.1.0" }));
    }
    assert_eq!(
        calls.templates(),
        [
            "Get /geo/addresses.{format}",
            "Get /geo/sites/{}.{format}",
            "Get /openapi.json",
            "Get /openapi.yaml"
        ]
    );
}

#[test]
fn words_beside_identifiers_are_operations_of_their_own() {
    let mut calls = Calls::default();
    let mut noise = Noise(5);
    for id in 0..24 {
        let one = json!({ "id": id, "state": "s", "owner": "o", "total": 2 });
        calls.get(&format!("/tasks/{}", key(&mut noise)), &one);
        calls.get("/tasks/statistics", &one);
        calls.add("POST", &format!("/keys/{}", key(&mut noise)), &one);
        calls.add("POST", "/keys/create", &one);
        calls.get(&format!("/policies/{}", noise.slug()), &one);
        calls.get("/policies/get_by_name", &one);
    }
    assert_eq!(
        calls.templates(),
        [
            "Get /policies/get_by_name",
            "Get /policies/{}",
            "Get /tasks/statistics",
            "Get /tasks/{}",
            "Post /keys/create",
            "Post /keys/{}",
        ]
    );
}

#[test]
fn constants_that_a_collection_deletes_are_its_members() {
    let mut calls = Calls::default();
    let rule = json!({ "type": "x", "config": "FULL" });
    for _ in 0..12 {
        calls.get("/admin/rules", &json!(["VALIDITY", "COMPATIBILITY"]));
        for name in ["VALIDITY", "COMPATIBILITY"] {
            calls.get(&format!("/admin/rules/{name}"), &rule);
            calls.add("DELETE", &format!("/admin/rules/{name}"), &json!({}));
        }
    }
    assert_eq!(
        calls.templates(),
        ["Delete /admin/rules/{}", "Get /admin/rules", "Get /admin/rules/{}"]
    );
}

#[test]
fn parts_of_a_thing_are_operations_though_they_answer_alike() {
    let mut calls = Calls::default();
    for round in 0..20 {
        for part in ["allfares", "lowestfares"] {
            let page = json!({ "offers": [{ "price": round }], "total": 1, "page": 1 });
            calls.get(&format!("/v1/offers/{part}"), &page);
        }
        calls.add("POST", "/gateway/consents/hip/notify", &json!({}));
        calls.add("POST", "/gateway/consents/hiu/notify", &json!({}));
    }
    assert_eq!(
        calls.templates(),
        [
            "Get /v1/offers/allfares",
            "Get /v1/offers/lowestfares",
            "Post /gateway/consents/hip/notify",
            "Post /gateway/consents/hiu/notify",
        ]
    );
}

#[test]
fn days_periods_and_coordinates_are_values() {
    let mut calls = Calls::default();
    for day in 1..25 {
        let one = json!({ "rates": { "EUR": 1.0 }, "base": "USD", "date": "x" });
        calls.get(&format!("/rates/2026-03-{day:02}"), &one);
        calls.get(&format!("/tiles/{}/{}/{}.png", day % 7, day * 31, day * 17), &one);
        calls.get(&format!("/forecast/{day}.5,-{day}.25"), &one);
        calls.get(&format!("/archive/2026/{:02}/{day:02}", day % 12 + 1), &one);
    }
    assert_eq!(
        calls.templates(),
        ["Get /archive/{}/{}/{}", "Get /forecast/{}", "Get /rates/{}", "Get /tiles/{}/{}/{}.png"]
    );
}

#[test]
fn webdav_reads_and_writes_are_of_one_place() {
    let mut calls = Calls::default();
    let mut noise = Noise(21);
    for _ in 0..20 {
        let name = noise.slug();
        calls.add("PUT", &format!("/dav/files/{name}.docx"), &json!({}));
        calls.get(&format!("/dav/files/{name}.docx"), &json!({}));
        calls.add("DELETE", &format!("/dav/files/{name}.docx"), &json!({}));
        calls.add("PROPFIND", &format!("/dav/files/{name}.docx"), &json!({}));
    }
    let found = calls.templates();
    assert_eq!(
        found,
        ["Delete /dav/files/{}.docx", "Get /dav/files/{}.docx", "Put /dav/files/{}.docx"]
    );
}
