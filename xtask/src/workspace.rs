//! Where things are, and how the pinned toolchain is called.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use sandbox::command::shown;

/// Builds everything that runs on the host. `setup` installs it.
pub const TOOLCHAIN: &str = "1.99.1";
/// Nearly release, in a fraction of the time: what demo and tests run.
pub const PROFILE: &str = "quick";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's target directory: everything that is built, installed or written goes below it.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where `build` puts binaries.
pub fn binaries(profile: &str) -> PathBuf {
    // What cargo calls it is not where cargo puts it.
    target().join(if profile == "dev" { "debug" } else { profile })
}

/// `cargo +TOOLCHAIN`, in the workspace's root.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.arg(format!("+{TOOLCHAIN}")).current_dir(root());
    // Left by the cargo that runs us; they would select its toolchain, or make build scripts
    // believe that their surroundings changed.
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let is_of_outer_cargo = matches!(name, "CARGO" | "RUSTC" | "RUSTDOC" | "RUSTUP_TOOLCHAIN")
            || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if is_of_outer_cargo {
            command.env_remove(name);
        }
    }
    command
}

/// Builds the agent, `stoactl` and the services that demo, tests and benches start.
pub fn build(profile: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--profile", profile, "--bins"]);
    command.args(["-p", "stoa-gateway", "-p", "stoactl", "-p", "system-tests"]);
    let place = binaries(profile);
    if !place.join("stoa-gateway").exists() {
        println!("building the agent (a minute or two the first time)");
    }
    run(&mut command)?;
    Ok(place)
}

/// Puts `stoa-gateway`, with the kernel side in it, and `stoactl` where cargo keeps programs.
pub fn install() -> Result<()> {
    for package in ["agent/gateway", "agent/stoactl"] {
        let mut command = cargo();
        run(command.args(["install", "--quiet", "--locked", "--force", "--path", package]))?;
    }
    println!("installed stoa-gateway and stoactl");
    Ok(())
}

/// Runs a command in the foreground; its output is ours.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{}`: is it installed?", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}
