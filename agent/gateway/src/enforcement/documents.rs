//! Documents that policies refer to.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use stoa_policy::outside::Documents;

/// No contract is longer.
const MOST_BYTES: u64 = 16 << 20;

/// Reads files, relative ones below one directory.
#[derive(Debug)]
pub struct FileDocuments {
    base: PathBuf,
}

impl FileDocuments {
    pub fn new(base: PathBuf) -> Self {
        Self { base }
    }
}

impl Documents for FileDocuments {
    fn read_file(&self, path: &str) -> Result<String, String> {
        let path = self.base.join(Path::new(path));
        read(&path).map_err(|reason| format!("{} {reason}", path.display()))
    }

    fn read_contract(&self, service: &str) -> Result<String, String> {
        Err(format!("{service} has no approved contract on this node"))
    }
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut text = String::new();
    let length = file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    match u64::try_from(length) {
        Ok(length) if length <= MOST_BYTES => Ok(text),
        _ => Err("is longer than 16 MiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_below_the_base() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), "openapi: 3.1.0").unwrap();
        let documents = FileDocuments::new(folder.path().to_owned());
        assert_eq!(documents.read_file("a.yaml").as_deref(), Ok("openapi: 3.1.0"));
        let whole = folder.path().join("a.yaml");
        assert!(documents.read_file(whole.to_str().unwrap()).is_ok());
        assert!(documents.read_file("b.yaml").unwrap_err().contains("b.yaml cannot be read"));
        assert!(documents.read_file(".").unwrap_err().contains("is not a file"));
        std::fs::write(folder.path().join("b.yaml"), [0xff]).unwrap();
        assert!(documents.read_file("b.yaml").unwrap_err().contains("cannot be read"));
    }
}
