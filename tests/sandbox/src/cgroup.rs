//! One cgroup (version 2) of our own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{command, pause};

/// Where cgroup version 2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hosts that
/// still have version 1 beside it.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .find_map(|line| {
            // proc(5): the file system type follows the separator `-`; field 5 is the mount point.
            let (mount, file_system) = line.split_once(" - ")?;
            file_system.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
        })
        .map(PathBuf::from)
        .context("cgroup v2 is not mounted: `mount -t cgroup2 none /sys/fs/cgroup` mounts it")
}

/// A cgroup that is emptied and removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates `name` right under the root. An existing one is an error: names are how two runs
    /// at once keep apart.
    pub fn create(name: &str) -> io::Result<Self> {
        let root = mount_point().map_err(io::Error::other)?;
        let path = root.join(name);
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Takes over what an earlier run left behind.
    pub(crate) fn adopt(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn processes(&self) -> Vec<u32> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Not cgroup.kill, which kernels before 5.14 do not have.
        for _ in 0..100 {
            for pid in self.processes() {
                let _ = command::output(Command::new("kill").args(["-KILL", &pid.to_string()]));
            }
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(_) => pause(Duration::from_millis(20)),
            }
        }
        eprintln!("left behind: {}", self.path.display());
    }
}
