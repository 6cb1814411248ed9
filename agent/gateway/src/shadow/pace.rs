//! How the analysis thread gives way to the node's services.
//!
//! A thread of the idle class hands its CPU to whoever wakes there. But a CPU that runs it does not
//! become idle, and it is a CPU that becomes idle to which the scheduler moves what waits on
//! another one (`sched_balance_newidle` of kernel/sched/fair.c). Behind a thread that never sleeps
//! that happens at a timer tick alone, 1 to 10 ms later. So while CPUs are short, the thread sleeps
//! for a moment after each short burst; where there are CPUs to spare it does not.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

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

pub(super) struct Pace {
    waited: WaitingTime,
    waited_before: Duration,
    looked: Instant,
    short_until: Instant,
}

impl Pace {
    /// Of the calling thread.
    pub(super) fn new() -> Self {
        let waited = WaitingTime::of_this_thread();
        let now = Instant::now();
        Self { waited_before: waited.read(), waited, looked: now, short_until: now }
    }

    /// After a burst of so many events: waits as long as it should before the next one, or until
    /// the thread is unparked.
    pub(super) fn rest(&mut self, events: usize) {
        if events < FEW {
            std::thread::park_timeout(PAUSE);
        } else if self.is_cpu_short(Instant::now()) {
            std::thread::park_timeout(REST);
        }
    }

    fn is_cpu_short(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked) >= LOOK_EVERY {
            self.note(now, self.waited.read());
        }
        now < self.short_until
    }

    /// Takes note of how long the thread has waited for a CPU in all.
    fn note(&mut self, now: Instant, waited: Duration) {
        let since = now.saturating_duration_since(self.looked);
        if waited.saturating_sub(self.waited_before) > since / WAITING_PART {
            self.short_until = now + SHORT_FOR;
        }
        (self.waited_before, self.looked) = (waited, now);
    }
}

/// How long a thread has been ready to run and had no CPU.
struct WaitingTime(Option<File>);

impl WaitingTime {
    fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Zero where the kernel does not tell.
    fn read(&self) -> Duration {
        let mut text = [0; 96];
        let read = self.0.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        parse_waiting(&text[..read]).unwrap_or_default()
    }
}

/// The second field, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn parse_waiting(schedstat: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(schedstat).ok()?;
    Some(Duration::from_nanos(text.split_ascii_whitespace().nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_the_second_number() {
        assert_eq!(parse_waiting(b"12 3456 7\n"), Some(Duration::from_nanos(3456)));
        assert_eq!(parse_waiting(b""), None);
    }

    #[test]
    fn a_thread_that_had_to_wait_rests_for_a_while() {
        let began = Instant::now();
        let ms = Duration::from_millis;
        let mut pace = Pace {
            waited: WaitingTime(None),
            waited_before: ms(700),
            looked: began,
            short_until: began,
        };
        pace.note(began + ms(10), ms(700));
        assert!(!pace.is_cpu_short(began + ms(10)), "it did not wait");
        pace.note(began + ms(20), ms(701));
        assert!(pace.is_cpu_short(began + ms(20)), "it waited a tenth of the time");
        pace.note(began + ms(30), ms(701));
        assert!(pace.is_cpu_short(began + ms(30)), "that was a moment ago");
        assert!(!pace.is_cpu_short(began + ms(20) + SHORT_FOR));
    }

    #[test]
    fn this_kernel_tells_how_long_a_thread_waits() {
        let waited = WaitingTime::of_this_thread();
        assert!(waited.0.is_some(), "no schedstat: the pace would never rest");
        assert!(waited.read() <= waited.read());
    }
}
