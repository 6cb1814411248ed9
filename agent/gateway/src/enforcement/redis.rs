//! Limits and quotas that several nodes share, in Redis (`STOA_REDIS_URL`).
//!
//! One script a request decides on all counters at once, by the server's clock. A Redis that does
//! not answer in time is not asked again by requests: they go by what is configured for its loss,
//! at once, while a task asks until it answers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, Script,
    ScriptInvocation, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use stoa_policy::{
    counters::{
        Answers, Count, Counted, Draw, Escaped, OnLoss, Period, SharedCounters, Unavailable, Used,
        Waiting,
    },
    gcra::Answer,
    quota::QuotaName,
};
use tokio::{runtime::Handle, sync::Notify, time};

use super::authorities::Authorities;

/// How often a lost Redis is asked whether it is back.
const PROBE_EVERY: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[error(
    "--redis-url (STOA_REDIS_URL) is no address of a Redis: {0}. Give redis://HOST:PORT or \
     redis://USER:PASSWORD@HOST:PORT/DB; with rediss:// it is asked over TLS"
)]
pub struct RedisUrlError(RedisError);

#[derive(Clone, Copy, Debug)]
pub struct RedisOptions {
    /// What a request waits at most.
    pub timeout: Duration,
    pub on_loss: OnLoss,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(20), on_loss: OnLoss::default() }
    }
}

/// Counters in Redis.
pub struct SharedInRedis {
    connection: ConnectionManager,
    options: RedisOptions,
    limits: Script,
    quotas: Script,
    health: Arc<Health>,
}

#[derive(Debug, Default)]
struct Health {
    /// Until the first answer.
    is_connecting: AtomicBool,
    is_lost: AtomicBool,
    lost: Notify,
    losses: AtomicU64,
    unanswered: AtomicU64,
}

impl Health {
    fn note_loss(&self, reason: &dyn fmt::Display) {
        if !self.is_lost.swap(true, Relaxed) {
            self.losses.fetch_add(1, Relaxed);
            tracing::warn!(
                %reason,
                "Redis does not answer: limits and quotas are kept as configured for its loss"
            );
            self.lost.notify_one();
        }
    }
}

impl fmt::Debug for SharedInRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedInRedis").field("health", &self.health).finish_non_exhaustive()
    }
}

impl SharedInRedis {
    /// Connects in the background; a Redis that is not there yet is no error. The
    /// connection lives on `runtime`, whichever workers use it.
    pub fn start(
        url: &str,
        options: RedisOptions,
        authorities: &Authorities,
        runtime: &Handle,
    ) -> Result<Self, RedisUrlError> {
        let client = connect_to(url, authorities).map_err(RedisUrlError)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT))
            // It is the probe that tries again.
            .set_number_of_retries(0);
        let _in_runtime = runtime.enter();
        let connection =
            ConnectionManager::new_lazy_with_config(client, config).map_err(RedisUrlError)?;
        let health = Arc::new(Health { is_connecting: true.into(), ..Health::default() });
        runtime.spawn(probe(connection.clone(), health.clone()));
        Ok(Self {
            connection,
            options,
            limits: Script::new(include_str!("shared_limits.lua")),
            quotas: Script::new(include_str!("shared_quotas.lua")),
            health,
        })
    }

    /// As `/health/ready` shows it.
    pub fn state(&self) -> &'static str {
        match (self.health.is_lost.load(Relaxed), self.health.is_connecting.load(Relaxed)) {
            (true, _) => "lost",
            (false, true) => "connecting",
            (false, false) => "answering",
        }
    }

    pub fn is_answering(&self) -> bool {
        !self.health.is_lost.load(Relaxed) && !self.health.is_connecting.load(Relaxed)
    }

    /// How often it stopped answering.
    pub fn losses(&self) -> u64 {
        self.health.losses.load(Relaxed)
    }

    /// Requests that went by what is configured for its loss.
    pub fn unanswered(&self) -> u64 {
        self.health.unanswered.load(Relaxed)
    }

    async fn run<T: redis::FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Unavailable> {
        if self.is_answering() {
            let mut connection = self.connection.clone();
            match time::timeout(self.options.timeout, script.invoke_async(&mut connection)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => self.health.note_loss(&error),
                Err(timeout) => self.health.note_loss(&timeout),
            }
        }
        self.health.unanswered.fetch_add(1, Relaxed);
        Err(Unavailable)
    }
}

/// Of a counter that is known by its name, for the admin API.
fn named_key(name: &QuotaName, kind: &str, number: u64) -> String {
    quota_key(&name.tenant, &name.set, &name.subject, kind, number)
}

impl SharedInRedis {
    /// What was used of each, in the day and the month of those numbers.
    pub async fn used(
        &self,
        names: impl Iterator<Item = &QuotaName>,
        (day, month): (u64, u64),
    ) -> Result<Vec<(u64, u64)>, RedisError> {
        let mut pipe = redis::pipe();
        let mut count = 0;
        for name in names {
            pipe.get(named_key(name, "day", day)).get(named_key(name, "month", month));
            count += 1;
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let used: Vec<Option<u64>> = pipe.query_async(&mut self.connection.clone()).await?;
        let (pairs, _) = used.as_chunks::<2>();
        Ok(pairs.iter().map(|[day, month]| (day.unwrap_or(0), month.unwrap_or(0))).collect())
    }

    /// Sets it to nothing, for all nodes.
    pub async fn forget(
        &self,
        name: &QuotaName,
        (day, month): (u64, u64),
    ) -> Result<(), RedisError> {
        let mut pipe = redis::pipe();
        pipe.del(named_key(name, "day", day)).ignore();
        pipe.del(named_key(name, "month", month)).ignore();
        pipe.query_async(&mut self.connection.clone()).await
    }
}

/// What is to be connected to; nothing is yet.
fn connect_to(url: &str, authorities: &Authorities) -> Result<Client, RedisError> {
    let info: ConnectionInfo = url.into_connection_info()?;
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => {
            let root_cert = Some(authorities.pem().into_bytes());
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        }
        _ => Client::open(info),
    }
}

/// Connects, and asks a lost Redis until it answers.
async fn probe(mut connection: ConnectionManager, health: Arc<Health>) {
    loop {
        while let Err(error) = redis::cmd("PING").query_async::<String>(&mut connection).await {
            health.note_loss(&error);
            time::sleep(PROBE_EVERY).await;
        }
        health.is_lost.store(false, Relaxed);
        health.is_connecting.store(false, Relaxed);
        tracing::info!("Redis answers: limits and quotas are shared");
        health.lost.notified().await;
    }
}

/// `stoa:{TENANT}:rate:SET:consumer:NAME:60`. The braces put a tenant's keys into one slot of a
/// Redis cluster, which one script needs.
fn rate_key(draw: &Draw<'_>, window: u64) -> String {
    format!(
        "stoa:{{{}}}:rate:{}:{}:{window}",
        Escaped(draw.tenant),
        Escaped(draw.set),
        draw.subject
    )
}

fn count_key(count: &Count<'_>, kind: &str, period: Period) -> String {
    quota_key(count.tenant, count.set, &count.subject, kind, period.number)
}

fn quota_key(
    tenant: &str,
    set: &str,
    subject: &impl fmt::Display,
    kind: &str,
    number: u64,
) -> String {
    let (tenant, set) = (Escaped(tenant), Escaped(set));
    format!("stoa:{{{tenant}}}:quota:{set}:{subject}:{kind}:{number}")
}

impl SharedCounters for SharedInRedis {
    fn take<'a>(&'a self, draws: &'a [Draw<'a>]) -> Waiting<'a, Result<Answers, Unavailable>> {
        let rates =
            || draws.iter().flat_map(|draw| draw.rates.iter().map(move |rate| (draw, rate)));
        let mut script = self.limits.prepare_invoke();
        for (draw, rate) in rates() {
            // Rounded up: never more than the limit.
            let cost = rate.interval().as_nanos().div_ceil(1000);
            let tolerance = rate.tolerance().as_micros();
            script.key(rate_key(draw, rate.window));
            script.arg(cost as u64).arg(tolerance as u64).arg(rate.window);
        }
        Box::pin(async move {
            if rates().next().is_none() {
                return Ok(Answers::new());
            }
            let raw: Vec<u64> = self.run(&script).await?;
            if raw.len() != 2 * rates().count() {
                return Err(Unavailable);
            }
            let answer = |((_, rate), raw): ((_, &stoa_policy::gcra::Rate), &[u64; 2])| {
                let ahead = Duration::from_micros(raw[1]);
                match (raw[0], ahead.checked_sub(rate.tolerance())) {
                    (0, left) => {
                        Answer::Refused { retry_after: left.unwrap_or_default(), full_after: ahead }
                    }
                    _ => Answer::Admitted {
                        remaining: (rate.tolerance().saturating_sub(ahead).as_nanos()
                            / rate.interval().as_nanos().max(1))
                            as u64,
                        full_after: ahead + rate.interval(),
                    },
                }
            };
            Ok(rates().zip(raw.as_chunks::<2>().0).map(answer).collect())
        })
    }

    fn count<'a>(&'a self, counts: &'a [Count<'a>]) -> Waiting<'a, Result<Counted, Unavailable>> {
        let mut script = self.quotas.prepare_invoke();
        for count in counts {
            for (kind, period) in [("day", count.day), ("month", count.month)] {
                script.key(count_key(count, kind, period));
                script.arg(period.limit).arg(period.ends_in);
            }
        }
        Box::pin(async move {
            if counts.is_empty() {
                return Ok(Counted::new());
            }
            let raw: Vec<u64> = self.run(&script).await?;
            if raw.len() != 1 + 2 * counts.len() {
                return Err(Unavailable);
            }
            let used =
                |pair: &[u64; 2]| Used { day: pair[0], month: pair[1], is_admitted: raw[0] == 1 };
            Ok(raw[1..].as_chunks::<2>().0.iter().map(used).collect())
        })
    }

    fn on_loss(&self) -> OnLoss {
        self.options.on_loss
    }
}

#[cfg(test)]
mod tests;
