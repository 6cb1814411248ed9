//! From a request to its answer: route, policies, changes, upstream.

mod attempts;
mod deciding;
mod forward;
mod mirror;
mod obligations;
pub mod observing;

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, Method, StatusCode};
use stoa_policy::{circuit_breaker::Breaker, engine::SetId};
use tokio::time::Instant;

use super::{
    View, Worker,
    body::Body,
    connection::Origin,
    http1::client::Interim,
    pool::Pool,
    request::{Answer, Record, Request},
    timer::Timer,
    transform,
};
use crate::{
    catalog::routes::{Action, Asked, Route},
    http::problem::Problem,
};

/// What the route decides, or the destination of a redirected connection.
struct Plan {
    route: Option<Arc<Route>>,
    prefix: usize,
    tenant: Arc<str>,
    policies: Policies,
    /// `None` for a redirect, or where no backend has a weight.
    pool: Option<Rc<Pool>>,
    /// What the route matched by, where a span is to tell.
    pattern: Option<Arc<str>>,
    /// Of the pool's upstream, where the policies have one.
    breaker: Option<Arc<Breaker>>,
}

#[derive(Clone, Copy)]
enum Policies {
    None,
    /// A probe: it passes without them, unchanged, and nobody is told of it.
    Exempt,
    Set(SetId),
    /// Configured, but not in the configuration in force.
    Missing,
}

impl Policies {
    fn breaker(self, view: &View, pool: Option<&Rc<Pool>>) -> Option<Arc<Breaker>> {
        let (Self::Set(set), Some(pool)) = (self, pool) else { return None };
        view.catalog.engine.breaker(set, &pool.upstream.name)
    }
}

impl Worker {
    /// Never fails: what goes wrong is the answer.
    pub async fn answer(
        self: &Rc<Self>,
        view: Rc<View>,
        origin: &Origin,
        mut request: Request,
        started: Instant,
        timer: &mut Timer,
        interim: &mut Interim<'_>,
    ) -> Answer {
        let mut record = origin.record(started, &request.method);
        self.begin_observing(origin, &mut request, &mut record);
        if self.shared.access_log.is_enabled() {
            request.target.path().clone_into(&mut record.path);
        }
        if request.method == Method::CONNECT {
            record.metered = None;
            let problem = Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this gateway makes no tunnels for CONNECT",
            );
            return Answer::of_problem(problem, record);
        }
        let is_sampled = record.trace.as_ref().is_some_and(|trace| trace.context.is_sampled);
        let plan = match self.plan(&view, origin, &request, is_sampled) {
            Ok(plan) => plan,
            Err(own) => return answer_own(own, record),
        };
        if let Some(route) = &plan.route {
            record.route = Some(Arc::clone(&route.name));
            record.counters = view.routes.get(route.index).cloned();
        }
        record.tenant = Some(Arc::clone(&plan.tenant));
        if let Some(trace) = &mut record.trace {
            trace.route = plan.pattern.clone();
        }

        let mut response_headers = Vec::new();
        let mut decision = None;
        match plan.policies {
            Policies::None => {}
            Policies::Exempt => record.forget_observers(),
            Policies::Missing => {
                record.code = Some("policies_missing");
                let detail = "the policies of this workload are not in the configuration";
                return self.deny(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail), record);
            }
            Policies::Set(set) => {
                let asked = record.trace.is_some().then(Instant::now);
                let decided = self.decide(&view, set, &plan, origin, &mut request, timer).await;
                let mut made = match decided {
                    Ok(made) => made,
                    Err(unreadable) => {
                        record.code = Some(unreadable.code());
                        return self.deny(unreadable.problem(), record);
                    }
                };
                if let Some(asked) = asked {
                    self.add_policies(&mut record, asked, &made);
                }
                record.identity = made.identity.as_ref().map(|i| Arc::clone(&i.subject));
                if let Some(metered) = &mut record.metered {
                    metered.identity.clone_from(&made.identity);
                }
                if let Some(tenant) = &made.tenant {
                    record.tenant = Some(Arc::clone(tenant));
                }
                response_headers = made.response_headers.drain(..).collect();
                let refused = match made.denial.take() {
                    Some(denial) => {
                        record.code = Some(denial.code);
                        record.policy = Some(denial.policy.name());
                        Err(deciding::problem_of(denial))
                    }
                    None => self.oblige(&mut request, &mut made),
                };
                if let Err(problem) = refused {
                    let mut answer = self.deny(problem, record);
                    answer.headers.extend(response_headers);
                    return answer;
                }
                decision = Some((set, made));
            }
        }
        let changes = plan.route.as_ref().map(|route| &route.response);
        let method = request.method.clone();
        let made = decision.as_ref().map(|(_, made)| made);
        let mut answer =
            self.act(&view, &plan, origin, request, made, record, timer, interim).await;
        if let Some((set, made)) = &decision
            && (made.obligations.mask_response || made.obligations.validate_response)
            && answer.record.code.is_none()
            && answer.tunnel.is_none()
        {
            answer = self.check_response(&view, *set, made.operation, &method, answer, timer).await;
        }
        if let Some(changes) = changes {
            forward::apply_changes(&mut answer.headers, changes);
            if self.shared.settings.transform_response
                && let Some(change) = &changes.body
            {
                answer = transform::response(answer, change, timer).await;
            }
        }
        for (name, value) in response_headers {
            answer.headers.insert(name, value);
        }
        answer
    }

    fn plan(
        &self,
        view: &View,
        origin: &Origin,
        request: &Request,
        is_sampled: bool,
    ) -> Result<Plan, Own> {
        if let Some(fixed) = &origin.fixed {
            let policies = match fixed.policies.as_deref() {
                None => Policies::None,
                Some(_) if fixed.overseer.is_exempt(request) => Policies::Exempt,
                Some(name) => {
                    view.catalog.engine.find(name).map_or(Policies::Missing, Policies::Set)
                }
            };
            return Ok(Plan {
                route: None,
                prefix: 0,
                pattern: None,
                tenant: Arc::clone(&fixed.tenant),
                breaker: policies.breaker(view, Some(&fixed.pool)),
                policies,
                pool: Some(Rc::clone(&fixed.pool)),
            });
        }
        let routes = &view.catalog.routes;
        let asked = Asked {
            host: &request.host,
            path: request.target.path(),
            query: request.target.query(),
            method: &request.method,
            headers: &request.headers,
        };
        let mut pattern = None;
        let (route, prefix) = match routes.find(&asked) {
            Some(chosen) => {
                pattern = is_sampled.then(|| chosen.pattern(asked.path).into());
                (chosen.route, chosen.prefix)
            }
            None => {
                if asked.path == "*" {
                    return Err(Own::Server);
                }
                if let Some(own) = (self.shared.own_answers)(asked.path) {
                    return Err(Own::Answer(Box::new(own)));
                }
                match &routes.fallback {
                    Some(fallback) => (fallback, 0),
                    None => return Err(Own::NoRoute),
                }
            }
        };
        let pool = match &route.action {
            Action::Forward(backends) => {
                self.choose_backend(backends).and_then(|i| view.pools.get(i)).cloned()
            }
            Action::Redirect(_) => None,
        };
        let policies = route.policies.map_or(Policies::None, Policies::Set);
        Ok(Plan {
            breaker: policies.breaker(view, pool.as_ref()),
            pool,
            tenant: Arc::clone(&route.tenant),
            policies,
            route: Some(Arc::clone(route)),
            prefix,
            pattern,
        })
    }

    fn deny(&self, problem: Problem, record: Record) -> Answer {
        if let Some(code) = record.code {
            self.counters.failure(code);
        }
        Answer::of_problem(problem, record)
    }
}

/// What the agent answers itself.
enum Own {
    NoRoute,
    Server,
    Answer(Box<http::Response<http_body_util::Full<bytes::Bytes>>>),
}

fn answer_own(own: Own, mut record: Record) -> Answer {
    match own {
        Own::NoRoute => {
            record.code = Some("no_route");
            let problem = Problem::new(StatusCode::NOT_FOUND, "no route matches this request")
                .with("code", "no_route");
            Answer::of_problem(problem, record)
        }
        Own::Server => {
            record.metered = None;
            Answer {
                status: StatusCode::NO_CONTENT,
                headers: HeaderMap::new(),
                body: Body::Empty,
                tunnel: None,
                record,
            }
        }
        Own::Answer(response) => {
            // What the agent says of itself is no exchange that failed, nor anybody's use.
            record.draft = None;
            record.metered = None;
            let (parts, body) = response.into_parts();
            Answer::full(parts.status, parts.headers, body, record)
        }
    }
}
