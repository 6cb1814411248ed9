//! Asks the policies.

use bytes::Bytes;
use http::StatusCode;
use stoa_policy::{
    context::{Body as Read, RequestContext},
    decision::{Decision, Denial},
    engine::{BodyNeed, SetId},
};

use super::Plan;
use crate::{
    http::problem::Problem,
    proxy::{View, Worker, body::Body, connection::Origin, request::Request},
};

impl Worker {
    /// Asks the engine, with the body if it needs that.
    pub(super) async fn decide(
        &self,
        view: &View,
        set: SetId,
        plan: &Plan,
        origin: &Origin,
        mut request: Request,
    ) -> Result<(Decision, Request), Problem> {
        let engine = &view.catalog.engine;
        let mut body = std::mem::take(&mut request.body);
        let need = engine.body_need(set, &context(plan, origin, &request, Read::Unread));
        let mut whole = None;
        let mut is_longer = false;
        if let BodyNeed::UpTo(most) = need
            && !body.is_empty()
        {
            match body.collect_up_to(most).await {
                Ok(Ok(bytes)) => {
                    body = Body::full(bytes.clone());
                    whole = Some(bytes);
                }
                Ok(Err(longer)) => {
                    body = longer;
                    is_longer = true;
                }
                Err(error) => {
                    return Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string()));
                }
            }
        } else if matches!(need, BodyNeed::UpTo(_)) {
            whole = Some(Bytes::new());
        }
        let read = match &whole {
            Some(bytes) => Read::Whole(bytes),
            None if is_longer => Read::Longer,
            None => Read::Unread,
        };
        let decision = engine.decide(set, &context(plan, origin, &request, read)).await;
        request.body = body;
        Ok((decision, request))
    }
}

pub(super) fn problem_of(denial: Denial) -> Problem {
    Problem::new(denial.status, denial.reason)
        .with("code", denial.code)
        .with("policy", denial.policy.name())
}

fn context<'a>(
    plan: &'a Plan,
    origin: &'a Origin,
    request: &'a Request,
    body: Read<'a>,
) -> RequestContext<'a> {
    let fixed_route = origin.fixed.as_ref().map(|fixed| fixed.route.as_ref());
    RequestContext {
        door: origin.door,
        method: &request.method,
        scheme: origin.scheme(),
        authority: request.authority.to_str().unwrap_or(""),
        path: request.target.path(),
        query: request.target.query(),
        headers: &request.headers,
        source: origin.source,
        destination: origin.destination,
        client_certificate: origin.certificate.as_ref(),
        stated: None,
        route: plan.route.as_ref().map(|route| route.name.as_ref()).or(fixed_route),
        tenant: Some(&plan.tenant),
        upstream: plan.pool.as_ref().map(|pool| pool.upstream.name.as_ref()),
        body,
    }
}
