//! Quota counts that survive a restart, in redb under the state directory.
//!
//! Counts are absolute, so writing one twice changes nothing, and a write that `kill -9` cuts off
//! leaves the one before it.

use std::{path::Path, sync::Arc, time::Duration};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use stoa_policy::quota::{QuotaBook, QuotaName, QuotaRecord, Written};
use tokio::{sync::watch, time};

/// Set, tenant, subject -> the words of the day and of the month.
const QUOTAS: TableDefinition<'_, (&str, &str, &str), (u64, u64)> = TableDefinition::new("quotas");

/// What a `kill -9` may forget.
const WRITE_EVERY: Duration = Duration::from_millis(900);

#[derive(Debug, thiserror::Error)]
pub enum QuotaStoreError {
    #[error(
        "cannot use {path}: {reason}. Give another directory with --state-dir, or move the file away: quotas then begin again"
    )]
    Open { path: String, reason: redb::Error },
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
        let database =
            opened.map_err(|e| QuotaStoreError::Open { path: shown(), reason: e.into() })?;
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

    /// Writes what changed in `book`.
    pub fn save(&self, book: &QuotaBook, written: &mut Written) -> Result<(), QuotaStoreError> {
        let changed = book.changed_since(written);
        if changed.is_empty() {
            return Ok(());
        }
        self.write(&changed).map_err(|error| {
            // They are not written: the next time all are.
            *written = Written::default();
            error.into()
        })
    }
}

/// Writes what changed about once a second, and once more when `stop` says so. For a runtime that
/// may wait for a disk.
pub async fn keep(store: QuotaStore, book: Arc<QuotaBook>, mut stop: watch::Receiver<bool>) {
    let mut written = Written::default();
    let mut is_failing = false;
    loop {
        // An error is a sender that is gone: stopping too.
        let is_last = tokio::select! {
            stopped = stop.wait_for(|stop| *stop) => { let _ = stopped; true }
            () = time::sleep(WRITE_EVERY) => false,
        };
        match store.save(&book, &mut written) {
            Ok(()) => is_failing = false,
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::error!(%error, "quota counts are kept in memory only until this is mended");
            }
            Err(_) => {}
        }
        if is_last {
            return;
        }
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

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let book = QuotaBook::new(64);
        book.restore([record("consumer:a", 5 << 40 | 3), record("tenant", 5 << 40 | 9)]);
        let store = QuotaStore::open(dir.path()).unwrap();
        let mut written = Written::default();
        store.save(&book, &mut written).unwrap();
        store.save(&book, &mut written).unwrap();
        drop(store);
        let mut read = QuotaStore::open(dir.path()).unwrap().read().unwrap();
        read.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(read, [record("consumer:a", 5 << 40 | 3), record("tenant", 5 << 40 | 9)]);
    }

    #[test]
    fn the_last_counts_are_written_when_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let book = Arc::new(QuotaBook::new(64));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (stop, stopped) = watch::channel(false);
            let store = QuotaStore::open(dir.path()).unwrap();
            let keeper = tokio::spawn(keep(store, book.clone(), stopped));
            book.restore([record("consumer:a", 5 << 40 | 3)]);
            stop.send(true).unwrap();
            keeper.await.unwrap();
        });
        assert_eq!(QuotaStore::open(dir.path()).unwrap().read().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_file_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("quotas.redb"), "no database").unwrap();
        let error = QuotaStore::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("quotas.redb") && error.contains("--state-dir"), "{error}");
    }
}
