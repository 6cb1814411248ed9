//! An upstream has one circuit breaker, whichever routes lead to it.

use std::sync::Arc;

use stoa_policy::engine::Engine;

use super::{
    compile::Fault,
    routes::{Action, RouteTable},
    upstreams::Upstream,
};

/// Two sets that would break the circuit to one upstream differently would each begin it anew with
/// every request of the other.
pub(super) fn refuse_contradictions(
    routes: &RouteTable,
    upstreams: &[Arc<Upstream>],
    engine: &Engine,
) -> Result<(), Fault> {
    let mut known = vec![None; upstreams.len()];
    for route in &routes.all {
        let Action::Forward(backends) = &route.action else { continue };
        let Some(config) = route.policies.and_then(|set| engine.breaker_config(set)) else {
            continue;
        };
        for backend in backends {
            let Some(place) = known.get_mut(backend.upstream) else { continue };
            match place {
                None => *place = Some((config, &route.name)),
                Some((other, _)) if *other == config => {}
                Some((_, earlier)) => {
                    let upstream = upstreams.get(backend.upstream).map_or("", |u| &u.name);
                    let reason = format!(
                        "`{}` leads to upstream `{upstream}` with another `circuit_breaker` than \
                         route `{earlier}` does; give both policy sets the same one",
                        route.name
                    );
                    return Err(("routes".to_owned(), reason));
                }
            }
        }
    }
    Ok(())
}
