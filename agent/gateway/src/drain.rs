//! Ends work in good order: nothing new is begun, what is under way has until a deadline, then it
//! is cut off.
//!
//! Whoever takes part holds a [`Watcher`]; the drain is over when every clone of it is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

/// What is cut off at the deadline has this long to let go.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Draining,
    Forced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    InTime,
    /// Something was still under way at the deadline.
    CutOff,
}

#[derive(Debug)]
pub struct Trigger {
    stage: watch::Sender<Stage>,
    is_draining: Arc<AtomicBool>,
}

/// Tells whether a drain has begun, without taking part in it.
#[derive(Clone, Debug)]
pub struct Observer {
    is_draining: Arc<AtomicBool>,
}

impl Observer {
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }
}

/// Held by everything that must end before the agent does.
#[derive(Clone, Debug)]
pub struct Watcher {
    stage: watch::Receiver<Stage>,
}

pub fn channel() -> (Trigger, Watcher) {
    let (sender, receiver) = watch::channel(Stage::Running);
    (Trigger { stage: sender, is_draining: Arc::default() }, Watcher { stage: receiver })
}

impl Trigger {
    pub fn watch(&self) -> Watcher {
        Watcher { stage: self.stage.subscribe() }
    }

    pub fn observe(&self) -> Observer {
        Observer { is_draining: Arc::clone(&self.is_draining) }
    }

    /// Nothing new is to be begun from now on; what is under way has all the time it needs.
    pub fn begin(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        self.stage.send_if_modified(|stage| {
            let is_first = *stage == Stage::Running;
            if is_first {
                *stage = Stage::Draining;
            }
            is_first
        });
    }

    /// Returns when every watcher is gone, or soon after the deadline.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.begin();
        if tokio::time::timeout(deadline, self.stage.closed()).await.is_ok() {
            return Drained::InTime;
        }
        self.stage.send_replace(Stage::Forced);
        let _ = tokio::time::timeout(LET_GO_WITHIN, self.stage.closed()).await;
        Drained::CutOff
    }
}

impl Watcher {
    pub fn is_draining(&self) -> bool {
        *self.stage.borrow() >= Stage::Draining
    }

    /// Nothing new is to be begun. A trigger that is gone counts as drained.
    pub async fn draining(&self) {
        let _ = self.stage.clone().wait_for(|stage| *stage >= Stage::Draining).await;
    }

    /// The deadline has passed.
    pub async fn forced(&self) {
        let _ = self.stage.clone().wait_for(|stage| *stage >= Stage::Forced).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_ends_when_the_last_watcher_is_dropped() {
        let (trigger, watcher) = channel();
        let other = watcher.clone();
        assert!(!watcher.is_draining());
        let party = tokio::spawn(async move {
            other.draining().await;
            drop(other);
        });
        drop(watcher);
        assert_eq!(trigger.drain(Duration::from_secs(60)).await, Drained::InTime);
        party.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_under_way_at_the_deadline_is_told_so() {
        let (trigger, watcher) = channel();
        let party = tokio::spawn(async move {
            watcher.draining().await;
            assert!(watcher.is_draining());
            watcher.forced().await;
        });
        assert_eq!(trigger.drain(Duration::from_millis(5)).await, Drained::CutOff);
        party.await.unwrap();
    }
}
