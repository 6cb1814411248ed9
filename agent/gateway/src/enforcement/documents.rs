//! Files that policies name, read while an engine is built, and again when they change.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use stoa_policy::outside::Documents;

use crate::catalog::{document::ContractDocument, files::Files};

/// For one build: the files it has read are part of the configuration.
#[derive(Debug, Default)]
pub struct ReadDocuments {
    files: Mutex<Files>,
    /// By service, of the file's `contracts`.
    contracts: BTreeMap<String, String>,
}

impl ReadDocuments {
    /// All contracts are read, whether a policy asks for them or not: one that is not there is a
    /// mistake.
    pub fn new(
        files: &mut Files,
        contracts: &BTreeMap<String, ContractDocument>,
    ) -> Result<Self, String> {
        let mut texts = BTreeMap::new();
        for (service, contract) in contracts {
            let path = contract.file();
            let text = files.read_text(path).map_err(|error| {
                format!(
                    "cannot use `contracts.{service}`: {} cannot be read: {error}; name a file of \
                     OpenAPI or UAC that the agent may read",
                    path.display()
                )
            })?;
            texts.insert(service.clone(), text);
        }
        Ok(Self { files: Mutex::new(std::mem::take(files)), contracts: texts })
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

    fn read_contract(&self, service: &str) -> Result<String, String> {
        self.contracts.get(service).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.contracts.keys().map(String::as_str).collect();
            match known.is_empty() {
                true => format!("names `{service}`, and the file has no section `contracts`"),
                false => format!(
                    "names `{service}`, which is not in `contracts`; there are {}",
                    known.join(", ")
                ),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contracts(text: &str) -> BTreeMap<String, ContractDocument> {
        serde_norway::from_str(text).unwrap()
    }

    #[test]
    fn a_service_has_the_contract_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orders.yaml");
        std::fs::write(&path, "openapi: 3.1.0").unwrap();
        let shown = path.display();
        let given = contracts(&format!("a: {shown}\nb: {{file: {shown}}}"));
        let documents = ReadDocuments::new(&mut Files::default(), &given).unwrap();
        for service in ["a", "b"] {
            assert_eq!(documents.read_contract(service).unwrap(), "openapi: 3.1.0");
        }
        let error = documents.read_contract("c").unwrap_err();
        assert!(error.contains("a, b"), "{error}");
        std::fs::write(&path, "openapi: 3.0.0").unwrap();
        assert!(documents.take().has_changed(), "it is part of the configuration");
    }

    #[test]
    fn a_contract_that_is_not_there_is_named() {
        let mut files = Files::default();
        let given = contracts("orders: /nowhere/orders.yaml");
        let error = ReadDocuments::new(&mut files, &given).unwrap_err();
        assert!(!files.has_changed(), "its appearance is noticed");
        for part in ["contracts.orders", "/nowhere/orders.yaml", "OpenAPI"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
