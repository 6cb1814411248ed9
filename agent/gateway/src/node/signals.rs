//! What ends an agent that serves: a signal, or a worker that failed.

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::NodeError;
use crate::worker::Workers;

const LOOK_AT_WORKERS_EVERY: Duration = Duration::from_secs(1);

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on they are ours: caught before anything else is done, a stop during the start is
    /// a stop too.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when the agent is to stop; an error says that it cannot go on. `reload` is called
    /// for every SIGHUP meanwhile.
    pub async fn wait_while_serving(
        &mut self,
        workers: &Workers,
        reload: impl Fn(),
    ) -> Result<(), NodeError> {
        let mut watchdog = tokio::time::interval(LOOK_AT_WORKERS_EVERY);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ok(()),
                _ = self.interrupt.recv() => return Ok(()),
                _ = self.hang_up.recv() => reload(),
                _ = watchdog.tick() => if workers.has_lost_one() {
                    return Err(NodeError::WorkerEnded);
                },
            }
        }
    }

    /// SIGTERM or SIGINT once more: whoever sent it does not want to wait.
    pub async fn wait_for_another(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
