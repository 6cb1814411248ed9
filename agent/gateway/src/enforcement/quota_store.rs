//! Quota counts that survive a restart, in redb under the state directory.
//!
//! Counts are absolute, so writing one twice changes nothing, and a write that `kill -9` cuts off
//! leaves the one before it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use stoa_policy::{
    moment::Moment,
    quota::{QuotaBook, QuotaName, QuotaRecord, Written},
};
use tokio::{sync::watch, time};

use crate::store::{StoreError, make_private_directory};

/// Set, tenant, subject -> the words of the day and of the month.
const QUOTAS: TableDefinition<'_, (&str, &str, &str), (u64, u64)> = TableDefinition::new("quotas");

/// What a `kill -9` may forget, unless the settings say otherwise.
pub const WRITE_EVERY: Duration = Duration::from_millis(900);

#[derive(Debug, thiserror::Error)]
pub enum QuotaStoreError {
    #[error(
        "cannot use {path}: {reason}. Give another directory with --state-dir, or move the file away: quotas then begin again"
    )]
    Open { path: String, reason: redb::Error },
    #[error(
        "another agent keeps its quotas in {path}. Stop it, or give this one another directory with --state-dir"
    )]
    InUse { path: String },
    #[error("{0}")]
    Directory(#[from] StoreError),
    #[error("no thread can be started for writing quotas: {0}")]
    Thread(#[from] io::Error),
    #[error("cannot write quotas: {0}")]
    Write(#[from] redb::Error),
}

pub struct QuotaStore {
    database: Database,
}

impl QuotaStore {
    /// Opens or makes `quotas.redb` in a directory that is there.
    pub fn open(directory: &Path) -> Result<Self, QuotaStoreError> {
        let path = directory.join("quotas.redb");
        let opened = Database::builder().set_cache_size(1 << 20).create(&path);
        let shown = || path.display().to_string();
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => QuotaStoreError::InUse { path: shown() },
            other => QuotaStoreError::Open { path: shown(), reason: other.into() },
        })?;
        let store = Self { database };
        // Made now, so that reading never has to tell an empty store from a damaged one.
        store.write(&[]).map_err(|reason| QuotaStoreError::Open { path: shown(), reason })?;
        Ok(store)
    }

    pub fn read(&self) -> Result<Vec<QuotaRecord>, QuotaStoreError> {
        let read = || -> Result<Vec<QuotaRecord>, redb::Error> {
            let table = self.database.begin_read()?.open_table(QUOTAS)?;
            let mut records = Vec::new();
            for entry in table.iter()? {
                let (key, words) = entry?;
                let ((set, tenant, subject), (day, month)) = (key.value(), words.value());
                let name = QuotaName {
                    set: set.to_owned(),
                    tenant: tenant.to_owned(),
                    subject: subject.to_owned(),
                };
                records.push(QuotaRecord { name, day, month });
            }
            Ok(records)
        };
        Ok(read()?)
    }

    /// Takes out what is over, so that the file does not grow with every consumer there ever was.
    fn forget_over(&self, records: &mut Vec<QuotaRecord>, now: Moment) -> Result<(), redb::Error> {
        let over: Vec<QuotaRecord> = records.extract_if(.., |record| record.is_over(now)).collect();
        if over.is_empty() {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(QUOTAS)?;
            for QuotaRecord { name, .. } in &over {
                table.remove((&*name.set, &*name.tenant, &*name.subject))?;
            }
        }
        Ok(write.commit()?)
    }

    /// All of them or none, on the disk when it returns.
    fn write(&self, records: &[QuotaRecord]) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut table = write.open_table(QUOTAS)?;
            for QuotaRecord { name, day, month } in records {
                let key = (&*name.set, &*name.tenant, &*name.subject);
                table.insert(key, (*day, *month))?;
            }
        }
        Ok(write.commit()?)
    }

    /// Writes what changed in `book`; whether anything did.
    pub fn save(&self, book: &QuotaBook, written: &mut Written) -> Result<bool, QuotaStoreError> {
        let changed = book.changed_since(written);
        if changed.is_empty() {
            return Ok(false);
        }
        match self.write(&changed) {
            Ok(()) => Ok(true),
            Err(error) => {
                // They are not written: the next time all are.
                *written = Written::default();
                Err(error.into())
            }
        }
    }
}

#[derive(Debug, Default)]
struct Health {
    is_failing: AtomicBool,
    writes: AtomicU64,
    failures: AtomicU64,
}

/// Writes what changed so often, and once more when `stop` says so. For a thread that
/// may wait for a disk.
async fn keep(
    store: QuotaStore,
    book: Arc<QuotaBook>,
    every: Duration,
    mut stop: watch::Receiver<bool>,
    health: Arc<Health>,
) {
    let mut written = Written::default();
    loop {
        // An error is a sender that is gone: stopping too.
        let is_last = tokio::select! {
            stopped = stop.wait_for(|stop| *stop) => { let _ = stopped; true }
            () = time::sleep(every) => false,
        };
        match store.save(&book, &mut written) {
            Ok(has_written) => {
                health.is_failing.store(false, Relaxed);
                health.writes.fetch_add(u64::from(has_written), Relaxed);
            }
            Err(error) => {
                health.failures.fetch_add(1, Relaxed);
                if !health.is_failing.swap(true, Relaxed) {
                    tracing::error!(
                        %error,
                        "quota counts are kept in memory only until this is mended"
                    );
                }
            }
        }
        if is_last {
            return;
        }
    }
}

/// Keeps the counts of a book on disk, from when a policy first has quotas. Until then nothing is
/// opened: an agent without quotas needs no directory to write to.
#[derive(Debug)]
pub struct QuotaKeeper {
    directory: PathBuf,
    book: Arc<QuotaBook>,
    every: Duration,
    health: Arc<Health>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl QuotaKeeper {
    /// `every` is what a `kill -9` may forget.
    pub fn new(directory: &Path, book: Arc<QuotaBook>, every: Duration) -> Self {
        Self {
            directory: directory.to_owned(),
            book,
            every,
            health: Arc::default(),
            running: Mutex::default(),
        }
    }

    /// Restores what an earlier run wrote and begins to write, if it has not begun yet.
    pub fn start(&self) -> Result<(), QuotaStoreError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return Ok(());
        }
        make_private_directory(&self.directory)?;
        let store = QuotaStore::open(&self.directory)?;
        let mut records = store.read()?;
        store.forget_over(&mut records, Moment::read())?;
        tracing::info!(
            counters = records.len(),
            directory = %self.directory.display(),
            "quotas are kept on disk"
        );
        self.book.restore(records);
        let (stop, stopped) = watch::channel(false);
        let (book, health) = (Arc::clone(&self.book), Arc::clone(&self.health));
        let every = self.every;
        // A thread of its own: a slow disk must hold up neither requests nor the health of the
        // agent.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new()
            .name("quotas".to_owned())
            .spawn(move || runtime.block_on(keep(store, book, every, stopped, health)))?;
        *running = Some(Running { stop, thread });
        Ok(())
    }

    /// Writes the last counts. Blocks until they are on the disk.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { stop, thread }) = running else { return };
        stop.send_replace(true);
        if thread.join().is_err() {
            tracing::error!("the thread that writes quotas panicked");
        }
    }

    /// As `/health/ready` shows it.
    pub fn state(&self) -> &'static str {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match &*running {
            None => "unused",
            Some(running) if running.thread.is_finished() => "memory_only",
            Some(_) if self.health.is_failing.load(Relaxed) => "memory_only",
            Some(_) => "kept",
        }
    }

    /// Writes that are on the disk.
    pub fn writes(&self) -> u64 {
        self.health.writes.load(Relaxed)
    }

    /// Writes that failed.
    pub fn failures(&self) -> u64 {
        self.health.failures.load(Relaxed)
    }
}

/// However the agent ends, short of being killed.
impl Drop for QuotaKeeper {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(subject: &str, day: u64) -> QuotaRecord {
        let name =
            QuotaName { set: "default".into(), tenant: "acme".into(), subject: subject.into() };
        QuotaRecord { name, day, month: 7 }
    }

    trait FarAhead {
        fn far_ahead(self) -> Self;
    }

    impl FarAhead for QuotaRecord {
        fn far_ahead(self) -> Self {
            Self { day: 9_000_000 << 40 | 3, month: 90_000 << 40 | 7, ..self }
        }
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let book = QuotaBook::new(64);
        book.restore([record("consumer:a", 5 << 40 | 3), record("tenant", 5 << 40 | 9)]);
        let store = QuotaStore::open(dir.path()).unwrap();
        let mut written = Written::default();
        assert!(store.save(&book, &mut written).unwrap());
        assert!(!store.save(&book, &mut written).unwrap());
        drop(store);
        let mut read = QuotaStore::open(dir.path()).unwrap().read().unwrap();
        read.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(read, [record("consumer:a", 5 << 40 | 3), record("tenant", 5 << 40 | 9)]);
    }

    #[test]
    fn the_last_counts_are_written_when_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state");
        let keeper = |book: &Arc<QuotaBook>| QuotaKeeper::new(&place, book.clone(), WRITE_EVERY);
        let book = Arc::new(QuotaBook::new(64));
        let one = keeper(&book);
        assert_eq!(one.state(), "unused");
        assert!(!place.exists(), "nothing is made for nobody");
        one.start().unwrap();
        one.start().unwrap();
        // A day and a month far ahead, which are not over.
        let there = record("consumer:a", 5 << 40 | 3).far_ahead();
        book.restore([there.clone()]);
        let busy = keeper(&Arc::default()).start().unwrap_err().to_string();
        assert!(busy.contains("another agent") && busy.contains("--state-dir"), "{busy}");
        assert_eq!((one.state(), one.failures()), ("kept", 0));
        one.stop();

        let book = Arc::new(QuotaBook::new(64));
        let two = keeper(&book);
        two.start().unwrap();
        assert_eq!(book.changed_since(&mut Written::default()), [there]);
        two.stop();
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = QuotaStore::open(dir.path()).unwrap();
        let (old, new) = (record("consumer:a", 5 << 40 | 3), record("tenant", 1).far_ahead());
        store.write(&[old, new.clone()]).unwrap();
        let mut records = store.read().unwrap();
        store.forget_over(&mut records, Moment::read()).unwrap();
        assert_eq!((records, store.read().unwrap()), (vec![new.clone()], vec![new]));
    }

    #[test]
    fn a_damaged_file_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("quotas.redb"), "no database").unwrap();
        let error = QuotaStore::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("quotas.redb") && error.contains("--state-dir"), "{error}");
    }
}
