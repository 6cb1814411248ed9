use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::context::{Body, tests::request};

fn orders() -> Value {
    json!({
        "openapi": "3.1.0",
        "servers": [{"url": "https://orders.example/api/v1/"}, {"url": "/"}],
        "paths": {
            "/orders": {
                "get": {
                    "parameters": [
                        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
                        {"name": "tag", "in": "query", "schema": {"type": "array", "items": {"enum": ["a", "b"]}}},
                        {"name": "filter", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                        {"name": "X-Request-ID", "in": "header", "required": true, "schema": {"type": "string", "format": "uuid"}},
                    ],
                    "responses": {"200": {"description": "ok", "headers": {"X-Total": {"required": true}},
                        "content": {"application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Order"}}}}}},
                },
                "post": {
                    "requestBody": {"$ref": "#/components/requestBodies/Order"},
                    "responses": {"201": {"description": "made"}, "4XX": {"description": "no",
                        "content": {"application/problem+json": {"schema": {"type": "object", "required": ["title"]}}}}},
                },
            },
            "/orders/{order~id}": {
                "parameters": [{"name": "order~id", "in": "path", "required": true, "schema": {"type": "integer", "minimum": 1}}],
                "get": {"responses": {"default": {"description": "any"}}},
            },
        },
        "components": {
            "requestBodies": {"Order": {"required": true, "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Order"}},
                "text/*": {},
            }}},
            "schemas": {"Order": {"type": "object", "required": ["item"], "additionalProperties": false,
                "properties": {"item": {"type": "string"}, "count": {"type": "integer"}, "parent": {"$ref": "#/components/schemas/Order"}}}},
        },
    })
}

fn contract(document: &Value, more: Value) -> Contract {
    let mut config = json!({"document": document, "requests": "block", "responses": "block"});
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    Contract::build(&serde_json::from_value(config).unwrap(), &Outside::default()).unwrap()
}

struct Ask<'a> {
    method: Method,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a [(&'static str, &'static str)],
    body: Body<'a>,
}

const UUID: (&str, &str) = ("x-request-id", "3fa85f64-5717-4562-b3fc-2c963f66afa6");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const GET: Ask<'_> =
    Ask { method: Method::GET, path: "/orders", query: None, headers: &[UUID], body: Body::Unread };

fn header_map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

fn decide(contract: &Contract, ask: &Ask<'_>) -> (Result<(), (u16, String)>, Decision) {
    let headers = header_map(ask.headers);
    let mut context = request(&headers);
    context.method = &ask.method;
    context.path = ask.path;
    context.query = ask.query;
    context.body = ask.body;
    let mut decision = Decision::default();
    let verdict = contract.check(&context, &mut decision);
    (verdict.map_err(|d| (d.status.as_u16(), d.reason.into_owned())), decision)
}

fn refusal(contract: &Contract, ask: &Ask<'_>) -> (u16, String) {
    decide(contract, ask).0.unwrap_err()
}

#[test]
fn operations_are_found_below_their_servers() {
    let contract = contract(&orders(), json!({}));
    for path in ["/orders", "/api/v1/orders"] {
        assert_eq!(decide(&contract, &Ask { path, ..GET }).0, Ok(()), "{path}");
    }
    let head = Ask { method: Method::HEAD, ..GET };
    assert_eq!(decide(&contract, &head).0, Ok(()));
    for path in ["/", "/orders/", "/api/v1", "/api/v1orders", "/api/v2/orders", "/orders/17/items"]
    {
        assert_eq!(refusal(&contract, &Ask { path, ..GET }).0, 404, "{path}");
    }
    assert_eq!(refusal(&contract, &Ask { method: Method::DELETE, ..GET }).0, 405);
    let preflight = Ask {
        method: Method::OPTIONS,
        headers: &[("access-control-request-method", "POST")],
        ..GET
    };
    assert_eq!(decide(&contract, &preflight).0, Ok(()));
}

#[test]
fn parameters_are_what_their_schemas_say() {
    let contract = contract(&orders(), json!({"unknown_parameters": "block"}));
    let query = |query: &'static str| decide(&contract, &Ask { query: Some(query), ..GET }).0;
    for good in [
        "",
        "limit=100",
        "limit=%31",
        "tag=a",
        "tag=a,b",
        "tag=a&tag=b",
        "filter[x]=1",
        "filter%5Bx%5D=1",
    ] {
        assert_eq!(query(good), Ok(()), "{good}");
    }
    for (bad, place) in [
        ("limit=101", "query parameter limit"),
        ("limit=ten", "query parameter limit"),
        ("limit=", "query parameter limit"),
        ("limit=1&limit=2", "query parameter limit"),
        ("tag=a,c", "query parameter tag/1"),
        ("other=1", "query parameter other"),
        ("Limit=1", "query parameter Limit"),
    ] {
        let (status, reason) = query(bad).unwrap_err();
        assert!(status == 400 && reason.starts_with(place), "{bad}: {reason}");
        assert!(!reason.contains("101") && !reason.contains("ten"), "{reason}");
    }
    let headers = |headers| decide(&contract, &Ask { headers, ..GET }).0;
    assert!(
        headers(&[]).unwrap_err().1.contains("x-request-id")
            || headers(&[]).unwrap_err().1.contains("X-Request-ID")
    );
    assert!(headers(&[("x-request-id", "17")]).is_err());
    let path = |path| decide(&contract, &Ask { path, ..GET }).0;
    assert_eq!(path("/orders/17"), Ok(()));
    assert_eq!(path("/orders/0").unwrap_err().0, 400);
    assert_eq!(path("/orders/x").unwrap_err().0, 400);
}

#[test]
fn bodies_are_what_their_schemas_say() {
    let contract = contract(&orders(), json!({}));
    let post =
        |headers, body| decide(&contract, &Ask { method: Method::POST, headers, body, ..GET }).0;
    let json = |body: &'static str| post(&[JSON], Body::Whole(body.as_bytes()));
    assert_eq!(json(r#"{"item":"book","count":2,"parent":{"item":"x"}}"#), Ok(()));
    assert_eq!(post(&[("content-type", "text/csv")], Body::Whole(b"a;b")), Ok(()));
    for (bad, place) in [
        (r#"{"count":2}"#, "body:"),
        (r#"{"item":7}"#, "body/item:"),
        (r#"{"item":"x","parent":{"item":1}}"#, "body/parent/item:"),
        (r#"{"item":"x","extra":1}"#, "body:"),
        ("[]", "body:"),
        ("{", "body: is not JSON"),
        (r#"{"item":"x","count":1,"count":2}"#, "body: is JSON with a member named twice"),
        ("", "body: is missing"),
    ] {
        let (status, reason) = json(bad).unwrap_err();
        assert!(status == 400 && reason.starts_with(place), "{bad}: {reason}");
    }
    let reason = |headers, body| post(headers, body).unwrap_err().1;
    assert!(
        reason(&[("content-type", "application/xml")], Body::Whole(b"<a/>")).contains("media type")
    );
    assert!(reason(&[], Body::Whole(b"{}")).contains("media type"));
    assert!(
        reason(&[JSON, ("content-encoding", "gzip")], Body::Whole(b"{}")).contains("compressed")
    );
    assert!(reason(&[JSON], Body::Longer).contains("too long"));
    // A secret in the body stays out of the reason.
    let (_, reason) = json(r#"{"item":{"password":"hunter2"}}"#).unwrap_err();
    assert!(!reason.contains("hunter2"), "{reason}");
}

#[test]
fn only_bodies_that_matter_are_read() {
    let contract = contract(&orders(), json!({"up_to": "64KiB"}));
    let need = |method: &Method, path| {
        let headers = HeaderMap::new();
        let mut context = request(&headers);
        context.method = method;
        context.path = path;
        contract.body_need(&context)
    };
    assert_eq!(need(&Method::POST, "/orders"), BodyNeed::UpTo(64 << 10));
    assert_eq!(need(&Method::GET, "/orders"), BodyNeed::None);
    assert_eq!(need(&Method::POST, "/other"), BodyNeed::None);
}

#[test]
fn reports_let_pass_and_say_so() {
    let contract =
        contract(&orders(), json!({"requests": "report", "unknown_operations": "block"}));
    let (verdict, decision) = decide(&contract, &Ask { query: Some("limit=101"), ..GET });
    assert_eq!(verdict, Ok(()));
    assert_eq!(decision.notes[0].code, "request_contract");
    assert!(decision.notes[0].detail.starts_with("query parameter limit"));
    assert!(decision.obligations.validate_response);
    assert_eq!(refusal(&contract, &Ask { path: "/x", ..GET }).0, 404);
}

fn answer(
    contract: &Contract,
    ask: &Ask<'_>,
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: Body<'_>,
) -> Result<Option<Note>, Denial> {
    let (_, decision) = decide(contract, ask);
    let headers = header_map(headers);
    let status = StatusCode::from_u16(status).unwrap();
    let response = ResponseContext { method: &ask.method, status, headers: &headers, body };
    contract.check_response(decision.operation, &response)
}

#[test]
fn responses_are_what_their_schemas_say() {
    let blocking = contract(&orders(), json!({"requests": "report"}));
    const TOTAL: (&str, &str) = ("x-total", "1");
    let get = |status, headers: &[(&'static str, &'static str)], body: &'static str| {
        answer(&blocking, &GET, status, headers, Body::Whole(body.as_bytes()))
            .map_err(|d| d.status.as_u16())
    };
    assert_eq!(get(200, &[JSON, TOTAL], r#"[{"item":"a"}]"#), Ok(None));
    assert_eq!(get(200, &[JSON, TOTAL], r#"[{"item":1}]"#), Err(502));
    assert_eq!(get(200, &[JSON], "[]"), Err(502), "a required header");
    assert_eq!(get(200, &[("content-type", "text/html"), TOTAL], "<html>"), Err(502));
    assert_eq!(get(500, &[JSON], "{}"), Err(502), "a status that nobody wrote down");
    let post = Ask { method: Method::POST, ..GET };
    let problem = [("content-type", "application/problem+json")];
    let post = |status, body: &'static str| {
        answer(&blocking, &post, status, &problem, Body::Whole(body.as_bytes()))
            .map_err(|d| d.status.as_u16())
    };
    assert_eq!(post(404, r#"{"title":"no"}"#), Ok(None));
    assert_eq!(post(422, "{}"), Err(502));
    assert_eq!(post(201, "anything"), Ok(None));
    let head = Ask { method: Method::HEAD, ..GET };
    assert_eq!(answer(&blocking, &head, 200, &[JSON, TOTAL], Body::Unread).unwrap(), None);

    let reporting = contract(&orders(), json!({"responses": "report"}));
    let note = answer(&reporting, &GET, 200, &[JSON, TOTAL], Body::Whole(b"[7]")).unwrap().unwrap();
    assert_eq!(
        (note.code, note.detail.as_str()),
        ("response_contract", "body/0: value is not of type \"object\"")
    );
    let off = contract(&orders(), json!({"responses": "off"}));
    assert!(answer(&off, &GET, 500, &[], Body::Whole(b"x")).unwrap().is_none());
}

#[test]
fn only_responses_that_matter_are_read() {
    let contract = contract(&orders(), json!({}));
    let (_, decision) = decide(&contract, &GET);
    let need = |status: u16, headers: &[(&'static str, &'static str)]| {
        contract.response_body_need(
            decision.operation,
            StatusCode::from_u16(status).unwrap(),
            &header_map(headers),
        )
    };
    assert_eq!(need(200, &[JSON]), BodyNeed::UpTo(1 << 20));
    assert_eq!(need(200, &[("content-type", "application/octet-stream")]), BodyNeed::None);
    assert_eq!(need(500, &[JSON]), BodyNeed::None);
}

#[test]
fn a_contract_of_openapi_3_0_is_understood() {
    let document = json!({
        "openapi": "3.0.3",
        "paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": {
            "type": "object",
            "properties": {
                "n": {"type": "number", "minimum": 0, "exclusiveMinimum": true},
                "s": {"type": "string", "nullable": true, "enum": ["x"]},
            },
        }}}}, "responses": {"200": {"description": ""}}}}},
    });
    let contract = contract(&document, json!({}));
    let post = |body: &'static str| {
        let ask = Ask {
            method: Method::POST,
            path: "/a",
            headers: &[JSON],
            body: Body::Whole(body.as_bytes()),
            ..GET
        };
        decide(&contract, &ask).0.is_ok()
    };
    assert!(post(r#"{"n":0.1,"s":null}"#) && post(r#"{"s":"x"}"#) && post("{}"));
    assert!(!post(r#"{"n":0}"#) && !post(r#"{"s":"y"}"#) && !post(r#"{"n":null}"#));
}

#[test]
fn a_uac_is_understood() {
    let document = json!({
        "name": "orders", "version": "1.0.0", "tenant_id": "acme", "classification": "H", "status": "published",
        "endpoints": [
            {"path": "/orders/{id}", "methods": ["GET", "DELETE"], "backend_url": "http://x",
             "input_schema": {"type": "object", "required": ["id"], "properties": {
                "id": {"$ref": "#/$defs/Id"}, "full": {"type": "boolean"}}, "$defs": {"Id": {"type": "integer"}}},
             "output_schema": {"type": "object", "required": ["id"], "properties": {"id": {"$ref": "#/$defs/Id"}}, "$defs": {"Id": {"type": "string"}}}},
            {"path": "/orders", "methods": ["POST"], "backend_url": "http://x",
             "input_schema": {"type": "object", "required": ["item"], "properties": {"item": {"type": "string"}}}},
            {"path": "/bulk", "methods": ["POST"], "backend_url": "http://x",
             "input_schema": {"type": "object", "required": ["body"], "properties": {"dry": {"type": "boolean"}, "body": {"type": "array"}}}},
        ],
    });
    let contract = contract(&document, json!({}));
    let ask = |method: Method, path: &'static str, query, body: &'static str| {
        let body = if body.is_empty() { Body::Unread } else { Body::Whole(body.as_bytes()) };
        let headers: &[(&str, &str)] = if body == Body::Unread { &[] } else { &[JSON] };
        decide(&contract, &Ask { method, path, query, headers, body }).0.is_ok()
    };
    assert!(ask(Method::GET, "/orders/17", Some("full=true"), ""));
    assert!(!ask(Method::GET, "/orders/x", None, ""));
    assert!(!ask(Method::DELETE, "/orders/1", Some("full=maybe"), ""));
    assert!(ask(Method::POST, "/orders", None, r#"{"item":"a"}"#));
    assert!(!ask(Method::POST, "/orders", None, r#"{"item":1}"#));
    assert!(!ask(Method::POST, "/orders", None, ""));
    assert!(ask(Method::POST, "/bulk", Some("dry=true"), "[1]"));
    assert!(!ask(Method::POST, "/bulk", Some("dry=2"), "[1]"));
    assert!(!ask(Method::POST, "/bulk", None, "{}"));
    let get = Ask { path: "/orders/17", headers: &[], ..GET };
    assert!(answer(&contract, &get, 200, &[JSON], Body::Whole(br#"{"id":"a"}"#)).is_ok());
    assert!(answer(&contract, &get, 200, &[JSON], Body::Whole(br#"{"id":1}"#)).is_err());
    assert!(answer(&contract, &get, 404, &[JSON], Body::Whole(b"{}")).is_ok());
}

#[test]
fn a_pattern_cannot_be_made_to_run_for_long() {
    let document = json!({"openapi": "3.1.0", "paths": {"/a": {"get": {
        "parameters": [{"name": "q", "in": "query", "schema": {"type": "string", "pattern": "^(?=(a+)+$)(a|aa)+$"}}],
    }}}});
    let contract = contract(&document, json!({}));
    let query = format!("q={}b", "a".repeat(5000));
    let started = std::time::Instant::now();
    assert!(
        decide(&contract, &Ask { path: "/a", query: Some(&query), headers: &[], ..GET }).0.is_err()
    );
    assert!(started.elapsed() < std::time::Duration::from_secs(2));
}

#[test]
fn what_cannot_be_compiled_is_refused_with_its_place() {
    let build = |config: Value| {
        Contract::build(&serde_json::from_value(config).unwrap(), &Outside::default()).unwrap_err()
    };
    let broken = |edit: fn(&mut Value)| {
        let mut document = orders();
        edit(&mut document);
        build(json!({"document": document})).reason
    };
    for (edit, expected) in [
        ((|d| d["openapi"] = json!("2.0")) as fn(&mut Value), "is OpenAPI 2.0"),
        (|d| d["paths"] = json!({}), "has no operation"),
        (|d| d["paths"]["orders"] = json!({}), "orders is not a path template"),
        (|d| d["components"]["schemas"]["Order"] = json!({"type": "objekt"}), "/orders get"),
        (|d| d["components"]["schemas"]["Order"] = json!({"pattern": "("}), "/orders get"),
        (|d| d["components"]["schemas"] = json!({}), "Order"),
        (|d| d["paths"]["/orders"]["get"]["responses"] = json!({"ok": {}}), "`ok` is not a status"),
        (|d| d["paths"]["/orders"]["get"]["parameters"][0]["in"] = json!("body"), "limit"),
    ] {
        let reason = broken(edit);
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
    assert_eq!(build(json!({})).reason, "names no contract, or several");
    assert_eq!(build(json!({"document": {}})).reason, "is neither OpenAPI 3 nor UAC");
    assert!(build(json!({"file": "x.yaml"})).reason.contains("cannot be read here"));
    assert_eq!(build(json!({"document": orders(), "requests": "off", "responses": "off"})).key, "");
}

#[derive(Debug)]
struct Shelf;

impl crate::outside::Documents for Shelf {
    fn read_file(&self, path: &str) -> Result<String, String> {
        match path {
            "orders.yaml" => Ok("openapi: 3.1.0\npaths: {/a: {get: {}}}\n".to_owned()),
            "tabs.yaml" => Ok("a:\n\t- b: [\n".to_owned()),
            _ => Err(format!("{path}: no such file")),
        }
    }

    fn read_contract(&self, service: &str) -> Result<String, String> {
        Err(format!("{service} has no approved contract"))
    }
}

#[test]
fn documents_come_from_files_and_from_the_approved_contracts() {
    let outside = Outside { documents: Some(std::sync::Arc::new(Shelf)), ..Outside::default() };
    let build = |config: Value| Contract::build(&serde_json::from_value(config).unwrap(), &outside);
    assert!(build(json!({"file": "orders.yaml"})).is_ok());
    assert_eq!(build(json!({"file": "none.yaml"})).unwrap_err().reason, "none.yaml: no such file");
    assert!(
        build(json!({"file": "tabs.yaml"})).unwrap_err().reason.contains("neither YAML nor JSON")
    );
    let refusal = build(json!({"service": "billing"})).unwrap_err();
    assert_eq!(
        (refusal.key.as_str(), refusal.reason.as_str()),
        ("service", "billing has no approved contract")
    );
}
