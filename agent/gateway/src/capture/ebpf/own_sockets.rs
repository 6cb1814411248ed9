//! Sockets of the agent that are not to be observed, though they are where a watched service's are.

use std::{
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError},
};

use aya::maps::{MapData, SkStorage};

use super::{EbpfError, loader::with_causes};

/// Told of each listener that the agent opens in a service's network namespace.
pub struct OwnSockets {
    map: Mutex<SkStorage<MapData, u8>>,
}

impl OwnSockets {
    pub(super) fn new(map: SkStorage<MapData, u8>) -> Self {
        Self { map: Mutex::new(map) }
    }

    /// What it accepts from now on is left out.
    pub fn leave_out(&self, listener: &impl AsRawFd) -> Result<(), EbpfError> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(listener, &1, 0)
            .map_err(|e| EbpfError::Map { map: "OWN_SOCKETS", reason: with_causes(&e) })
    }
}
