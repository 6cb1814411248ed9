//! A contract as UAC v1 (Universal API Contract), JSON. Its schema is
//! `schemas/uac-contract-v1.schema.json`, also [`SCHEMA`].
//!
//! One endpoint an operation. `llm` is left out: it needs examples, and an inferred contract
//! holds no values.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    infer::{Contract, Operation, Place, Schema},
    observation::Method,
    openapi,
};

/// The JSON Schema of the documents made here, draft 2020-12.
pub const SCHEMA: &str = include_str!("../../schemas/uac-contract-v1.schema.json");

/// How critical the service is: decides the policies that the contract requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Classification {
    /// Standard.
    #[default]
    High,
    /// Sensitive.
    VeryHigh,
    /// Critical.
    VeryVeryHigh,
}

impl Classification {
    fn name(self) -> &'static str {
        match self {
            Self::High => "H",
            Self::VeryHigh => "VH",
            Self::VeryVeryHigh => "VVH",
        }
    }

    fn policies(self) -> &'static [&'static str] {
        match self {
            Self::High => &["rate-limit", "auth-jwt"],
            Self::VeryHigh => &["rate-limit", "auth-jwt", "mtls", "audit-logging"],
            Self::VeryVeryHigh => &[
                "rate-limit",
                "auth-jwt",
                "mtls",
                "audit-logging",
                "data-encryption",
                "geo-restriction",
            ],
        }
    }
}

#[derive(Clone, Debug)]
pub struct UacOptions {
    /// Not empty; an empty one is written as `default`.
    pub tenant: String,
    pub classification: Classification,
    /// Where the service answers; `None`: the contract's first server, or empty.
    pub backend_url: Option<String>,
}

impl Default for UacOptions {
    fn default() -> Self {
        Self {
            tenant: "default".to_owned(),
            classification: Classification::High,
            backend_url: None,
        }
    }
}

/// The document as a value. `None` where the contract has no operation: UAC needs one endpoint.
/// Its status is `draft`: a person has not approved it.
pub fn to_value(contract: &Contract, options: &UacOptions) -> Option<Value> {
    let backend = options
        .backend_url
        .clone()
        .or_else(|| contract.servers.first().cloned())
        .unwrap_or_default();
    let endpoints: Vec<Value> = contract
        .operations
        .iter()
        .filter_map(|operation| endpoint(contract, operation, &backend))
        .collect();
    if endpoints.is_empty() {
        return None;
    }
    let tenant = if options.tenant.is_empty() { "default" } else { options.tenant.as_str() };
    Some(json!({
        "name": name(&contract.service),
        "version": contract.version,
        "tenant_id": tenant,
        "display_name": contract.service,
        "description": format!("Inferred from {} observed exchanges.", contract.provenance.samples),
        "classification": options.classification.name(),
        "endpoints": endpoints,
        "required_policies": options.classification.policies(),
        "status": "draft",
        "source_spec_url": null,
        "spec_hash": spec_hash(contract),
        "x-stoa-confidence": contract.confidence,
        "x-stoa-samples": contract.provenance.samples,
        "x-stoa-first-seen": openapi::rfc3339(contract.provenance.first_seen),
        "x-stoa-last-seen": openapi::rfc3339(contract.provenance.last_seen),
    }))
}

/// Kebab case, at least two characters, as UAC wants it.
fn name(service: &str) -> String {
    let mut name = String::new();
    for c in service.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(255);
    let name = name.trim_end_matches('-');
    if name.len() < 2 { format!("service{name}") } else { name.to_owned() }
}

/// SHA-256 of the `OpenAPI` document, to see drift.
fn spec_hash(contract: &Contract) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(openapi::to_value(contract).to_string());
    digest.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn endpoint(contract: &Contract, operation: &Operation, backend: &str) -> Option<Value> {
    let method = match operation.method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
        Method::Head => "HEAD",
        Method::Options => "OPTIONS",
        Method::Trace | Method::Connect | Method::Other => return None,
    };
    let mut out = Map::new();
    out.insert("path".to_owned(), json!(operation.template));
    out.insert("methods".to_owned(), json!([method]));
    out.insert("backend_url".to_owned(), json!(backend));
    out.insert("operation_id".to_owned(), json!(operation.operation_id));
    if let Some(schema) = input(contract, operation) {
        out.insert("input_schema".to_owned(), schema);
    }
    if let Some(schema) = output(contract, operation) {
        out.insert("output_schema".to_owned(), schema);
    }
    out.insert("x-stoa-confidence".to_owned(), json!(operation.confidence));
    out.insert("x-stoa-samples".to_owned(), json!(operation.provenance.samples));
    Some(Value::Object(out))
}

/// Parameters by name, and the body under `body`.
fn input(contract: &Contract, operation: &Operation) -> Option<Value> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut used = BTreeSet::new();
    let parameters =
        operation.parameters.iter().filter(|p| matches!(p.place, Place::Path | Place::Query));
    for parameter in parameters {
        properties.entry(parameter.name.clone()).or_insert_with(|| {
            if parameter.is_required {
                required.push(parameter.name.clone());
            }
            openapi::schema_value(&parameter.schema)
        });
    }
    let body = operation.request_body.as_ref();
    let media = body.and_then(|b| b.content.values().find_map(|m| m.schema.as_ref()));
    if let (Some(body), Some(schema)) = (body, media) {
        let name = if properties.contains_key("body") { "requestBody" } else { "body" };
        properties.insert(name.to_owned(), openapi::schema_value(schema));
        if body.is_required {
            required.push(name.to_owned());
        }
        collect(schema, contract, &mut used);
    }
    if properties.is_empty() {
        return None;
    }
    let mut out = Map::new();
    out.insert("type".to_owned(), json!("object"));
    out.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        out.insert("required".to_owned(), json!(required));
    }
    Some(stand_alone(Value::Object(out), contract, &used))
}

/// Of the first successful response that has a structure.
fn output(contract: &Contract, operation: &Operation) -> Option<Value> {
    let schema = operation
        .responses
        .iter()
        .filter(|(status, _)| (200..300).contains(*status))
        .find_map(|(_, r)| r.content.values().find_map(|m| m.schema.as_ref()))?;
    let mut used = BTreeSet::new();
    collect(schema, contract, &mut used);
    Some(stand_alone(openapi::schema_value(schema), contract, &used))
}

/// The components that a schema refers to, directly or not.
fn collect(schema: &Schema, contract: &Contract, used: &mut BTreeSet<String>) {
    if let Some(name) = &schema.reference
        && used.insert(name.clone())
        && let Some(component) = contract.components.get(name)
    {
        collect(component, contract, used);
    }
    schema.properties.values().for_each(|p| collect(p, contract, used));
    for child in [&schema.items, &schema.values].into_iter().flatten() {
        collect(child, contract, used);
    }
}

/// Brings the components along as `$defs`.
fn stand_alone(mut schema: Value, contract: &Contract, used: &BTreeSet<String>) -> Value {
    let definitions: Map<String, Value> = used
        .iter()
        .filter_map(|name| {
            Some((name.clone(), openapi::schema_value(contract.components.get(name)?)))
        })
        .collect();
    if let (Value::Object(object), false) = (&mut schema, definitions.is_empty()) {
        object.insert("$defs".to_owned(), Value::Object(definitions));
    }
    point_to_definitions(&mut schema);
    schema
}

fn point_to_definitions(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(target)) = object.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/components/schemas/")
            {
                *target = format!("#/$defs/{name}");
            }
            object.values_mut().for_each(point_to_definitions);
        }
        Value::Array(items) => items.iter_mut().for_each(point_to_definitions),
        _ => {}
    }
}
