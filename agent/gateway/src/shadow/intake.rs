//! How much of the traffic the kernel is asked to copy.
//!
//! What the agent cannot read in its share of a CPU (`pace.rs`) is lost in any case. But a ring that
//! is kept full costs the services most of all: each exchange is copied, on their own CPU time, and
//! the share is spent to the last. On a node whose CPUs are short and where exchanges go on being
//! lost, a small part of them tells nearly as much, and costs nearly nothing. So the kernel then
//! copies one exchange in so many. All are asked for again when there are no more than could be read
//! before, when CPUs are free, and every now and then to see.

use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Losses that are borne without a change: one exchange in so many.
const BORNE_PART: u64 = 20;
/// Losses beyond that are borne for so many looks: a moment's delay is no reason.
const BORNE_LOOKS: u32 = 3;
/// Of what could be read, one part in so many is asked for.
const ASKED_PART: u64 = 8;
/// Exchanges a second that are always worth reading.
const LEAST: u64 = 500;
/// All is asked for again after so long, and if that was too early, after twice as long.
const FIRST_HOLD: Duration = Duration::from_secs(5);
const LAST_HOLD: Duration = Duration::from_secs(80);

pub(super) struct Intake {
    looked: Instant,
    read_before: u64,
    shed_before: u64,
    /// Looks one after the other at which too much had been lost.
    losing_looks: u32,
    /// The most exchanges a second that were read at those.
    coped_with: u64,
    hold: Duration,
    limited_until: Option<Instant>,
}

impl Intake {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            looked: now,
            read_before: 0,
            shed_before: 0,
            losing_looks: 0,
            coped_with: 0,
            hold: FIRST_HOLD,
            limited_until: None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.looked) >= LOOK_EVERY
    }

    /// Not everything is asked for.
    pub(super) fn is_limited(&self) -> bool {
        self.limited_until.is_some()
    }

    /// Takes note of how many exchanges have been read, and shed, in all. One exchange in so many is
    /// to be asked for from now on.
    pub(super) fn note(&mut self, now: Instant, read: u64, shed: u64, are_cpus_short: bool) -> u32 {
        let since = now.saturating_duration_since(self.looked);
        let (newly_read, newly_shed) =
            (read.saturating_sub(self.read_before), shed.saturating_sub(self.shed_before));
        (self.looked, self.read_before, self.shed_before) = (now, read, shed);
        let all = per_second(newly_read + newly_shed, since);
        if let Some(until) = self.limited_until {
            if !are_cpus_short || all <= self.coped_with {
                self.ask_for_all();
                self.hold = FIRST_HOLD;
            } else if now >= until {
                self.ask_for_all();
                // One look suffices to see that it was too early.
                self.losing_looks = BORNE_LOOKS - 1;
                self.hold = (self.hold * 2).min(LAST_HOLD);
            }
        } else {
            let is_losing = newly_shed > (newly_read + newly_shed) / BORNE_PART && all > LEAST;
            if are_cpus_short && is_losing {
                self.losing_looks += 1;
                self.coped_with = self.coped_with.max(per_second(newly_read, since));
            } else {
                self.ask_for_all();
                self.hold = FIRST_HOLD;
            }
            if self.losing_looks == BORNE_LOOKS {
                self.limited_until = Some(now + self.hold);
                tracing::debug!(all, self.coped_with, "CPUs are short: less is copied");
            }
        }
        if self.is_limited() {
            let asked = (self.coped_with / ASKED_PART).max(LEAST);
            u32::try_from(all.div_ceil(asked)).unwrap_or(u32::MAX)
        } else {
            1
        }
    }

    fn ask_for_all(&mut self) {
        self.limited_until = None;
        self.losing_looks = 0;
        self.coped_with = 0;
    }
}

fn per_second(count: u64, within: Duration) -> u64 {
    let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / millis
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Followed {
        now: Instant,
        intake: Intake,
        read: u64,
        shed: u64,
    }

    impl Followed {
        fn new() -> Self {
            let now = Instant::now();
            Self { now, intake: Intake::new(now), read: 0, shed: 0 }
        }

        /// What is asked for after a look's time with so many exchanges a second.
        fn look(&mut self, read: u64, shed: u64, are_cpus_short: bool) -> u32 {
            assert!(!self.intake.is_due(self.now));
            self.now += LOOK_EVERY;
            assert!(self.intake.is_due(self.now));
            self.read += read / 4;
            self.shed += shed / 4;
            let one_in = self.intake.note(self.now, self.read, self.shed, are_cpus_short);
            assert_eq!(self.intake.is_limited(), one_in > 1);
            one_in
        }

        /// The same until less than all is asked for, which it must be.
        fn lose(&mut self) -> u32 {
            for _ in 1..BORNE_LOOKS {
                assert_eq!(self.look(40_000, 20_000, true), 1);
            }
            self.look(32_000, 28_000, true)
        }
    }

    #[test]
    fn what_can_be_read_is_asked_for() {
        let mut followed = Followed::new();
        for _ in 0..100 {
            assert_eq!(followed.look(40_000, 2_000, true), 1, "few are lost");
        }
        for _ in 0..100 {
            assert_eq!(followed.look(20_000, 60_000, false), 1, "CPUs are free");
            assert_eq!(followed.look(0, 400, true), 1, "there are not many");
        }
        for _ in 0..100 {
            assert_eq!(followed.look(20_000, 20_000, true), 1, "a moment's delay");
            assert_eq!(followed.look(60_000, 0, true), 1);
        }
    }

    #[test]
    fn of_too_much_an_eighth_of_what_could_be_read_is_asked_for() {
        let mut followed = Followed::new();
        assert_eq!(followed.lose(), 12, "60,000 of which 5,000 are to be read");
        assert_eq!(followed.look(5_000, 55_000, true), 12);
        assert_eq!(followed.look(8_000, 92_000, true), 20);
        assert_eq!(followed.look(5_000, 36_000, true), 9);
        assert_eq!(followed.look(5_000, 35_000, true), 1, "so many could be read before");
        assert_eq!(followed.lose(), 12);
        assert_eq!(followed.look(5_000, 55_000, false), 1, "CPUs are free");
    }

    #[test]
    fn something_is_asked_for_where_nothing_could_be_read() {
        let mut followed = Followed::new();
        for _ in 1..BORNE_LOOKS {
            assert_eq!(followed.look(0, 20_000, true), 1);
        }
        assert_eq!(followed.look(0, 20_000, true), 40);
    }

    #[test]
    fn all_is_asked_for_again_ever_less_often() {
        let mut followed = Followed::new();
        assert_eq!(followed.lose(), 12);
        for hold in [5, 10, 20, 40, 80, 80] {
            for _ in 1..hold * 4 {
                assert_eq!(followed.look(5_000, 55_000, true), 12);
            }
            assert_eq!(followed.look(5_000, 55_000, true), 1, "after {hold} s");
            assert_eq!(followed.look(40_000, 20_000, true), 12, "it was too early");
        }
    }
}
