//! Object schemas that occur in more than one place become components.

use std::collections::{BTreeMap, BTreeSet};

use super::{Operation, Schema, Types, names};
use crate::observation::Method;

/// Replaces objects of like structure in two or more places by references; returns what they
/// refer to.
pub(crate) fn share(operations: &mut [Operation]) -> BTreeMap<String, Schema> {
    let mut found: BTreeMap<String, Shared> = BTreeMap::new();
    for_each_root(operations, |schema, name, may_list| {
        count(schema, &name, may_list, &mut found);
    });
    let groups = unite_alike(found);
    let mut taken = BTreeSet::new();
    // The most used get the plain names; the order of their signatures settles ties.
    let mut order: Vec<usize> = (0..groups.shared.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(groups.shared[*at].places));
    let mut named = vec![None; groups.shared.len()];
    for at in order {
        let shared = &groups.shared[at];
        if shared.is_component() {
            let best = shared.names.iter().max_by_key(|(name, n)| (**n, std::cmp::Reverse(*name)));
            let name = best.map_or("Object", |(name, _)| name.as_str());
            named[at] = Some(names::unique(name, &mut taken));
        }
    }
    let of_signature: BTreeMap<String, String> = groups
        .of_signature
        .into_iter()
        .filter_map(|(signature, at)| Some((signature, named[at].clone()?)))
        .collect();
    let mut components = BTreeMap::new();
    for_each_root(operations, |schema, name, may_list| {
        replace(schema, &name, may_list, &of_signature, &mut components);
    });
    components
}

/// Objects of one structure.
#[derive(Default)]
struct Shared {
    places: u64,
    names: BTreeMap<String, u64>,
    /// What all of them allow.
    union: Schema,
}

impl Shared {
    fn resources(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| name.strip_suffix(INPUT).unwrap_or(name))
    }

    fn is_input(&self) -> bool {
        self.names.keys().any(|name| name.ends_with(INPUT))
    }

    /// One member is not worth a name, unless it is the error that all operations answer.
    fn is_component(&self) -> bool {
        self.places > 1 && (self.union.properties.len() > 1 || self.names.contains_key(ERROR))
    }
}

const ERROR: &str = "Error";
/// What the names of what callers send end with.
const INPUT: &str = "Input";

struct Groups {
    shared: Vec<Shared>,
    of_signature: BTreeMap<String, usize>,
}

/// Puts together what differs only in what few samples may lack: members that may be absent, and
/// members that were always null.
fn unite_alike(found: BTreeMap<String, Shared>) -> Groups {
    let mut groups = Groups { shared: Vec::new(), of_signature: BTreeMap::new() };
    let mut found: Vec<(String, Shared)> = found.into_iter().collect();
    // Those with the most samples are what the others are measured by.
    found.sort_by(|a, b| {
        let key = |s: &Shared| (s.union.samples, s.places);
        key(&b.1).cmp(&key(&a.1)).then_with(|| a.0.cmp(&b.0))
    });
    for (signature, own) in found {
        let is_like = |known: &Shared| {
            let is_large_or_called_alike = own.union.properties.len() > SMALL
                || known.resources().any(|name| own.resources().any(|own| own == name));
            // What a caller may send is not known from what it is sent.
            let may_lack = !(known.is_input() || own.is_input())
                || known.union.properties.keys().eq(own.union.properties.keys());
            is_large_or_called_alike && may_lack && are_compatible(&known.union, &own.union, 0)
        };
        let at = groups.shared.iter().position(is_like);
        let at = at.unwrap_or_else(|| {
            groups.shared.push(Shared::default());
            groups.shared.len() - 1
        });
        let group = &mut groups.shared[at];
        if group.places == 0 {
            group.union = own.union;
        } else {
            unite(&mut group.union, own.union);
        }
        group.places += own.places;
        for (name, n) in own.names {
            *group.names.entry(name).or_default() += n;
        }
        groups.of_signature.insert(signature, at);
    }
    groups
}

/// Objects of so few members are alike by chance: `{"id", "name"}` may be anything.
const SMALL: usize = 3;
const MAX_DEPTH: u32 = 48;

/// Whether both may be samples of one schema.
fn are_compatible(a: &Schema, b: &Schema, depth: u32) -> bool {
    let kinds = |s: &Schema| {
        let types = s.types.without(Types::NULL);
        if types.has(Types::INTEGER) {
            types.without(Types::INTEGER).with(Types::NUMBER)
        } else {
            types
        }
    };
    let (x, y) = (kinds(a), kinds(b));
    // Only null was seen, or nothing.
    if x == Types::default() || y == Types::default() || depth > MAX_DEPTH {
        return true;
    }
    if x != y || are_of_other_formats(a, b) || are_of_other_values(a, b) {
        return false;
    }
    if let (Some(a), Some(b)) = (&a.items, &b.items)
        && !are_compatible(a, b, depth + 1)
    {
        return false;
    }
    match (&a.values, &b.values) {
        (Some(a), Some(b)) if !are_compatible(a, b, depth + 1) => return false,
        (Some(_), None) | (None, Some(_)) => return false,
        _ => {}
    }
    have_like_members(a, b, depth)
}

/// Where samples are many, formats are no chance of sampling. One width of integers says no more
/// than the other.
fn are_of_other_formats(a: &Schema, b: &Schema) -> bool {
    let format = |s: &Schema| s.format.filter(|f| !f.starts_with("int"));
    a.samples >= MIN_SAMPLES && b.samples >= MIN_SAMPLES && format(a) != format(b)
}

fn are_of_other_values(a: &Schema, b: &Schema) -> bool {
    !a.enumeration.is_empty()
        && !b.enumeration.is_empty()
        && !a.enumeration.iter().any(|value| b.enumeration.contains(value))
}

/// Samples in which a member that may be absent shows, were it there.
const ENOUGH: u64 = 20;

/// Whether what only one has may be absent there, and was seldom asked for here; what one always
/// has, the other does; and they have nearly all in common.
fn have_like_members(a: &Schema, b: &Schema, depth: u32) -> bool {
    let (mut shared, mut all) = (0usize, b.properties.len());
    let may_lack = |own: &Schema, name: &String, other: &Schema| {
        own.optional.contains(name) && other.samples < ENOUGH
    };
    let differs = |own: &Schema, name: &String, other: &Schema| {
        own.required.contains(name) && other.optional.contains(name)
    };
    for (name, own) in &a.properties {
        match b.properties.get(name) {
            Some(_) if differs(a, name, b) || differs(b, name, a) => return false,
            Some(theirs) if are_compatible(own, theirs, depth + 1) => shared += 1,
            Some(_) => return false,
            None if may_lack(a, name, b) => all += 1,
            None => return false,
        }
    }
    let is_absent = |name: &&String| !a.properties.contains_key(*name);
    b.properties.keys().filter(is_absent).all(|name| may_lack(b, name, a)) && shared * 3 >= all * 2
}

/// Members that hold the things a list is about.
fn is_envelope(member: &str) -> bool {
    [
        "data", "items", "results", "content", "records", "rows", "list", "hits", "values",
        "entries", "elements", "objects", "value", "result", "page",
    ]
    .contains(&member)
}

/// Every schema of a body, with the name of the resource it stands for, and whether it may be a
/// page of them.
fn for_each_root(operations: &mut [Operation], mut visit: impl FnMut(&mut Schema, String, bool)) {
    for operation in operations {
        let last = operation
            .template
            .split('/')
            .rfind(|s| !s.is_empty() && !s.starts_with('{'))
            .unwrap_or("root");
        let name = names::pascal(&names::singular(last));
        let name = if name.is_empty() { "Object".to_owned() } else { name };
        let may_list = operation.method == Method::Get
            && !operation.template.trim_end_matches('/').ends_with('}');
        let bodies = operation.request_body.iter_mut().flat_map(|b| b.content.values_mut());
        for media in bodies {
            if let Some(schema) = &mut media.schema {
                visit(schema, format!("{name}{INPUT}"), false);
            }
        }
        for (status, response) in &mut operation.responses {
            for media in response.content.values_mut() {
                if let Some(schema) = &mut media.schema {
                    let is_error = *status >= 400;
                    let name = if is_error { ERROR.to_owned() } else { name.clone() };
                    visit(schema, name, may_list && !is_error);
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

/// What a member is called as a thing of its own: `line_items` holds `LineItem`s. What the body of
/// a page lists is what the page is of.
fn name_of_member(member: &str, child: &Schema, parent: &str, is_page: bool) -> String {
    if is_page && is_envelope(member) && parent != ERROR {
        return parent.to_owned();
    }
    let is_list = child.types.has(Types::ARRAY);
    let name = names::pascal(&if is_list { names::singular(member) } else { member.to_owned() });
    match name.as_str() {
        "" => "Object".to_owned(),
        ERROR if parent == ERROR => "ErrorDetail".to_owned(),
        _ if parent.ends_with(INPUT) && !name.ends_with(INPUT) => format!("{name}{INPUT}"),
        _ => name,
    }
}

/// What an object is called, given what its place is.
fn own_name(schema: &Schema, name: &str, is_page: bool) -> String {
    let lists = |(member, child): (&String, &Schema)| {
        is_envelope(member) && child.items.as_ref().is_some_and(|i| i.types.has(Types::OBJECT))
    };
    if is_page && name != ERROR && schema.properties.iter().any(lists) {
        format!("{name}List")
    } else {
        name.to_owned()
    }
}

fn count(schema: &Schema, name: &str, is_page: bool, found: &mut BTreeMap<String, Shared>) {
    if is_shareable(schema) {
        let own_name = own_name(schema, name, is_page);
        let shared = found.entry(signature(schema, &own_name)).or_default();
        if shared.places == 0 {
            shared.union = schema.clone();
        } else {
            unite(&mut shared.union, schema.clone());
        }
        shared.places += 1;
        *shared.names.entry(own_name).or_default() += 1;
    }
    for (member, child) in &schema.properties {
        count(child, &name_of_member(member, child, name, is_page), false, found);
    }
    if let Some(items) = &schema.items {
        count(items, name, false, found);
    }
    if let Some(values) = &schema.values {
        count(values, name, false, found);
    }
}

/// Samples from which formats are no chance of sampling.
const MIN_SAMPLES: u64 = 10;

/// Names and types; where samples are many, formats and whether members may be absent; of small
/// objects what they are called. Few samples that lack what many always have are something else, and
/// `have_like_members` has to see both.
fn signature(schema: &Schema, name: &str) -> String {
    let mut out = String::new();
    if schema.properties.len() <= SMALL {
        out.push_str(name.strip_suffix(INPUT).unwrap_or(name));
    }
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
        out.push_str(schema.format.filter(|f| !f.starts_with("int")).unwrap_or_default());
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
            let presence = match schema.optional.contains(name) {
                _ if schema.samples < ENOUGH => "",
                true => "?",
                false => "!",
            };
            out.push_str(&format!("{name:?}{presence}:"));
            sign(child, out);
            out.push(',');
        }
        out.push('}');
    }
}

fn replace(
    schema: &mut Schema,
    name: &str,
    is_page: bool,
    of_signature: &BTreeMap<String, String>,
    components: &mut BTreeMap<String, Schema>,
) {
    let component = if is_shareable(schema) {
        of_signature.get(&signature(schema, &own_name(schema, name, is_page))).cloned()
    } else {
        None
    };
    for (member, child) in &mut schema.properties {
        let name = name_of_member(member, child, name, is_page);
        replace(child, &name, false, of_signature, components);
    }
    if let Some(items) = &mut schema.items {
        replace(items, name, false, of_signature, components);
    }
    if let Some(values) = &mut schema.values {
        replace(values, name, false, of_signature, components);
    }
    if let Some(component) = component {
        let mut body = std::mem::take(schema);
        schema.is_nullable = body.types.has(Types::NULL);
        schema.samples = body.samples;
        schema.reference = Some(component.clone());
        body.types = body.types.without(Types::NULL);
        match components.get_mut(&component) {
            Some(known) => unite(known, body),
            None => {
                components.insert(component, body);
            }
        }
    }
}

/// What both allow.
fn unite(own: &mut Schema, other: Schema) {
    if own.reference.is_some() || other.reference.is_some() {
        let is_nullable = [&*own, &other].iter().any(|s| s.is_nullable || s.types.has(Types::NULL));
        let samples = own.samples + other.samples;
        let reference = own.reference.take().or(other.reference);
        *own = Schema { reference, is_nullable, samples, ..Schema::default() };
        return;
    }
    let is_null = |s: &Schema| s.types.without(Types::NULL) == Types::default();
    let (was_null, is_other_null) = (is_null(own), is_null(&other));
    own.types = own.types.with(other.types);
    if own.types.has(Types::NUMBER) {
        own.types = own.types.without(Types::INTEGER);
    }
    own.samples += other.samples;
    own.personal = own.personal.or(other.personal);
    own.minimum_zero = match (was_null, is_other_null) {
        (true, _) => other.minimum_zero,
        (_, true) => own.minimum_zero,
        _ => own.minimum_zero && other.minimum_zero,
    };
    unite_members(own, other.properties, other.optional, other.required, was_null, is_other_null);
    own.format = match (own.format, other.format) {
        _ if is_other_null => own.format,
        (_, theirs) if was_null => theirs,
        (Some("int32"), Some("int64")) | (Some("int64"), Some("int32")) => Some("int64"),
        (a, b) if a == b => a,
        _ => None,
    };
    own.media_type = own.media_type.take().filter(|own| other.media_type.as_ref() == Some(own));
    match (&mut own.values_seen, other.values_seen) {
        (Some(own), Some(theirs)) => own.combine(&theirs),
        (own @ None, theirs) => *own = theirs,
        _ => {}
    }
    own.enumeration = own.values_seen.as_ref().map(|seen| seen.enumeration()).unwrap_or_default();
    match (&mut own.items, other.items) {
        (Some(own), Some(theirs)) => unite(own, *theirs),
        (own @ None, theirs) => *own = theirs,
        _ => {}
    }
    match (&mut own.values, other.values) {
        (Some(own), Some(theirs)) => unite(own, *theirs),
        (own @ None, theirs) => *own = theirs,
        _ => {}
    }
}

/// What one has and the other, which has members, lacks may be absent. Few samples of one place
/// prove nothing against many of another.
fn unite_members(
    own: &mut Schema,
    properties: BTreeMap<String, Schema>,
    optional: Vec<String>,
    required: Vec<String>,
    was_null: bool,
    is_other_null: bool,
) {
    if !was_null && !is_other_null && !own.properties.is_empty() && !properties.is_empty() {
        let lacked: Vec<String> = own
            .properties
            .keys()
            .filter(|name| !properties.contains_key(*name))
            .chain(properties.keys().filter(|name| !own.properties.contains_key(*name)))
            .cloned()
            .collect();
        own.optional.extend(lacked);
    }
    own.optional.extend(optional);
    own.required.extend(required);
    for names in [&mut own.optional, &mut own.required] {
        names.sort();
        names.dedup();
    }
    own.required.retain(|r| !own.optional.contains(r));
    for (name, theirs) in properties {
        match own.properties.get_mut(&name) {
            Some(property) => unite(property, theirs),
            None => {
                own.properties.insert(name, theirs);
            }
        }
    }
}
