//! What the policy engine needs from outside and does not do itself: fetching keys, reading files.

pub mod documents;
pub mod key_fetcher;

use std::sync::Arc;

use stoa_policy::outside::{KeyRing, Outside};

use self::key_fetcher::HttpKeyFetcher;

/// Made once, on the runtime that fetches for as long as the agent runs.
pub fn open() -> Outside {
    let fetcher = HttpKeyFetcher::new(tokio::runtime::Handle::current());
    Outside { keys: Arc::new(KeyRing::new(Arc::new(fetcher))), ..Outside::default() }
}
