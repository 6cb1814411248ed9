//! Capture in the kernel: programs on cgroups copy HTTP/1 payload into a ring, and this module
//! reads it. Nothing wakes the reader; it looks every few milliseconds.

mod attachments;
mod cgroups;
mod deferred;
mod error;
mod loader;
mod own_sockets;
mod processes;
mod records;
mod unread;
mod watches;

use std::path::{Path, PathBuf};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf, SkStorage},
};
use stoa_common::{
    record::reason,
    tally::{Amount, Tally},
};
use stoa_wire::segment::Event;

use self::{
    attachments::Attachments, cgroups::Tree, deferred::Deferred, loader::Features,
    records::Context, unread::Unread, watches::Watches,
};
pub use self::{error::EbpfError, own_sockets::OwnSockets};
use super::{CaptureError, CaptureSource, ServiceCounters, WatchSpec};

/// Records handed on by one call of `drain`: a fraction of a millisecond's work, so that the thread
/// can give way in between.
const BATCH: usize = 64;

#[derive(Clone, Debug)]
pub struct EbpfConfig {
    /// Bytes of the ring between kernel and agent; rounded up to a power of two of at least 256
    /// KiB. Its pages count twice in the agent's resident memory, because they are mapped twice.
    pub ring_bytes: u32,
    /// Bytes of body copied per message and direction, at most 1 MiB. Heads are copied whole up to
    /// 64 KiB.
    pub body_budget: u32,
}

impl Default for EbpfConfig {
    fn default() -> Self {
        Self { ring_bytes: 8 << 20, body_budget: 16 << 10 }
    }
}

impl EbpfConfig {
    fn ring_size(&self) -> u32 {
        self.ring_bytes.clamp(256 << 10, 1 << 30).next_power_of_two()
    }
}

/// The loaded programs, what they are attached to, and the ring. Everything detaches when it is
/// dropped, and when the process dies.
pub struct EbpfCapture {
    object: Ebpf,
    features: Features,
    ring: RingBuf<MapData>,
    tallies: PerCpuArray<MapData, Tally>,
    copy_one_in: Array<MapData, u32>,
    watches: Watches,
    attachments: Attachments,
    deferred: Deferred,
    unread: Unread,
    is_stopped: bool,
    epoch_offset: u64,
}

impl EbpfCapture {
    /// Loads the programs into the kernel; they see nothing until something is watched.
    pub fn load(config: &EbpfConfig) -> Result<Self, EbpfError> {
        let tree = Tree::find()?;
        let loader::Loaded { mut object, features } = loader::load(config)?;
        let ring = RingBuf::try_from(take(&mut object, "EVENTS")?)
            .map_err(|e| EbpfError::Load(e.to_string()))?;
        let tallies = PerCpuArray::try_from(take(&mut object, "TALLIES")?)
            .map_err(|e| EbpfError::Load(e.to_string()))?;
        let copy_one_in = Array::try_from(take(&mut object, "COPY_ONE_IN")?)
            .map_err(|e| EbpfError::Load(e.to_string()))?;
        let watching = Array::try_from(take(&mut object, "WATCHING")?)
            .map_err(|e| EbpfError::Load(e.to_string()))?;
        let cgroup_map = HashMap::try_from(take(&mut object, "WATCHED_CGROUPS")?)
            .map_err(|e| EbpfError::Load(e.to_string()))?;
        let port_map = HashMap::try_from(take(&mut object, "WATCHED_PORTS")?)
            .map_err(|e| EbpfError::Load(e.to_string()))?;
        let watches = Watches::new(tree, features.has_netns_cookie, watching, cgroup_map, port_map);
        Ok(Self {
            object,
            features,
            ring,
            tallies,
            copy_one_in,
            watches,
            attachments: Attachments::default(),
            deferred: Deferred::default(),
            unread: Unread::default(),
            is_stopped: false,
            epoch_offset: epoch_offset(),
        })
    }

    /// One line each: what this kernel gives and which probes are used.
    pub fn features(&self) -> Vec<String> {
        self.features.describe()
    }

    /// Watches for a service; several watches of one service add up.
    pub fn watch(&mut self, service: u32, spec: &WatchSpec) -> Result<(), EbpfError> {
        self.watches.add(service, spec)?;
        self.apply()
    }

    /// Forgets every watch of a service. Its counters stay.
    pub fn unwatch(&mut self, service: u32) -> Result<(), EbpfError> {
        self.watches.remove(service);
        self.apply()
    }

    /// The folder of a cgroup that a watch names.
    pub fn cgroup_of(&self, path: &Path) -> Option<PathBuf> {
        self.watches.cgroup_of(path)
    }

    /// To tell it which sockets are the agent's. To be taken once.
    pub fn take_own_sockets(&mut self) -> Result<OwnSockets, EbpfError> {
        SkStorage::try_from(take(&mut self.object, "OWN_SOCKETS")?)
            .map(OwnSockets::new)
            .map_err(|e| EbpfError::Load(e.to_string()))
    }

    fn apply(&mut self) -> Result<(), EbpfError> {
        // First the maps, then the programs: a program finds its socket's service at once.
        let wanted = self.watches.apply()?;
        self.attachments.set(&mut self.object, &wanted, self.features.has_lifecycle)
    }
}

impl CaptureSource for EbpfCapture {
    fn describe(&self) -> Vec<String> {
        let mut lines = self.features();
        lines.extend(
            self.attachments.cgroups().map(|c| format!("attached to {}", c.path.display())),
        );
        lines.extend(self.watches.describe());
        lines
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Event<'_>)) -> Result<usize, CaptureError> {
        let context =
            Context { epoch_offset: self.epoch_offset, services: self.watches.services() };
        let mut events = 0;
        for _ in 0..BATCH {
            let Some(record) = self.ring.next() else { break };
            let Self { deferred, unread, .. } = self;
            events += records::decode(&record, &context, deferred, unread, emit);
        }
        self.deferred.expire(self.is_stopped && events == 0, &mut self.unread);
        Ok(events)
    }

    fn counters(&self) -> Vec<ServiceCounters> {
        self.watches
            .services()
            .iter()
            .enumerate()
            .map(|(slot, service)| {
                let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                let mut total = Tally::default();
                if let Ok(cpus) = self.tallies.get(&slot, 0) {
                    cpus.iter().for_each(|cpu| add(&mut total, cpu));
                }
                leave_out(&mut total, self.unread.of(slot));
                total.shed_exchanges += self.unread.exchanges_of(slot);
                counters(*service, &total)
            })
            .collect()
    }

    fn refresh(&mut self) -> Result<(), CaptureError> {
        // The wall clock may have been set.
        self.epoch_offset = epoch_offset();
        self.watches.resolve_all();
        Ok(self.apply()?)
    }

    fn sample(&mut self, one_in: u32) {
        if let Err(error) = self.copy_one_in.set(0, &one_in, 0) {
            tracing::debug!(%error, one_in, "how much is copied stays as it was");
        }
    }

    fn stop(&mut self) {
        // What is in the ring stays there to be drained.
        let _ = self.attachments.set(&mut self.object, &[], false);
        self.is_stopped = true;
    }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, EbpfError> {
    object.take_map(name).ok_or(EbpfError::ObjectMismatch(name))
}

fn add(total: &mut Tally, cpu: &Tally) {
    let add = |to: &mut Amount, from: &Amount| {
        to.segments += from.segments;
        to.bytes += from.bytes;
    };
    add(&mut total.due, &cpu.due);
    add(&mut total.captured, &cpu.captured);
    for (to, from) in total.lost.iter_mut().zip(&cpu.lost) {
        add(to, from);
    }
    total.shed_exchanges += cpu.shed_exchanges;
    total.foreign_flows += cpu.foreign_flows;
}

/// Takes what nobody read from the captured to the lost.
fn leave_out(total: &mut Tally, unread: Amount) {
    let evicted = &mut total.lost[usize::from(reason::EVICTED)];
    let (segments, bytes) =
        (unread.segments.min(total.captured.segments), unread.bytes.min(total.captured.bytes));
    total.captured.segments -= segments;
    total.captured.bytes -= bytes;
    evicted.segments += segments;
    evicted.bytes += bytes;
}

fn counters(service: u32, total: &Tally) -> ServiceCounters {
    let lost = (0u8..reason::COUNT as u8).zip(&total.lost).filter_map(|(code, amount)| {
        records::loss(code).map(|why| (why, amount.segments, amount.bytes))
    });
    ServiceCounters {
        service,
        due_segments: total.due.segments,
        due_bytes: total.due.bytes,
        captured_segments: total.captured.segments,
        captured_bytes: total.captured.bytes,
        lost: lost.collect(),
        shed_exchanges: total.shed_exchanges,
    }
}

/// Nanoseconds to add to CLOCK_MONOTONIC, which the programs read, to have the time since the
/// epoch.
fn epoch_offset() -> u64 {
    let read = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a plain system call with a valid pointer.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
    };
    read(libc::CLOCK_REALTIME).wrapping_sub(read(libc::CLOCK_MONOTONIC))
}
