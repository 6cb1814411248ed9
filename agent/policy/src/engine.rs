//! Runs the policies of a set in their order.

use std::{collections::BTreeMap, time::Instant};

use crate::{config::Policies, context::RequestContext, decision::Decision};

/// Names a set in the engine that gave it; not valid for another engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetId(usize);

/// What must be read of a request's body before the policies can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyNeed {
    None,
    /// Whole, up to so many bytes; a longer one is refused or passes unread, as configured.
    UpTo(usize),
}

/// The policies of one configuration; replaced whole when it changes.
#[derive(Debug, Default)]
pub struct Engine {
    names: BTreeMap<String, SetId>,
}

impl Engine {
    pub fn build(policies: &Policies) -> Self {
        let names = policies.keys().enumerate().map(|(i, name)| (name.clone(), SetId(i))).collect();
        Self { names }
    }

    pub fn find(&self, name: &str) -> Option<SetId> {
        self.names.get(name).copied()
    }

    pub fn body_need(&self, _set: SetId) -> BodyNeed {
        BodyNeed::None
    }

    /// Never waits unless a policy needs an answer from outside that is not at hand.
    pub async fn decide(&self, _set: SetId, _request: &RequestContext<'_>) -> Decision {
        let started = Instant::now();
        Decision { took: started.elapsed(), ..Decision::default() }
    }
}
