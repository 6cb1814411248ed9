//! What the policies need from outside the engine, as traits that the gateway implements.

/// Handed to [`Engine::build`](crate::engine::Engine::build). Made once and kept over reloads, so
/// that what it holds (fetched keys, counters) outlives one configuration.
#[derive(Clone, Debug, Default)]
pub struct Outside {}
