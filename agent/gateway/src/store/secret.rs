//! The installation's secret key: what keyed hashes of values are made with.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::StoreError;

/// Reads the key in the state directory, or makes one there (mode 0600).
pub fn load_or_make(directory: &Path) -> Result<[u8; 16], StoreError> {
    let path = directory.join("secret.key");
    match fs::read(&path) {
        Ok(bytes) => {
            return bytes.try_into().map_err(|bytes: Vec<u8>| StoreError::Damaged {
                path: path.display().to_string(),
                reason: format!("a key has 16 bytes, this file has {}", bytes.len()),
            });
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(refused(directory, &format!("{}: {e}", path.display()))),
    }
    let key = random_key().map_err(|e| refused(directory, &format!("no random bytes: {e}")))?;
    // Under another name first: a file that is there is whole.
    let temporary = directory.join("secret.key.new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&temporary);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(directory)?.sync_all()
    };
    write().map_err(|e| refused(directory, &format!("{}: {e}", path.display())))?;
    Ok(key)
}

/// 16 bytes of the kernel's random number generator (random(4)).
pub fn random_key() -> std::io::Result<[u8; 16]> {
    let mut key = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}

fn refused(directory: &Path, reason: &str) -> StoreError {
    StoreError::Directory { path: directory.to_owned(), reason: reason.to_owned() }
}
