//! Runs the policies of a set in their order.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};

use crate::{
    circuit_breaker::{Breaker, Breakers, CircuitBreaker, CircuitBreakerConfig},
    config::{Policies, PolicySetConfig},
    context::{RequestContext, ResponseContext},
    contract::{Contract, OperationId},
    decision::{Decision, Denial, Note, PolicyKind, Ran, ResponseDecision, Verdict},
    error::{BuildError, BuildErrors, Refusal},
    guardrails::Guardrails,
    identity::{Identities, trusted},
    moment::Moment,
    outside::Outside,
    quota::Quotas,
    rate_limit::RateLimiter,
    rego::Rego,
    scopes::Scopes,
    tenant::Tenant,
};

/// Names a set in the engine that gave it; not valid for another engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetId(usize);

/// What must be read of a request's body before the policies can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BodyNeed {
    None,
    /// Whole, up to so many bytes. Of a longer one the door says [`Body::Longer`] and the policy
    /// that asked refuses it or lets it pass unread, as configured.
    ///
    /// [`Body::Longer`]: crate::context::Body::Longer
    UpTo(usize),
}

/// The policies of one configuration; replaced whole when it changes. Workers share it: nothing in
/// it is locked while requests are decided from what is at hand.
#[derive(Debug, Default)]
pub struct Engine {
    names: BTreeMap<String, SetId>,
    sets: Vec<Loaded>,
    /// Of all sets, and of the engines before and after this one.
    breakers: Arc<Breakers>,
}

/// A set that was built, or the first of its policies that could not be, which denies.
#[derive(Debug)]
enum Loaded {
    Built(Box<PolicySet>),
    Broken(PolicyKind),
}

/// `None`: not configured, does not run.
#[derive(Debug, Default)]
struct PolicySet {
    identity: Option<Identities>,
    tenant: Option<Tenant>,
    rate_limit: Option<RateLimiter>,
    quota: Option<Quotas>,
    scopes: Option<Scopes>,
    rego: Option<Rego>,
    guardrails: Option<Guardrails>,
    contract: Option<Contract>,
    circuit_breaker: Option<CircuitBreaker>,
}

impl Engine {
    /// All sets, or all reasons why not: a reload that fails keeps the engine that runs.
    pub fn build(policies: &Policies, outside: &Outside) -> Result<Self, BuildErrors> {
        match Self::build_closed(policies, outside) {
            (engine, None) => Ok(engine),
            (_, Some(errors)) => Err(errors),
        }
    }

    /// For the start, when there is no earlier engine to keep: a set with a policy that cannot be
    /// built denies every request, and the others work.
    pub fn build_closed(policies: &Policies, outside: &Outside) -> (Self, Option<BuildErrors>) {
        let mut engine = Self { breakers: Arc::clone(&outside.breakers), ..Self::default() };
        let mut errors = Vec::new();
        for (name, config) in policies {
            let known = errors.len();
            let built = build_set(name, config, outside, &mut errors);
            let loaded = match errors.get(known) {
                None => Loaded::Built(Box::new(built)),
                Some(error) => Loaded::Broken(error.policy),
            };
            engine.names.insert(name.clone(), SetId(engine.sets.len()));
            engine.sets.push(loaded);
        }
        (engine, (!errors.is_empty()).then_some(BuildErrors(errors)))
    }

    pub fn find(&self, name: &str) -> Option<SetId> {
        self.names.get(name).copied()
    }

    /// Asked with a context whose body is not read yet. Most requests need nothing of theirs.
    pub fn body_need(&self, set: SetId, request: &RequestContext<'_>) -> BodyNeed {
        let Some(set) = self.built(set) else { return BodyNeed::None };
        let guardrails = set.guardrails.as_ref().map(|policy| policy.body_need(request));
        let contract = set.contract.as_ref().map(|policy| policy.body_need(request));
        guardrails.max(contract).unwrap_or(BodyNeed::None)
    }

    /// What must be read of a response before [`check_response`](Self::check_response); asked where
    /// `Obligations` say that responses are looked at.
    pub fn response_body_need(
        &self,
        set: SetId,
        operation: Option<OperationId>,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> BodyNeed {
        let Some(set) = self.built(set) else { return BodyNeed::None };
        let guardrails = set.guardrails.as_ref().map(|policy| policy.response_body_need(headers));
        let contract = set.contract.as_ref();
        let contract = contract.map(|policy| policy.response_body_need(operation, status, headers));
        guardrails.max(contract).unwrap_or(BodyNeed::None)
    }

    /// Checks what the upstream answered, as it answered it, and masks personal data in it.
    /// `operation` is that of the decision on the request, by this engine.
    pub fn check_response(
        &self,
        set: SetId,
        operation: Option<OperationId>,
        response: &ResponseContext<'_>,
    ) -> ResponseDecision {
        let mut decision = ResponseDecision::default();
        let Some(set) = self.built(set) else {
            decision.denial = Some(unavailable(PolicyKind::Contract));
            return decision;
        };
        if let Some(contract) = &set.contract {
            match contract.check_response(operation, response) {
                Ok(note) => decision.notes.extend(note),
                Err(denial) => {
                    decision.denial = Some(denial);
                    return decision;
                }
            }
        }
        if let Some(guardrails) = &set.guardrails {
            match guardrails.check_response(response.headers, response.body) {
                Ok((body, code)) => {
                    decision.masked_body = body;
                    let policy = PolicyKind::Guardrails;
                    decision.notes.extend(code.map(|code| Note {
                        policy,
                        code,
                        detail: String::new(),
                    }));
                }
                Err(denial) => decision.denial = Some(denial),
            }
        }
        decision
    }

    /// Of the sets that have any.
    pub fn identities(&self) -> impl Iterator<Item = &Identities> {
        self.sets.iter().filter_map(|loaded| match loaded {
            Loaded::Built(set) => set.identity.as_ref(),
            Loaded::Broken(_) => None,
        })
    }

    /// The breaker configuration of a set's upstreams.
    pub fn breaker_config(&self, set: SetId) -> Option<CircuitBreakerConfig> {
        Some(self.built(set)?.circuit_breaker.as_ref()?.config())
    }

    /// The breaker of an upstream that the set's requests go to, made when it is first asked for.
    /// `None`: the set has none.
    pub fn breaker(&self, set: SetId, upstream: &str) -> Option<Arc<Breaker>> {
        Some(self.built(set)?.circuit_breaker.as_ref()?.breaker(upstream))
    }

    /// Forgets the breakers of upstreams that have none any more.
    pub fn retain_breakers(&self, has_one: impl Fn(&str) -> bool) {
        self.breakers.retain(has_one);
    }

    fn built(&self, set: SetId) -> Option<&PolicySet> {
        match self.sets.get(set.0)? {
            Loaded::Built(set) => Some(set),
            Loaded::Broken(_) => None,
        }
    }

    /// Never waits unless a policy needs an answer from outside that is not at hand.
    pub async fn decide(&self, set: SetId, request: &RequestContext<'_>) -> Decision {
        let mut clock = Clock::start();
        let mut decision = Decision::default();
        let verdict = match self.sets.get(set.0) {
            Some(Loaded::Built(set)) => set.run(request, &mut decision, &mut clock).await,
            Some(Loaded::Broken(policy)) => Err(unavailable(*policy)),
            // A set of another engine: whoever asks mixed two configurations.
            None => Err(unavailable(PolicyKind::Identity)),
        };
        decision.denial = verdict.err();
        decision.took = clock.total();
        decision
    }
}

impl PolicySet {
    async fn run(
        &self,
        request: &RequestContext<'_>,
        decision: &mut Decision,
        clock: &mut Clock,
    ) -> Verdict {
        match (&self.identity, request.stated) {
            (Some(identity), _) => {
                let verdict = identity.check(request, decision).await;
                clock.settle(PolicyKind::Identity, verdict, decision)?;
            }
            // Nobody checks identities here: the caller of a decision door knows best.
            (None, Some(stated)) => {
                decision.identity = trusted::stated_identity(stated).map(Arc::new);
            }
            (None, None) => {}
        }
        if let Some(tenant) = &self.tenant {
            let verdict = tenant.check(request, decision);
            clock.settle(PolicyKind::Tenant, verdict, decision)?;
        }
        if let Some(limits) = &self.rate_limit {
            let verdict = limits.check(request, decision, Moment::read()).await;
            clock.settle(PolicyKind::RateLimit, verdict, decision)?;
        }
        if let Some(quotas) = &self.quota {
            let verdict = quotas.check(request, decision, Moment::read()).await;
            clock.settle(PolicyKind::Quota, verdict, decision)?;
        }
        if let Some(scopes) = &self.scopes {
            let verdict = scopes.check(decision);
            clock.settle(PolicyKind::Scopes, verdict, decision)?;
        }
        if let Some(rego) = &self.rego {
            let verdict = rego.check(request, decision).await;
            clock.settle(PolicyKind::Rego, verdict, decision)?;
        }
        if let Some(guardrails) = &self.guardrails {
            let verdict = guardrails.check(request, decision);
            clock.settle(PolicyKind::Guardrails, verdict, decision)?;
        }
        if let Some(contract) = &self.contract {
            let verdict = contract.check(request, decision);
            clock.settle(PolicyKind::Contract, verdict, decision)?;
        }
        if let Some(breaker) = &self.circuit_breaker {
            let verdict = breaker.check(request, decision, Moment::read());
            clock.settle(PolicyKind::CircuitBreaker, verdict, decision)?;
        }
        Ok(())
    }
}

fn build_set(
    name: &str,
    config: &PolicySetConfig,
    outside: &Outside,
    errors: &mut Vec<BuildError>,
) -> PolicySet {
    let mut errors = Collected { set: name, errors };
    PolicySet {
        identity: errors.build(PolicyKind::Identity, config.identity.as_ref(), |identity| {
            Identities::build(identity, outside)
        }),
        tenant: errors.build(PolicyKind::Tenant, config.tenant.as_ref(), Tenant::build),
        rate_limit: errors.build(PolicyKind::RateLimit, config.rate_limit.as_ref(), |limits| {
            let (table, shared) = (outside.limits.clone(), outside.shared.clone());
            RateLimiter::build(name, limits, &outside.plans, table, shared)
        }),
        quota: errors.build(PolicyKind::Quota, config.quota.as_ref(), |quotas| {
            let (book, shared) = (outside.quotas.clone(), outside.shared.clone());
            Quotas::build(name, quotas, &outside.plans, book, shared)
        }),
        scopes: errors.build(PolicyKind::Scopes, config.scopes.as_ref(), Scopes::build),
        rego: errors.build(PolicyKind::Rego, config.rego.as_ref(), |rego| {
            Rego::build(rego, outside.documents.as_deref(), outside.opa.clone())
        }),
        guardrails: errors.build(
            PolicyKind::Guardrails,
            config.guardrails.as_ref(),
            Guardrails::build,
        ),
        contract: errors.build(PolicyKind::Contract, config.contract.as_ref(), |contract| {
            Contract::build(contract, outside)
        }),
        circuit_breaker: errors.build(
            PolicyKind::CircuitBreaker,
            config.circuit_breaker.as_ref(),
            |breaker| CircuitBreaker::build(breaker, outside.breakers.clone()),
        ),
    }
}

struct Collected<'a> {
    set: &'a str,
    errors: &'a mut Vec<BuildError>,
}

impl Collected<'_> {
    fn build<C, P>(
        &mut self,
        policy: PolicyKind,
        config: Option<&C>,
        build: impl FnOnce(&C) -> Result<P, Refusal>,
    ) -> Option<P> {
        match build(config?) {
            Ok(built) => Some(built),
            Err(Refusal { key, reason, remedy }) => {
                let set = self.set.to_owned();
                self.errors.push(BuildError { set, policy, key, reason, remedy });
                None
            }
        }
    }
}

fn unavailable(policy: PolicyKind) -> Denial {
    Denial {
        policy,
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "policy_unavailable",
        reason: "The policies of this route could not be loaded".into(),
    }
}

/// Reads the clock once between two policies, not twice around each.
struct Clock {
    started: Instant,
    last: Instant,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self { started: now, last: now }
    }

    /// Notes that a policy ran, whatever it said.
    fn settle(&mut self, policy: PolicyKind, verdict: Verdict, decision: &mut Decision) -> Verdict {
        let now = Instant::now();
        decision.ran.push(Ran { policy, took: now.duration_since(self.last) });
        self.last = now;
        verdict
    }

    /// Up to the end of the last policy.
    fn total(&self) -> Duration {
        self.last.duration_since(self.started)
    }
}

#[cfg(test)]
mod tests;
