//! Does what the policies oblige to, before the request goes on and when its answer is there.

use std::time::Duration;

use http::{HeaderName, Method, StatusCode, header};
use stoa_policy::{
    context::{Body as Read, ResponseContext},
    contract::OperationId,
    decision::Decision,
    engine::{BodyNeed, SetId},
};

use super::deciding::problem_of;
use crate::{
    http::problem::Problem,
    proxy::{
        View, Worker,
        body::Body,
        error::UpstreamError,
        http1::length::Length,
        request::{Answer, Request},
        timer::Timer,
    },
};

/// For an upstream to send a body that policies look at.
const RESPONSE_WITHIN: Duration = Duration::from_secs(30);
/// Fields that say something of a body that was replaced.
const OF_ANOTHER_BODY: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::ETAG,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

impl Worker {
    /// Does what the policies oblige to before the request goes on.
    pub(super) fn oblige(
        &self,
        request: &mut Request,
        decision: &mut Decision,
    ) -> Result<(), Problem> {
        if !decision.query_to_remove.is_empty() {
            request.target = request.target.without_parameters(&decision.query_to_remove);
        }
        if let Some(masked) = decision.masked_body.take() {
            request.body = Body::full(masked);
            for digest in OF_ANOTHER_BODY {
                request.headers.remove(digest);
            }
        }
        if let Some(most) = decision.obligations.request_body_limit {
            match request.body.length() {
                Length::Exact(length) if length > most => {
                    return Err(Problem::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        format!("the body has {length} bytes, and at most {most} are allowed"),
                    ));
                }
                Length::Exact(_) => {}
                _ => {
                    let body = std::mem::take(&mut request.body);
                    request.body = Body::Limited(most, Box::new(body));
                }
            }
        }
        if decision.obligations.mask_response || decision.obligations.validate_response {
            // What is to be looked at must be readable.
            request.headers.remove(header::ACCEPT_ENCODING);
        }
        Ok(())
    }

    /// Lets the policies look at what the upstream answered.
    pub(super) async fn check_response(
        &self,
        view: &View,
        set: SetId,
        operation: Option<OperationId>,
        method: &Method,
        mut answer: Answer,
        timer: &mut Timer,
    ) -> Answer {
        let engine = &view.catalog.engine;
        let need = engine.response_body_need(set, operation, answer.status, &answer.headers);
        let mut whole = None;
        let mut is_longer = false;
        if let BodyNeed::UpTo(most) = need {
            timer.set_after(Some(RESPONSE_WITHIN));
            let body = std::mem::take(&mut answer.body);
            match timer.bound(body.collect_up_to(most)).await {
                Ok(Ok(Ok(bytes))) => {
                    answer.body = Body::full(bytes.clone());
                    whole = Some(bytes);
                }
                Ok(Ok(Err(longer))) => {
                    answer.body = longer;
                    is_longer = true;
                }
                Ok(Err(_)) => return self.fail(&UpstreamError::Closed, answer.record),
                Err(_) => return self.fail(&UpstreamError::Timeout, answer.record),
            }
        }
        let body = match &whole {
            Some(bytes) => Read::Whole(bytes),
            None if is_longer => Read::Longer,
            None => Read::Unread,
        };
        let response =
            ResponseContext { method, status: answer.status, headers: &answer.headers, body };
        let checked = engine.check_response(set, operation, &response);
        self.counters.policies.count_response(&checked);
        if let Some(denial) = checked.denial {
            answer.record.code = Some(denial.code);
            answer.record.policy = Some(denial.policy.name());
            let problem = problem_of(denial);
            return self.deny(problem, answer.record);
        }
        if let Some(masked) = checked.masked_body {
            answer.body = Body::full(masked);
            for digest in OF_ANOTHER_BODY {
                answer.headers.remove(digest);
            }
        }
        answer
    }
}
