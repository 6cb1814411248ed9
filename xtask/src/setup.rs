//! Installs the toolchains, pinned; says what and why, and does nothing the second time.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    provision,
    workspace::{TOOLCHAIN, run as run_command},
};

/// Builds the kernel side. Its LLVM must be the one that bpf-linker is built with.
pub const NIGHTLY: &str = "nightly-2026-07-01";
pub const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "22";

/// What a Debian package is for.
const PACKAGES: [(&str, &str); 5] = [
    ("llvm-22-dev", "the LLVM that bpf-linker turns Rust into BPF with"),
    ("libpolly-22-dev", "a part of it that Debian packs alone"),
    ("libzstd-dev", "LLVM is linked against it"),
    ("zlib1g-dev", "LLVM is linked against it"),
    ("build-essential", "the C linker for everything that runs on the host"),
];

/// The toolchains. Silent when they are here; what else a verb drives, `provision` installs.
pub fn run() -> Result<()> {
    kernel_side()
}

/// The toolchain of everything that runs on the host.
fn host_side() -> Result<()> {
    toolchain(TOOLCHAIN, &["clippy", "rustfmt"], "builds everything that runs on the host")
}

/// What the kernel side is built with. Silent when it is all there.
pub fn kernel_side() -> Result<()> {
    toolchain(
        NIGHTLY,
        &["rust-src", "clippy"],
        "builds the kernel side, whose target has no core library of its own",
    )?;
    host_side()?;
    if has_bpf_linker() && llvm().join("bin/llvm-objcopy").exists() {
        return Ok(());
    }
    packages()?;
    if has_bpf_linker() {
        return Ok(());
    }
    println!("installing bpf-linker {BPF_LINKER}: links BPF programs (about a minute)");
    let feature = format!("llvm-{LLVM}");
    let mut command = cargo_of(TOOLCHAIN);
    command
        .args(["install", "--quiet", "bpf-linker", "--version", BPF_LINKER, "--force"])
        .args(["--no-default-features", "--features", &feature])
        // It looks in /usr/lib64 otherwise.
        .env("LLVM_PREFIX", llvm());
    run_command(&mut command).context("bpf-linker cannot be built")
}

/// `cargo` of a toolchain, without what the cargo that runs us left in the environment.
pub fn cargo_of(toolchain: &str) -> Command {
    let mut command = Command::new("cargo");
    command.arg(format!("+{toolchain}"));
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

/// Where Debian has this LLVM.
pub fn llvm() -> PathBuf {
    Path::new("/usr/lib").join(format!("llvm-{LLVM}"))
}

fn toolchain(name: &str, components: &[&str], why: &str) -> Result<()> {
    if provision::find("rustup").is_none() {
        bail!(
            "there is no rustup here: install it as https://rustup.rs says (it needs no root), \
             open a new shell and run this again"
        );
    }
    let has = installed(name);
    let is_there = |component: &str| {
        has.as_ref().is_some_and(|all| all.lines().any(|line| line.starts_with(component)))
    };
    if has.is_some() && components.iter().all(|component| is_there(component)) {
        return Ok(());
    }
    println!("installing Rust {name} with {}: {why}", components.join(", "));
    let mut command = Command::new("rustup");
    command.args(["--quiet", "toolchain", "install", name, "--no-self-update"]);
    command.args(["--profile", "minimal", "--component", &components.join(",")]);
    run_command(&mut command).with_context(|| format!("Rust {name} cannot be installed"))
}

/// The components of a toolchain, `None` if it is not installed.
fn installed(toolchain: &str) -> Option<String> {
    let output = Command::new("rustup")
        .args(["component", "list", "--installed", "--toolchain", toolchain])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn has_bpf_linker() -> bool {
    // Built against LLVM's shared library, it does not even start without it.
    Command::new("bpf-linker").arg("--version").stderr(Stdio::null()).output().is_ok_and(|output| {
        output.status.success()
            && String::from_utf8_lossy(&output.stdout).trim().ends_with(BPF_LINKER)
    })
}

fn packages() -> Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(package, _)| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (package, why) in &missing {
        println!("installing {package}: {why}");
    }
    let names: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
    provision::install(&names).with_context(|| {
        format!(
            "{} cannot be installed; Debian 12 and 13 have LLVM {LLVM} in their security \
             updates, other systems find it in LLVM's own package archive",
            names.join(", ")
        )
    })
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}
