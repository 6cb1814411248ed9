//! Tells of decisions that were taken.

use http::HeaderMap;

use super::{
    answer::Decided,
    question::{AskedBody, Question},
};
use crate::telemetry::{
    Telemetry,
    snapshots::{Beginning, Category, Failure, Snapshots},
};

pub fn tell(telemetry: &Telemetry, question: &Question, decided: &Decided) {
    if let Some(snapshots) = &telemetry.snapshots
        && decided.status().is_server_error()
    {
        snapshots.offer(failure(snapshots, question, decided));
    }
}

/// What the asking gateway will answer its client we do not see: only what we told it.
fn failure(snapshots: &Snapshots, question: &Question, decided: &Decided) -> Failure {
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
    let most = snapshots.body_bytes();
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
    }
}
