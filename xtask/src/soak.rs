//! `cargo xtask soak`: the soak of the system tests, for as long as one likes.

use anyhow::{Result, bail};

use crate::{
    interrupt,
    workspace::{PROFILE, build, cargo, run as run_command},
};

pub struct Options {
    pub minutes: u64,
    /// Of one message each way, while the rest goes on.
    pub stream_gigabytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { minutes: 30, stream_gigabytes: 10 }
    }
}

pub fn run(options: &Options) -> Result<()> {
    if options.minutes == 0 {
        bail!("--minutes is at least 1");
    }
    if !sandbox::is_root() {
        bail!("system tests run as root: sudo -E env \"PATH=$PATH\" cargo xtask soak");
    }
    let place = build(PROFILE)?;
    interrupt::catch()?;
    let mut command = cargo();
    command.args(["test", "--quiet", "--profile", PROFILE, "-p", "system-tests", "--test", "soak"]);
    command.args(["--", "--nocapture"]).env("TEST_BINARIES", place);
    command.env("SOAK_SECONDS", (options.minutes * 60).to_string());
    command.env("SOAK_STREAM_MB", (options.stream_gigabytes * 1024).to_string());
    println!("{} minutes of load and faults", options.minutes);
    run_command(&mut command)
}
