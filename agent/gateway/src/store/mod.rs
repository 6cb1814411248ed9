//! What survives a restart: masked observations (statistics, never values) in redb, and the
//! installation's secret key.
//!
//! Each run of the agent writes under a name of its own (a *part*), so it never has to read before
//! it writes, and replaces only what it wrote itself: a commit that is cut off by `kill -9` leaves
//! the one before it. Parts of earlier runs are combined into one when the store is opened.

pub mod contract_files;
pub mod secret;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use stoa_contract::knowledge::{Limits, ServiceKnowledge, Window};

/// Service, bucket (seconds since the Unix epoch), part -> `Entry` as bytes.
const KNOWLEDGE: TableDefinition<'_, (&str, u64, &str), &[u8]> = TableDefinition::new("knowledge");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;
/// Where parts of earlier runs end up.
const MERGED: &str = "merged";
const HEADER: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use the state directory {}: {reason}. Give another with --state-dir", .path.display())]
    Directory { path: PathBuf, reason: String },
    #[error(
        "the state in {} is in use by another stoa-gateway. Stop it, or give this one another \
         --state-dir", .path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "the state in {path} is damaged ({reason}). Nothing was changed. To start with empty \
         knowledge, move it away: mv {path} {path}.damaged; contracts already written are not \
         affected"
    )]
    Damaged { path: String, reason: String },
    #[error(
        "the state in {} was written by a newer stoa-gateway (format {format}, this build reads \
         {FORMAT}). Run that one, or give another --state-dir", .path.display()
    )]
    Newer { path: PathBuf, format: u64 },
    #[error("cannot write the state in {}: {reason}", .path.display())]
    Write { path: PathBuf, reason: String },
}

/// One changed piece of knowledge.
pub struct Entry {
    pub service: String,
    pub bucket: u64,
    pub part: String,
    /// When this came to be held, in seconds since the Unix epoch: what retention counts from.
    pub held_since: u64,
    pub encoded: Vec<u8>,
}

pub struct Store {
    database: Database,
    path: PathBuf,
    limits: Limits,
}

impl Store {
    /// Opens or makes the store in `directory`, which only its owner can read.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, StoreError> {
        make_private_directory(directory)?;
        let path = directory.join("knowledge.redb");
        make_private_file(&path).map_err(|e| StoreError::Directory {
            path: directory.to_owned(),
            reason: e.to_string(),
        })?;
        // redb answers damage with an error wherever it checks; where it does not, a panic must
        // not reach the operator either.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Database::builder().set_cache_size(8 << 20).create(&path)
        }));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => return Err(StoreError::InUse { path }),
            Ok(Err(DatabaseError::Storage(StorageError::Io(e))))
                if e.kind() != io::ErrorKind::InvalidData
                    && e.kind() != io::ErrorKind::UnexpectedEof =>
            {
                return Err(StoreError::Directory {
                    path: directory.to_owned(),
                    reason: e.to_string(),
                });
            }
            Ok(Err(e)) => return Err(damaged(&path, e)),
            Err(_) => return Err(damaged(&path, "its pages do not fit together")),
        };
        let store = Self { database, path, limits };
        store.guard(Self::check_format)?;
        store.guard(Self::merge_parts)?;
        Ok(store)
    }

    /// Runs `f`, and turns a panic on damaged pages into an error.
    fn guard<T>(&self, f: impl FnOnce(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        catch_unwind(AssertUnwindSafe(|| f(self)))
            .unwrap_or_else(|_| Err(damaged(&self.path, "its pages do not fit together")))
    }

    fn failed(&self, e: impl Into<redb::Error>) -> StoreError {
        match e.into() {
            redb::Error::Io(e) => {
                StoreError::Write { path: self.path.clone(), reason: e.to_string() }
            }
            e => damaged(&self.path, e),
        }
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(|e| self.failed(e))?;
        {
            let mut meta = write.open_table(META).map_err(|e| self.failed(e))?;
            let format = meta.get("format").map_err(|e| self.failed(e))?.map(|guard| guard.value());
            match format {
                Some(format) if format > FORMAT => {
                    return Err(StoreError::Newer { path: self.path.clone(), format });
                }
                Some(_) => {}
                None => {
                    meta.insert("format", FORMAT).map_err(|e| self.failed(e))?;
                }
            }
            write.open_table(KNOWLEDGE).map_err(|e| self.failed(e))?;
        }
        write.commit().map_err(|e| self.failed(e))
    }

    /// Combines the parts that earlier runs left into one for each service and bucket, so that
    /// restarts do not make the store grow.
    fn merge_parts(&self) -> Result<(), StoreError> {
        let mut several: BTreeMap<(String, u64), Vec<String>> = BTreeMap::new();
        self.visit(|service, bucket, part, _| {
            several.entry((service.to_owned(), bucket)).or_default().push(part.to_owned());
            Ok(())
        })?;
        several.retain(|_, parts| parts.len() > 1);
        for ((service, bucket), parts) in several {
            let write = self.database.begin_write().map_err(|e| self.failed(e))?;
            {
                let mut table = write.open_table(KNOWLEDGE).map_err(|e| self.failed(e))?;
                let mut union = ServiceKnowledge::new(self.limits);
                let mut held_since = u64::MAX;
                for part in &parts {
                    let key = (service.as_str(), bucket, part.as_str());
                    let removed = table.remove(key).map_err(|e| self.failed(e))?;
                    let Some(guard) = removed else { continue };
                    let (since, known) = self.read_entry(guard.value())?;
                    held_since = held_since.min(since);
                    union.combine(&known);
                    union.shrink();
                }
                let bytes = write_entry(held_since, &union.encode());
                table
                    .insert((service.as_str(), bucket, MERGED), bytes.as_slice())
                    .map_err(|e| self.failed(e))?;
            }
            write.commit().map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn read_entry(&self, bytes: &[u8]) -> Result<(u64, ServiceKnowledge), StoreError> {
        let (since, encoded) = split_entry(bytes)
            .ok_or_else(|| damaged(&self.path, "an entry is shorter than its header"))?;
        let known =
            ServiceKnowledge::decode(encoded, self.limits).map_err(|e| damaged(&self.path, e))?;
        Ok((since, known))
    }

    /// Every entry, in the order of service, bucket, part.
    fn visit(
        &self,
        mut each: impl FnMut(&str, u64, &str, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let read = self.database.begin_read().map_err(|e| self.failed(e))?;
        let table = read.open_table(KNOWLEDGE).map_err(|e| self.failed(e))?;
        for entry in table.iter().map_err(|e| self.failed(e))? {
            let (key, value) = entry.map_err(|e| self.failed(e))?;
            let (service, bucket, part) = key.value();
            each(service, bucket, part, value.value())?;
        }
        Ok(())
    }

    /// Writes what changed, all of it or nothing.
    pub fn write(&self, entries: &[Entry]) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let write = self.database.begin_write().map_err(|e| self.failed(e))?;
        {
            let mut table = write.open_table(KNOWLEDGE).map_err(|e| self.failed(e))?;
            for entry in entries {
                let key = (entry.service.as_str(), entry.bucket, entry.part.as_str());
                let bytes = write_entry(entry.held_since, &entry.encoded);
                table.insert(key, bytes.as_slice()).map_err(|e| self.failed(e))?;
            }
        }
        write.commit().map_err(|e| self.failed(e))
    }

    /// Forgets what has been held since before `time` (seconds since the Unix epoch). Returns the
    /// number of entries forgotten.
    pub fn purge_held_before(&self, time: u64) -> Result<u64, StoreError> {
        let mut purged = 0;
        let write = self.database.begin_write().map_err(|e| self.failed(e))?;
        {
            let mut table = write.open_table(KNOWLEDGE).map_err(|e| self.failed(e))?;
            table
                .retain(|_, bytes| {
                    let is_kept = split_entry(bytes).is_some_and(|(since, _)| since >= time);
                    purged += u64::from(!is_kept);
                    is_kept
                })
                .map_err(|e| self.failed(e))?;
        }
        write.commit().map_err(|e| self.failed(e))?;
        Ok(purged)
    }

    /// What the store knows of a service within `window`, but for parts whose name `is_live`.
    pub fn knowledge_of(
        &self,
        service: &str,
        window: Window,
        is_live: impl Fn(&str) -> bool,
    ) -> Result<ServiceKnowledge, StoreError> {
        self.guard(|store| {
            let mut union = ServiceKnowledge::new(store.limits);
            let read = store.database.begin_read().map_err(|e| store.failed(e))?;
            let table = read.open_table(KNOWLEDGE).map_err(|e| store.failed(e))?;
            let range = (service, 0, "")..=(service, u64::MAX, "\u{10ffff}");
            for entry in table.range(range).map_err(|e| store.failed(e))? {
                let (key, value) = entry.map_err(|e| store.failed(e))?;
                let (_, bucket, part) = key.value();
                if bucket >= window.to || is_live(part) {
                    continue;
                }
                let (_, known) = store.read_entry(value.value())?;
                if known.seen().is_some_and(|(_, last)| last >= window.from) {
                    union.combine(&known);
                    union.shrink();
                }
            }
            Ok(union)
        })
    }

    /// The services that something is known of, with their numbers of exchanges, but for parts
    /// whose name `is_live`.
    pub fn exchanges_by_service(
        &self,
        is_live: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        self.guard(|store| {
            let mut counts = BTreeMap::new();
            store.visit(|service, _, part, bytes| {
                if !is_live(part) {
                    let (_, known) = store.read_entry(bytes)?;
                    *counts.entry(service.to_owned()).or_default() += known.exchanges();
                }
                Ok(())
            })?;
            Ok(counts)
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn damaged(path: &Path, reason: impl ToString) -> StoreError {
    StoreError::Damaged { path: path.display().to_string(), reason: reason.to_string() }
}

fn write_entry(held_since: u64, encoded: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + encoded.len());
    bytes.extend_from_slice(&held_since.to_le_bytes());
    bytes.extend_from_slice(encoded);
    bytes
}

fn split_entry(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (header, encoded) = bytes.split_first_chunk::<HEADER>()?;
    Some((u64::from_le_bytes(*header), encoded))
}

/// Makes the directory with mode 0700, or takes an existing one if nobody else may read it.
/// Makes it if it is not there, for this user alone.
pub fn make_private_directory(path: &Path) -> Result<(), StoreError> {
    let refused = |reason: String| StoreError::Directory { path: path.to_owned(), reason };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| refused(e.to_string()))?;
    let mode = fs::metadata(path).map_err(|e| refused(e.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|e| {
            refused(format!(
                "others can read it (mode {:o}), and it cannot be closed to them: {e}",
                mode & 0o777
            ))
        })?;
    }
    Ok(())
}

fn make_private_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
}

#[cfg(test)]
mod tests;
