//! Metering: who called what, how it ended, and what it took; one event of each request, for a
//! topic of Kafka. `docs/metering.md` has its shape.

pub mod error_event;
pub mod event;

use std::sync::{Arc, OnceLock};

use self::event::Event;
use super::kafka::Producer;
use crate::uuid::Uuid;

/// Shared by the workers.
pub struct Metering {
    /// Of requests that belong to nobody else.
    tenant: Arc<str>,
    shows_email: bool,
    /// Random: names of two agents' events do not meet.
    key: u64,
    /// `None`: events are made for error snapshots only.
    events: Option<Producer<Event>>,
}

impl Metering {
    pub fn new(tenant: &str, shows_email: bool, events: Option<Producer<Event>>) -> Arc<Self> {
        let mut key = [0; 8];
        // Without it, names are as unlikely to meet as those of one agent's workers are.
        let _ = aws_lc_rs::rand::fill(&mut key);
        let key = u64::from_ne_bytes(key);
        Arc::new(Self { tenant: tenant.into(), shows_email, key, events })
    }

    /// What a request that has no tenant of its own counts for.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    pub fn shows_email(&self) -> bool {
        self.shows_email
    }

    /// The name of an event.
    pub fn name(&self, random: impl Fn() -> u64) -> Uuid {
        Uuid::from_random(self.key ^ random(), random())
    }

    /// Never waits.
    pub fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            events.offer(event);
        }
    }
}

/// What this node is called, if it says.
fn node() -> Option<&'static str> {
    static NODE: OnceLock<Option<String>> = OnceLock::new();
    NODE.get_or_init(|| nix::unistd::gethostname().ok()?.into_string().ok()).as_deref()
}
