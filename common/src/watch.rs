//! Which sockets belong to which service.

/// Services that can be watched at a time.
pub const SLOTS: u32 = 1024;
/// Cgroups that can be named at a time.
pub const CGROUPS: u32 = 1024;
/// Listening ports that can be named at a time.
pub const PORTS: u32 = 4096;
/// Deepest level of the cgroup tree at which a watch is found; the root is level 0.
pub const LEVELS: u32 = 16;

/// A listening port in one network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Cookie of the network namespace; 0 where the kernel does not tell the program.
    pub netns: u64,
    /// In host byte order.
    pub port: u32,
    pub reserved: u32,
}

/// What the programs read at each decision about a flow; written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Watching {
    /// Rises with each change, so that sockets once found unwatched are looked at again.
    pub generation: u32,
    /// Deepest level of a watched cgroup, plus one; 0 where none is watched.
    pub levels: u32,
    /// How many ports are watched.
    pub ports: u32,
    pub reserved: u32,
}

#[cfg(feature = "user")]
// SAFETY: C layout, only integers, no implicit padding.
unsafe impl aya::Pod for PortKey {}
#[cfg(feature = "user")]
// SAFETY: C layout, only integers, no implicit padding.
unsafe impl aya::Pod for Watching {}
