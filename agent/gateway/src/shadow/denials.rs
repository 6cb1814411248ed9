//! Requests to watched services that policy denied. The services never saw them, so they are no
//! part of what is inferred; they are counted, by service, policy and status.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use http::StatusCode;

/// Services and policies are those of the configuration: bounded.
#[derive(Debug, Default)]
pub struct Denials {
    counts: Mutex<BTreeMap<String, ByPolicy>>,
}

/// By policy, or the code where no policy ran, and by the status of the answer.
pub type ByPolicy = BTreeMap<(&'static str, u16), u64>;

impl Denials {
    pub fn count(&self, service: &str, policy: &'static str, status: StatusCode) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (policy, status.as_u16());
        match counts.get_mut(service) {
            Some(known) => *known.entry(key).or_default() += 1,
            None => _ = counts.insert(service.to_owned(), ByPolicy::from([(key, 1)])),
        }
    }

    pub fn by_service(&self) -> BTreeMap<String, ByPolicy> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
