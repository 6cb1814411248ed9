//! A program that ends with its guard.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{command, pause};

/// A running program. Its output goes to files; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `NAME.out` and `NAME.err` in `logs`.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs)?;
        let (stdout, stderr) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            // Ctrl-C reaches us alone: we end our children in the right order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{}`", command::shown(&command)))?;
        Ok(Self { child, name: name.to_owned(), stdout, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by name (`TERM`, `KILL`, `INT`).
    pub fn signal(&self, signal: &str) -> Result<()> {
        command::run(Command::new("kill").args([format!("-{signal}"), self.pid().to_string()]))?;
        Ok(())
    }

    /// Waits for its end, which must come within `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + crate::patience(patience);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {patience:?}\n{}", self.name, self.stderr());
            }
            pause(Duration::from_millis(10));
        }
    }

    /// User and system CPU time of all its threads so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // proc(5): the name in parentheses may hold spaces; utime and stime are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat has no name")?;
        let ticks: u64 =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every architecture that Linux runs eBPF on.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory in KiB: now, and the highest so far.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let read = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("/proc/PID/status has no {key}"))
        };
        Ok((read("VmRSS:")?, read("VmHWM:")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        let _ = self.signal("TERM");
        if self.wait(Duration::from_secs(3)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
