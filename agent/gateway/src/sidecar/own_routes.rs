//! `/health*` and `/metrics` of the mode.

use std::sync::Arc;

use http::{Method, StatusCode};
use prometheus::{
    IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::{Bucket, Histogram, Metric, MetricFamily, MetricType},
};
use serde_json::json;

use super::counters::{self, BUCKETS, Counters, Totals};
use crate::{
    admin::Admin,
    catalog::live::LiveCatalog,
    drain::Watcher,
    enforcement::Enforcement,
    http::{Answer, json_answer, problem::Problem, with_type},
    redirect,
    telemetry::{Telemetry, policy_metrics},
};

/// Shared by the workers: nothing here is on the path of a decision.
pub struct OwnRoutes {
    pub live: Arc<LiveCatalog>,
    pub enforcement: Arc<Enforcement>,
    /// One for each worker.
    pub counters: Vec<Arc<Counters>>,
    pub drain: Watcher,
    pub steering: Arc<redirect::Metrics>,
    pub telemetry: Telemetry,
    pub admin: Arc<Admin>,
}

impl OwnRoutes {
    /// `None`: there is no such path.
    pub fn answer(&self, method: &Method, path: &str) -> Option<Answer> {
        let answer = match path {
            "/health" | "/health/live" => Self::live,
            "/health/ready" | "/ready" => Self::ready,
            "/metrics" => Self::metrics,
            _ => return None,
        };
        Some(match *method {
            Method::GET | Method::HEAD => answer(self),
            _ => Problem::method_not_allowed("GET, HEAD").into_response(),
        })
    }

    fn live(&self) -> Answer {
        health(StatusCode::OK, "ok", json!({}))
    }

    /// A configuration that could not be reloaded is said here, while the one before still decides.
    fn ready(&self) -> Answer {
        let status = self.live.status();
        let is_draining = self.drain.is_draining();
        let checks = json!({
            "policies": true,
            "configuration": status.failure.is_none(),
            "accepting": !is_draining,
            "configuration_failure": status.failure,
            "needs_restart": status.needs_restart,
            "components": self.enforcement.components(),
        });
        match is_draining {
            false => health(StatusCode::OK, "ready", checks),
            true => health(StatusCode::SERVICE_UNAVAILABLE, "not ready", checks),
        }
    }

    fn metrics(&self) -> Answer {
        match self.render() {
            Ok(text) => with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
            Err(error) => {
                tracing::error!(%error, "metrics");
                let detail = "the metrics could not be gathered";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
            }
        }
    }

    fn render(&self) -> Result<String, prometheus::Error> {
        let registry = Registry::new();
        let totals = counters::sum(&self.counters);
        let decisions = IntCounterVec::new(
            Opts::new("stoa_decisions_total", "Decisions, by how they were asked for"),
            &["format", "outcome", "policy"],
        )?;
        registry.register(Box::new(decisions.clone()))?;
        for (format, policy, count) in &totals.decisions {
            let (outcome, policy) = match policy {
                None => ("allowed", "none"),
                Some(policy) => ("denied", policy.name()),
            };
            decisions.with_label_values(&[format.name(), outcome, policy]).inc_by(*count);
        }
        let refused = IntCounterVec::new(
            Opts::new(
                "stoa_decision_questions_refused_total",
                "Questions that were not put to the policies, by reason",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        for (reason, count) in &totals.refused {
            refused.with_label_values(&[reason.name()]).inc_by(*count);
        }
        registry.register(Box::new(Took::new(&totals)?))?;
        let status = self.live.status();
        let reloads = IntCounterVec::new(
            Opts::new("stoa_route_reload_total", "Reloads of the configuration"),
            &["trigger", "result"],
        )?;
        registry.register(Box::new(reloads.clone()))?;
        reloads.with_label_values(&["file", "ok"]).inc_by(status.reloads);
        reloads.with_label_values(&["file", "failed"]).inc_by(status.failed_reloads);
        let is_current = IntGauge::new(
            "stoa_configuration_current",
            "1 while what the files say is in force, 0 while an earlier configuration is kept",
        )?;
        is_current.set(i64::from(status.failure.is_none()));
        registry.register(Box::new(is_current))?;
        let needs_restart = IntGauge::new(
            "stoa_config_restart_needed",
            "1 while the files say something that only a restart brings into force",
        )?;
        needs_restart.set(i64::from(!status.needs_restart.is_empty()));
        registry.register(Box::new(needs_restart))?;
        let mut text = TextEncoder::new().encode_to_string(&registry.gather())?;
        let mut policies = self.steering.policies();
        policies.combine(&totals.policies);
        policy_metrics::render(&mut text, &policies, &self.enforcement);
        text.push_str(&self.steering.render());
        self.admin.gate.render(&mut text);
        self.telemetry.render(&mut text);
        Ok(text)
    }
}

/// The histogram that the workers have kept.
struct Took {
    desc: Desc,
    family: MetricFamily,
}

impl Took {
    fn new(totals: &Totals) -> Result<Self, prometheus::Error> {
        const NAME: &str = "stoa_decision_duration_seconds";
        const HELP: &str = "Time in the policies";
        let mut histogram = Histogram::default();
        histogram.set_sample_count(totals.decided);
        histogram.set_sample_sum(totals.took_microseconds as f64 / 1e6);
        let buckets = BUCKETS.iter().zip(&totals.took).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / 1e6);
            bucket.set_cumulative_count(*count);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(NAME.to_owned());
        family.set_help(HELP.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        let desc = Desc::new(NAME.to_owned(), HELP.to_owned(), Vec::new(), Default::default())?;
        Ok(Self { desc, family })
    }
}

impl Collector for Took {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        vec![self.family.clone()]
    }
}

fn health(status: StatusCode, word: &str, checks: serde_json::Value) -> Answer {
    let body = json!({
        "status": word,
        "mode": "sidecar",
        "version": env!("CARGO_PKG_VERSION"),
        "checks": checks,
    });
    json_answer(status, &body)
}
