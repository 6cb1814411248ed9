//! A contract as OpenAPI 3.1.
//!
//! `x-stoa-*` extensions say where each element comes from: `x-stoa-samples`,
//! `x-stoa-first-seen`, `x-stoa-last-seen` (RFC 3339), `x-stoa-complete` (a share, 0 to 1),
//! `x-stoa-lost` (bytes), `x-stoa-confidence` (0 to 1), `x-stoa-personal` (a class of personal
//! data). There are no examples: an example would be a value.

mod schema;
mod time;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub(crate) use schema::schema_value;
pub use time::rfc3339;

use crate::{
    infer::{
        Contract, Media, Operation, Parameter, Place, Provenance, RequestBody, Response, Security,
        SecurityScheme,
    },
    observation::Method,
};

/// The document as a value; object members are in a fixed order.
pub fn to_value(contract: &Contract) -> Value {
    let mut document = Map::new();
    document.insert("openapi".to_owned(), json!("3.1.0"));
    document.insert("info".to_owned(), info(contract));
    if !contract.servers.is_empty() {
        let servers: Vec<Value> =
            contract.servers.iter().map(|url| json!({ "url": url })).collect();
        document.insert("servers".to_owned(), Value::Array(servers));
    }
    let mut tags: Vec<&str> = contract.operations.iter().filter_map(|o| o.tag.as_deref()).collect();
    tags.sort_unstable();
    tags.dedup();
    if !tags.is_empty() {
        let tags = tags.into_iter().map(|name| json!({ "name": name })).collect();
        document.insert("tags".to_owned(), Value::Array(tags));
    }
    document.insert("paths".to_owned(), paths(contract));
    let components = components(contract);
    if !components.is_empty() {
        document.insert("components".to_owned(), Value::Object(components));
    }
    document.insert("x-stoa-generated".to_owned(), json!(true));
    document.insert("x-stoa-confidence".to_owned(), json!(contract.confidence));
    provenance(&contract.provenance, &mut document);
    let tally = &contract.tally;
    document.insert(
        "x-stoa-tally".to_owned(),
        json!({
            "exchanges": tally.exchanges,
            "complete": tally.complete,
            "passedOver": tally.passed_over,
            "bytesLost": tally.bytes_lost,
            "preflights": tally.preflights,
            "unmatched": tally.unmatched,
            "withheldSegments": tally.withheld,
            "undecidedSegments": tally.undecided,
            "coarseness": tally.coarseness,
        }),
    );
    if !tally.personal.is_empty() {
        document.insert("x-stoa-personal-data".to_owned(), json!(tally.personal));
    }
    Value::Object(document)
}

/// Pretty-printed JSON with a final newline.
pub fn to_json(contract: &Contract) -> String {
    format!("{:#}\n", to_value(contract))
}

/// YAML.
pub fn to_yaml(contract: &Contract) -> String {
    // Serializing a JSON value fails only on writing, and this writes to memory.
    serde_norway::to_string(&to_value(contract)).unwrap_or_default()
}

fn info(contract: &Contract) -> Value {
    let p = &contract.provenance;
    let passed_over = match contract.tally.passed_over {
        0 => String::new(),
        n => format!(" {n} of them were only counted, because the node was busy."),
    };
    json!({
        "title": contract.service,
        "version": contract.version,
        "description": format!(
            "Inferred from {} observed exchanges ({} seen whole) between {} and {}.{passed_over} \
             What was never called is not in it.",
            p.samples, p.complete, rfc3339(p.first_seen), rfc3339(p.last_seen)
        ),
    })
}

fn provenance(p: &Provenance, into: &mut Map<String, Value>) {
    into.insert("x-stoa-samples".to_owned(), json!(p.samples));
    let share = if p.samples > 0 { p.complete as f64 / p.samples as f64 } else { 0.0 };
    into.insert("x-stoa-complete".to_owned(), json!((share * 1000.0).round() / 1000.0));
    into.insert("x-stoa-lost".to_owned(), json!(p.bytes_lost));
    into.insert("x-stoa-first-seen".to_owned(), json!(rfc3339(p.first_seen)));
    into.insert("x-stoa-last-seen".to_owned(), json!(rfc3339(p.last_seen)));
}

fn paths(contract: &Contract) -> Value {
    let mut paths = Map::new();
    for operation in &contract.operations {
        let Some(method) = method_key(operation.method) else { continue };
        let item = paths.entry(operation.template.clone()).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            item.insert(method.to_owned(), operation_value(operation));
        }
    }
    Value::Object(paths)
}

fn method_key(method: Method) -> Option<&'static str> {
    Some(match method {
        Method::Get => "get",
        Method::Head => "head",
        Method::Post => "post",
        Method::Put => "put",
        Method::Patch => "patch",
        Method::Delete => "delete",
        Method::Options => "options",
        Method::Trace => "trace",
        Method::Connect | Method::Other => return None,
    })
}

fn operation_value(operation: &Operation) -> Value {
    let mut out = Map::new();
    if let Some(tag) = &operation.tag {
        out.insert("tags".to_owned(), json!([tag]));
    }
    out.insert("summary".to_owned(), json!(operation.summary));
    if !operation.notes.is_empty() {
        out.insert("description".to_owned(), json!(operation.notes.join(" ")));
    }
    out.insert("operationId".to_owned(), json!(operation.operation_id));
    if !operation.parameters.is_empty() {
        let parameters = operation.parameters.iter().filter(|p| !is_ignored(p)).map(parameter);
        out.insert("parameters".to_owned(), Value::Array(parameters.collect()));
    }
    if let Some(body) = &operation.request_body {
        out.insert("requestBody".to_owned(), request_body(body));
    }
    out.insert("responses".to_owned(), responses(operation));
    if let Some(security) = security(&operation.security) {
        out.insert("security".to_owned(), security);
    }
    out.insert("x-stoa-confidence".to_owned(), json!(operation.confidence));
    provenance(&operation.provenance, &mut out);
    if let Some(latency) = &operation.latency {
        out.insert(
            "x-stoa-latency-us".to_owned(),
            json!({ "p50": latency.p50_us, "p95": latency.p95_us, "p99": latency.p99_us }),
        );
    }
    Value::Object(out)
}

/// OpenAPI 3.1, section 4.8.12.1: header parameters of these names are ignored.
fn is_ignored(parameter: &Parameter) -> bool {
    parameter.place == Place::Header
        && ["accept", "content-type", "authorization"]
            .iter()
            .any(|n| parameter.name.eq_ignore_ascii_case(n))
}

fn place_name(place: Place) -> &'static str {
    match place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
        Place::Cookie => "cookie",
    }
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(parameter.name));
    out.insert("in".to_owned(), json!(place_name(parameter.place)));
    if let Some(note) = &parameter.note {
        out.insert("description".to_owned(), json!(note));
    }
    out.insert("required".to_owned(), json!(parameter.is_required));
    out.insert("schema".to_owned(), schema_value(&parameter.schema));
    out.insert("x-stoa-samples".to_owned(), json!(parameter.samples));
    Value::Object(out)
}

fn request_body(body: &RequestBody) -> Value {
    let content: Map<String, Value> =
        body.content.iter().map(|(name, m)| (name.clone(), media(m))).collect();
    json!({ "required": body.is_required, "content": content })
}

fn media(media: &Media) -> Value {
    let mut out = Map::new();
    if let Some(schema) = &media.schema {
        out.insert("schema".to_owned(), schema_value(schema));
    }
    out.insert("x-stoa-samples".to_owned(), json!(media.samples));
    if media.truncated > 0 {
        out.insert("x-stoa-truncated".to_owned(), json!(media.truncated));
    }
    Value::Object(out)
}

fn responses(operation: &Operation) -> Value {
    let mut out = Map::new();
    for (status, response) in &operation.responses {
        out.insert(status.to_string(), response_value(*status, response));
    }
    if out.is_empty() {
        out.insert("default".to_owned(), json!({ "description": "No response was seen." }));
    }
    Value::Object(out)
}

fn response_value(status: u16, response: &Response) -> Value {
    let mut out = Map::new();
    out.insert("description".to_owned(), json!(reason(status)));
    // OpenAPI 3.1, section 4.8.17.1: `Content-Type` has no place here.
    let headers: Map<String, Value> = response
        .headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("content-type"))
        .map(|(name, header)| {
            let value = json!({
                "required": header.is_required,
                "schema": schema_value(&header.schema),
                "x-stoa-samples": header.samples,
            });
            (name.clone(), value)
        })
        .collect();
    if !headers.is_empty() {
        out.insert("headers".to_owned(), Value::Object(headers));
    }
    if !response.content.is_empty() {
        let content: Map<String, Value> =
            response.content.iter().map(|(name, m)| (name.clone(), media(m))).collect();
        out.insert("content".to_owned(), Value::Object(content));
    }
    out.insert("x-stoa-samples".to_owned(), json!(response.samples));
    Value::Object(out)
}

/// RFC 9110, section 15; RFC 6585; RFC 4918.
fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Content",
        423 => "Locked",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => match status / 100 {
            1 => "Informational",
            2 => "Success",
            3 => "Redirection",
            4 => "Client error",
            _ => "Server error",
        },
    }
}

/// `None`: nothing was seen that identifies a caller.
fn security(security: &Security) -> Option<Value> {
    if security.schemes.is_empty() {
        return None;
    }
    let mut alternatives: Vec<Value> = if security.is_conjunction {
        let all: Map<String, Value> =
            security.schemes.iter().map(|s| (s.clone(), json!([]))).collect();
        vec![Value::Object(all)]
    } else {
        security.schemes.iter().map(|s| json!({ s.as_str(): [] })).collect()
    };
    if security.is_optional {
        alternatives.push(json!({}));
    }
    Some(Value::Array(alternatives))
}

fn components(contract: &Contract) -> Map<String, Value> {
    let mut out = Map::new();
    if !contract.components.is_empty() {
        let schemas: Map<String, Value> =
            contract.components.iter().map(|(n, s)| (n.clone(), schema_value(s))).collect();
        out.insert("schemas".to_owned(), Value::Object(schemas));
    }
    if !contract.security_schemes.is_empty() {
        let schemes: Map<String, Value> =
            contract.security_schemes.iter().map(|(n, s)| (n.clone(), scheme(s))).collect();
        out.insert("securitySchemes".to_owned(), Value::Object(schemes));
    }
    out
}

fn scheme(scheme: &SecurityScheme) -> Value {
    let mut out = Map::new();
    match scheme {
        SecurityScheme::Http { scheme, bearer_format } => {
            out.insert("type".to_owned(), json!("http"));
            out.insert("scheme".to_owned(), json!(scheme));
            if let Some(format) = bearer_format {
                out.insert("bearerFormat".to_owned(), json!(format));
            }
        }
        SecurityScheme::ApiKey { place, name, note } => {
            out.insert("type".to_owned(), json!("apiKey"));
            out.insert("in".to_owned(), json!(place_name(*place)));
            out.insert("name".to_owned(), json!(name));
            if let Some(note) = note {
                out.insert("description".to_owned(), json!(note));
            }
        }
        SecurityScheme::MutualTls => {
            out.insert("type".to_owned(), json!("mutualTLS"));
        }
    }
    Value::Object(out)
}
