//! Numbers of the data path. Each worker writes its own; a scrape adds them up.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use stoa_policy::connection_filter::Refused;

use crate::telemetry::{
    counter::Counter,
    policy_tally::{PolicyTally, PolicyTotals},
};

/// Upper bounds of the duration buckets, in microseconds; one more is without bound.
pub const BUCKETS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// Of one route and worker.
#[derive(Debug, Default)]
pub struct RouteCounters {
    /// Answers by the first digit of their status, 1 to 5.
    pub classes: [Counter; 5],
    pub buckets: [Counter; BUCKETS.len() + 1],
    pub microseconds: Counter,
    /// Of WebSocket connections whose messages are limited: messages that passed, and connections
    /// that were closed because they carried too many; from the client, and to it.
    pub messages: [Counter; 2],
    pub too_many: [Counter; 2],
}

impl RouteCounters {
    pub fn count(&self, status: StatusCode, took: Duration) {
        self.classes[class_of(status)].add(1);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.add(microseconds);
        self.buckets[bucket_of(microseconds)].add(1);
    }
}

/// Below 5.
pub fn class_of(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, 5) - 1
}

/// At most the number of bounds.
pub fn bucket_of(microseconds: u64) -> usize {
    BUCKETS.partition_point(|bound| *bound < microseconds)
}

/// Of one worker.
#[derive(Debug, Default)]
pub struct Counters {
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteCounters>>>,
    /// Reasons for which it was not the upstream that answered.
    failures: Mutex<BTreeMap<&'static str, u64>>,
    pub policies: PolicyTally,
    pub unrouted: RouteCounters,
    pub connections: Counter,
    pub connections_refused: Counter,
    /// Before TLS; in the order of `Refused::ALL`.
    refused: [Counter; Refused::ALL.len()],
    pub tls_failures: Counter,
    pub refused_heads: Counter,
    /// Answers that the client did not get whole.
    pub cut_off: Counter,
    pub retries: Counter,
    pub tunnels: Counter,
    pub mirrored: Counter,
    pub mirrors_dropped: Counter,
    pub idle_connections: Counter,
    pub busy_connections: Counter,
}

impl Counters {
    /// Those of the route by this name; they go on over reloads.
    pub fn route(&self, name: &Arc<str>) -> Arc<RouteCounters> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(Arc::clone(name)).or_default())
    }

    pub fn refuse(&self, refused: Refused) {
        let reasons = Refused::ALL.iter().zip(&self.refused);
        reasons.filter(|(reason, _)| **reason == refused).for_each(|(_, counter)| counter.add(1));
    }

    /// `reason` is one of the few codes that this build has.
    pub fn failure(&self, reason: &'static str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(reason).or_default() += 1;
    }
}

/// All workers'.
#[derive(Debug, Default)]
pub struct Registry {
    workers: Mutex<Vec<Arc<Counters>>>,
}

/// Sums over the workers.
#[derive(Debug, Default)]
pub struct Totals {
    pub routes: BTreeMap<Arc<str>, RouteTotals>,
    pub failures: BTreeMap<&'static str, u64>,
    /// Connections that were refused before TLS, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// By metric name.
    pub counts: BTreeMap<&'static str, u64>,
    pub policies: PolicyTotals,
}

#[derive(Debug, Default)]
pub struct RouteTotals {
    pub classes: [u64; 5],
    pub buckets: [u64; BUCKETS.len() + 1],
    pub microseconds: u64,
    pub messages: [u64; 2],
    pub too_many: [u64; 2],
}

impl RouteTotals {
    fn add(&mut self, counters: &RouteCounters) {
        for (total, counter) in self.classes.iter_mut().zip(&counters.classes) {
            *total += counter.get();
        }
        for (total, counter) in self.buckets.iter_mut().zip(&counters.buckets) {
            *total += counter.get();
        }
        self.microseconds += counters.microseconds.get();
        for (total, counter) in
            [(&mut self.messages, &counters.messages), (&mut self.too_many, &counters.too_many)]
        {
            total.iter_mut().zip(counter).for_each(|(total, counter)| *total += counter.get());
        }
    }
}

impl Registry {
    pub fn add_worker(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counters));
        counters
    }

    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for worker in &workers {
            let routes = worker.routes.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, counters) in routes.iter() {
                totals.routes.entry(Arc::clone(name)).or_default().add(counters);
            }
            totals.policies.add(&worker.policies);
            totals.routes.entry("".into()).or_default().add(&worker.unrouted);
            for (reason, count) in
                worker.failures.lock().unwrap_or_else(PoisonError::into_inner).iter()
            {
                *totals.failures.entry(reason).or_default() += count;
            }
            for (reason, counter) in Refused::ALL.iter().zip(&worker.refused) {
                *totals.refused.entry(reason.name()).or_default() += counter.get();
            }
            for (name, counter) in [
                ("stoa_proxy_connections_total", &worker.connections),
                ("stoa_proxy_connections_refused_total", &worker.connections_refused),
                ("stoa_proxy_tls_failures_total", &worker.tls_failures),
                ("stoa_proxy_refused_heads_total", &worker.refused_heads),
                ("stoa_proxy_cut_off_total", &worker.cut_off),
                ("stoa_proxy_retries_total", &worker.retries),
                ("stoa_proxy_tunnels_total", &worker.tunnels),
                ("stoa_proxy_mirrored_total", &worker.mirrored),
                ("stoa_proxy_mirrors_dropped_total", &worker.mirrors_dropped),
                ("stoa_proxy_upstream_connections_idle", &worker.idle_connections),
                ("stoa_proxy_upstream_requests_active", &worker.busy_connections),
            ] {
                *totals.counts.entry(name).or_default() += counter.get();
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let registry = Registry::default();
        let name: Arc<str> = "orders".into();
        for worker in [registry.add_worker(), registry.add_worker()] {
            worker.route(&name).count(StatusCode::OK, Duration::from_micros(250));
            worker.route(&name).count(StatusCode::BAD_GATEWAY, Duration::from_secs(3600));
            worker.failure("upstream_closed");
            worker.retries.add(2);
        }
        let totals = registry.totals();
        let route = &totals.routes[&name];
        assert_eq!(route.classes, [0, 2, 0, 0, 2]);
        assert_eq!((route.buckets[0], route.buckets[BUCKETS.len()]), (2, 2));
        assert_eq!(totals.failures["upstream_closed"], 2);
        assert_eq!(totals.counts["stoa_proxy_retries_total"], 4);
    }
}
