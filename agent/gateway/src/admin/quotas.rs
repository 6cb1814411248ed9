//! `/admin/quotas`: what was used of each consumer's quota. Where nodes share them, of consumers
//! that this node has seen, with the counts of all nodes.

use std::borrow::Cow;

use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use stoa_policy::{
    moment::Moment,
    quota::{QuotaUsage, period_numbers},
};

use super::{Served, done, json_answer, not_found, number_of, only, value_of};
use crate::http::{Answer, problem::Problem};

/// In one answer, unless `limit` says otherwise.
const LISTED: usize = 1000;
const MOST_LISTED: usize = 10_000;

pub async fn answer(
    served: &Served,
    method: &Method,
    rest: &[&str],
    query: &str,
) -> Result<Answer, Problem> {
    let now = Moment::read();
    match rest {
        [] => {
            only(method, &Method::GET, "GET, HEAD")?;
            let offset = number_of(query, "offset", 0)?;
            let limit = number_of(query, "limit", LISTED)?.min(MOST_LISTED);
            let all = served.enforcement.outside.quotas.usage(now);
            let page: Vec<_> = all.into_iter().skip(offset).take(limit).collect();
            let page = with_shared(served, page, now).await?;
            Ok(json_answer(StatusCode::OK, &page.iter().map(show).collect()))
        }
        [id] => {
            only(method, &Method::GET, "GET, HEAD")?;
            let found = with_shared(served, vec![find(served, id, query, now)?], now).await?;
            let found = found.first().ok_or_else(|| not_found(unknown(id)))?;
            Ok(json_answer(StatusCode::OK, &show(found)))
        }
        [id, "reset"] => {
            only(method, &Method::POST, "POST")?;
            let found = find(served, id, query, now)?;
            if let Some(redis) = &served.enforcement.redis {
                redis.forget(&found.name, period_numbers(now)).await.map_err(|_| lost())?;
            }
            served.enforcement.outside.quotas.reset(&found.name, now);
            Ok(done(&format!("Quota reset for consumer '{id}'")))
        }
        _ => Err(not_found("there are quotas, quotas/CONSUMER and quotas/CONSUMER/reset".into())),
    }
}

/// The one that is meant: a consumer may have quotas by several policy sets, and in several
/// tenants.
fn find(served: &Served, id: &str, query: &str, now: Moment) -> Result<QuotaUsage, Problem> {
    let tenant = value_of(query, "tenant_id");
    let set = value_of(query, "policy_set");
    let mut all = served.enforcement.outside.quotas.usage(now);
    all.retain(|usage| {
        consumer_of(usage) == id
            && tenant.as_ref().is_none_or(|tenant| *tenant == usage.name.tenant)
            && set.as_ref().is_none_or(|set| *set == usage.name.set)
    });
    if all.len() > 1 {
        let candidates: Value = all
            .iter()
            .take(LISTED)
            .map(|usage| json!({"tenant_id": usage.name.tenant, "policy_set": usage.name.set}))
            .collect();
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "this consumer has several quotas: add ?tenant_id= and &policy_set= of one of `candidates`",
        )
        .with("candidates", candidates));
    }
    all.pop().ok_or_else(|| not_found(unknown(id)))
}

fn unknown(id: &str) -> String {
    let id: String = id.chars().take(100).flat_map(char::escape_debug).collect();
    format!("no request of a consumer `{id}` with a quota was counted here")
}

fn lost() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "Redis, where quotas are counted, does not answer; /health/ready says how it is",
    )
}

/// The counts of all nodes in place of this one's.
async fn with_shared(
    served: &Served,
    mut page: Vec<QuotaUsage>,
    now: Moment,
) -> Result<Vec<QuotaUsage>, Problem> {
    let Some(redis) = &served.enforcement.redis else { return Ok(page) };
    let names = page.iter().map(|usage| &usage.name);
    let used = redis.used(names, period_numbers(now)).await.map_err(|_| lost())?;
    for (usage, (day, month)) in page.iter_mut().zip(used) {
        usage.daily_count = day;
        usage.monthly_count = month;
    }
    Ok(page)
}

/// `consumer:NAME` is NAME; what has no name is called by what it is.
fn consumer_of(usage: &QuotaUsage) -> Cow<'_, str> {
    match usage.name.subject.strip_prefix("consumer:") {
        Some(name) => percent_decode_str(name).decode_utf8_lossy(),
        None if usage.name.subject == "tenant" => format!("tenant:{}", usage.name.tenant).into(),
        None => usage.name.subject.as_str().into(),
    }
}

fn show(usage: &QuotaUsage) -> Value {
    // 0 is unlimited, and nothing is left of that; `null`: not counted since the start.
    let left = |limit: u64, used: u64| (limit > 0).then(|| limit.saturating_sub(used));
    let limits = usage.limits;
    json!({
        "consumer_id": consumer_of(usage),
        "tenant_id": usage.name.tenant,
        "policy_set": usage.name.set,
        "daily_count": usage.daily_count,
        "daily_limit": limits.map(|limits| limits.requests_per_day),
        "daily_remaining": limits.and_then(|l| left(l.requests_per_day, usage.daily_count)),
        "monthly_count": usage.monthly_count,
        "monthly_limit": limits.map(|limits| limits.requests_per_month),
        "monthly_remaining": limits.and_then(|l| left(l.requests_per_month, usage.monthly_count)),
    })
}
