//! Object schemas that occur in more than one place become components.

use std::collections::{BTreeMap, BTreeSet};

use super::{Operation, Schema, Types, names};

/// Replaces objects of equal structure in two or more places by references; returns what they
/// refer to.
pub(crate) fn share(operations: &mut [Operation]) -> BTreeMap<String, Schema> {
    let mut found: BTreeMap<String, Shared> = BTreeMap::new();
    for_each_root(operations, |schema, name| count(schema, &name, &mut found));
    found.retain(|_, shared| shared.places > 1);
    let mut taken = BTreeSet::new();
    // The most used get the plain names; the signature settles ties.
    let mut order: Vec<(u64, String)> = found.iter().map(|(s, f)| (f.places, s.clone())).collect();
    order.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    for (_, signature) in order {
        if let Some(shared) = found.get_mut(&signature) {
            let best = shared.names.iter().max_by_key(|(name, n)| (**n, std::cmp::Reverse(*name)));
            let name = best.map_or("Object", |(name, _)| name.as_str());
            shared.name = names::unique(name, &mut taken);
        }
    }
    let mut components = BTreeMap::new();
    for_each_root(operations, |schema, _| replace(schema, &found, &mut components));
    components
}

#[derive(Default)]
struct Shared {
    places: u64,
    names: BTreeMap<String, u64>,
    name: String,
}

/// Every schema of a body, with the name of the resource it stands for.
fn for_each_root(operations: &mut [Operation], mut visit: impl FnMut(&mut Schema, String)) {
    for operation in operations {
        let last = operation
            .template
            .split('/')
            .rfind(|s| !s.is_empty() && !s.starts_with('{'))
            .unwrap_or("root");
        let name = names::pascal(&names::singular(last));
        let bodies = operation.request_body.iter_mut().flat_map(|b| b.content.values_mut());
        for media in bodies {
            if let Some(schema) = &mut media.schema {
                visit(schema, format!("{name}Input"));
            }
        }
        for (status, response) in &mut operation.responses {
            for media in response.content.values_mut() {
                if let Some(schema) = &mut media.schema {
                    visit(schema, if *status >= 400 { "Error".to_owned() } else { name.clone() });
                }
            }
        }
    }
}

fn is_shareable(schema: &Schema) -> bool {
    schema.types.has(Types::OBJECT)
        && schema.types.without(Types::NULL) == Types::OBJECT
        && schema.values.is_none()
        && !schema.properties.is_empty()
}

fn count(schema: &Schema, name: &str, found: &mut BTreeMap<String, Shared>) {
    if is_shareable(schema) {
        let shared = found.entry(signature(schema)).or_default();
        shared.places += 1;
        *shared
            .names
            .entry(if name.is_empty() { "Object".to_owned() } else { name.to_owned() })
            .or_default() += 1;
    }
    for (property, child) in &schema.properties {
        let name = names::pascal(&if child.types.has(Types::ARRAY) {
            names::singular(property)
        } else {
            property.clone()
        });
        count(child, &name, found);
    }
    if let Some(items) = &schema.items {
        count(items, name, found);
    }
    if let Some(values) = &schema.values {
        count(values, name, found);
    }
}

/// Samples from which formats and nulls are no chance of sampling.
const MIN_SAMPLES: u64 = 10;

/// Names and types; and, where samples are many, formats and whether it may be null. What differs
/// by chance of sampling does not part what is one.
fn signature(schema: &Schema) -> String {
    let mut out = String::new();
    sign(schema, &mut out);
    out
}

fn sign(schema: &Schema, out: &mut String) {
    let types = schema.types.without(Types::NULL);
    out.push(if types.has(Types::NUMBER) || types.has(Types::INTEGER) { 'n' } else { '-' });
    for (bit, letter) in
        [(Types::STRING, 's'), (Types::BOOLEAN, 'b'), (Types::ARRAY, 'a'), (Types::OBJECT, 'o')]
    {
        if types.has(bit) {
            out.push(letter);
        }
    }
    if schema.samples >= MIN_SAMPLES {
        // One width of integers says no more than the other.
        out.push_str(schema.format.filter(|f| !f.starts_with("int")).unwrap_or_default());
        out.push(if schema.types.has(Types::NULL) { '?' } else { '!' });
    }
    if let Some(items) = &schema.items {
        out.push('[');
        sign(items, out);
        out.push(']');
    }
    if let Some(values) = &schema.values {
        out.push('<');
        sign(values, out);
        out.push('>');
    }
    if !schema.properties.is_empty() {
        out.push('{');
        for (name, child) in &schema.properties {
            out.push_str(&format!("{name:?}:"));
            sign(child, out);
            out.push(',');
        }
        out.push('}');
    }
}

fn replace(
    schema: &mut Schema,
    found: &BTreeMap<String, Shared>,
    components: &mut BTreeMap<String, Schema>,
) {
    let name = if is_shareable(schema) {
        found.get(&signature(schema)).map(|shared| shared.name.clone())
    } else {
        None
    };
    schema.properties.values_mut().for_each(|p| replace(p, found, components));
    if let Some(items) = &mut schema.items {
        replace(items, found, components);
    }
    if let Some(values) = &mut schema.values {
        replace(values, found, components);
    }
    if let Some(name) = name {
        let mut body = std::mem::take(schema);
        schema.is_nullable = body.types.has(Types::NULL);
        schema.samples = body.samples;
        schema.reference = Some(name.clone());
        body.types = body.types.without(Types::NULL);
        match components.get_mut(&name) {
            Some(known) => unite(known, body),
            None => {
                components.insert(name, body);
            }
        }
    }
}

/// What both allow. The structure is equal.
fn unite(own: &mut Schema, other: Schema) {
    own.types = own.types.with(other.types);
    if own.types.has(Types::NUMBER) {
        own.types = own.types.without(Types::INTEGER);
    }
    own.is_nullable |= other.is_nullable;
    own.samples += other.samples;
    own.personal = own.personal.or(other.personal);
    own.minimum_zero &= other.minimum_zero;
    // Few samples of one place prove nothing against many of another.
    own.optional.extend(other.optional);
    own.required.extend(other.required);
    for names in [&mut own.optional, &mut own.required] {
        names.sort();
        names.dedup();
    }
    own.required.retain(|r| !own.optional.contains(r));
    own.format = match (own.format, other.format) {
        (Some("int32"), Some("int64")) | (Some("int64"), Some("int32")) => Some("int64"),
        (a, b) if a == b => a,
        _ => None,
    };
    own.is_open |= other.is_open;
    if own.is_open {
        own.enumeration.clear();
    } else {
        own.enumeration.extend(other.enumeration);
        own.enumeration.sort();
        own.enumeration.dedup();
    }
    for (name, theirs) in other.properties {
        match own.properties.get_mut(&name) {
            Some(property) => unite(property, theirs),
            None => {
                own.properties.insert(name, theirs);
            }
        }
    }
    if let (Some(own), Some(theirs)) = (&mut own.items, other.items) {
        unite(own, *theirs);
    }
    if let (Some(own), Some(theirs)) = (&mut own.values, other.values) {
        unite(own, *theirs);
    }
}
