//! Files that policies name, read while an engine is built, and again when they change.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use stoa_policy::outside::Documents;

use crate::catalog::files::Files;

/// For one build: the files it has read are part of the configuration.
#[derive(Debug, Default)]
pub struct ReadDocuments {
    files: Mutex<Files>,
}

impl ReadDocuments {
    pub fn new(files: Files) -> Self {
        Self { files: Mutex::new(files) }
    }

    /// All that were read.
    pub fn take(&self) -> Files {
        std::mem::take(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Documents for ReadDocuments {
    fn read_file(&self, path: &str) -> Result<String, String> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.read_text(Path::new(path)).map_err(|error| error.to_string())
    }

    fn read_contract(&self, _service: &str) -> Result<String, String> {
        Err("approved contracts are not kept in this mode; name a file instead".to_owned())
    }
}
