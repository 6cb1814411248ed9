//! Embeds the eBPF objects where `cargo xtask ebpf` has built them. Without them the crate builds as
//! well, with empty objects; the agent then says what to run.

use std::{env, fs, path::PathBuf};

const OBJECTS: [&str; 4] = ["stoa.bpf.o", "redirect.bpf.o", "steer.bpf.o", "outbound.bpf.o"];

fn main() {
    println!("cargo:rerun-if-env-changed=STOA_EBPF_OBJECTS");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let built = root.join("../../target/ebpf");
    // A path that does not exist would make cargo build this crate anew each time.
    let _ = fs::create_dir_all(&built);
    let place = env::var_os("STOA_EBPF_OBJECTS").map_or(built, PathBuf::from);
    println!("cargo:rerun-if-changed={}", place.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    for object in OBJECTS {
        let bytes = fs::read(place.join(object)).unwrap_or_default();
        fs::write(out.join(object), bytes).expect("cargo's output folder is writable");
    }
}
