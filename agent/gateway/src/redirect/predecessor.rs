//! The agent that this one is started in place of, if one runs.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    error::RedirectError,
    protocol::{Handed, Reply},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// It changes nothing until it is told that all is taken over, or this is dropped.
pub(super) struct Predecessor {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Predecessor {
    /// `None` where no agent answers at `socket`.
    pub(super) fn find(socket: &Path) -> Result<Option<Self>, RedirectError> {
        let Ok(stream) = UnixStream::connect(socket) else { return Ok(None) };
        let found = Self { socket: socket.to_owned(), stream: BufReader::new(stream) };
        let stream = found.stream.get_ref();
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(|e| found.failed(&e))?;
        Ok(Some(found))
    }

    /// What it has enrolled.
    pub(super) fn take_over(&mut self) -> Result<Vec<Handed>, RedirectError> {
        Ok(self.ask(r#"{"op":"take_over"}"#)?.handed.unwrap_or_default())
    }

    /// From now on it only serves what is open.
    pub(super) fn tell_taken_over(mut self) -> Result<(), RedirectError> {
        self.ask(r#"{"op":"taken_over"}"#).map(|_| ())
    }

    fn ask(&mut self, request: &str) -> Result<Reply, RedirectError> {
        let mut line = String::new();
        let asked = writeln!(self.stream.get_mut(), "{request}")
            .and_then(|()| self.stream.read_line(&mut line));
        asked.map_err(|e| self.failed(&e))?;
        let reply: Reply = serde_json::from_str(&line).map_err(|e| self.failed(&e))?;
        match reply.error {
            Some(error) => Err(self.failed(&error)),
            None => Ok(reply),
        }
    }

    fn failed(&self, reason: &dyn std::fmt::Display) -> RedirectError {
        RedirectError::TakeOver { socket: self.socket.clone(), reason: reason.to_string() }
    }
}
