//! The thread that writes to the store, so that the analysis never waits for a disk.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::store::{Entry, Store};

/// How long a write that is waited for may take.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Hands changes to the store's thread; held by the analysis alone.
pub struct Keeper {
    jobs: mpsc::SyncSender<Job>,
    state: Arc<KeeperState>,
}

struct Job {
    entries: Vec<Entry>,
    done: Option<mpsc::SyncSender<bool>>,
}

#[derive(Default)]
pub struct KeeperState {
    is_busy: AtomicBool,
    has_failed: AtomicBool,
    last_failed: AtomicBool,
    writes: AtomicU64,
    failures: AtomicU64,
}

impl KeeperState {
    /// Whether the last write succeeded.
    pub fn can_write(&self) -> bool {
        !self.last_failed.load(Ordering::Acquire)
    }

    /// Commits, and how many of them failed.
    pub fn totals(&self) -> (u64, u64) {
        (self.writes.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }
}

impl Keeper {
    /// Starts the thread; it ends when the keeper is dropped.
    pub fn start(store: Arc<Store>) -> io::Result<(Self, Arc<KeeperState>, JoinHandle<()>)> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
        let state = Arc::new(KeeperState::default());
        let own = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            while let Ok(job) = queue.recv() {
                let written = store.write(&job.entries);
                own.writes.fetch_add(1, Ordering::Relaxed);
                own.last_failed.store(written.is_err(), Ordering::Release);
                if let Err(error) = &written {
                    // The first of each power of two, so that a full disk is not filled further.
                    let failures = own.failures.fetch_add(1, Ordering::Relaxed) + 1;
                    if failures.is_power_of_two() {
                        tracing::error!(%error, failures, "observations stay in memory until the store can be written");
                    }
                    own.has_failed.store(true, Ordering::Release);
                }
                if let Some(done) = job.done {
                    let _ = done.send(written.is_ok());
                }
                own.is_busy.store(false, Ordering::Release);
            }
        })?;
        Ok((Self { jobs, state: Arc::clone(&state) }, state, thread))
    }

    pub fn is_idle(&self) -> bool {
        !self.state.is_busy.load(Ordering::Acquire)
    }

    /// Whether a write has failed since this was last asked.
    pub fn take_failure(&self) -> bool {
        self.state.has_failed.swap(false, Ordering::AcqRel)
    }

    /// False where the thread is still at an earlier write.
    pub fn write(&self, entries: Vec<Entry>) -> bool {
        self.state.is_busy.store(true, Ordering::Release);
        self.jobs.try_send(Job { entries, done: None }).is_ok()
    }

    /// Waits until it is written; false where it was not.
    pub fn write_and_wait(&self, entries: Vec<Entry>) -> bool {
        let (done, answer) = mpsc::sync_channel(1);
        self.state.is_busy.store(true, Ordering::Release);
        self.jobs.send(Job { entries, done: Some(done) }).is_ok()
            && answer.recv_timeout(WRITE_WITHIN) == Ok(true)
    }
}
