//! Compiles `OpenAPI` and UAC documents: everything that can be wrong with one is found here.

use http::{HeaderName, Method};
use jsonschema::{Draft, PatternOptions, Registry, Validator};
use serde_json::{Map, Value, json};

use super::{
    operation::{Content, Operation, Parameter, Place, Response},
    template::{Methods, Template, Templates},
};
use crate::error::Refusal;

#[derive(Debug, Default)]
pub(super) struct Read {
    pub templates: Templates,
    pub operations: Vec<Operation>,
    pub base_paths: Vec<String>,
}

const METHODS: [(&str, Method); 8] = [
    ("get", Method::GET),
    ("put", Method::PUT),
    ("post", Method::POST),
    ("delete", Method::DELETE),
    ("options", Method::OPTIONS),
    ("head", Method::HEAD),
    ("patch", Method::PATCH),
    ("trace", Method::TRACE),
];

/// Where the document is to the schemas that refer to parts of it.
const BASE: &str = "stoa:contract";

/// A pattern of the contract may not be made to run for long by a value.
const MOST_BACKTRACKING: usize = 20_000;

pub(super) fn read_contract(document: &Value, formats: bool) -> Result<Read, Refusal> {
    let mut document = match document.get("openapi").and_then(Value::as_str) {
        Some(version) if version.starts_with("3.") => document.clone(),
        Some(version) => {
            return Err(Refusal::new(
                "",
                format!("is OpenAPI {version}"),
                "convert it to OpenAPI 3.1",
            ));
        }
        None if document.get("endpoints").is_some() => uac_as_openapi(document)?,
        None => {
            return Err(Refusal::new(
                "",
                "is neither OpenAPI 3 nor UAC",
                "name a document with `openapi: 3.1.0` or UAC `endpoints`",
            ));
        }
    };
    if document.get("openapi").and_then(Value::as_str).is_some_and(|v| v.starts_with("3.0")) {
        to_json_schema(&mut document);
    }
    let compiler = Compiler::new(&document, formats)?;
    let mut read = Read { base_paths: base_paths(&document), ..Read::default() };
    let paths = document.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten() {
        let wrong =
            |reason: String| Refusal::new("", format!("{path} {reason}"), "correct the contract");
        let (template, names) =
            Template::parse(path).ok_or_else(|| wrong("is not a path template".to_owned()))?;
        let item_pointer = format!("/paths/{}", escape(path));
        let (item, item_pointer) = compiler.follow(item, &item_pointer);
        let mut methods = Methods::new();
        for (key, method) in METHODS {
            let Some(operation) = item.get(key) else { continue };
            let pointer = format!("{item_pointer}/{key}");
            let compiled = compiler
                .operation(item, &item_pointer, operation, &pointer, &names)
                .map_err(|reason| wrong(format!("{key}: {reason}")))?;
            methods.push((method, read.operations.len()));
            read.operations.push(compiled);
        }
        if !methods.is_empty() {
            read.templates.insert(template, methods);
        }
    }
    if read.operations.is_empty() {
        return Err(Refusal::new("", "has no operation", "name another contract"));
    }
    Ok(read)
}

/// The paths of the servers, then none.
fn base_paths(document: &Value) -> Vec<String> {
    let servers = document.get("servers").and_then(Value::as_array).into_iter().flatten();
    let urls = servers.filter_map(|server| server.get("url")?.as_str());
    let mut paths: Vec<String> = urls
        .map(|url| match url.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |at| rest.get(at..).unwrap_or("")),
            None => url,
        })
        .map(|path| path.trim_end_matches('/').to_owned())
        .filter(|path| path.starts_with('/') && !path.contains('{'))
        .collect();
    paths.dedup();
    paths.push(String::new());
    paths
}

/// RFC 6901 section 3.
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

struct Compiler<'a> {
    document: &'a Value,
    registry: Registry<'static>,
    formats: bool,
}

impl<'a> Compiler<'a> {
    fn new(document: &'a Value, formats: bool) -> Result<Self, Refusal> {
        let wrong = |error: jsonschema::ReferencingError| {
            Refusal::new("", format!("has a broken reference: {error}"), "correct the contract")
        };
        let resource = Draft::Draft202012.create_resource(document.clone());
        let registry =
            Registry::new().add(BASE, resource).map_err(wrong)?.prepare().map_err(wrong)?;
        Ok(Self { document, registry, formats })
    }

    /// The object itself, or what its `$ref` names in this document, and where that is.
    fn follow<'v>(&self, value: &'v Value, pointer: &str) -> (&'v Value, String)
    where
        'a: 'v,
    {
        let mut found = (value, pointer.to_owned());
        // A chain longer than this is a circle.
        for _ in 0..16 {
            let Some(target) = found.0.get("$ref").and_then(Value::as_str) else { break };
            let Some(pointer) = target.strip_prefix('#') else { break };
            let decoded = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
            let Some(value) = self.document.pointer(&decoded) else { break };
            found = (value, decoded.into_owned());
        }
        found
    }

    fn validator(&self, pointer: &str) -> Result<Validator, String> {
        let encoded: String = percent_encoding::utf8_percent_encode(pointer, FRAGMENT).to_string();
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_registry(&self.registry)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(MOST_BACKTRACKING))
            .should_validate_formats(self.formats)
            .offline()
            .build(&json!({ "$ref": format!("{BASE}#{encoded}") }))
            .map_err(|error| format!("schema at {pointer}: {error}"))
    }

    fn operation(
        &self,
        item: &Value,
        item_pointer: &str,
        operation: &Value,
        pointer: &str,
        names: &[String],
    ) -> Result<Operation, String> {
        let mut compiled = Operation::default();
        // Those of the operation override those of the path.
        for (owner, pointer) in [(operation, pointer), (item, item_pointer)] {
            let list = owner.get("parameters").and_then(Value::as_array).into_iter().flatten();
            for (i, parameter) in list.enumerate() {
                let at = format!("{pointer}/parameters/{i}");
                if let Some(new) = self.parameter(parameter, &at, names)? {
                    let is_known = |old: &Parameter| old.name == new.name && old.place == new.place;
                    if !compiled.parameters.iter().any(is_known) {
                        compiled.parameters.push(new);
                    }
                }
            }
        }
        if let Some(body) = operation.get("requestBody") {
            let (body, at) = self.follow(body, &format!("{pointer}/requestBody"));
            compiled.body = Some(self.content(body, &at)?);
            compiled.is_body_required = body.get("required") == Some(&Value::Bool(true));
        }
        let responses = operation.get("responses").and_then(Value::as_object);
        for (status, response) in responses.into_iter().flatten() {
            if status.starts_with("x-") {
                continue;
            }
            let (response, at) =
                self.follow(response, &format!("{pointer}/responses/{}", escape(status)));
            let response = self.response(response, &at)?;
            match (status.as_str(), status.parse::<u16>()) {
                ("default", _) => compiled.default = Some(response),
                (_, Ok(code)) => drop(compiled.responses.insert(code, response)),
                (class, _) => {
                    let digit = class.to_ascii_uppercase().strip_suffix("XX").map(str::to_owned);
                    let digit = digit.and_then(|text| text.parse().ok());
                    let digit = digit.ok_or_else(|| format!("`{status}` is not a status"))?;
                    compiled.classes.insert(digit, response);
                }
            }
        }
        Ok(compiled)
    }

    /// `None`: a header that is not a parameter (`OpenAPI` section 4.8.12.1). Objects, of which
    /// there are many notations, are not taken apart.
    fn parameter(
        &self,
        parameter: &Value,
        pointer: &str,
        names: &[String],
    ) -> Result<Option<Parameter>, String> {
        let (parameter, pointer) = self.follow(parameter, pointer);
        let text = |key: &str| parameter.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = text("name").to_owned();
        let place = match text("in") {
            "path" => match names.iter().position(|known| *known == name) {
                Some(at) => Place::Path(at),
                None => return Err(format!("parameter {name} is not in the template")),
            },
            "query" => Place::Query,
            "header"
                if ["accept", "content-type", "authorization"]
                    .contains(&name.to_ascii_lowercase().as_str()) =>
            {
                return Ok(None);
            }
            "header" => Place::Header,
            "cookie" => Place::Cookie,
            other => return Err(format!("parameter {name} is in `{other}`")),
        };
        let is_required = parameter.get("required") == Some(&Value::Bool(true));
        let Some(schema) = parameter.get("schema") else {
            return Ok(Some(Parameter {
                place,
                name,
                is_required,
                schema: None,
                is_list: false,
                is_open: false,
            }));
        };
        let at = format!("{pointer}/schema");
        let (followed, _) = self.follow(schema, &at);
        let is = |kind: &str| match followed.get("type") {
            Some(Value::String(one)) => one == kind,
            Some(Value::Array(many)) => many.iter().any(|t| t == kind),
            _ => false,
        };
        if is("object") {
            let is_open = place == Place::Query && text("style") != "deepObject";
            let schema = None;
            return Ok(Some(Parameter {
                place,
                name,
                is_required: false,
                schema,
                is_list: false,
                is_open,
            }));
        }
        let schema = Some(self.validator(&at)?);
        Ok(Some(Parameter {
            place,
            name,
            is_required,
            schema,
            is_list: is("array"),
            is_open: false,
        }))
    }

    fn response(&self, response: &Value, pointer: &str) -> Result<Response, String> {
        let headers = response.get("headers").and_then(Value::as_object);
        let mut required_headers = Vec::new();
        for (name, header) in headers.into_iter().flatten() {
            let (header, _) = self.follow(header, "");
            if header.get("required") == Some(&Value::Bool(true)) {
                let name = HeaderName::try_from(name).map_err(|_| format!("header {name}"))?;
                required_headers.push(name);
            }
        }
        Ok(Response { content: self.content(response, pointer)?, required_headers })
    }

    fn content(&self, owner: &Value, pointer: &str) -> Result<Content, String> {
        let mut content = Vec::new();
        let media = owner.get("content").and_then(Value::as_object);
        for (range, media) in media.into_iter().flatten() {
            let essence = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            let is_json = essence.ends_with("/json") || essence.ends_with("+json");
            let schema = match media.get("schema") {
                Some(_) if is_json => {
                    Some(self.validator(&format!("{pointer}/content/{}/schema", escape(range)))?)
                }
                _ => None,
            };
            content.push((essence, schema));
        }
        content.sort_by_key(|(range, _)| range.matches('*').count());
        Ok(Content(content))
    }
}

/// What RFC 3986 section 3.5 does not allow in a fragment.
const FRAGMENT: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// `OpenAPI` 3.0 has keywords of its own for what JSON Schema writes otherwise (3.1 section 4.8.24,
/// and the 3.0 to 3.1 migration notes).
fn to_json_schema(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if object.remove("nullable") == Some(Value::Bool(true)) {
                if let Some(kind @ Value::String(_)) = object.get("type") {
                    let both = json!([kind, "null"]);
                    object.insert("type".to_owned(), both);
                }
                if let Some(Value::Array(values)) = object.get_mut("enum") {
                    values.push(Value::Null);
                }
            }
            for (exclusive, bound) in
                [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")]
            {
                match object.get(exclusive) {
                    Some(Value::Bool(true)) => {
                        object.remove(exclusive);
                        if let Some(limit) = object.remove(bound) {
                            object.insert(exclusive.to_owned(), limit);
                        }
                    }
                    Some(Value::Bool(false)) => drop(object.remove(exclusive)),
                    _ => {}
                }
            }
            object.values_mut().for_each(to_json_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(to_json_schema),
        _ => {}
    }
}

/// The endpoints of a UAC as `OpenAPI` paths. Members of `input_schema` are parameters where the path
/// or the method says so, and the rest is the body.
fn uac_as_openapi(uac: &Value) -> Result<Value, Refusal> {
    let mut paths = Map::new();
    let mut schemas = Vec::new();
    let endpoints = uac.get("endpoints").and_then(Value::as_array).into_iter().flatten();
    for (i, endpoint) in endpoints.enumerate() {
        let wrong = |reason: &str| {
            Refusal::new("", format!("endpoints[{i}] {reason}"), "correct the contract")
        };
        let path =
            endpoint.get("path").and_then(Value::as_str).ok_or_else(|| wrong("has no path"))?;
        let methods = endpoint.get("methods").and_then(Value::as_array);
        let methods = methods.ok_or_else(|| wrong("has no methods"))?;
        // References of a schema are relative to it: it is kept whole, and they point there.
        let schema = |key: &str| {
            let mut schema = endpoint.get(key).filter(|schema| schema.is_object())?.clone();
            move_references(&mut schema, &format!("/x-uac/{i}/{key}"));
            Some(schema)
        };
        let (input, output) = (schema("input_schema"), schema("output_schema"));
        let item = paths.entry(path).or_insert_with(|| json!({}));
        for method in methods.iter().filter_map(Value::as_str) {
            let method = method.to_ascii_lowercase();
            item[method.as_str()] = uac_operation(path, &method, input.as_ref(), output.as_ref());
        }
        schemas.push(json!({"input_schema": input, "output_schema": output}));
    }
    Ok(json!({"openapi": "3.1.0", "paths": paths, "x-uac": schemas}))
}

fn move_references(value: &mut Value, to: &str) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(target)) = object.get_mut("$ref")
                && let Some(pointer) = target.strip_prefix('#')
            {
                *target = format!("#{to}{pointer}");
            }
            object.values_mut().for_each(|member| move_references(member, to));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, to)),
        _ => {}
    }
}

fn uac_operation(path: &str, method: &str, input: Option<&Value>, output: Option<&Value>) -> Value {
    let mut operation = json!({"parameters": [], "responses": {}});
    let empty = Map::new();
    let properties = input.and_then(|s| s.get("properties")?.as_object()).unwrap_or(&empty);
    let required = input.and_then(|s| s.get("required")?.as_array());
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|r| r == name));
    let in_path = |name: &str| path.contains(&format!("{{{name}}}"));
    let body_name = ["requestBody", "body"].into_iter().find(|name| properties.contains_key(*name));
    let has_body = matches!(method, "post" | "put" | "patch");
    let mut parameters = Vec::new();
    let mut body = Map::new();
    for (name, schema) in properties {
        let place = match name.as_str() {
            _ if in_path(name) => "path",
            _ if Some(name.as_str()) == body_name => continue,
            _ if has_body && body_name.is_none() => {
                body.insert(name.clone(), schema.clone());
                continue;
            }
            _ => "query",
        };
        parameters.push(json!({
            "name": name, "in": place, "required": is_required(name), "schema": schema,
        }));
    }
    operation["parameters"] = Value::Array(parameters);
    let schema = match body_name {
        Some(name) => properties.get(name).map(|schema| (schema.clone(), is_required(name))),
        None if !body.is_empty() => {
            let needed: Vec<&Value> = required
                .into_iter()
                .flatten()
                .filter(|name| name.as_str().is_some_and(|name| body.contains_key(name)))
                .collect();
            let is_needed = !needed.is_empty();
            let object = json!({"type": "object", "properties": body, "required": needed});
            Some((object, is_needed))
        }
        None => None,
    };
    if let Some((schema, is_needed)) = schema {
        operation["requestBody"] = json!({
            "required": is_needed, "content": {"application/json": {"schema": schema}, "*/*": {}},
        });
    }
    if let Some(output) = output {
        // One schema for success; of other answers it says nothing.
        operation["responses"] = json!({
            "2XX": {"content": {"application/json": {"schema": output}, "*/*": {}}},
            "default": {},
        });
    }
    operation
}
