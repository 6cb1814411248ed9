//! Plans: named limits and quotas that consumers subscribe to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Refusal;

/// What a consumer of a plan may do. 0 is unlimited, as in STOA's `PlanQuota`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    #[serde(alias = "rate_limit_per_second")]
    pub requests_per_second: u64,
    #[serde(alias = "rate_limit_per_minute")]
    pub requests_per_minute: u64,
    /// Requests at once; 0: as many as the limit.
    #[serde(alias = "burst_limit")]
    pub burst: u64,
    #[serde(alias = "daily_request_limit")]
    pub requests_per_day: u64,
    #[serde(alias = "monthly_request_limit")]
    pub requests_per_month: u64,
}

const fn plan(second: u64, minute: u64, day: u64, month: u64) -> Plan {
    Plan {
        requests_per_second: second,
        requests_per_minute: minute,
        burst: 0,
        requests_per_day: day,
        requests_per_month: month,
    }
}

/// What a consumer without a plan gets: `PlanQuota`'s defaults, and what
/// `STOA_QUOTA_DEFAULT_RATE_PER_MINUTE` and `STOA_QUOTA_DEFAULT_DAILY_LIMIT` change.
pub const STANDARD: Plan = plan(0, 60, 10_000, 0);

/// The name of the plan for consumers whose own plan is not known.
pub const STANDARD_NAME: &str = "standard";

/// Plans by name. Names are compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plans(BTreeMap<String, Plan>);

impl Default for Plans {
    /// The published plans.
    fn default() -> Self {
        Self(BTreeMap::from([
            (STANDARD_NAME.to_owned(), STANDARD),
            ("community".to_owned(), plan(5, 60, 10_000, 100_000)),
            ("silver".to_owned(), plan(20, 300, 50_000, 1_000_000)),
            ("gold".to_owned(), plan(100, 5_000, 500_000, 10_000_000)),
        ]))
    }
}

impl Plans {
    /// The published plans, those in `configured` added or replaced.
    pub fn with(configured: &BTreeMap<String, Plan>) -> Self {
        let mut plans = Self::default();
        for (name, plan) in configured {
            plans.0.insert(name.to_ascii_lowercase(), *plan);
        }
        plans
    }

    /// With another plan of that name.
    #[must_use]
    pub fn replaced(mut self, name: &str, plan: Plan) -> Self {
        self.0.insert(name.to_ascii_lowercase(), plan);
        self
    }

    pub fn find(&self, name: &str) -> Option<(&str, &Plan)> {
        let found = match self.0.get_key_value(name) {
            Some(found) => found,
            None => self.0.get_key_value(name.to_ascii_lowercase().as_str())?,
        };
        Some((found.0.as_str(), found.1))
    }

    /// The plan called `name`, or the standard one where there is none of that name.
    pub fn of(&self, name: Option<&str>) -> (&str, &Plan) {
        name.and_then(|name| self.find(name))
            .or_else(|| self.find(STANDARD_NAME))
            .unwrap_or((STANDARD_NAME, &STANDARD))
    }

    /// The plan that a policy names for consumers without one of their own, as this calls it.
    /// `limits_consumer`: the policy has limits of its own for them.
    pub(crate) fn named_by_policy(
        &self,
        name: Option<&str>,
        limits_consumer: bool,
    ) -> Result<Option<&str>, Refusal> {
        let Some(name) = name else { return Ok(None) };
        if limits_consumer {
            let reason = "limits the consumer, and `consumer` does so too";
            return Err(Refusal::new("plan", reason, "remove one of them"));
        }
        let Some((found, _)) = self.find(name) else {
            let known: Vec<&str> = self.iter().map(|(name, _)| name).collect();
            return Err(Refusal::new(
                "plan",
                format!("there is no plan `{name}`"),
                format!("add it under `plans`, or use one of {}", known.join(", ")),
            ));
        };
        Ok(Some(found))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Plan)> {
        self.0.iter().map(|(name, plan)| (name.as_str(), plan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_plans_are_there_and_can_be_replaced() {
        let own = BTreeMap::from([("Gold".to_owned(), plan(1, 2, 3, 4))]);
        let plans = Plans::with(&own);
        assert_eq!(plans.of(Some("GOLD")), ("gold", &plan(1, 2, 3, 4)));
        assert_eq!(plans.of(Some("silver")).1.requests_per_minute, 300);
        assert_eq!(plans.of(Some("unheard of")), (STANDARD_NAME, &STANDARD));
        assert_eq!(plans.of(None).1.requests_per_day, 10_000);
    }

    #[test]
    fn a_plan_is_read_under_both_spellings() {
        let ours = r#"{"requests_per_second": 5, "burst": 9}"#;
        let theirs = r#"{"rate_limit_per_second": 5, "burst_limit": 9}"#;
        let read = |text| serde_json::from_str::<Plan>(text).unwrap();
        assert_eq!(read(ours), read(theirs));
        assert!(serde_json::from_str::<Plan>(r#"{"per_hour": 1}"#).is_err());
    }
}
