//! A schema as JSON Schema, draft 2020-12, in the dialect of OpenAPI 3.1.

use serde_json::{Map, Value, json};

use crate::infer::{Schema, Types};

pub(crate) fn schema_value(schema: &Schema) -> Value {
    if let Some(name) = &schema.reference {
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        return if schema.is_nullable {
            json!({ "anyOf": [reference, { "type": "null" }] })
        } else {
            reference
        };
    }
    let mut out = Map::new();
    let names = schema.types.names();
    match names.as_slice() {
        [] => {}
        [one] => {
            out.insert("type".to_owned(), json!(one));
        }
        many => {
            out.insert("type".to_owned(), json!(many));
        }
    }
    if let Some(format) = schema.format {
        out.insert("format".to_owned(), json!(format));
    }
    if !schema.enumeration.is_empty() {
        let mut members: Vec<Value> = schema.enumeration.iter().map(|m| json!(m)).collect();
        if schema.types.has(Types::NULL) {
            members.push(Value::Null);
        }
        out.insert("enum".to_owned(), Value::Array(members));
    }
    if schema.minimum_zero {
        out.insert("minimum".to_owned(), json!(0));
    }
    if let Some(media_type) = &schema.media_type {
        out.insert("contentMediaType".to_owned(), json!(media_type));
    }
    if let Some(items) = &schema.items {
        out.insert("items".to_owned(), schema_value(items));
    }
    if !schema.properties.is_empty() {
        let properties: Map<String, Value> =
            schema.properties.iter().map(|(n, s)| (n.clone(), schema_value(s))).collect();
        out.insert("properties".to_owned(), Value::Object(properties));
    }
    if !schema.required.is_empty() {
        out.insert("required".to_owned(), json!(schema.required));
    }
    if let Some(values) = &schema.values {
        out.insert("additionalProperties".to_owned(), schema_value(values));
    }
    if let Some(personal) = schema.personal {
        out.insert("x-stoa-personal".to_owned(), json!(personal));
    }
    Value::Object(out)
}
