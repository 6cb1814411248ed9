//! Asks the policies.

use bytes::Bytes;
use stoa_policy::{
    context::{Body as Read, RequestContext},
    decision::{Decision, Denial},
    engine::{BodyNeed, SetId},
};

use super::Plan;
use crate::{
    http::problem::Problem,
    proxy::{
        View, Worker,
        connection::Origin,
        request::{Request, Unreadable},
        timer::Timer,
    },
};

impl Worker {
    /// Asks the engine, with the body if it needs that.
    pub(super) async fn decide(
        &self,
        view: &View,
        set: SetId,
        plan: &Plan,
        origin: &Origin,
        request: &mut Request,
        timer: &mut Timer,
    ) -> Result<Decision, Unreadable> {
        let engine = &view.catalog.engine;
        let need = engine.body_need(set, &context(plan, origin, request, Read::Unread));
        let whole = match need {
            BodyNeed::None => None,
            BodyNeed::UpTo(_) if request.body.is_empty() => Some(Some(Bytes::new())),
            BodyNeed::UpTo(most) => {
                Some(request.read_body(most, self.shared.settings.request_body, timer).await?)
            }
        };
        let read = match &whole {
            None => Read::Unread,
            Some(None) => Read::Longer,
            Some(Some(bytes)) => Read::Whole(bytes),
        };
        let decision = engine.decide(set, &context(plan, origin, request, read)).await;
        self.counters.policies.count(&decision);
        Ok(decision)
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
