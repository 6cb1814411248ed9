//! A deadline that is cheap to move. Nearly every request ends in time, so the runtime's timer is
//! touched only when a deadline comes nearer than the one it is set to, or when that one passes.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

const FAR: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    due: Option<Instant>,
}

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl Default for Timer {
    fn default() -> Self {
        Self { sleep: Box::pin(sleep_until(Instant::now() + FAR)), due: None }
    }
}

impl Timer {
    /// `None`: no deadline.
    pub fn set(&mut self, due: Option<Instant>) {
        self.due = due;
        if let Some(due) = due
            && due < self.sleep.deadline()
        {
            self.sleep.as_mut().reset(due);
        }
    }

    pub fn set_after(&mut self, after: Option<Duration>) {
        self.set(after.map(|after| Instant::now() + after));
    }

    pub fn is_set(&self) -> bool {
        self.due.is_some()
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Elapsed> {
        loop {
            let Some(due) = self.due else { return Poll::Pending };
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.sleep.deadline() >= due {
                return Poll::Ready(Elapsed);
            }
            // It was set to an earlier deadline, which no longer counts.
            self.sleep.as_mut().reset(due);
        }
    }

    /// Runs to its end or to the deadline that is set.
    pub async fn bound<F: Future>(&mut self, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_deadline_counts() {
        let mut timer = Timer::default();
        let never = || std::future::pending::<()>();
        let begun = Instant::now();
        timer.set_after(Some(Duration::from_millis(10)));
        timer.set_after(Some(Duration::from_millis(60)));
        assert_eq!(timer.bound(never()).await, Err(Elapsed));
        assert!(begun.elapsed() >= Duration::from_millis(60));
        timer.set_after(Some(Duration::from_secs(600)));
        timer.set_after(Some(Duration::from_millis(10)));
        assert_eq!(timer.bound(never()).await, Err(Elapsed));
        timer.set(None);
        assert_eq!(timer.bound(async { 7 }).await, Ok(7));
    }
}
