//! Builds the kernel side: another target, another toolchain, an object that the agent embeds.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    setup,
    workspace::{self, root},
};

/// What cargo calls an object, what the agent's build script looks for, and whether the kernel is
/// given its types. `steer` is loaded once per workload and would bring them each time.
const OBJECTS: [(&str, &str, bool); 4] = [
    ("stoa-ebpf", "stoa.bpf.o", true),
    ("stoa-redirect", "redirect.bpf.o", true),
    ("stoa-steer", "steer.bpf.o", false),
    ("stoa-outbound", "outbound.bpf.o", true),
];

/// Where the agent's build script looks for the objects.
fn place() -> PathBuf {
    root().join("target/ebpf")
}

/// Builds the objects, if a source has changed since they were built.
pub fn run() -> Result<()> {
    let place = place();
    let stamp = place.join("stoa.bpf.stamp");
    let wanted = fingerprint()?;
    let are_there = OBJECTS.iter().all(|(_, object, _)| place.join(object).exists());
    if are_there && fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    setup::kernel_side()?;
    println!("building the kernel side");
    let build = workspace::target().join("ebpf-build");
    workspace::run(&mut cargo("build", &build))?;

    fs::create_dir_all(&place)?;
    for (program, object, has_types) in OBJECTS {
        let built = build.join(TARGET).join("release").join(program);
        let stripped = build.join(object);
        // What the kernel reads is BTF; the debug information that it was made from is not needed.
        let mut objcopy = Command::new(setup::llvm().join("bin/llvm-objcopy"));
        objcopy.arg("--strip-debug");
        if !has_types {
            objcopy.args(["--remove-section=.BTF", "--remove-section=.BTF.ext"]);
        }
        workspace::run(objcopy.args([&built, &stripped]))?;
        let object = place.join(object);
        fs::copy(&stripped, &object)
            .with_context(|| format!("cannot write {}", object.display()))?;
    }
    fs::write(stamp, wanted)?;
    Ok(())
}

/// Format and lints of the kernel side.
pub fn lint() -> Result<()> {
    setup::kernel_side()?;
    let manifest = root().join("ebpf/Cargo.toml");
    workspace::run(workspace::cargo().args(["fmt", "--check", "--manifest-path"]).arg(manifest))?;
    let mut command = cargo("clippy", &workspace::target().join("ebpf-build"));
    workspace::run(command.args(["--", "-D", "warnings"]))
}

const TARGET: &str = "bpfel-unknown-none";

fn cargo(verb: &str, build: &Path) -> Command {
    let mut flags = vec![
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        // Kernels have these instructions since 5.1.
        "-Ctarget-cpu=v3".to_owned(),
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
    ];
    // No path of the building machine in the object, and the same object on every machine.
    flags.push(format!("--remap-path-prefix={}=.", root().display()));
    let mut command = setup::cargo_of(setup::NIGHTLY);
    command
        .current_dir(root().join("ebpf"))
        .args([verb, "--quiet", "--release", "-Zbuild-std=core", "--target", TARGET])
        .env("CARGO_TARGET_DIR", build)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("CARGO_BUILD_TARGET");
    command
}

/// Changes when a source, a dependency or the toolchain does.
fn fingerprint() -> Result<String> {
    let mut files = Vec::new();
    for folder in ["ebpf/src", "common/src"] {
        collect(&root().join(folder), &mut files)?;
    }
    files.extend(
        ["ebpf/Cargo.toml", "ebpf/Cargo.lock", "common/Cargo.toml"].map(|f| root().join(f)),
    );
    files.sort();
    let mut hasher = DefaultHasher::new();
    (setup::NIGHTLY, setup::BPF_LINKER, std::env::consts::ARCH).hash(&mut hasher);
    for file in files {
        let name = file.strip_prefix(root()).unwrap_or(&file);
        name.hash(&mut hasher);
        fs::read(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .hash(&mut hasher);
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
