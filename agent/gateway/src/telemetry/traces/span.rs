//! A span that has ended, and as OTLP has it.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{Span as Otlp, Status, span::SpanKind, status::StatusCode},
};

use super::context::Context;

/// Of a request here. It is the parent of its steps.
#[derive(Clone, Debug)]
pub struct Span {
    pub context: Context,
    pub kind: Kind,
    pub name: Cow<'static, str>,
    pub ended: SystemTime,
    pub took: Duration,
    pub attributes: Vec<(&'static str, Attribute)>,
    pub is_error: bool,
    pub steps: Vec<Step>,
}

/// A span within that of the request.
#[derive(Clone, Debug)]
pub struct Step {
    pub id: u64,
    pub name: &'static str,
    pub kind: Kind,
    /// After the request's own span began.
    pub after: Duration,
    pub took: Duration,
    pub attributes: Vec<(&'static str, Attribute)>,
    pub is_error: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Server,
    Client,
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Internal => Self::Internal,
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    Fixed(&'static str),
    Text(Arc<str>),
    Number(i64),
}

impl Span {
    /// No span has this context: it stands for the end of all.
    pub(super) fn last() -> Self {
        Self {
            context: Context { trace: 0, span: 0, parent: None, is_sampled: false },
            kind: Kind::Internal,
            name: Cow::Borrowed(""),
            ended: UNIX_EPOCH,
            took: Duration::ZERO,
            attributes: Vec::new(),
            is_error: false,
            steps: Vec::new(),
        }
    }

    pub(super) fn is_last(&self) -> bool {
        self.context.trace == 0
    }

    /// With its steps.
    pub(super) fn into_otlp(self, out: &mut Vec<Otlp>) {
        let ended = nanoseconds(self.ended.duration_since(UNIX_EPOCH).unwrap_or_default());
        let started = ended.saturating_sub(nanoseconds(self.took));
        let trace_id = self.context.trace.to_be_bytes().to_vec();
        let span_id = self.context.span.to_be_bytes().to_vec();
        for step in self.steps {
            let start = started.saturating_add(nanoseconds(step.after));
            out.push(Otlp {
                trace_id: trace_id.clone(),
                span_id: step.id.to_be_bytes().to_vec(),
                parent_span_id: span_id.clone(),
                name: step.name.to_owned(),
                kind: SpanKind::from(step.kind).into(),
                start_time_unix_nano: start,
                end_time_unix_nano: start.saturating_add(nanoseconds(step.took)),
                attributes: key_values(step.attributes),
                status: status(step.is_error),
                flags: 1,
                ..Otlp::default()
            });
        }
        out.push(Otlp {
            trace_id,
            span_id,
            parent_span_id: self.context.parent.map_or_else(Vec::new, |id| id.to_be_bytes().into()),
            name: self.name.into_owned(),
            kind: SpanKind::from(self.kind).into(),
            start_time_unix_nano: started,
            end_time_unix_nano: ended,
            attributes: key_values(self.attributes),
            status: status(self.is_error),
            flags: 1,
            ..Otlp::default()
        });
    }
}

/// The conventions leave it unset where nothing failed.
fn status(is_error: bool) -> Option<Status> {
    is_error.then(|| Status { code: StatusCode::Error.into(), message: String::new() })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn key_values(attributes: Vec<(&'static str, Attribute)>) -> Vec<KeyValue> {
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    attributes
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Attribute::Fixed(value) => text(value),
                Attribute::Text(value) => text(&value),
                Attribute::Number(value) => any_value::Value::IntValue(value),
            };
            KeyValue {
                key: key.to_owned(),
                value: Some(AnyValue { value: Some(value) }),
                ..KeyValue::default()
            }
        })
        .collect()
}
