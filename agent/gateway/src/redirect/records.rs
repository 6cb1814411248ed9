//! What is enrolled, in files beside the control socket, for the agent that comes after a crash: a
//! workload that fails closed stays closed until it is steered again or removed.
//!
//! Kept where the socket is, normally below `/run`, which is as short-lived as what it describes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    error::RedirectError,
    workload::{Workload, WorkloadSpec},
};

pub(super) struct Records {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Record {
    source: String,
    workload: WorkloadSpec,
}

impl Records {
    pub(super) fn open(socket: &Path) -> Result<Self, RedirectError> {
        let mut folder = socket.as_os_str().to_owned();
        folder.push(".workloads");
        let folder = PathBuf::from(folder);
        fs::create_dir_all(&folder).map_err(|source| RedirectError::File {
            what: "cannot create",
            path: folder.clone(),
            source,
        })?;
        Ok(Self { folder })
    }

    /// What an agent that did not stop in order has left. What cannot be read is removed.
    pub(super) fn read(&self) -> Vec<(WorkloadSpec, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let record = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            match record {
                Some(record) => found.push((record.workload, record.source)),
                None => {
                    let _ = fs::remove_file(path);
                }
            }
        }
        found
    }

    pub(super) fn write(&self, workload: &Workload, source: &str) -> Result<(), RedirectError> {
        let path = self.path(&workload.spec.name);
        let record = Record { source: source.to_owned(), workload: workload.spec.clone() };
        let temporary = path.with_extension("new");
        let written = serde_json::to_vec(&record)
            .map_err(io::Error::other)
            .and_then(|bytes| fs::write(&temporary, bytes))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| RedirectError::File { what: "cannot write", path, source })
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.path(name);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot be removed");
        }
    }

    /// After a stop in order nothing is left.
    pub(super) fn remove_folder(&self) {
        let _ = fs::remove_dir(&self.folder);
    }

    fn path(&self, name: &str) -> PathBuf {
        // A name has no `~`.
        self.folder.join(format!("{}.json", name.replace('/', "~")))
    }
}
