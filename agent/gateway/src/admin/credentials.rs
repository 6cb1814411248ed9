//! What is remembered of credentials: `/admin/cache`, tokens that were verified; `/admin/mtls`,
//! client certificates.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

use http::{Method, StatusCode};
use serde_json::json;

use super::{Served, done, json_answer, not_found, only};
use crate::http::{Answer, problem::Problem};

pub fn answer_cache(served: &Served, method: &Method, rest: &[&str]) -> Result<Answer, Problem> {
    let outside = &served.enforcement.outside;
    match rest {
        ["stats"] => {
            only(method, &Method::GET, "GET, HEAD")?;
            let stats = outside.tokens.stats();
            let asked = stats.hits + stats.misses;
            let rate = if asked == 0 { 0.0 } else { stats.hits as f64 / asked as f64 };
            Ok(json_answer(
                StatusCode::OK,
                &json!({
                    "hits": stats.hits,
                    "misses": stats.misses,
                    "entry_count": stats.entries,
                    "hit_rate": (rate * 1000.0).round() / 1000.0,
                }),
            ))
        }
        ["clear"] => {
            only(method, &Method::POST, "POST")?;
            // With the keys: whoever clears because a key was withdrawn means them too.
            outside.keys.refetch();
            outside.tokens.forget();
            Ok(done("Cache cleared"))
        }
        _ => Err(not_found("there are cache/stats and cache/clear".to_owned())),
    }
}

pub fn answer_mtls(served: &Served, method: &Method, rest: &[&str]) -> Result<Answer, Problem> {
    only(method, &Method::GET, "GET, HEAD")?;
    match rest {
        ["config"] => {
            let catalog = served.live.current();
            let (mut is_enabled, mut is_required, mut trusts_proxies) = (false, false, false);
            let (mut requires_binding, mut paths) = (false, BTreeSet::new());
            for identity in catalog.engine.identities() {
                let Some(mtls) = identity.certificates() else { continue };
                is_enabled = true;
                is_required |= identity.requires_certificate();
                trusts_proxies |= mtls.trusts_proxies();
                requires_binding |= mtls.requires_binding();
                paths.extend(mtls.required_paths().map(str::to_owned));
            }
            Ok(json_answer(
                StatusCode::OK,
                &json!({
                    "enabled": is_enabled,
                    "require_client_cert": is_required,
                    "require_binding": requires_binding,
                    "required_routes": paths,
                    "trusted_proxies": if trusts_proxies { json!("[redacted]") } else { json!([]) },
                }),
            ))
        }
        ["stats"] => {
            let tally = &served.enforcement.outside.certificates;
            let [validated, missing, invalid] =
                [&tally.validated, &tally.missing, &tally.invalid].map(|count| count.load(Relaxed));
            Ok(json_answer(
                StatusCode::OK,
                &json!({
                    "total_requests": validated + missing + invalid,
                    "cert_validated": validated,
                    "cert_missing": missing,
                    "cert_invalid": invalid,
                }),
            ))
        }
        _ => Err(not_found("there are mtls/config and mtls/stats".to_owned())),
    }
}
