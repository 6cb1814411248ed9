//! The name of a request, by which the logs of gateway, agent and service find together.

use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher, RandomState},
};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::uuid::Uuid;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST: usize = 128;

/// One worker's.
#[derive(Debug, Default)]
pub struct RequestIds {
    /// Keyed at random: ids of two workers, or of two runs, do not meet.
    keys: (RandomState, RandomState),
    made: Cell<u64>,
}

impl RequestIds {
    /// The one that the request came with, or a new one (a UUID, RFC 9562 version 4).
    pub fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(X_REQUEST_ID) {
            Some(value) if is_plain(value.as_bytes()) => value.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        let number = self.made.get();
        self.made.set(number.wrapping_add(1));
        let id = Uuid::from_random(hash(&self.keys.0, number), hash(&self.keys.1, number));
        HeaderValue::try_from(id.to_string()).unwrap_or(HeaderValue::from_static("unnamed"))
    }
}

fn hash(key: &RandomState, number: u64) -> u64 {
    let mut hasher = key.build_hasher();
    hasher.write_u64(number);
    hasher.finish()
}

/// Goes into logs and JSON as it is.
fn is_plain(value: &[u8]) -> bool {
    (1..=LONGEST).contains(&value.len())
        && value.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_name() {
        let ids = RequestIds::default();
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("abc-1"));
        assert_eq!(ids.of(&headers), "abc-1");
        for odd in ["", "a b", "a\"b", &"a".repeat(LONGEST + 1)] {
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(odd).unwrap());
            assert_ne!(ids.of(&headers), odd);
        }
    }

    #[test]
    fn new_names_are_uuids_that_do_not_repeat() {
        let ids = RequestIds::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let id = ids.of(&HeaderMap::new()).to_str().unwrap().to_owned();
            let parts: Vec<&str> = id.split('-').collect();
            assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
            assert!(parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]), "{id}");
            assert!(seen.insert(id));
        }
    }
}
