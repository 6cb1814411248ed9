//! Puts a question to the policies of the current configuration.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use stoa_policy::{
    decision::{Decision, Denial, PolicyKind},
    engine::{Engine, SetId},
};

use super::{
    answer::Decided,
    counters::{Counters, Format, Refused},
    identity_headers::Names,
    observing,
    question::Question,
    request_id::RequestIds,
};
use crate::{
    catalog::{Catalog, live::CatalogReader},
    proxy::random::Random,
    telemetry::Telemetry,
};

/// The set that decides where the question names none.
pub const DEFAULT_SET: &str = "default";

/// A decision waits only for keys that are being fetched or a remote OPA; a gateway that asks
/// would not wait for longer.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);

/// One worker's.
pub struct Decider {
    catalog: RefCell<CatalogReader>,
    pub names: Arc<Names>,
    pub counters: Arc<Counters>,
    telemetry: Telemetry,
    random: Random,
    ids: RequestIds,
    under_way: Cell<usize>,
    most: usize,
}

/// Too many questions are under way on this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

impl Decider {
    /// `most` questions are under way at once; more are refused, since a gateway whose questions
    /// queue makes its clients wait for nothing.
    pub fn new(
        catalog: CatalogReader,
        names: Arc<Names>,
        counters: Arc<Counters>,
        telemetry: Telemetry,
        most: usize,
    ) -> Self {
        let (ids, under_way) = (RequestIds::default(), Cell::new(0));
        let (catalog, random) = (RefCell::new(catalog), Random::default());
        Self { catalog, names, counters, telemetry, random, ids, under_way, most }
    }

    pub async fn decide(&self, format: Format, question: &Question) -> Result<Decided, Overloaded> {
        let _turn = self.take_turn()?;
        let catalog = self.current();
        let name = question.place.policy_set.as_deref().unwrap_or(DEFAULT_SET);
        let decision = match catalog.engine.find(name) {
            Some(set) => self.ask(&catalog.engine, set, question).await,
            None => denied(
                StatusCode::SERVICE_UNAVAILABLE,
                "policy_set_unknown",
                "The policies of this route are not configured",
            ),
        };
        self.counters.decided(format, &decision);
        let decided = Decided { decision, request_id: self.ids.of(&question.headers) };
        observing::tell(&self.telemetry, &self.random, format, question, &decided);
        Ok(decided)
    }

    /// Kept while a question is under way, whatever is reloaded meanwhile.
    fn current(&self) -> Arc<Catalog> {
        let mut reader = self.catalog.borrow_mut();
        reader.refresh();
        Arc::clone(reader.catalog())
    }

    async fn ask(&self, engine: &Engine, set: SetId, question: &Question) -> Decision {
        let mut context = question.context_without_body();
        context.body = question.body_for(engine.body_need(set, &context));
        let deciding = engine.decide(set, &context);
        let Ok(mut decision) = tokio::time::timeout(DECIDED_WITHIN, deciding).await else {
            self.counters.refused(Refused::TimedOut);
            return denied(
                StatusCode::SERVICE_UNAVAILABLE,
                "decision_timed_out",
                "The decision took too long",
            );
        };
        // An identity that the upstream would not learn of is not let through as nobody.
        let is_tellable = decision.identity.as_deref().is_none_or(Names::is_tellable);
        if decision.is_allowed() && !is_tellable {
            decision.denial = Some(denial(
                StatusCode::FORBIDDEN,
                "identity_unprintable",
                "The user's name cannot be written in a header",
            ));
        }
        decision
    }

    fn take_turn(&self) -> Result<Turn<'_>, Overloaded> {
        if self.under_way.get() >= self.most {
            self.counters.refused(Refused::Overloaded);
            return Err(Overloaded);
        }
        self.under_way.set(self.under_way.get() + 1);
        Ok(Turn(&self.under_way))
    }
}

/// Given back when the answer is there, or when nobody waits for it any more.
struct Turn<'a>(&'a Cell<usize>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

fn denied(status: StatusCode, code: &'static str, reason: &'static str) -> Decision {
    Decision { denial: Some(denial(status, code, reason)), ..Decision::default() }
}

fn denial(status: StatusCode, code: &'static str, reason: &'static str) -> Denial {
    Denial { policy: PolicyKind::Identity, status, code, reason: Cow::Borrowed(reason) }
}
