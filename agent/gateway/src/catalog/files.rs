//! The files that a configuration is made from, as they were when they were read.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

/// Reads files and remembers what was in them.
#[derive(Clone, Debug, Default)]
pub struct Files {
    read: Vec<(PathBuf, Option<u64>)>,
}

impl Files {
    pub fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let content = std::fs::read(path);
        self.remember(path, content.as_deref().ok());
        content
    }

    /// That this is what the file has; `None`: that it is not there.
    pub fn remember(&mut self, path: &Path, content: Option<&[u8]>) {
        self.read.retain(|(known, _)| known != path);
        self.read.push((path.to_owned(), content.map(digest)));
    }

    pub fn read_text(&mut self, path: &Path) -> io::Result<String> {
        let bytes = self.read(path)?;
        String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
    }

    /// Whether a file has other content now, has appeared or is gone. Content and not time counts:
    /// Kubernetes swaps links.
    pub fn has_changed(&self) -> bool {
        self.read
            .iter()
            .any(|(path, before)| std::fs::read(path).ok().as_deref().map(digest) != *before)
    }
}

fn digest(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_appears_changes_or_goes_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let mut files = Files::default();
        assert!(files.read(&path).is_err());
        assert!(!files.has_changed());
        std::fs::write(&path, "one").unwrap();
        assert!(files.has_changed());
        let mut files = Files::default();
        assert_eq!(files.read_text(&path).unwrap(), "one");
        assert!(!files.has_changed());
        std::fs::write(&path, "two").unwrap();
        assert!(files.has_changed());
        std::fs::write(&path, "one").unwrap();
        assert!(!files.has_changed());
        std::fs::remove_file(&path).unwrap();
        assert!(files.has_changed());
    }
}
