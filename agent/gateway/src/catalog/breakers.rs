//! An upstream has one circuit breaker, whichever routes lead to it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use stoa_policy::{circuit_breaker::CircuitBreakerConfig, engine::Engine};

use super::{
    compile::Fault,
    routes::{Action, RouteTable},
    upstreams::Upstream,
};

/// By upstream.
pub type BreakerConfigs = HashMap<Arc<str>, CircuitBreakerConfig>;

/// Refuses two sets that would break the circuit to one upstream differently: each would begin it
/// anew with every request of the other, and it would never open.
pub(super) fn collect(
    routes: &RouteTable,
    upstreams: &[Arc<Upstream>],
    engine: &Engine,
) -> Result<BreakerConfigs, Fault> {
    let mut configs = BreakerConfigs::new();
    for route in &routes.all {
        let Action::Forward(backends) = &route.action else { continue };
        let Some(config) = route.policies.and_then(|set| engine.breaker_config(set)) else {
            continue;
        };
        for upstream in backends.iter().filter_map(|backend| upstreams.get(backend.upstream)) {
            match configs.entry(Arc::clone(&upstream.name)) {
                Entry::Vacant(place) => {
                    place.insert(config);
                }
                Entry::Occupied(known) if *known.get() == config => {}
                Entry::Occupied(_) => {
                    let reason = format!(
                        "`{}` leads to upstream `{}` with another `circuit_breaker` than an \
                         earlier route; give both policy sets the same one",
                        route.name, upstream.name
                    );
                    return Err(("routes".to_owned(), reason));
                }
            }
        }
    }
    Ok(configs)
}
