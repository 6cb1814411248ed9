//! Quotas: requests a day and a month, by UTC, of a tenant or a consumer. Counts survive restarts.
//!
//! A counter is one atomic number, the period's and the count's, so that a new day begins by
//! itself. The gateway writes what changed, as absolute counts, about once a second: after a
//! `kill -9` at most that second is forgotten, and nothing is counted twice.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderValue, header::RETRY_AFTER};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    context::RequestContext,
    counter_table::{CounterTable, Key},
    counters::{Caller, Count, Counted, OnLoss, Period, Scope, SharedCounters, Used},
    decision::{Decision, Denial, PolicyKind, Verdict},
    error::Refusal,
    moment::Moment,
    plan::{Plan, Plans},
    rate_limit::{exceeded, unavailable_denial},
};

/// The `quota` section of a policy set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// All of a tenant's requests together.
    pub tenant: Option<QuotaLimits>,
    /// Those of one application or user; of one address where neither is known.
    pub consumer: Option<QuotaLimits>,
    /// Instead of `consumer`: the quotas of the consumer's plan, and of the plan named here where
    /// the consumer has none.
    pub plan: Option<String>,
}

/// 0 is unlimited.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaLimits {
    pub requests_per_day: u64,
    pub requests_per_month: u64,
}

impl QuotaLimits {
    fn of(plan: &Plan) -> Self {
        Self {
            requests_per_day: plan.requests_per_day,
            requests_per_month: plan.requests_per_month,
        }
    }

    fn is_unlimited(self) -> bool {
        self == Self::default()
    }

    /// Tells limits apart in one word. Never 0.
    fn mark(self) -> u64 {
        (self.requests_per_day.rotate_left(32) ^ self.requests_per_month).max(1)
    }
}

const COUNT_BITS: u32 = 40;
const MOST: u64 = (1 << COUNT_BITS) - 1;

/// A period's number and what was used in it, in one word.
fn word(number: u64, count: u64) -> u64 {
    number << COUNT_BITS | count.min(MOST)
}

fn number_of(word: u64) -> u64 {
    word >> COUNT_BITS
}

/// What `word` says was used in the period. Of a later period (the clock was set back) it counts
/// too: nobody gets a day twice.
fn used_in(word: u64, number: u64) -> u64 {
    if number_of(word) >= number { word & MOST } else { 0 }
}

/// The day and the month of a moment, with the limits of a quota.
fn periods(limits: QuotaLimits, unix: u64) -> (Period, Period) {
    let day = unix / 86_400;
    let (month, next_month_begins) = month_of(day);
    let until = |day: u64| (day * 86_400).saturating_sub(unix);
    (
        Period { limit: limits.requests_per_day, number: day, ends_in: until(day + 1) },
        Period {
            limit: limits.requests_per_month,
            number: month,
            ends_in: until(next_month_begins),
        },
    )
}

/// Months since January 1970, and the day (since 1970) on which the next one begins.
fn month_of(day: u64) -> (u64, u64) {
    let (mut year, mut left) = (1970, day);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // 400 years are always as long: no loop over a clock gone wild.
    year += left / 146_097 * 400;
    left %= 146_097;
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    for month in 0..12 {
        let length = match month {
            1 => 28 + u64::from(is_leap(year)),
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        };
        if left < length {
            return ((year - 1970) * 12 + month, day - left + length);
        }
        left -= length;
    }
    // The lengths of the months add up to the year's.
    ((year - 1970) * 12 + 11, day + 1)
}

/// Whose quota a counter is; also its key in the store.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct QuotaName {
    pub set: String,
    pub tenant: String,
    /// `tenant` or `consumer:NAME`, as [`Subject`](crate::counters::Subject) is shown.
    pub subject: String,
}

impl QuotaName {
    fn of(count: &Count<'_>) -> Self {
        Self {
            set: count.set.to_owned(),
            tenant: count.tenant.to_owned(),
            subject: count.subject.to_string(),
        }
    }
}

/// A counter as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRecord {
    pub name: QuotaName,
    pub day: u64,
    pub month: u64,
}

impl QuotaRecord {
    /// Its month is over, and so is its day: it says nothing any more.
    pub fn is_over(&self, now: Moment) -> bool {
        let (month, _) = month_of(now.unix / 86_400);
        number_of(self.month) < month && number_of(self.day) < now.unix / 86_400
    }
}

/// All quotas of this process. Outlives a reload.
#[derive(Debug)]
pub struct QuotaBook {
    /// The day's word, the month's, and the mark of the limits that were in force last.
    table: CounterTable<3>,
    /// Only touched when a counter or its limits are new, by the writer and by the admin API.
    names: Mutex<HashMap<Key, Named>>,
}

#[derive(Debug)]
struct Named {
    name: QuotaName,
    limits: QuotaLimits,
}

/// What the writer wrote last. A counter that is as it was is not written again.
#[derive(Debug, Default)]
pub struct Written(HashMap<Key, [u64; 2]>);

impl Default for QuotaBook {
    fn default() -> Self {
        Self::new(1 << 16)
    }
}

impl QuotaBook {
    /// Room for so many counters.
    pub fn new(capacity: usize) -> Self {
        Self { table: CounterTable::new(capacity), names: Mutex::default() }
    }

    pub fn used(&self) -> u64 {
        self.table.used()
    }

    /// Counters that were forgotten for want of room: their quotas begin again.
    pub fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Key, Named>> {
        // A map is whole after any panic between two calls of it.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, name: &QuotaName) -> Key {
        self.table.key((&*name.set, &*name.tenant, name.subject.as_bytes()))
    }

    /// The same, without making the name.
    fn key_of(&self, count: &Count<'_>) -> Key {
        let mut subject = Bytes(SmallVec::new());
        // Writing to memory does not fail.
        let _ = write!(subject, "{}", count.subject);
        self.table.key((count.set, count.tenant, &*subject.0))
    }

    fn cells(&self, key: Key, name: impl FnOnce() -> QuotaName) -> &[AtomicU64; 3] {
        if let Some(cells) = self.table.find(key) {
            return cells;
        }
        self.names().insert(key, Named { name: name(), limits: QuotaLimits::default() });
        // The least used goes: most is left of it, so least is lost.
        let worth = |[day, month, _]: &[u64; 3]| (day & MOST).max(month & MOST);
        self.table.find_or_insert(key, worth, |forgotten| {
            self.names().remove(&forgotten);
        })
    }

    /// The cells of a count, under the limits that it has now.
    fn noted(&self, count: &Count<'_>) -> &[AtomicU64; 3] {
        let key = self.key_of(count);
        let cells = self.cells(key, || QuotaName::of(count));
        let limits = QuotaLimits {
            requests_per_day: count.day.limit,
            requests_per_month: count.month.limit,
        };
        if cells[2].load(Relaxed) != limits.mark() {
            if let Some(named) = self.names().get_mut(&key) {
                named.limits = limits;
            }
            cells[2].store(limits.mark(), Relaxed);
        }
        cells
    }

    /// Notes whose requests are counted elsewhere, for the admin API.
    fn note(&self, counts: &[Count<'_>]) {
        for count in counts {
            self.noted(count);
        }
    }

    /// Counts one request in every quota, or in none.
    pub fn count(&self, counts: &[Count<'_>]) -> Counted {
        let found: SmallVec<[_; 2]> = counts.iter().map(|count| self.noted(count)).collect();
        let all = || counts.iter().zip(&found);
        let has_room = |cell: &AtomicU64, period: Period| {
            period.limit == 0 || used_in(cell.load(Relaxed), period.number) < period.limit
        };
        let is_free = all().all(|(count, cells)| {
            has_room(&cells[0], count.day) && has_room(&cells[1], count.month)
        });
        // Another worker may take the last one between look and count: then what was counted is
        // taken back, and meanwhile a third may be refused, but never one too many admitted.
        let is_admitted = is_free && {
            let words: SmallVec<[(&AtomicU64, Period); 4]> = all()
                .flat_map(|(count, cells)| [(&cells[0], count.day), (&cells[1], count.month)])
                .collect();
            let taken = words.iter().take_while(|(cell, period)| add(cell, *period)).count();
            if taken < words.len() {
                words[..taken].iter().for_each(|(cell, period)| take_back(cell, *period));
            }
            taken == words.len()
        };
        all()
            .map(|(count, cells)| Used {
                day: used_in(cells[0].load(Relaxed), count.day.number),
                month: used_in(cells[1].load(Relaxed), count.month.number),
                is_admitted,
            })
            .collect()
    }

    /// Takes over what an earlier run wrote.
    pub fn restore(&self, records: impl IntoIterator<Item = QuotaRecord>) {
        for record in records {
            let key = self.key(&record.name);
            let cells = self.cells(key, || record.name);
            cells[0].fetch_max(record.day, Relaxed);
            cells[1].fetch_max(record.month, Relaxed);
        }
    }

    /// What changed since `written`, which is then up to date.
    pub fn changed_since(&self, written: &mut Written) -> Vec<QuotaRecord> {
        let names = self.names();
        let mut now = HashMap::with_capacity(written.0.len());
        let mut changed = Vec::new();
        for (key, [day, month, _]) in self.table.iter() {
            let Some(Named { name, .. }) = names.get(&key) else { continue };
            let words = [day, month];
            if words != [0, 0] && written.0.get(&key) != Some(&words) {
                changed.push(QuotaRecord { name: name.clone(), day, month });
            }
            now.insert(key, words);
        }
        written.0 = now;
        changed
    }

    /// What was used of each, and of what, by name (`/admin/quotas`).
    pub fn usage(&self, now: Moment) -> Vec<QuotaUsage> {
        let (day, month) = periods(QuotaLimits::default(), now.unix);
        let names = self.names();
        let mut all: Vec<QuotaUsage> = self
            .table
            .iter()
            .filter_map(|(key, words)| {
                let Named { name, limits } = names.get(&key)?;
                Some(QuotaUsage {
                    name: name.clone(),
                    limits: (words[2] != 0).then_some(*limits),
                    daily_count: used_in(words[0], day.number),
                    monthly_count: used_in(words[1], month.number),
                })
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Sets the counts of a consumer to nothing; whether there were any.
    pub fn reset(&self, name: &QuotaName, now: Moment) -> bool {
        let (day, month) = periods(QuotaLimits::default(), now.unix);
        let cells = self.table.find(self.key(name));
        if let Some(cells) = cells {
            // Not 0: what is stored must say so too.
            cells[0].store(word(day.number, 0), Relaxed);
            cells[1].store(word(month.number, 0), Relaxed);
        }
        cells.is_some()
    }
}

/// Text that is short enough not to be allocated.
struct Bytes(SmallVec<[u8; 64]>);

impl fmt::Write for Bytes {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Unless the limit is reached. An unlimited period is counted too, for the admin API.
fn add(cell: &AtomicU64, period: Period) -> bool {
    let added = cell.try_update(Relaxed, Relaxed, |old| {
        let used = used_in(old, period.number);
        let is_free = period.limit == 0 || used < period.limit;
        is_free.then(|| word(number_of(old).max(period.number), used + 1))
    });
    added.is_ok()
}

fn take_back(cell: &AtomicU64, period: Period) {
    let is_same = |old: u64| number_of(old) >= period.number && old & MOST > 0;
    // Refused where the period is over: then there is nothing to take back.
    let _ = cell.try_update(Relaxed, Relaxed, |old| is_same(old).then(|| old - 1));
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUsage {
    pub name: QuotaName,
    /// Those in force when it was last counted; `None`: not since the start.
    pub limits: Option<QuotaLimits>,
    pub daily_count: u64,
    pub monthly_count: u64,
}

/// The day and the month of a moment, by their numbers since January 1970.
pub fn period_numbers(now: Moment) -> (u64, u64) {
    let (day, month) = periods(QuotaLimits::default(), now.unix);
    (day.number, month.number)
}

/// The quotas of one policy set.
#[derive(Debug)]
pub struct Quotas {
    set: Box<str>,
    tenant: Option<QuotaLimits>,
    consumer: Option<QuotaLimits>,
    by_plan: Option<(Plans, Box<str>)>,
    book: Arc<QuotaBook>,
    shared: Option<Arc<dyn SharedCounters>>,
}

impl Quotas {
    pub fn build(
        set: &str,
        config: &QuotaConfig,
        plans: &Plans,
        book: Arc<QuotaBook>,
        shared: Option<Arc<dyn SharedCounters>>,
    ) -> Result<Self, Refusal> {
        let otherwise = plans.named_by_policy(config.plan.as_deref(), config.consumer.is_some())?;
        for (key, limits) in [("tenant", config.tenant), ("consumer", config.consumer)] {
            if limits.is_some_and(QuotaLimits::is_unlimited) {
                let remedy = "give `requests_per_day` or `requests_per_month`";
                return Err(Refusal::new(key, "limits nothing", remedy));
            }
        }
        let by_plan = otherwise.map(|name| (plans.clone(), name.into()));
        let QuotaConfig { tenant, consumer, .. } = *config;
        Ok(Self { set: set.into(), tenant, consumer, by_plan, book, shared })
    }

    /// The limits of a consumer, for the admin API.
    pub fn consumer_limits(&self, plan: Option<&str>) -> Option<QuotaLimits> {
        let of_plan = || {
            let (plans, otherwise) = self.by_plan.as_ref()?;
            let own = plan.and_then(|plan| plans.find(plan));
            own.or_else(|| plans.find(otherwise)).map(|(_, plan)| QuotaLimits::of(plan))
        };
        self.consumer.or_else(of_plan).filter(|limits| !limits.is_unlimited())
    }

    /// Counts the request; one that is refused is not counted.
    pub async fn check(
        &self,
        request: &RequestContext<'_>,
        decision: &mut Decision,
        now: Moment,
    ) -> Verdict {
        let (identity, tenant) = (decision.identity.as_deref(), decision.tenant.as_deref());
        let caller = Caller::of(request, identity, tenant);
        let counts = self.counts(&caller, now);
        let local = || self.book.count(&counts);
        let counted = match &self.shared {
            None => local(),
            Some(shared) => match (shared.count(&counts).await, shared.on_loss()) {
                (Ok(counted), _) => {
                    self.book.note(&counts);
                    counted
                }
                (Err(_), OnLoss::Open) => local(),
                (Err(_), OnLoss::Closed) => {
                    decision.response_headers.push((RETRY_AFTER, HeaderValue::from(1u64)));
                    return Err(unavailable_denial(PolicyKind::Quota));
                }
            },
        };
        let Some((denial, seconds)) = denial(&counts, &counted) else { return Ok(()) };
        decision.response_headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        Err(denial)
    }

    fn counts<'a>(&'a self, caller: &Caller<'a>, now: Moment) -> SmallVec<[Count<'a>; 2]> {
        let consumer = self.consumer_limits(caller.plan);
        [(Scope::Tenant, self.tenant), (Scope::Consumer, consumer)]
            .into_iter()
            .filter_map(|(scope, limits)| {
                let (day, month) = periods(limits?, now.unix);
                let tenant = caller.tenant.unwrap_or("");
                Some(Count { set: &self.set, tenant, subject: caller.subject(scope), day, month })
            })
            .collect()
    }
}

/// Why a request is refused, and in how many seconds it is not.
fn denial(counts: &[Count<'_>], counted: &[Used]) -> Option<(Denial, u64)> {
    if counted.iter().all(|used| used.is_admitted) {
        return None;
    }
    let exhausted = counts.iter().zip(counted).flat_map(|(count, used)| {
        [("day", count.day, used.day), ("month", count.month, used.month)]
    });
    let exhausted = exhausted.filter(|(_, period, used)| period.limit > 0 && *used >= period.limit);
    // Lost to a race, by the time of looking nothing may be used up: then the day is.
    let (name, limit, seconds) = exhausted
        .map(|(name, period, _)| (name, period.limit, period.ends_in.max(1)))
        .max_by_key(|(_, _, seconds)| *seconds)
        .unwrap_or(("day", counts.first().map_or(0, |count| count.day.limit), 1));
    let reason = format!(
        "Quota exceeded: {limit} requests a {name}. It begins again in {seconds} s, by UTC"
    );
    Some((exceeded(PolicyKind::Quota, reason), seconds))
}

#[cfg(test)]
mod tests;
