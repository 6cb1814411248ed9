use std::{
    pin::pin,
    sync::atomic::AtomicUsize,
    task::{Context, Poll, Waker},
    thread,
};

use http::HeaderMap;

use super::*;
use crate::{context::tests::request, counters::Subject, decision::Identity};

/// Runs what never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// 2026-02-27 23:59:50 UTC.
const EVENING: u64 = 1_772_236_790;

fn at(unix: u64) -> Moment {
    Moment { monotonic: 0, unix }
}

fn quotas(config: &str, book: &Arc<QuotaBook>) -> Quotas {
    let config = serde_json::from_str(config).unwrap();
    Quotas::build("default", &config, &Plans::default(), book.clone(), None).unwrap()
}

fn check(quotas: &Quotas, consumer: &str, unix: u64) -> (Verdict, Option<u64>) {
    let headers = HeaderMap::new();
    let identity = Identity { subject: consumer.into(), ..Identity::default() };
    let mut decision = Decision {
        identity: Some(Arc::new(identity)),
        tenant: Some("acme".into()),
        ..Decision::default()
    };
    let request = request(&headers);
    let verdict = ready(quotas.check(&request, &mut decision, at(unix)));
    let header = decision.response_headers.first();
    (verdict, header.map(|(_, value)| value.to_str().unwrap().parse().unwrap()))
}

fn admitted(quotas: &Quotas, consumer: &str, unix: u64, times: usize) -> usize {
    (0..times).filter(|_| check(quotas, consumer, unix).0.is_ok()).count()
}

#[test]
fn months_are_the_calendars() {
    // Checked against `date -u -d @SECONDS`.
    for (unix, month, next) in [
        (0, 0, 31),
        (EVENING, 56 * 12 + 1, 20_513),
        (951_782_400, 30 * 12 + 1, 11_017),
        (1_709_164_800, 54 * 12 + 1, 19_783),
        (4_107_542_400, 130 * 12 + 2, 47_572),
    ] {
        assert_eq!(month_of(unix / 86_400), (month, next), "{unix}");
    }
    let mut day = 0;
    for month in 0..12 * 900 {
        let (number, next) = month_of(day);
        assert_eq!(number, month);
        assert!((28..=31).contains(&(next - day)));
        assert_eq!(month_of(next - 1), (number, next));
        day = next;
    }
}

#[test]
fn a_day_ends_at_midnight_and_says_when() {
    let book = Arc::new(QuotaBook::new(1024));
    let quotas = quotas(r#"{"consumer": {"requests_per_day": 3}}"#, &book);
    assert_eq!(admitted(&quotas, "a", EVENING, 5), 3);
    assert_eq!(admitted(&quotas, "b", EVENING, 5), 3);
    let (verdict, retry_after) = check(&quotas, "a", EVENING);
    let denial = verdict.unwrap_err();
    assert_eq!((denial.status.as_u16(), denial.code), (429, "quota_exceeded"));
    assert_eq!(retry_after, Some(10));
    assert_eq!(admitted(&quotas, "a", EVENING + 10, 5), 3);
    // The clock is set back: the day that was is not had twice.
    assert_eq!(admitted(&quotas, "a", EVENING, 5), 0);
}

#[test]
fn a_month_outlasts_its_days() {
    let book = Arc::new(QuotaBook::new(1024));
    let quotas = quotas(r#"{"consumer": {"requests_per_day": 2, "requests_per_month": 3}}"#, &book);
    assert_eq!(admitted(&quotas, "a", EVENING, 5), 2);
    assert_eq!(admitted(&quotas, "a", EVENING + 10, 5), 1, "28 February");
    let (_, retry_after) = check(&quotas, "a", EVENING + 10);
    assert_eq!(retry_after, Some(86_400));
    assert_eq!(admitted(&quotas, "a", EVENING + 10 + 86_400, 5), 2, "1 March");
    let usage = book.usage(at(EVENING + 10 + 86_400));
    assert_eq!((usage[0].daily_count, usage[0].monthly_count), (2, 2));
    let limits = QuotaLimits { requests_per_day: 2, requests_per_month: 3 };
    assert_eq!(usage[0].limits, Some(limits));
    assert_eq!(usage[0].name.subject, "consumer:a");
}

#[test]
fn a_refused_request_counts_nowhere() {
    let book = Arc::new(QuotaBook::new(1024));
    let quotas = quotas(
        r#"{"tenant": {"requests_per_day": 10}, "consumer": {"requests_per_day": 2}}"#,
        &book,
    );
    assert_eq!(admitted(&quotas, "a", EVENING, 50), 2);
    let others = ["b", "c", "d", "e", "f"].map(|name| admitted(&quotas, name, EVENING, 2));
    assert_eq!(others, [2, 2, 2, 2, 0]);
}

#[test]
fn plans_give_quotas_and_0_is_unlimited() {
    let book = Arc::new(QuotaBook::new(1024));
    let quotas = quotas(r#"{"plan": "community"}"#, &book);
    let limits = |plan| quotas.consumer_limits(plan).unwrap();
    assert_eq!(limits(None).requests_per_month, 100_000);
    assert_eq!(limits(Some("gold")).requests_per_day, 500_000);
    let refused = |config: &str| {
        let config = serde_json::from_str(config).unwrap();
        Quotas::build("x", &config, &Plans::default(), book.clone(), None).unwrap_err().key
    };
    assert_eq!(refused(r#"{"consumer": {}}"#), "consumer");
    assert_eq!(refused(r#"{"plan": "tin"}"#), "plan");
    assert_eq!(refused(r#"{"plan": "gold", "consumer": {"requests_per_day": 1}}"#), "plan");
}

#[test]
fn what_is_written_is_what_was_counted_and_comes_back() {
    let book = Arc::new(QuotaBook::new(1024));
    let config = r#"{"consumer": {"requests_per_day": 10}}"#;
    let mut written = Written::default();
    admitted(&quotas(config, &book), "a", EVENING, 4);
    admitted(&quotas(config, &book), "b", EVENING, 1);
    let mut stored: HashMap<QuotaName, QuotaRecord> = HashMap::new();
    let mut store = |records: Vec<QuotaRecord>| {
        let count = records.len();
        stored.extend(records.into_iter().map(|record| (record.name.clone(), record)));
        count
    };
    assert_eq!(store(book.changed_since(&mut written)), 2);
    assert_eq!(store(book.changed_since(&mut written)), 0, "nothing changed");
    admitted(&quotas(config, &book), "a", EVENING, 1);
    assert_eq!(store(book.changed_since(&mut written)), 1);

    let after = Arc::new(QuotaBook::new(1024));
    after.restore(stored.values().cloned());
    // Twice: counts are absolute.
    after.restore(stored.into_values());
    assert_eq!(admitted(&quotas(config, &after), "a", EVENING, 20), 5);
    assert_eq!(admitted(&quotas(config, &after), "b", EVENING, 20), 9);
}

#[test]
fn a_reset_is_written_too() {
    let book = Arc::new(QuotaBook::new(1024));
    let quotas = quotas(r#"{"consumer": {"requests_per_day": 2}}"#, &book);
    assert_eq!(admitted(&quotas, "a", EVENING, 5), 2);
    let mut written = Written::default();
    book.changed_since(&mut written);
    let name = book.usage(at(EVENING))[0].name.clone();
    assert!(book.reset(&name, at(EVENING)));
    assert!(!book.reset(&QuotaName { subject: "nobody".into(), ..name }, at(EVENING)));
    assert_eq!(book.changed_since(&mut written).len(), 1);
    assert_eq!(admitted(&quotas, "a", EVENING, 5), 2);
}

#[test]
fn workers_together_get_exactly_the_quota() {
    let book = Arc::new(QuotaBook::new(1024));
    let quotas = Arc::new(quotas(
        r#"{"tenant": {"requests_per_month": 3000}, "consumer": {"requests_per_day": 1000}}"#,
        &book,
    ));
    let total = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let (quotas, total) = (quotas.clone(), total.clone());
            thread::spawn(move || {
                for name in ["a", "b", "c", "d"] {
                    total.fetch_add(admitted(&quotas, name, EVENING, 200 + worker), Relaxed);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let usage = book.usage(at(EVENING));
    let of = |subject: &str| usage.iter().find(|usage| usage.name.subject == subject).unwrap();
    assert!(of("consumer:a").daily_count <= 1000);
    assert_eq!(of(&Subject::Tenant.to_string()).monthly_count, total.load(Relaxed) as u64);
    assert!(total.load(Relaxed) <= 3000);
}

#[test]
fn a_record_is_over_with_its_month() {
    let book = Arc::new(QuotaBook::new(64));
    let policy = quotas(r#"{"consumer": {"requests_per_day": 9}}"#, &book);
    assert!(check(&policy, "a", EVENING).0.is_ok());
    let [record] = &book.changed_since(&mut Written::default())[..] else { panic!("one") };
    assert!(!record.is_over(at(EVENING)));
    // Tomorrow is another day of the same month.
    assert!(!record.is_over(at(EVENING + 3600)));
    assert!(record.is_over(at(EVENING + 3 * 86_400)));
}
