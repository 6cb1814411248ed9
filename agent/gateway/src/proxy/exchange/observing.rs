//! What is remembered of an exchange while it lasts, for those who are told of it afterwards.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use crate::{
    proxy::{
        Worker,
        body::Body,
        excerpt::Excerpt,
        forwarding,
        request::{Answer, Record, Request},
    },
    telemetry::snapshots::{Category, Failure},
};

/// Of one exchange, if snapshots are taken. It goes with the exchange, unless that fails.
#[derive(Clone, Debug)]
pub struct Draft {
    path: String,
    request_headers: HeaderMap,
    request_body: Excerpt,
    response_headers: HeaderMap,
    response_body: Excerpt,
}

impl Worker {
    pub(super) fn begin_observing(&self, request: &mut Request, record: &mut Record) {
        if let Some(snapshots) = &self.shared.telemetry.snapshots {
            record.draft = Some(Box::new(Draft {
                path: request.target.path().to_owned(),
                request_headers: request.headers.clone(),
                request_body: copy(&mut request.body, snapshots.body_bytes()),
                response_headers: HeaderMap::new(),
                response_body: Excerpt::default(),
            }));
        }
    }

    /// Before the answer goes.
    pub(in crate::proxy) fn observe_answer(&self, answer: &mut Answer) {
        if !answer.status.is_server_error() {
            answer.record.draft = None;
        }
        if let (Some(draft), Some(snapshots)) =
            (&mut answer.record.draft, &self.shared.telemetry.snapshots)
        {
            draft.response_headers = answer.headers.clone();
            // HEAD has none, and its upstream's connection is given back by what the body is.
            if answer.record.method != Method::HEAD {
                draft.response_body = copy(&mut answer.body, snapshots.body_bytes());
            }
        }
    }

    /// Of an answer that has gone.
    pub(in crate::proxy) fn tell(&self, record: &Record, status: StatusCode, took: Duration) {
        if let (Some(draft), Some(snapshots)) = (&record.draft, &self.shared.telemetry.snapshots)
            && status.is_server_error()
        {
            snapshots.offer(Failure {
                request_id: self.name_of(record, draft),
                method: record.method.to_string(),
                path: draft.path.clone(),
                status: status.as_u16(),
                category: Category::of(status.as_u16(), record.policy, record.code),
                took,
                request_headers: draft.request_headers.clone(),
                request_body: draft.request_body.beginning(),
                response_headers: draft.response_headers.clone(),
                response_body: draft.response_body.beginning(),
                route: record.route.as_ref().map(|(name, _)| name.clone()),
                tenant: record.tenant.clone(),
                upstream: record.upstream.clone(),
                code: record.code,
            });
        }
    }

    /// A request that was refused early has been given no name yet, unless by its client.
    fn name_of(&self, record: &Record, draft: &Draft) -> String {
        let name = record.request_id.as_ref().and_then(|name| name.to_str().ok());
        name.map_or_else(
            || forwarding::name_of(&draft.request_headers, &self.random),
            str::to_owned,
        )
    }
}

/// Has the body's beginning copied as it passes.
fn copy(body: &mut Body, most: usize) -> Excerpt {
    let excerpt = Excerpt::up_to(most);
    match body {
        Body::Full(bytes) => {
            excerpt.see(bytes);
            excerpt.end();
        }
        _ if most == 0 || body.is_empty() => excerpt.end(),
        _ => *body = Body::Copied(excerpt.clone(), Box::new(std::mem::take(body))),
    }
    excerpt
}
