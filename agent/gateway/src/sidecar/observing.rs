//! Tells of decisions that were taken.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::CONTENT_LENGTH};
use stoa_policy::rego::action_of;

use super::{
    answer::Decided,
    counters::Format,
    question::{AskedBody, Question},
};
use crate::{
    proxy::random::Random,
    telemetry::{
        Telemetry,
        metering::{
            Metering,
            event::{Event, Outcome},
        },
        snapshots::{Beginning, Category, Failure},
        traces::{Active, Attribute, Span, known_method},
    },
};

pub fn tell(
    telemetry: &Telemetry,
    random: &Random,
    format: Format,
    question: &Question,
    decided: &Decided,
) {
    if let Some(tracer) = &telemetry.tracer {
        // The gateway that asks hands the request on itself: nothing is added to it here.
        let mut trace = tracer.begin(&question.headers, || random.next());
        if trace.context.is_sampled {
            trace.add_policies(Duration::ZERO, &decided.decision, || random.next());
            tracer.end(span_of(trace, format, question, decided));
        }
    }
    let event =
        telemetry.metering.as_ref().map(|metering| event_of(metering, random, question, decided));
    if let Some(snapshots) = &telemetry.snapshots
        && decided.status().is_server_error()
    {
        let mut failure = failure(snapshots.body_bytes(), question, decided);
        failure.event = event.clone().map(Box::new);
        snapshots.offer(failure);
    }
    if let (Some(metering), Some(event)) = (&telemetry.metering, event) {
        metering.tell(event);
    }
}

fn span_of(trace: Active, format: Format, question: &Question, decided: &Decided) -> Span {
    let decision = &decided.decision;
    let status = decided.status();
    let outcome = if decision.is_allowed() { "allow" } else { "deny" };
    let mut attributes = vec![
        ("http.request.method", known_method(&question.method)),
        ("http.response.status_code", Attribute::Number(status.as_u16().into())),
        ("stoa.decision.format", Attribute::Fixed(format.name())),
        ("stoa.policy.verdict", Attribute::Fixed(outcome)),
    ];
    if let Some(tenant) = &decision.tenant {
        attributes.push(("stoa.tenant", Attribute::Text(tenant.clone())));
    }
    if let Some(route) = &question.place.route {
        attributes.push(("stoa.route", Attribute::Text(route.as_str().into())));
    }
    if let Some(denial) = &decision.denial {
        attributes.push(("stoa.policy.name", Attribute::Fixed(denial.policy.name())));
        if status.is_server_error() {
            attributes.push(("error.type", Attribute::Fixed(denial.code)));
        }
    }
    Span {
        context: trace.context,
        kind: trace.kind,
        name: "authz".into(),
        ended: SystemTime::now(),
        took: decision.took,
        attributes,
        is_error: status.is_server_error(),
        steps: trace.steps,
    }
}

/// Of what comes after the decision nothing is known here.
fn event_of(metering: &Metering, random: &Random, question: &Question, decided: &Decided) -> Event {
    let (decision, status) = (&decided.decision, decided.status());
    let policy = decision.denial.as_ref().map(|denial| denial.policy.name());
    let of_identity = decision.identity.as_ref().and_then(|who| who.tenant.clone());
    let of_route = || question.place.tenant.as_deref().map(Into::into);
    let announced = question.headers.get(CONTENT_LENGTH);
    Event {
        name: metering.name(|| random.next()),
        at: SystemTime::now(),
        // Who is known counts, also where no policy compares.
        tenant: of_identity
            .or_else(|| decision.tenant.clone())
            .or_else(of_route)
            .unwrap_or_else(|| metering.tenant().clone()),
        identity: decision.identity.clone(),
        shows_email: metering.shows_email(),
        tool: question.place.route.as_deref().map(Into::into),
        is_outbound: false,
        action: action_of(&question.method),
        status,
        outcome: Outcome::of(status, policy, true),
        latency: decision.took,
        gateway: decision.took,
        backend: None,
        request_bytes: match &question.body {
            AskedBody::Whole(bytes) => Some(bytes.len() as u64),
            AskedBody::Unknown | AskedBody::Cut => {
                announced.and_then(|length| length.to_str().ok()?.parse().ok())
            }
        },
        response_bytes: None,
        request_id: Some(decided.request_id.clone()),
    }
}

/// What the asking gateway will answer its client we do not see: only what we told it.
fn failure(most: usize, question: &Question, decided: &Decided) -> Failure {
    let (decision, status) = (&decided.decision, decided.status().as_u16());
    let path = question.target.split('?').next().unwrap_or_default();
    let policy = decision.denial.as_ref().map(|denial| denial.policy.name());
    let code = decision.denial.as_ref().map(|denial| denial.code);
    let category = match code {
        // Of the decision itself, whatever the policy that it is counted under.
        Some("policy_set_unknown") => Category::Policy,
        Some("decision_timed_out") => Category::Timeout,
        _ => Category::of(status, policy, code),
    };
    let request_body = match &question.body {
        AskedBody::Whole(bytes) => Beginning {
            bytes: bytes.get(..most).unwrap_or(bytes).to_vec(),
            is_cut: bytes.len() > most,
        },
        AskedBody::Unknown | AskedBody::Cut => Beginning::default(),
    };
    let response_headers: HeaderMap = decision.response_headers.iter().cloned().collect();
    Failure {
        request_id: decided.request_id().to_owned(),
        method: question.method.to_string(),
        path: path.to_owned(),
        status,
        category,
        took: decision.took,
        request_headers: question.headers.clone(),
        request_body,
        response_headers,
        response_body: Beginning::default(),
        route: question.place.route.as_deref().map(Into::into),
        tenant: decision.tenant.clone(),
        upstream: None,
        code,
        event: None,
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, sync::Arc};

    use bytes::Bytes;
    use http::{HeaderValue, Method, StatusCode};
    use stoa_policy::decision::{Decision, Denial, PolicyKind};

    use super::*;
    use crate::{
        sidecar::question::{Place, UNKNOWN_SOURCE},
        telemetry::traces::context::Context,
    };

    fn question() -> Question {
        Question {
            method: Method::POST,
            scheme: "https",
            authority: "shop.example".to_owned(),
            target: "/orders/7?token=s3cr3t".to_owned(),
            headers: HeaderMap::new(),
            source: UNKNOWN_SOURCE,
            certificate: None,
            stated: None,
            place: Place { route: Some("orders".to_owned()), ..Place::default() },
            body: AskedBody::Whole(Bytes::from_static(b"0123456789")),
        }
    }

    fn decided(status: StatusCode, code: &'static str) -> Decided {
        let reason = Cow::Borrowed("");
        let denial = Denial { policy: PolicyKind::Identity, status, code, reason };
        let tenant = Some(Arc::from("acme"));
        let decision = Decision { denial: Some(denial), tenant, ..Decision::default() };
        Decided { decision, request_id: HeaderValue::from_static("r-1") }
    }

    #[test]
    fn a_failure_says_what_was_asked_and_why_it_was_not_decided() {
        let decided = decided(StatusCode::SERVICE_UNAVAILABLE, "decision_timed_out");
        let failure = failure(4, &question(), &decided);
        assert_eq!((failure.path.as_str(), failure.status), ("/orders/7", 503));
        assert_eq!((failure.category, failure.request_id.as_str()), (Category::Timeout, "r-1"));
        assert_eq!(failure.request_body, Beginning { bytes: b"0123".to_vec(), is_cut: true });
        assert_eq!(
            (failure.route.as_deref(), failure.tenant.as_deref()),
            (Some("orders"), Some("acme"))
        );
    }

    #[test]
    fn a_span_says_how_it_was_decided_and_nothing_of_the_client() {
        let context = Context { trace: 1, span: 2, parent: None, is_sampled: true };
        let denied = decided(StatusCode::FORBIDDEN, "x");
        let span = span_of(Active::new(context), Format::Nginx, &question(), &denied);
        assert!(!span.is_error);
        let find =
            |name: &str| span.attributes.iter().find(|(key, _)| *key == name).map(|(_, v)| v);
        assert_eq!(find("stoa.policy.verdict"), Some(&Attribute::Fixed("deny")));
        assert_eq!(find("http.response.status_code"), Some(&Attribute::Number(403)));
        assert_eq!(find("stoa.route"), Some(&Attribute::Text("orders".into())));
        let text = format!("{span:?}");
        assert!(!text.contains("s3cr3t") && !text.contains("shop"), "{text}");
        let failed = decided(StatusCode::SERVICE_UNAVAILABLE, "opa_unavailable");
        assert!(span_of(Active::new(context), Format::Nginx, &question(), &failed).is_error);
    }
}
