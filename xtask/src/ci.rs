//! `cargo xtask ci`: what must pass before a change goes in.

use std::{process::Command, time::Instant};

use anyhow::{Result, bail};

use crate::{
    ebpf, provision, setup, test,
    workspace::{self, cargo, root},
};

const CARGO_DENY: &str = "0.20.2";

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 6] = [
    ("tests", || test::run(&test::Options::default())),
    ("format", format),
    ("lints", lints),
    ("lints of the kernel side", kernel_lints),
    ("demo", || crate::demo::run(false)),
    ("licences, bans, sources of dependencies", dependencies),
];

/// Runs every step even after one failed: a person wants the whole list.
pub fn run() -> Result<()> {
    setup::run()?;
    ebpf::run()?;
    let mut outcome = Vec::new();
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let started = Instant::now();
        let result = step();
        if let Err(error) = &result {
            eprintln!("{name}: {error:#}");
        }
        outcome.push((name, result.is_ok(), started.elapsed().as_secs()));
    }
    println!();
    for (name, is_good, seconds) in &outcome {
        println!("{:>6}  {name} ({seconds} s)", if *is_good { "ok" } else { "FAILED" });
    }
    if outcome.iter().any(|(_, is_good, _)| !is_good) {
        bail!("not all steps passed");
    }
    Ok(())
}

fn format() -> Result<()> {
    workspace::run(cargo().args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    let words = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    workspace::run(cargo().args(words))
}

fn kernel_lints() -> Result<()> {
    ebpf::lint()
}

/// The advisory database is a git repository that a build machine may not reach; advisories are
/// checked where it can: `cargo deny check advisories`.
fn dependencies() -> Result<()> {
    let why = "checks licences, bans and sources of dependencies";
    let deny = provision::cargo_tool("cargo-deny", CARGO_DENY, why)?;
    println!("advisories are not checked here: `cargo deny check advisories` needs their database");
    let mut command = Command::new(deny);
    command.args(["--workspace", "check", "licenses", "bans", "sources"]).current_dir(root());
    workspace::run(&mut command)
}
