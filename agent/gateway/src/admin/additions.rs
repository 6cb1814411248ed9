//! `/admin/apis` and `/admin/policies`: what is added to the file's configuration.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Served, failed, json_answer, no_content, not_found, only};
use crate::{
    catalog::{
        additions::{Additions, Api, Policy, Refused},
        live::ChangeError,
    },
    http::{Answer, problem::Problem},
};

pub async fn answer(
    served: &Served,
    method: &Method,
    kind: &str,
    rest: &[&str],
    body: Option<Value>,
) -> Result<Answer, Problem> {
    match (kind, rest, body) {
        ("apis", [], Some(body)) => {
            let api: Api = read(body)?;
            let api = api.complete(&served.tenant).map_err(refuse)?;
            let shown = json!(api);
            put(served, shown, move |all| all.put_api(api)).await
        }
        ("policies", [], Some(body)) => {
            let policy = read::<Policy>(body)?.complete().map_err(refuse)?;
            let shown = policy.clone();
            let was_there = change(served, move |all| all.put_policy(policy)).await?;
            Ok(put_answer(was_there, &show(&shown, &served.live.additions())))
        }
        (_, [], None) => {
            only(method, &Method::GET, "GET, HEAD, POST")?;
            let all = served.live.additions();
            let list: Value = match kind {
                "apis" => all.apis.values().map(|api| json!(api)).collect(),
                _ => all.policies.values().map(|policy| show(policy, &all)).collect(),
            };
            Ok(json_answer(StatusCode::OK, &list))
        }
        (_, [id], None) if *method == Method::DELETE => {
            let (id, is_api) = ((*id).to_owned(), kind == "apis");
            let known = served.live.additions();
            let is_known = known.apis.contains_key(&id) && is_api
                || known.policies.contains_key(&id) && !is_api;
            if !is_known {
                return Err(unknown(kind));
            }
            let was_there = change(served, move |all| {
                Ok(match is_api {
                    true => all.apis.remove(&id).is_some(),
                    false => all.policies.remove(&id).is_some(),
                })
            });
            match was_there.await? {
                true => Ok(no_content()),
                false => Err(unknown(kind)),
            }
        }
        (_, [id], _) => {
            only(method, &Method::GET, "GET, HEAD, DELETE")?;
            let all = served.live.additions();
            let found = match kind {
                "apis" => all.apis.get(*id).map(|api| json!(api)),
                _ => all.policies.get(*id).map(|policy| show(policy, &all)),
            };
            found.map(|one| json_answer(StatusCode::OK, &one)).ok_or_else(|| unknown(kind))
        }
        _ => Err(not_found(format!("there are {kind} and {kind}/ID"))),
    }
}

async fn put(
    served: &Served,
    shown: Value,
    edit: impl FnOnce(&mut Additions) -> Result<bool, Refused> + Send + 'static,
) -> Result<Answer, Problem> {
    Ok(put_answer(change(served, edit).await?, &shown))
}

fn put_answer(was_there: bool, shown: &Value) -> Answer {
    json_answer(if was_there { StatusCode::OK } else { StatusCode::CREATED }, shown)
}

fn unknown(kind: &str) -> Problem {
    not_found(format!(
        "the admin API added none of that id; /admin/{kind} lists what it did. What the file \
         configures is changed there"
    ))
}

fn read<T: DeserializeOwned>(body: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(body).map_err(|error| {
        let at = error.path().to_string();
        Problem::new(StatusCode::BAD_REQUEST, format!("`{at}`: {}", error.inner()))
    })
}

fn refuse(refused: Refused) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, refused.to_string()).with("field", refused.field)
}

/// Off this thread: policies are compiled, and the change is on the disk when it is in force.
async fn change(
    served: &Served,
    edit: impl FnOnce(&mut Additions) -> Result<bool, Refused> + Send + 'static,
) -> Result<bool, Problem> {
    let live = Arc::clone(&served.live);
    let changed = tokio::task::spawn_blocking(move || live.change(edit)).await;
    changed.map_err(|_| failed())?.map_err(|error| match error {
        ChangeError::Refused(refused) => refuse(refused),
        ChangeError::Unusable(reason) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("nothing was changed, since it could not be put in force: {reason}"),
        ),
        ChangeError::NotKept(error) => {
            tracing::error!(%error, "the admin API's change is not made");
            Problem::new(StatusCode::INSUFFICIENT_STORAGE, format!("nothing was changed: {error}"))
        }
        ChangeError::Unsupported => not_found(error.to_string()),
    })
}

/// A policy as others may see it.
fn show(policy: &Policy, all: &Additions) -> Value {
    let mut shown = json!(policy);
    redact(&mut shown["config"]);
    shown["in_force"] = json!(all.is_in_force(policy));
    shown
}

/// Hides secrets by what they are called.
fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.to_lowercase();
                let is_secret = ["secret", "password", "passwd", "token", "private", "sha256"]
                    .iter()
                    .any(|word| name.contains(word));
                match is_secret && !member.is_null() {
                    true => *member = json!("[redacted]"),
                    false => redact(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}
