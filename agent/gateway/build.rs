//! Embeds the eBPF object where `cargo xtask ebpf` has built it. Without it the crate builds as
//! well, with an empty object; the agent then says what to run.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=STOA_EBPF_OBJECT");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let built = root.join("../../target/ebpf");
    // A path that does not exist would make cargo build this crate anew each time.
    let _ = fs::create_dir_all(&built);
    let (object, watched) = match env::var_os("STOA_EBPF_OBJECT") {
        Some(path) => (PathBuf::from(&path), PathBuf::from(path)),
        None => (built.join("stoa.bpf.o"), built),
    };
    println!("cargo:rerun-if-changed={}", watched.display());
    let bytes = fs::read(&object).unwrap_or_default();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("stoa.bpf.o");
    fs::write(&out, bytes).expect("cargo's output folder is writable");
}
