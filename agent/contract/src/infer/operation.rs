//! One operation from the statistics of one method at one place.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    InferOptions, Latency, Media, Operation, Parameter, Place, Provenance, RequestBody, Response,
    confidence, names, schema,
    security::{self, Schemes},
    templates::{self, Segment, UNBOUNDED, Variable},
};
use crate::{
    knowledge::{
        body::{BodyStats, MediaStats},
        counts::Counts,
        detail::{Detail, ResponseStats},
        endpoint::{Field, FieldSet, MethodStats},
        kept::Kind,
        value::ValueStats,
    },
    observation::{Formats, Method},
};

/// A place's template and its parameters, the same for all its methods.
pub(crate) struct Template {
    pub text: String,
    pub parameters: Vec<Parameter>,
    parts: Vec<names::Part>,
    notes: Vec<String>,
    certainty: f64,
}

impl Template {
    pub fn of(place: &templates::Place, options: &InferOptions) -> Self {
        let mut own = Self {
            text: String::new(),
            parameters: Vec::new(),
            parts: Vec::new(),
            notes: Vec::new(),
            certainty: place.certainty,
        };
        let mut taken = BTreeSet::new();
        for segment in &place.segments {
            own.text.push('/');
            own.push(segment, &mut taken, options);
        }
        if own.text.is_empty() || place.has_trailing_slash {
            own.text.push('/');
        }
        own
    }

    fn push(&mut self, segment: &Segment, taken: &mut BTreeSet<String>, options: &InferOptions) {
        match segment {
            Segment::Static(text) => {
                self.text.push_str(&escape(text));
                self.parts.push(names::Part::Static(text.clone()));
            }
            Segment::Parameter(variable) => {
                let name = names::unique(&self.name(variable), taken);
                self.text.push_str(&format!("{{{name}}}{}", escape(&variable.suffix)));
                self.parts.push(names::Part::Parameter {
                    name: name.clone(),
                    suffix: variable.suffix.clone(),
                });
                let note = if variable.is_path {
                    Some("A path: its value may have slashes.".to_owned())
                } else if variable.is_placeholder {
                    Some("May be a fixed segment: seen too seldom to show its text.".to_owned())
                } else {
                    (variable.produced * 2 > variable.values.count)
                        .then(|| "Its values come from earlier responses.".to_owned())
                };
                if variable.is_placeholder {
                    self.notes.push(format!(
                        "`{{{name}}}` may stand for a fixed segment whose text was withheld."
                    ));
                }
                self.take(name, &variable.values, note, options);
            }
            Segment::Represented(stem, formats) => {
                self.push(stem, taken, options);
                let name = names::unique("format", taken);
                self.text.push_str(&format!(".{{{name}}}"));
                self.take(name, formats, None, options);
            }
        }
    }

    fn take(
        &mut self,
        name: String,
        values: &ValueStats,
        note: Option<String>,
        options: &InferOptions,
    ) {
        self.parameters.push(Parameter {
            name,
            place: Place::Path,
            is_required: true,
            schema: schema::of_values(values, options),
            samples: values.count,
            note,
        });
    }

    /// `/users/{userId}`, `/repos/{repo}`, `/reports/{date}`; `/books/{isbn}`, where the bodies say
    /// so.
    fn name(&self, variable: &Variable) -> String {
        if variable.is_path {
            return "path".to_owned();
        }
        let formats = variable.values.common_formats();
        let parent = match self.parts.last() {
            Some(names::Part::Static(text)) if !names::is_prefix(text) => {
                let noun = names::camel(&names::singular(text));
                noun.chars().next().is_some_and(|c| c.is_ascii_alphabetic()).then_some(noun)
            }
            _ => None,
        };
        let member =
            variable.member.as_deref().and_then(|m| names::of_member(m, parent.as_deref()));
        if let Some(member) = member {
            return member;
        }
        let is_id = formats.contains(Formats::INTEGER)
            || formats.contains(Formats::UUID)
            || (variable.values.min_length >= 16
                && variable.values.min_length == variable.values.max_length);
        if formats.contains(Formats::DATE) && !is_id {
            return "date".to_owned();
        }
        match (parent, is_id) {
            (Some(parent), true) => format!("{parent}Id"),
            (Some(parent), false) => parent,
            (None, true) => "id".to_owned(),
            (None, false) => "name".to_owned(),
        }
    }

    fn tag(&self) -> Option<String> {
        self.parts.iter().find_map(|p| match p {
            names::Part::Static(text) if !names::is_prefix(text) => Some(text.clone()),
            _ => None,
        })
    }
}

/// Braces belong to parameters, and a template has neither query nor fragment.
fn escape(text: &str) -> String {
    text.replace('{', "%7B").replace('}', "%7D").replace('?', "%3F").replace('#', "%23")
}

pub(crate) fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Head => "head",
        Method::Post => "post",
        Method::Put => "put",
        Method::Patch => "patch",
        Method::Delete => "delete",
        Method::Options => "options",
        Method::Trace => "trace",
        Method::Connect => "connect",
        Method::Other => "other",
    }
}

/// `HEAD` beside `GET` says nothing new; `OPTIONS` is an operation only where it answers
/// something of its own.
pub(crate) fn is_operation(method: Method, detail: &Detail, place: &templates::Place) -> bool {
    match method {
        Method::Get | Method::Post | Method::Put | Method::Patch | Method::Delete => true,
        Method::Head => !place.methods.contains_key(&Method::Get),
        Method::Options => detail.responses.iter().any(|(status, response)| {
            (200..300).contains(status)
                && response.body.media.values().any(|m| m.json + m.json_lines > 0)
        }),
        Method::Trace => detail.responses.keys().any(|s| (200..300).contains(s)),
        Method::Connect | Method::Other => false,
    }
}

pub(crate) fn build(
    template: &Template,
    method: Method,
    (stats, detail): (&MethodStats, &Detail),
    schemes: &mut Schemes,
    taken_ids: &mut BTreeSet<String>,
    options: &InferOptions,
) -> Operation {
    let mut parameters = template.parameters.clone();
    let mut carried = 0;
    for (place, set, calls) in [
        (Place::Query, &stats.query, stats.success),
        (Place::Header, &detail.headers, detail.success),
        (Place::Cookie, &detail.cookies, detail.success),
    ] {
        for parameter in fields(place, set, calls, options) {
            // What was known for a credential only after some exchanges was one before, too.
            if security::is_credential(&stats.credentials, place, &parameter.name) {
                carried = parameter.samples.max(carried);
            } else {
                parameters.push(parameter);
            }
        }
    }
    let responses = responses(stats, detail, options);
    let name = method_name(method);
    let id = names::operation_id(name, &template.parts, asks(&detail.request), answers(detail));
    let operation_id = names::unique(&id, taken_ids);
    let provenance = Provenance {
        samples: stats.count,
        complete: stats.complete,
        bytes_lost: stats.bytes_lost,
        first_seen: stats.first_seen,
        last_seen: stats.last_seen,
    };
    Operation {
        template: template.text.clone(),
        method,
        tag: template.tag(),
        summary: names::sentence(&operation_id),
        operation_id,
        notes: notes(template, stats),
        parameters,
        request_body: request_body(&detail.request, options),
        responses,
        security: schemes.security(&stats.credentials, stats.success, carried),
        confidence: confidence::operation(&provenance, template.certainty),
        provenance,
        template_certainty: template.certainty,
        latency: latency(&detail.latency),
    }
}

/// What callers send, as far as names care.
fn asks(request: &BodyStats) -> names::Asks {
    let has_files = |m: &MediaStats| !m.files.is_empty() || m.binary * 2 > m.count;
    if request.media.values().any(has_files) { names::Asks::Upload } else { names::Asks::Other }
}

/// What a success answers, as far as names care.
fn answers(detail: &Detail) -> names::Answer {
    let mut answer = names::Answer::Unknown;
    let successes = detail.responses.iter().filter(|(status, _)| (200..300).contains(*status));
    for media in successes.flat_map(|(_, response)| response.body.media.values()) {
        let schema = &media.schema;
        if media.json > 0 && schema.arrays.is_some() {
            return names::Answer::List;
        }
        let may_list = media.json > 0
            && schema.objects.as_ref().is_some_and(|object| {
                // A page, or a map.
                object.members.overflow().is_some()
                    || object.members.iter().any(|(key, member)| {
                        key.kind == Kind::Class || member.schema.arrays.is_some()
                    })
            });
        answer = if may_list { names::Answer::MayList } else { names::Answer::One };
        if may_list {
            break;
        }
    }
    answer
}

fn notes(template: &Template, stats: &MethodStats) -> Vec<String> {
    let mut notes = template.notes.clone();
    if stats.count < 5 {
        notes.push(format!("Seen {} times only.", stats.count));
    }
    if template.certainty < 0.7 {
        notes.push("Which path segments are parameters is uncertain.".to_owned());
    }
    if stats.complete < stats.count {
        notes.push(format!(
            "{} of {} exchanges were not seen whole.",
            stats.count - stats.complete,
            stats.count
        ));
    }
    let credentials = &stats.credentials;
    if credentials.accepted.is_empty()
        && credentials.refused_anonymous > 0
        && credentials.anonymous == 0
    {
        notes.push(
            "Refused callers without a credential; no accepted credential was recognised."
                .to_owned(),
        );
    }
    notes
}

fn fields(place: Place, set: &FieldSet, success: u64, options: &InferOptions) -> Vec<Parameter> {
    let mut found: BTreeMap<String, Parameter> = BTreeMap::new();
    for (_, field) in set.fields.iter() {
        if let Some(name) = field_name(field) {
            found.insert(name.to_owned(), parameter(name, place, field, success, options));
        }
    }
    found.into_values().collect()
}

fn field_name(field: &Field) -> Option<&str> {
    let name = &field.name;
    if name.is_class || name.is_personal { None } else { name.text().filter(|t| !t.is_empty()) }
}

fn parameter(
    name: &str,
    place: Place,
    field: &Field,
    calls: u64,
    options: &InferOptions,
) -> Parameter {
    let values = schema::of_values(&field.values, options);
    let is_array = field.repeated > 0 && place == Place::Query;
    Parameter {
        name: name.to_owned(),
        place,
        // Absence in a single successful call is proof enough that it may be absent.
        is_required: field.present >= calls && calls >= options.min_required_samples,
        schema: if is_array { schema::array_of(values) } else { values },
        samples: field.present,
        note: None,
    }
}

/// A call whose first three had a body has one: callers seldom leave out a whole body.
const MIN_BODIES: u64 = 3;

fn request_body(request: &BodyStats, options: &InferOptions) -> Option<RequestBody> {
    let content = content(request, options);
    if content.is_empty() {
        return None;
    }
    let is_required = request.empty == 0 && request.count >= MIN_BODIES;
    Some(RequestBody { is_required, content })
}

fn content(body: &BodyStats, options: &InferOptions) -> BTreeMap<String, Media> {
    let mut content = BTreeMap::new();
    let unnamed = body.media.get(&None);
    // A media type of no renown is text only once it recurred: the first bodies are of it too.
    let of_unnamed = unnamed.and_then(|unnamed| {
        let is_like = |m: &MediaStats| (m.json > 0) == (unnamed.json > 0);
        let mut named = body.media.iter().filter(|(name, m)| name.is_some() && is_like(m));
        named.next().map(|(name, _)| name).filter(|_| named.next().is_none())
    });
    for (name, media) in &body.media {
        let media = match (unnamed, of_unnamed) {
            (Some(_), Some(_)) if name.is_none() => continue,
            (Some(unnamed), Some(of_unnamed)) if of_unnamed == name => {
                let mut both = media.clone();
                both.combine(unnamed, UNBOUNDED);
                Cow::Owned(both)
            }
            _ => Cow::Borrowed(media),
        };
        let name = match name {
            Some(name) => name.as_str(),
            None if media.json > 0 => "application/json",
            None => "application/octet-stream",
        };
        let schema = schema::of_media(&media, options);
        let entry = Media { schema, samples: media.count, truncated: media.truncated };
        content.entry(name.to_owned()).or_insert(entry);
    }
    content
}

fn responses(
    stats: &MethodStats,
    detail: &Detail,
    options: &InferOptions,
) -> BTreeMap<u16, Response> {
    let none = ResponseStats::default();
    // Too much called required refuses a request; of a response it is but a wrong promise.
    let options = InferOptions {
        min_required_samples: options.min_required_samples.div_ceil(2),
        ..options.clone()
    };
    let options = &options;
    stats
        .statuses
        .iter()
        .filter(|(status, _)| **status >= 100)
        .map(|(status, samples)| {
            let response = detail.responses.get(status).unwrap_or(&none);
            let headers = response
                .headers
                .fields
                .iter()
                .filter_map(|(_, field)| {
                    let name = field_name(field)?;
                    let header = parameter(name, Place::Header, field, response.count, options);
                    Some((name.to_owned(), header))
                })
                .collect();
            let content = content(&response.body, options);
            (*status, Response { samples, headers, content })
        })
        .collect()
}

fn latency(bits: &Counts<u8>) -> Option<Latency> {
    let total = bits.total();
    let quantile = |per_cent: u64| {
        let mut below = 0;
        bits.iter()
            .find(|(_, n)| {
                below += *n;
                below * 100 >= total * per_cent
            })
            .map(|(bits, _)| 1u64.checked_shl(u32::from(*bits)).unwrap_or(u64::MAX))
    };
    Some(Latency { p50_us: quantile(50)?, p95_us: quantile(95)?, p99_us: quantile(99)? })
}
