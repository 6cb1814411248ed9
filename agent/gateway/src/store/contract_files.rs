//! Contracts as files: written under another name, then renamed, so that a reader never sees half
//! of one.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::shadow::rendering::Rendered;

#[derive(Debug, thiserror::Error)]
#[error("cannot write the contract {}: {source}. Give another directory with --output", .path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Writes `NAME.openapi.yaml`, `NAME.openapi.json` and, where there is one, `NAME.uac.json`.
/// Returns their paths, the YAML first.
pub fn write(directory: &Path, contract: &Rendered) -> Result<Vec<PathBuf>, WriteError> {
    fs::create_dir_all(directory)
        .map_err(|source| WriteError { path: directory.to_owned(), source })?;
    let mut paths = Vec::new();
    let files = [
        ("openapi.yaml", Some(&contract.openapi_yaml)),
        ("openapi.json", Some(&contract.openapi_json)),
        ("uac.json", contract.uac_json.as_ref()),
    ];
    for (suffix, text) in files {
        let path = directory.join(format!("{}.{suffix}", contract.service));
        let Some(text) = text else { continue };
        replace_file(&path, text.as_bytes())
            .map_err(|source| WriteError { path: path.clone(), source })?;
        paths.push(path);
    }
    Ok(paths)
}

/// Replaces the file at `path` in one step.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Two may be written at a time: because it is due, and because somebody asks.
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}-{number}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}
