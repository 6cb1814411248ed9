//! Decisions, taken from statistics each time a contract is rendered, so that later traffic can
//! unmake them.

mod components;
mod confidence;
mod evidence;
mod files;
mod formats;
pub(crate) mod likeness;
mod model;
mod names;
mod operation;
mod schema;
mod security;
pub(crate) mod templates;

#[cfg(test)]
mod component_tests;
#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod sibling_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use model::*;

use crate::knowledge::ServiceKnowledge;

/// How decisions are taken.
#[derive(Clone, Debug)]
pub struct InferOptions {
    /// The name of the service, for titles.
    pub service: String,
    /// Successful samples below which nothing is called required.
    pub min_required_samples: u64,
    /// Samples below which nothing is called an enumeration.
    pub min_enum_samples: u64,
}

impl Default for InferOptions {
    fn default() -> Self {
        Self { service: "service".to_owned(), min_required_samples: 10, min_enum_samples: 20 }
    }
}

/// Decides a contract from statistics. The same knowledge gives the same contract.
pub fn infer(knowledge: &ServiceKnowledge, options: &InferOptions) -> Contract {
    let stats = &knowledge.stats;
    let decided = templates::decide(stats);
    let mut schemes = security::Schemes::default();
    let mut taken_ids = BTreeSet::new();
    let mut operations = Vec::new();
    for place in &decided.places {
        let template = operation::Template::of(place, options);
        for (method, endpoint) in &place.methods {
            let detail = endpoint.detail(stats);
            if operation::is_operation(*method, &detail, place) {
                operations.push(operation::build(
                    &template,
                    *method,
                    (&endpoint.stats, &detail),
                    &mut schemes,
                    &mut taken_ids,
                    options,
                ));
            }
        }
    }
    operations.sort_by(|a, b| (&a.template, a.method).cmp(&(&b.template, b.method)));
    let components = components::share(&mut operations);
    let mut servers: Vec<(u64, String)> =
        stats.origins.iter().map(|(o, n)| (n, o.as_str().to_owned())).collect();
    servers.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    Contract {
        service: options.service.clone(),
        version: "1.0.0".to_owned(),
        servers: servers.into_iter().map(|(_, origin)| origin).collect(),
        confidence: confidence::contract(&operations),
        operations,
        components,
        security_schemes: schemes.found,
        tally: Tally {
            exchanges: stats.exchanges,
            complete: stats.complete,
            passed_over: stats.passed_over,
            bytes_lost: stats.bytes_lost,
            preflights: stats.preflights,
            unmatched: decided.unmatched,
            withheld: decided.withheld,
            undecided: decided.undecided,
            coarseness: stats.level.max(stats.detail_level),
            personal: stats.personal.clone(),
        },
        provenance: Provenance {
            samples: stats.exchanges,
            complete: stats.complete,
            bytes_lost: stats.bytes_lost,
            first_seen: stats.first_seen.unwrap_or_default(),
            last_seen: stats.last_seen.unwrap_or_default(),
        },
    }
}
