//! How the analysis thread gives way to the node's services.
//!
//! A thread of the idle class hands its CPU to whoever wakes there. But a CPU that runs it does not
//! become idle, and it is a CPU that becomes idle to which the scheduler moves what waits on
//! another one (`sched_balance_newidle` of kernel/sched/fair.c). Behind a thread that never sleeps
//! that happens at a timer tick alone, 1 to 10 ms later. So while CPUs are short, the thread sleeps
//! for a moment after each short burst; where there are CPUs to spare it does not.
//!
//! What is left over may be too little even for an ordinary load, and what is read costs the
//! services more than the thread's own time: the kernel copies it for them. So while CPUs are short
//! the thread has a small share of one: it competes for it like any other once it falls behind, and
//! sleeps when it is spent. Where that does not suffice, it examines a part only (`sampling.rs`), and
//! where that does not either, the kernel is asked to copy less (`intake.rs`).

use std::{
    fs::File,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use super::priority;

/// Between two looks at the source when it had little to say.
const PAUSE: Duration = Duration::from_millis(4);
/// Long enough for the CPU to become idle; the kernel adds its timer slack, 50 us.
const REST: Duration = Duration::from_micros(20);
/// A source that gave fewer events has no more.
const FEW: usize = 64;
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// CPUs stay short for so long after the thread has last had to wait for one.
const SHORT_FOR: Duration = Duration::from_millis(200);
/// The share of its time that the thread waits for a CPU when CPUs are short: one part in so many.
const WAITING_PART: u32 = 50;

/// Behind: the source has always had more for so long.
const BEHIND_AFTER: Duration = Duration::from_millis(10);
/// So far behind that not everything can be examined,
const FAR_BEHIND_AFTER: Duration = Duration::from_millis(50);
/// and for so long after that: who catches up by examining less is behind again at once otherwise.
const FAR_BEHIND_FOR: Duration = Duration::from_secs(1);
/// The share of one CPU, one part in so many, that the thread has while CPUs are short,
const SHARE_PART: u32 = 8;
/// of which it may save so much,
const MOST_SAVED: Duration = Duration::from_millis(100);
/// and that it begins to compete for when it has saved so much.
const LEAST_SAVED: Duration = Duration::from_millis(25);

pub(super) struct Pace {
    times: ThreadTimes,
    ran_before: Duration,
    /// Since when the source has had more than was asked for.
    busy_since: Option<Instant>,
    /// CPU time that may be spent while CPUs are short.
    saved: Duration,
    is_competing: bool,
    far_behind_until: Instant,
    /// The thread is of the idle class otherwise.
    may_compete: bool,
    waited_before: Duration,
    looked: Instant,
    short_until: Instant,
}

impl Pace {
    /// Of the calling thread.
    pub(super) fn new(may_compete: bool) -> Self {
        let times = ThreadTimes::of_this_thread();
        let now = Instant::now();
        let (ran_before, waited_before) = times.read();
        Self {
            times,
            ran_before,
            busy_since: None,
            saved: MOST_SAVED,
            is_competing: false,
            far_behind_until: now,
            may_compete,
            waited_before,
            looked: now,
            short_until: now,
        }
    }

    /// After a burst of so many events: waits as long as it should before the next one, or until
    /// the thread is unparked.
    pub(super) fn rest(&mut self, events: usize) {
        let now = Instant::now();
        if now.saturating_duration_since(self.looked) >= LOOK_EVERY {
            let (ran, waited) = self.times.read();
            self.note(now, ran, waited);
        }
        let should_compete = self.should_compete(now, events >= FEW);
        if self.may_compete && should_compete != self.is_competing {
            let done = if should_compete { priority::compete() } else { priority::give_way(None) };
            match done {
                Ok(()) => self.is_competing = should_compete,
                // Not permitted: it stays as it is.
                Err(_) => self.may_compete = false,
            }
        }
        if events < FEW {
            std::thread::park_timeout(PAUSE);
        } else if now < self.short_until && !self.is_competing {
            let is_spent = self.may_compete && self.saved.is_zero();
            std::thread::park_timeout(if is_spent { PAUSE } else { REST });
        }
    }

    /// Whether there has been more than could be done for so long that the source may overflow.
    pub(super) fn is_far_behind(&self) -> bool {
        Instant::now() < self.far_behind_until
    }

    /// Whether somebody on this node waits for a CPU, as far as the thread can tell by its own
    /// waiting.
    pub(super) fn are_cpus_short(&self) -> bool {
        Instant::now() < self.short_until
    }

    /// Takes note of how long the thread has run, and waited for a CPU, in all.
    fn note(&mut self, now: Instant, ran: Duration, waited: Duration) {
        let since = now.saturating_duration_since(self.looked);
        if waited.saturating_sub(self.waited_before) > since / WAITING_PART {
            self.short_until = now + SHORT_FOR;
        }
        if self.is_competing || now < self.short_until {
            self.saved = self.saved.saturating_sub(ran.saturating_sub(self.ran_before));
        }
        self.saved = (self.saved + since / SHARE_PART).min(MOST_SAVED);
        (self.ran_before, self.waited_before, self.looked) = (ran, waited, now);
    }

    /// From now on.
    fn should_compete(&mut self, now: Instant, has_more: bool) -> bool {
        self.busy_since = has_more.then(|| self.busy_since.unwrap_or(now));
        let behind = self.busy_since.map_or(Duration::ZERO, |s| now.saturating_duration_since(s));
        if behind >= FAR_BEHIND_AFTER {
            self.far_behind_until = now + FAR_BEHIND_FOR;
        }
        let least = if self.is_competing { LOOK_EVERY } else { LEAST_SAVED };
        behind >= BEHIND_AFTER && self.saved >= least
    }
}

/// How long a thread has run, and been ready to run without a CPU.
struct ThreadTimes(Option<File>);

impl ThreadTimes {
    fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Zero where the kernel does not tell.
    fn read(&self) -> (Duration, Duration) {
        let mut text = [0; 96];
        let read = self.0.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        parse_times(&text[..read]).unwrap_or_default()
    }
}

/// The first two fields, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn parse_times(schedstat: &[u8]) -> Option<(Duration, Duration)> {
    let text = std::str::from_utf8(schedstat).ok()?;
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok());
    let (ran, waited) = (fields.next()??, fields.next()??);
    Some((Duration::from_nanos(ran), Duration::from_nanos(waited)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn pace(began: Instant) -> Pace {
        Pace {
            times: ThreadTimes(None),
            ran_before: ms(100),
            busy_since: None,
            saved: Duration::ZERO,
            is_competing: false,
            far_behind_until: began,
            may_compete: true,
            waited_before: ms(700),
            looked: began,
            short_until: began,
        }
    }

    #[test]
    fn running_and_waiting_are_the_first_two_numbers() {
        let parsed = parse_times(b"12 3456 7\n");
        assert_eq!(parsed, Some((Duration::from_nanos(12), Duration::from_nanos(3456))));
        assert_eq!(parse_times(b""), None);
    }

    #[test]
    fn a_thread_that_had_to_wait_rests_for_a_while() {
        let began = Instant::now();
        let mut pace = pace(began);
        pace.note(began + ms(10), ms(100), ms(700));
        assert!(pace.short_until <= began + ms(10), "it did not wait");
        pace.note(began + ms(20), ms(100), ms(701));
        assert_eq!(pace.short_until, began + ms(20) + SHORT_FOR, "it waited a tenth of the time");
        pace.note(began + ms(30), ms(100), ms(701));
        assert_eq!(pace.short_until, began + ms(20) + SHORT_FOR);
    }

    #[test]
    fn a_thread_that_is_behind_competes_for_its_share_and_no_more() {
        let began = Instant::now();
        let mut pace = pace(began);
        let (mut ran, mut competed) = (0, 0);
        for n in 1..=1000_u64 {
            // It gets all it competes for, and a tenth of a CPU otherwise.
            let own = if pace.is_competing { 10 } else { 1 };
            ran += own;
            competed += if pace.is_competing { own } else { 0 };
            let now = began + ms(10 * n);
            pace.note(now, ms(100 + ran), ms(700));
            pace.is_competing = pace.should_compete(now, true);
        }
        assert!((1150..=1300).contains(&competed), "{competed} ms of 10 s");
        assert!(!pace.should_compete(began + ms(10_010), false), "it has caught up");
    }

    #[test]
    fn this_kernel_tells_how_long_a_thread_waits() {
        let times = ThreadTimes::of_this_thread();
        assert!(times.0.is_some(), "no schedstat: the pace would never rest");
        assert!(times.read() <= times.read());
    }
}
