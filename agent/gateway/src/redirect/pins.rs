//! Programs that outlive the agent: those of workloads that fail closed.
//!
//! `/sys/fs/bpf/stoa-gateway/VERSION/INSTANCE/RUN/NUMBER`: the version of this layout, the agent
//! (by its control socket, so that several on one host keep apart), one run of it, one program.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::error::RedirectError;

const FILE_SYSTEM: &str = "/sys/fs/bpf";
const OURS: &str = "stoa-gateway";
/// Rises when an older agent could not make sense of what is pinned.
const VERSION: &str = "v1";

pub(super) struct Pins {
    instance: String,
    run: String,
    count: u64,
}

impl Pins {
    pub(super) fn new(socket: &Path) -> Self {
        // No dots: the BPF file system keeps names with dots for itself.
        let instance: String = socket
            .display()
            .to_string()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let skipped = instance.len().saturating_sub(200);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            instance: instance.get(skipped..).unwrap_or_default().to_owned(),
            run: format!("{}-{:x}", std::process::id(), since.as_millis()),
            count: 0,
        }
    }

    fn folder(&self) -> PathBuf {
        [FILE_SYSTEM, OURS, VERSION, &self.instance, &self.run].iter().collect()
    }

    /// A path that nothing is pinned to yet.
    pub(super) fn next(&mut self) -> Result<PathBuf, RedirectError> {
        let folder = self.folder();
        let failed =
            |e: io::Error| RedirectError::Pin { path: folder.clone(), reason: e.to_string() };
        ensure_file_system().map_err(failed)?;
        fs::create_dir_all(&folder).map_err(failed)?;
        self.count += 1;
        Ok(folder.join(self.count.to_string()))
    }

    /// Removes what earlier runs of this agent left, whatever their version: their programs go
    /// with the files. Returns how many there were.
    pub(super) fn remove_leftovers(&self) -> usize {
        let mut removed = 0;
        let versions = fs::read_dir(Path::new(FILE_SYSTEM).join(OURS));
        for version in versions.into_iter().flatten().flatten() {
            let instance = version.path().join(&self.instance);
            for run in fs::read_dir(&instance).into_iter().flatten().flatten() {
                if run.file_name() != self.run.as_str() {
                    removed += remove_run(&run.path());
                }
            }
            remove_empty(&instance);
        }
        removed
    }

    /// Removes the folders of this run, where nothing is pinned any more.
    pub(super) fn tidy(&self) {
        let folder = self.folder();
        for folder in folder.ancestors().take(4) {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }

    /// Removes what this run has pinned.
    pub(super) fn remove(&self) {
        let folder = self.folder();
        remove_run(&folder);
        if let Some(instance) = folder.parent() {
            remove_empty(instance);
        }
    }
}

fn remove_run(folder: &Path) -> usize {
    let pins = fs::read_dir(folder).into_iter().flatten().flatten();
    let removed = pins.filter(|pin| fs::remove_file(pin.path()).is_ok()).count();
    let _ = fs::remove_dir(folder);
    removed
}

/// Up to the root of the file system; what is not empty stays.
fn remove_empty(instance: &Path) {
    for folder in instance.ancestors().take(3) {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

fn ensure_file_system() -> io::Result<()> {
    let is_mounted =
        || statfs(FILE_SYSTEM).is_ok_and(|system| system.filesystem_type() == BPF_FS_MAGIC);
    if is_mounted() {
        return Ok(());
    }
    let none: Option<&str> = None;
    match mount(Some("bpf"), FILE_SYSTEM, Some("bpf"), MsFlags::empty(), none) {
        Ok(()) => Ok(()),
        // Someone else was faster.
        Err(_) if is_mounted() => Ok(()),
        Err(e) => Err(e.into()),
    }
}
