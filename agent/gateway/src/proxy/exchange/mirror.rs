//! Sends copies of requests elsewhere.

use std::{cell::Cell, rc::Rc, task::Context, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::attempts::Attempts;
use crate::{
    catalog::routes::{Route, Timeouts},
    proxy::{
        View, Worker,
        body::Body,
        connection::Origin,
        pool::Pool,
        request::{Record, Request, Unreadable},
        timer::Timer,
    },
};

/// A body that must be known whole to be sent twice is kept up to this size.
const MOST_MIRRORED: usize = 256 << 10;
const MOST_MIRRORS_UNDER_WAY: usize = 64;
const MIRROR_WITHIN: Duration = Duration::from_secs(30);

impl Worker {
    /// Sends copies elsewhere, whose answers nobody sees.
    pub(super) async fn mirror(
        self: &Rc<Self>,
        view: &Rc<View>,
        route: &Route,
        origin: &Origin,
        request: &mut Request,
        timer: &mut Timer,
    ) -> Result<(), Unreadable> {
        let wanted: Vec<usize> = route
            .mirrors
            .iter()
            .filter(|mirror| self.random.happens(mirror.share))
            .map(|mirror| mirror.upstream)
            .collect();
        if wanted.is_empty() || request.upgrade.is_some() || request.expects_continue {
            return Ok(());
        }
        let bytes = match request.body.is_empty() {
            true => Bytes::new(),
            false => {
                let within = self.shared.settings.request_body;
                match request.read_body(MOST_MIRRORED, within, timer).await? {
                    Some(bytes) => bytes,
                    None => {
                        self.counters.mirrors_dropped.add(wanted.len() as u64);
                        return Ok(());
                    }
                }
            }
        };
        for upstream in wanted {
            let Some(pool) = view.pools.get(upstream).cloned() else { continue };
            let under_way = self.mirrors_under_way.get();
            if under_way >= MOST_MIRRORS_UNDER_WAY {
                self.counters.mirrors_dropped.add(1);
                continue;
            }
            self.mirrors_under_way.set(under_way + 1);
            self.counters.mirrored.add(1);
            let copy = Request {
                method: request.method.clone(),
                target: request.target.clone(),
                authority: request.authority.clone(),
                host: request.host.clone(),
                version: request.version,
                headers: request.headers.clone(),
                text: None,
                body: Body::full(bytes.clone()),
                expects_continue: false,
                upgrade: None,
                wants_trailers: false,
            };
            let worker = Rc::clone(self);
            let source = Origin::new(origin.source, origin.local, origin.door);
            tokio::task::spawn_local(async move {
                let counted = Counted(&worker.mirrors_under_way);
                let _ =
                    tokio::time::timeout(MIRROR_WITHIN, send_copy(&worker, &pool, &source, copy))
                        .await;
                drop(counted);
            });
        }
        Ok(())
    }
}

struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

async fn send_copy(worker: &Rc<Worker>, pool: &Rc<Pool>, origin: &Origin, request: Request) {
    let mut record = Record::new(Instant::now(), &request.method);
    let timeouts = Timeouts::default();
    let attempts = Attempts { pool, breaker: None, origin, timeouts, retries: None };
    let mut interim = |_: &mut Context<'_>, _: StatusCode, _: &HeaderMap| {};
    let sent =
        attempts.send(worker, request, &mut record, &mut Timer::default(), &mut interim).await;
    if let Ok(answered) = sent {
        let mut body = answered.body;
        while std::future::poll_fn(|cx| body.poll_next(cx)).await.is_some_and(|f| f.is_ok()) {}
    }
}
