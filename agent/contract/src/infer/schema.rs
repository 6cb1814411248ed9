//! From statistics of values to schemas.

use std::collections::BTreeMap;

use super::{InferOptions, Schema, Types, templates::UNBOUNDED};
use crate::{
    knowledge::{
        body::MediaStats,
        kept::Kind,
        schema::{MemberStats, ObjectStats, SchemaStats},
        token::TokenStats,
        value::{Distinct, ValueStats},
    },
    observation::Formats,
};

/// Members of an enumeration at most.
const MAX_ENUM: usize = 16;
/// Named members above which an object that seldom has the same ones may be a map.
const MIN_MAP_NAMES: usize = 20;
const MAX_DEPTH: u32 = 48;

/// The schema of a JSON value.
pub(crate) fn of_json(stats: &SchemaStats, options: &InferOptions) -> Schema {
    json(stats, options, 0)
}

fn json(stats: &SchemaStats, options: &InferOptions, depth: u32) -> Schema {
    let mut schema = Schema { samples: stats.count, ..Schema::default() };
    if depth > MAX_DEPTH {
        return schema;
    }
    let mut types = Types::default();
    if stats.nulls > 0 {
        types = types.with(Types::NULL);
    }
    if stats.booleans > 0 {
        types = types.with(Types::BOOLEAN);
    }
    if let Some(numbers) = &stats.numbers {
        if numbers.fractional == 0 {
            types = types.with(Types::INTEGER);
            schema.format = integer_format(numbers.max_bits, numbers.count);
        } else {
            types = types.with(Types::NUMBER);
        }
        schema.minimum_zero = numbers.negative == 0 && numbers.count >= 100;
    }
    if let Some(strings) = &stats.strings {
        types = types.with(Types::STRING);
        if stats.numbers.is_none() {
            schema.format = string_format(strings);
        }
        if stats.count == strings.count + stats.nulls {
            let seen = ValuesSeen::of(strings, options);
            schema.enumeration = seen.enumeration();
            schema.values_seen = Some(Box::new(seen));
        }
    }
    if let Some(arrays) = &stats.arrays {
        types = types.with(Types::ARRAY);
        schema.items = arrays.items.as_ref().map(|i| Box::new(json(&i.0, options, depth + 1)));
    }
    if let Some(objects) = &stats.objects {
        types = types.with(Types::OBJECT);
        describe_object(objects, &mut schema, options, depth, &json, false);
    }
    schema.types = types;
    schema.personal = stats.personal();
    schema
}

type Describe<'a> = &'a dyn Fn(&SchemaStats, &InferOptions, u32) -> Schema;

fn describe_object(
    objects: &ObjectStats,
    schema: &mut Schema,
    options: &InferOptions,
    depth: u32,
    describe: Describe<'_>,
    is_form: bool,
) {
    let mut named: BTreeMap<&str, &MemberStats> = BTreeMap::new();
    let mut unnamed = MemberStats::default();
    let mut add_unnamed = |member: &MemberStats| {
        unnamed.schema.combine(&member.schema, UNBOUNDED);
        unnamed.name.combine(&member.name);
    };
    for (key, member) in objects.members.iter() {
        match name(&member.name) {
            Some(name) if key.kind != Kind::Class => {
                named.insert(name, member);
            }
            _ => add_unnamed(member),
        }
    }
    if let Some(overflow) = objects.members.overflow() {
        add_unnamed(overflow);
    }
    if is_map(objects, &named) {
        for member in named.values() {
            unnamed.schema.combine(&member.schema, UNBOUNDED);
        }
        named.clear();
    }
    for (name, member) in named {
        // Of an object that was cut, what was seen was there.
        let is_everywhere = !is_form && member.name.count >= objects.count;
        let is_always = objects.closed > 0 && member.present >= objects.closed;
        let samples = if is_everywhere { objects.count } else { objects.closed };
        if (is_always || is_everywhere) && samples >= options.min_required_samples {
            schema.required.push(name.to_owned());
        }
        if member.present < objects.closed {
            schema.optional.push(name.to_owned());
        }
        schema.properties.insert(name.to_owned(), describe(&member.schema, options, depth + 1));
    }
    if unnamed.schema.count > 0 {
        schema.values = Some(Box::new(describe(&unnamed.schema, options, depth + 1)));
    }
}

fn name(token: &TokenStats) -> Option<&str> {
    if token.is_class || token.is_personal { None } else { token.text() }
}

/// Many names, each seldom there, all with values of one kind: keys, not members.
fn is_map(objects: &ObjectStats, named: &BTreeMap<&str, &MemberStats>) -> bool {
    if named.len() < MIN_MAP_NAMES || objects.closed < 5 {
        return false;
    }
    let mean = named.values().map(|m| m.present as f64 / objects.closed as f64).sum::<f64>()
        / named.len() as f64;
    let kinds = named.values().fold(0u8, |kinds, m| kinds | kind_bits(&m.schema));
    mean < 0.25 && kinds.count_ones() == 1
}

fn kind_bits(s: &SchemaStats) -> u8 {
    u8::from(s.booleans > 0)
        | u8::from(s.numbers.is_some()) << 1
        | u8::from(s.strings.is_some()) << 2
        | u8::from(s.arrays.is_some()) << 3
        | u8::from(s.objects.is_some()) << 4
}

/// Small integers of few samples say nothing of the width.
fn integer_format(bits: u8, count: u64) -> Option<&'static str> {
    match bits {
        0..=31 if count >= 10 => Some("int32"),
        32..=63 => Some("int64"),
        _ => None,
    }
}

fn string_format(values: &ValueStats) -> Option<&'static str> {
    let formats = values.common_formats();
    let known = [
        (Formats::UUID, "uuid"),
        (Formats::DATE_TIME, "date-time"),
        (Formats::DATE, "date"),
        (Formats::TIME, "time"),
        (Formats::EMAIL, "email"),
        (Formats::IPV4, "ipv4"),
        (Formats::IPV6, "ipv6"),
        (Formats::URI, "uri"),
        (Formats::DURATION, "duration"),
    ];
    let found = known.into_iter().find(|(bit, _)| formats.contains(*bit)).map(|(_, name)| name);
    found.or_else(|| {
        // Short words are valid base64 by chance.
        (formats.contains(Formats::BYTE) && values.min_length >= 16 && values.count >= 5)
            .then_some("byte")
    })
}

/// The strings of one place, or of several that share a schema.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValuesSeen {
    distinct: Distinct,
    is_personal: bool,
    /// Samples below which nothing is an enumeration.
    min_samples: u64,
}

impl ValuesSeen {
    fn of(values: &ValueStats, options: &InferOptions) -> Self {
        Self {
            distinct: values.distinct.clone(),
            is_personal: !values.personal.is_empty(),
            min_samples: options.min_enum_samples,
        }
    }

    pub fn combine(&mut self, other: &Self) {
        self.distinct.combine(&other.distinct);
        self.is_personal |= other.is_personal;
    }

    /// Few values, all known by text, with no new one to be expected (Good-Turing), of no personal
    /// class. Empty where they are no enumeration.
    pub fn enumeration(&self) -> Vec<String> {
        let listed = self.distinct.listed();
        let is_few = (2..=MAX_ENUM).contains(&listed.len())
            && listed.len() as u64 * 4 <= self.distinct.count
            && self.distinct.count >= self.min_samples;
        if !is_few || self.is_personal || !self.distinct.is_saturated() {
            return Vec::new();
        }
        let texts: Option<Vec<String>> =
            listed.iter().map(|l| l.text.as_ref().map(|t| t.as_str().to_owned())).collect();
        let mut texts = texts.unwrap_or_default();
        texts.sort();
        texts.dedup();
        texts
    }
}

/// The schema of values that are written as strings: path, query, header, cookie, form.
pub(crate) fn of_values(values: &ValueStats, options: &InferOptions) -> Schema {
    let formats = values.common_formats();
    let mut schema = Schema { samples: values.count, types: Types::STRING, ..Schema::default() };
    schema.personal = values
        .personal
        .iter()
        .filter(|(_, n)| *n * 10 >= values.count)
        .max_by_key(|(class, n)| (*n, std::cmp::Reverse(**class)))
        .map(|(class, _)| *class);
    if formats.contains(Formats::INTEGER) {
        schema.types = Types::INTEGER;
        schema.format = integer_format(values.max_bits, values.numbers);
    } else if formats.contains(Formats::NUMBER) {
        schema.types = Types::NUMBER;
    } else if formats.contains(Formats::BOOLEAN) {
        schema.types = Types::BOOLEAN;
    } else {
        schema.format = string_format(values);
        schema.enumeration = ValuesSeen::of(values, options).enumeration();
    }
    schema
}

/// The schema of a body of one media type; `None` where nothing of its structure is known.
pub(crate) fn of_media(media: &MediaStats, options: &InferOptions) -> Option<Schema> {
    if media.form + media.multipart > 0 && media.json == 0 {
        return Some(form(media, options));
    }
    if media.json_lines > media.json {
        let items = of_json(&media.schema, options);
        // One value a line; OpenAPI 3.1 has no word for it but the media type.
        return Some(items);
    }
    (media.json > 0).then(|| of_json(&media.schema, options))
}

fn form(media: &MediaStats, options: &InferOptions) -> Schema {
    let mut schema =
        Schema { types: Types::OBJECT, samples: media.schema.count, ..Schema::default() };
    let Some(objects) = &media.schema.objects else { return schema };
    let field = |stats: &SchemaStats, options: &InferOptions, _: u32| match &stats.strings {
        Some(strings) => of_values(strings, options),
        None => Schema { types: Types::STRING, samples: stats.count, ..Schema::default() },
    };
    describe_object(objects, &mut schema, options, 0, &field, true);
    for (key, member) in objects.members.iter() {
        let Some(property) = name(&member.name).and_then(|n| schema.properties.get_mut(n)) else {
            continue;
        };
        if media.files.contains_key(&key.hash) {
            *property = Schema {
                types: Types::STRING,
                format: Some("binary"),
                samples: member.schema.count,
                ..Schema::default()
            };
        } else if media.form + media.multipart > 0 && member.schema.count > member.name.count {
            let items = std::mem::take(property);
            *property = array_of(items);
        }
    }
    schema
}

pub(crate) fn array_of(items: Schema) -> Schema {
    Schema {
        types: Types::ARRAY,
        samples: items.samples,
        items: Some(Box::new(items)),
        ..Schema::default()
    }
}
