//! From what the operator named to the maps that the programs read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, MapData};
use stoa_common::watch::{CGROUPS, LEVELS, PORTS, PortKey, SLOTS, Watching};

use super::{
    cgroups::{Cgroup, Tree, topmost},
    error::EbpfError,
    processes::{Listening, listening_ports, own_netns_cookie},
};
use crate::capture::WatchSpec;

/// One thing that was named, and what it means at the moment.
struct Watch {
    slot: u32,
    spec: WatchSpec,
    cgroup: Option<Cgroup>,
    ports: BTreeSet<Listening>,
}

/// The watches and the maps that mirror them.
pub(super) struct Watches {
    tree: Tree,
    /// The service of each slot.
    services: Vec<u32>,
    watches: Vec<Watch>,
    has_netns_cookie: bool,
    generation: u32,
    watching: Array<MapData, Watching>,
    cgroup_map: HashMap<MapData, u64, u32>,
    port_map: HashMap<MapData, PortKey, u32>,
    cgroups_set: BTreeMap<u64, u32>,
    ports_set: BTreeMap<(u64, u32), u32>,
}

impl Watches {
    pub(super) fn new(
        tree: Tree,
        has_netns_cookie: bool,
        watching: Array<MapData, Watching>,
        cgroup_map: HashMap<MapData, u64, u32>,
        port_map: HashMap<MapData, PortKey, u32>,
    ) -> Self {
        Self {
            tree,
            services: Vec::new(),
            watches: Vec::new(),
            has_netns_cookie,
            generation: 0,
            watching,
            cgroup_map,
            port_map,
            cgroups_set: BTreeMap::new(),
            ports_set: BTreeMap::new(),
        }
    }

    pub(super) fn services(&self) -> &[u32] {
        &self.services
    }

    pub(super) fn cgroup_of(&self, path: &Path) -> Option<PathBuf> {
        self.tree.resolve(path).ok().map(|cgroup| cgroup.path)
    }

    /// Adds a watch; the maps are written by [`Self::apply`].
    pub(super) fn add(&mut self, service: u32, spec: &WatchSpec) -> Result<(), EbpfError> {
        let known = self.services.iter().position(|s| *s == service);
        let place = known.unwrap_or(self.services.len());
        let slot = u32::try_from(place)
            .ok()
            .filter(|slot| *slot < SLOTS)
            .ok_or(EbpfError::TooMany { what: "services", limit: SLOTS })?;
        let mut watch = Watch { slot, spec: spec.clone(), cgroup: None, ports: BTreeSet::new() };
        self.resolve(&mut watch)?;
        if known.is_none() {
            self.services.push(service);
        }
        self.watches.push(watch);
        Ok(())
    }

    pub(super) fn remove(&mut self, service: u32) {
        let services = &self.services;
        self.watches.retain(|watch| {
            services.get(watch.slot as usize).is_none_or(|of_slot| *of_slot != service)
        });
    }

    /// Looks up again what each watch means. What has gone matches nothing until it comes back.
    pub(super) fn resolve_all(&mut self) {
        let mut watches = std::mem::take(&mut self.watches);
        for watch in &mut watches {
            if self.resolve(watch).is_err() {
                watch.cgroup = None;
                watch.ports.clear();
            }
        }
        self.watches = watches;
    }

    fn resolve(&self, watch: &mut Watch) -> Result<(), EbpfError> {
        match &watch.spec {
            WatchSpec::Cgroup(path) => watch.cgroup = Some(self.tree.resolve(path)?),
            WatchSpec::Pid(pid) => watch.ports = listening_ports(*pid)?,
            WatchSpec::Port(port) => {
                watch.ports =
                    BTreeSet::from([Listening { netns: own_netns_cookie(), port: *port }]);
            }
        }
        Ok(())
    }

    /// Writes the maps and returns the cgroups at which programs belong.
    pub(super) fn apply(&mut self) -> Result<Vec<Cgroup>, EbpfError> {
        let mut cgroups = BTreeMap::new();
        let mut ports = BTreeMap::new();
        let mut at = Vec::new();
        for watch in &self.watches {
            if let Some(cgroup) = &watch.cgroup {
                cgroups.insert(cgroup.id, watch.slot);
                at.push(cgroup.clone());
            }
            for listening in &watch.ports {
                let netns = if self.has_netns_cookie { listening.netns } else { 0 };
                ports.insert((netns, u32::from(listening.port)), watch.slot);
            }
        }
        if self.watches.iter().any(|watch| !matches!(watch.spec, WatchSpec::Cgroup(_))) {
            // A socket stays in the cgroup in which it was made, wherever its process went:
            // only at the root are all sockets seen, and there the port tells.
            at.push(self.tree.root()?);
        }
        check_room("cgroups", cgroups.len(), CGROUPS)?;
        check_room("ports", ports.len(), PORTS)?;
        if cgroups != self.cgroups_set || ports != self.ports_set {
            self.write(cgroups, ports)?;
        }
        Ok(topmost(at))
    }

    fn write(
        &mut self,
        cgroups: BTreeMap<u64, u32>,
        ports: BTreeMap<(u64, u32), u32>,
    ) -> Result<(), EbpfError> {
        let failed = |map: &'static str| {
            move |error: aya::maps::MapError| EbpfError::Map { map, reason: error.to_string() }
        };
        let key = |(netns, port): (u64, u32)| PortKey { netns, port, reserved: 0 };
        for (id, slot) in &cgroups {
            if self.cgroups_set.get(id) != Some(slot) {
                self.cgroup_map.insert(id, slot, 0).map_err(failed("WATCHED_CGROUPS"))?;
            }
        }
        for (name, slot) in &ports {
            if self.ports_set.get(name) != Some(slot) {
                self.port_map.insert(&key(*name), slot, 0).map_err(failed("WATCHED_PORTS"))?;
            }
        }
        for id in self.cgroups_set.keys().filter(|id| !cgroups.contains_key(id)) {
            self.cgroup_map.remove(id).map_err(failed("WATCHED_CGROUPS"))?;
        }
        for name in self.ports_set.keys().filter(|name| !ports.contains_key(name)) {
            self.port_map.remove(&key(*name)).map_err(failed("WATCHED_PORTS"))?;
        }
        self.generation = self.generation.wrapping_add(1);
        let watching = Watching {
            generation: self.generation,
            levels: if cgroups.is_empty() { 0 } else { LEVELS },
            ports: u32::try_from(ports.len()).unwrap_or(u32::MAX),
            reserved: 0,
        };
        self.watching.set(0, &watching, 0).map_err(failed("WATCHING"))?;
        self.cgroups_set = cgroups;
        self.ports_set = ports;
        Ok(())
    }

    /// One line for each watch: what it matches at the moment.
    pub(super) fn describe(&self) -> Vec<String> {
        self.watches
            .iter()
            .map(|watch| {
                let service = self.services.get(watch.slot as usize).copied().unwrap_or_default();
                let matched = match (&watch.cgroup, &watch.spec) {
                    (Some(cgroup), _) => format!("cgroup {}", cgroup.path.display()),
                    (None, WatchSpec::Cgroup(_)) => "nothing: the cgroup is gone".to_owned(),
                    _ if watch.ports.is_empty() => "nothing yet: it listens on no port".to_owned(),
                    _ => {
                        let ports: Vec<_> =
                            watch.ports.iter().map(|l| l.port.to_string()).collect();
                        format!("port {}", ports.join(", "))
                    }
                };
                format!("service {service} ({}): {matched}", watch.spec)
            })
            .collect()
    }
}

fn check_room(what: &'static str, wanted: usize, limit: u32) -> Result<(), EbpfError> {
    if wanted > limit as usize { Err(EbpfError::TooMany { what, limit }) } else { Ok(()) }
}
