//! Counters as policies see them: whose they are, and what it takes to keep them beyond one
//! process.

use std::{
    fmt::{self, Display},
    future::Future,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    time::Duration,
};

use serde::Deserialize;
use smallvec::SmallVec;

use crate::{context::RequestContext, decision::Identity, gcra};

/// Who a request counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller<'a> {
    pub tenant: Option<&'a str>,
    /// The application, or else the user; `None` for anonymous requests.
    pub consumer: Option<&'a str>,
    pub plan: Option<&'a str>,
    pub route: Option<&'a str>,
    pub source: IpAddr,
}

impl<'a> Caller<'a> {
    pub fn of(
        request: &RequestContext<'a>,
        identity: Option<&'a Identity>,
        tenant: Option<&'a str>,
    ) -> Self {
        let consumer = identity.and_then(|identity| {
            let named = identity.consumer.as_deref().unwrap_or(&identity.subject);
            (!named.is_empty()).then_some(named)
        });
        // Where no policy has settled the tenant, its counters are still not another tenant's.
        let of_identity = || identity.and_then(|identity| identity.tenant.as_deref());
        Self {
            tenant: tenant.or_else(of_identity).or(request.tenant),
            consumer,
            plan: identity.and_then(|identity| identity.plan.as_deref()),
            route: request.route,
            source: request.source.ip(),
        }
    }

    /// Whose counters these are, seen from `scope`.
    pub fn subject(&self, scope: Scope) -> Subject<'a> {
        match (scope, self.consumer) {
            (Scope::Tenant, _) => Subject::Tenant,
            (Scope::Consumer, Some(consumer)) => Subject::Consumer(consumer),
            (Scope::Consumer | Scope::Source, _) => Subject::Source(network_of(self.source)),
            (Scope::Route, _) => Subject::Route(self.route.unwrap_or("")),
        }
    }
}

/// An IPv6 host has 2^64 addresses of its own to come from: it counts as one (RFC 4291, 2.5.4).
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Tenant,
    Consumer,
    Route,
    Source,
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Consumer => "consumer",
            Self::Route => "route",
            Self::Source => "source",
        }
    }
}

/// Whose counters. Always within one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    Tenant,
    Consumer(&'a str),
    Route(&'a str),
    Source(IpAddr),
}

/// `consumer:orders`, so that no two subjects read the same.
impl Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Consumer(name) => write!(f, "consumer:{}", Escaped(name)),
            Self::Route(name) => write!(f, "route:{}", Escaped(name)),
            // No consumer can be called so: `:` is escaped in names.
            Self::Source(address) => write!(f, "source:{address}"),
        }
    }
}

/// A name within a key: what separates names, and what Redis gives a meaning, is `%XX`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(|c: char| matches!(c, ':' | '{' | '}' | '%') || c <= ' ') {
            let (plain, special) = rest.split_at(at);
            write!(f, "{plain}%{:02X}", special.as_bytes()[0])?;
            rest = &special[1..];
        }
        f.write_str(rest)
    }
}

/// One request to be taken from the rates of one subject.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The policy set: two sets never share counters.
    pub set: &'a str,
    pub tenant: &'a str,
    pub subject: Subject<'a>,
    /// At most two, each with a counter of its own.
    pub rates: &'a [gcra::Rate],
}

/// One request to be counted against the quotas of one subject. 0 is unlimited.
#[derive(Clone, Copy, Debug)]
pub struct Count<'a> {
    pub set: &'a str,
    pub tenant: &'a str,
    pub subject: Subject<'a>,
    pub day: Period,
    pub month: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub limit: u64,
    /// Days or months since January 1970.
    pub number: u64,
    /// Seconds until the next.
    pub ends_in: u64,
}

/// What had been used of a quota, this request included where it was admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub day: u64,
    pub month: u64,
    pub is_admitted: bool,
}

/// In the order of the draws, and within one draw in the order of its rates. If one is refused,
/// nothing was taken from any.
pub type Answers = SmallVec<[gcra::Answer; 4]>;

/// In the order of the counts. If one is not admitted, nothing was counted.
pub type Counted = SmallVec<[Used; 2]>;

pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Counters that several nodes share. Answers within a bounded time, or not at all.
pub trait SharedCounters: Send + Sync + fmt::Debug {
    fn take<'a>(&'a self, draws: &'a [Draw<'a>]) -> Waiting<'a, Result<Answers, Unavailable>>;

    fn count<'a>(&'a self, counts: &'a [Count<'a>]) -> Waiting<'a, Result<Counted, Unavailable>>;

    fn on_loss(&self) -> OnLoss;
}

/// The shared counters did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shared counters do not answer")]
pub struct Unavailable;

/// What becomes of requests while the shared counters do not answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// Each node counts for itself.
    #[default]
    Open,
    /// Requests are refused with 503.
    Closed,
}

impl OnLoss {
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// Whole seconds, never less: a client that waits so long is admitted.
pub(crate) fn seconds_up(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_subjects_read_the_same() {
        let address = "10.0.0.1".parse().unwrap();
        let names = [
            Subject::Tenant.to_string(),
            Subject::Consumer("source:10.0.0.1").to_string(),
            Subject::Source(address).to_string(),
            Subject::Consumer("a%3A").to_string(),
            Subject::Consumer("a:").to_string(),
            Subject::Consumer("{x} y\n").to_string(),
        ];
        assert_eq!(
            names,
            [
                "tenant",
                "consumer:source%3A10.0.0.1",
                "source:10.0.0.1",
                "consumer:a%253A",
                "consumer:a%3A",
                "consumer:%7Bx%7D%20y%0A"
            ]
        );
    }

    #[test]
    fn an_ipv6_network_counts_as_one_caller() {
        let of = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:aaaa::1"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
    }

    #[test]
    fn counters_are_of_the_tenant_that_is_known() {
        let headers = http::HeaderMap::new();
        let mut asked = crate::context::tests::request(&headers);
        asked.tenant = Some("route");
        let identity = Identity { tenant: Some("token".into()), ..Identity::default() };
        let nobody = Identity::default();
        let tenant = |identity, settled| Caller::of(&asked, Some(identity), settled).tenant;
        assert_eq!(tenant(&identity, Some("settled")), Some("settled"));
        assert_eq!(tenant(&identity, None), Some("token"));
        assert_eq!(tenant(&nobody, None), Some("route"));
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(seconds_up(Duration::from_millis(1)), 1);
        assert_eq!(seconds_up(Duration::from_secs(2)), 2);
    }
}
