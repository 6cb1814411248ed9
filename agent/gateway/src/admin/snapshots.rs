//! `/admin/snapshots`: exchanges that failed, masked.

use http::{Method, StatusCode};
use serde_json::json;

use super::{json_answer, not_found, number_of, only};
use crate::{
    http::{Answer, problem::Problem},
    telemetry::snapshots::Snapshots,
};

const LIMIT: usize = 20;
const MOST: usize = 1000;

pub fn answer(
    snapshots: Option<&Snapshots>,
    method: &Method,
    rest: &[&str],
    query: &str,
) -> Result<Answer, Problem> {
    let snapshots = snapshots.ok_or_else(|| {
        not_found("no error snapshots are taken; STOA_SNAPSHOT_ENABLED=true takes them".to_owned())
    })?;
    match rest {
        [] if *method == Method::DELETE => {
            Ok(json_answer(StatusCode::OK, &json!({ "cleared": snapshots.clear() })))
        }
        [] => {
            only(method, &Method::GET, "GET, HEAD, DELETE")?;
            let limit = number_of(query, "limit", LIMIT)?;
            if limit > MOST {
                let reason = format!("`limit` is {limit}, and at most {MOST} are shown at once");
                return Err(Problem::new(StatusCode::BAD_REQUEST, reason).with("field", "limit"));
            }
            let offset = number_of(query, "offset", 0)?;
            let (newest, total) = snapshots.list(limit, offset);
            Ok(json_answer(
                StatusCode::OK,
                &json!({
                    "snapshots": newest,
                    "total": total,
                    "limit": limit,
                    "offset": offset,
                }),
            ))
        }
        [request_id] => {
            only(method, &Method::GET, "GET, HEAD")?;
            let found = snapshots.find(request_id).ok_or_else(|| {
                not_found("no snapshot of that request is kept, or not any more".to_owned())
            })?;
            Ok(json_answer(StatusCode::OK, &found))
        }
        _ => Err(not_found("there are snapshots and snapshots/REQUEST_ID".to_owned())),
    }
}
