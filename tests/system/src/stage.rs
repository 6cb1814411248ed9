//! Where a system test's files go, and that it runs as root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use sandbox::{Sandbox, command};

use crate::servers::python;

/// A fresh directory of one test, kept afterwards for whoever looks into a failure.
///
/// Fails loudly without root: a system test that skips itself proves nothing.
pub fn directory(test: &str) -> Result<PathBuf> {
    assert!(
        sandbox::is_root(),
        "system tests make network namespaces, cgroups and eBPF programs, and need root: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask test`"
    );
    let dir = std::env::temp_dir().join("stoa-system-tests").join(test);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A sandbox whose programs log to `dir`.
pub fn sandbox(dir: &Path) -> Result<Sandbox> {
    Sandbox::create(&dir.join("logs"))
}

/// Every contract in `dir` passes the independent validators.
pub fn assert_contracts_are_valid(dir: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("check_contracts.py");
    let said = command::run(Command::new(python()).arg(script).arg(dir))
        .context("a contract is not valid, or the validators are not installed")?;
    println!("{}", said.trim_end());
    Ok(())
}
