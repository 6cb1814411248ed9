//! A request's span while it lasts.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Method;
use stoa_policy::decision::Decision;

use super::{
    context::Context,
    span::{Attribute, Kind, Step},
};

#[derive(Clone, Debug)]
pub struct Active {
    pub context: Context,
    /// What is the parent of the upstream's span: ours, or the one of the call.
    pub call: u64,
    pub kind: Kind,
    /// Where a call of a workload goes.
    pub server: Option<SocketAddr>,
    pub scheme: &'static str,
    /// Of HTTP.
    pub version: &'static str,
    /// The pattern of the configuration that the request has matched.
    pub route: Option<Arc<str>>,
    pub steps: Vec<Step>,
}

impl Active {
    pub fn new(context: Context) -> Self {
        Self {
            context,
            call: context.span,
            kind: Kind::Server,
            server: None,
            scheme: "http",
            version: "1.1",
            route: None,
            steps: Vec::new(),
        }
    }

    /// Whether steps have spans of their own.
    pub fn has_steps(&self) -> bool {
        self.call != self.context.span
    }

    /// `after`: how long the request lasted before it was decided.
    pub fn add_policies(&mut self, after: Duration, decision: &Decision, random: impl Fn() -> u64) {
        if !self.has_steps() {
            return;
        }
        let mut after = after;
        for ran in &decision.ran {
            let is_denied = decision.denial.as_ref().is_some_and(|by| by.policy == ran.policy);
            let verdict = if is_denied { "deny" } else { "allow" };
            self.steps.push(Step {
                id: random().max(1),
                name: "policy",
                kind: Kind::Internal,
                after,
                took: ran.took,
                attributes: vec![
                    ("stoa.policy.name", Attribute::Fixed(ran.policy.name())),
                    ("stoa.policy.verdict", Attribute::Fixed(verdict)),
                ],
                is_error: false,
            });
            after += ran.took;
        }
    }
}

/// Others are `_OTHER` by the conventions: a client may send any.
pub fn known_method(method: &Method) -> Attribute {
    Attribute::Fixed(match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "CONNECT" => "CONNECT",
        _ => "_OTHER",
    })
}
