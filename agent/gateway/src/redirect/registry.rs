//! The enrolled workloads: how one comes, stays and goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tokio::{sync::watch, task::JoinSet};

use super::{
    capture::{Capture, Observed},
    error::RedirectError,
    metrics::{KINDS, Metrics, OUTBOUND_VERDICTS, Row, VERDICTS},
    outbound::{Leading, Outbound, Telling},
    pins::Pins,
    programs::{CgroupLinks, KernelCounts, Programs, Steering, SteeringOptions},
    protocol::Handed,
    records::Records,
    worker::Workers,
    workload::{Counts, Direction, FailMode, Outgoing, Phase, Place, Workload, WorkloadSpec},
};
use crate::drain;

/// Workloads of one agent. A node of Kubernetes has 110 pods by default.
pub(super) const LIMIT: usize = 4096;
/// How long listeners stay when nothing leads to them any more: handshakes that have begun end in
/// their queues.
const GRACE: Duration = Duration::from_secs(1);

pub(super) struct Registry {
    programs: Programs,
    workers: Workers,
    pins: Pins,
    records: Records,
    surroundings: Surroundings,
    enrolled: BTreeMap<String, Enrolled>,
    /// Those that are steered no longer and have connections open, until these end.
    leaving: JoinSet<()>,
    cut: watch::Sender<bool>,
}

/// What else there is in this agent.
pub(super) struct Surroundings {
    /// Of workloads that name none.
    pub tenant: Arc<str>,
    pub metrics: Arc<Metrics>,
    pub capture: Option<Arc<dyn Capture>>,
}

impl Surroundings {
    fn observed_at(&self, place: &Place) -> Option<Observed> {
        let capture = self.capture.as_ref()?;
        let service = capture.service_at(&place.cgroup, &place.namespace)?;
        Some(Observed { capture: Arc::clone(capture), service })
    }
}

struct Enrolled {
    workload: Arc<Workload>,
    /// Who enrolled it: its snapshots say whether it stays.
    source: String,
    steering: Steering,
    cgroup: CgroupLinks,
    outbound: Option<Outward>,
    took: Duration,
}

/// How the connections that a workload makes are steered.
struct Outward {
    leading: Leading,
    telling: Telling,
    counts: Arc<KernelCounts>,
}

impl Registry {
    pub(super) fn new(
        programs: Programs,
        workers: Workers,
        pins: Pins,
        records: Records,
        surroundings: Surroundings,
    ) -> Self {
        Self {
            programs,
            workers,
            pins,
            records,
            surroundings,
            enrolled: BTreeMap::new(),
            leaving: JoinSet::new(),
            cut: watch::Sender::new(false),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.enrolled.len()
    }

    /// Steers the workload's new connections from now on. Asking twice changes nothing; asking
    /// for something else under the same name replaces it without a gap.
    pub(super) async fn enrol(
        &mut self,
        spec: WorkloadSpec,
        source: &str,
        held: Option<&Path>,
    ) -> Result<(), RedirectError> {
        let started = Instant::now();
        spec.check()?;
        let place = spec.resolve(held)?;
        if let Some(present) = self.enrolled.get_mut(&spec.name) {
            let is_same = present.workload.spec == spec
                && present.workload.place.identity() == place.identity();
            if is_same {
                present.source = source.to_owned();
                return self.records.write(&present.workload, source);
            }
        } else if self.enrolled.len() >= LIMIT {
            return Err(RedirectError::TooMany { limit: LIMIT });
        }
        let namespace = &place.namespace;
        let taken = self.enrolled.values().find(|other| {
            other.workload.spec.name != spec.name
                && other.workload.place.namespace.identity() == namespace.identity()
        });
        if let Some(other) = taken {
            return Err(RedirectError::NamespaceTaken(other.workload.spec.name.clone()));
        }

        let failed = |source| RedirectError::Namespace { path: place.netns.clone(), source };
        let addresses = namespace.addresses().map_err(failed)?;
        let netns = namespace.cookie().map_err(failed)?;
        let sets = self.workers.listen(namespace)?;
        let Some(first) = sets.first() else { return Err(RedirectError::Ended) };
        let listeners = addresses_of(first)?;
        let (outgoing_sets, outgoing, outbound) = match spec.outbound {
            false => (Vec::new(), None, None),
            true => {
                if place.holds_this_process() {
                    return Err(RedirectError::OwnCgroup { path: place.cgroup });
                }
                let sets = self.workers.listen(namespace)?;
                let Some(first) = sets.first() else { return Err(RedirectError::Ended) };
                let (outbound, destinations) = Outbound::load(first, &addresses)?;
                let outgoing = Outgoing {
                    destinations,
                    policies: spec.outbound_policies.as_deref().map(Into::into),
                    counts: Counts::default(),
                };
                (sets, Some(outgoing), Some(outbound))
            }
        };
        if let Some(capture) = &self.surroundings.capture {
            // Before a single connection comes to them.
            for listener in sets.iter().chain(&outgoing_sets).flatten() {
                if let Err(reason) = capture.leave_out(listener) {
                    tracing::warn!(reason, "what is steered may be observed twice");
                }
            }
        }
        let name = spec.name.clone();
        let workload = Arc::new(Workload {
            name: name.as_str().into(),
            tenant: match &spec.tenant {
                Some(tenant) => tenant.as_str().into(),
                None => Arc::clone(&self.surroundings.tenant),
            },
            policies: spec.policies.as_deref().map(Into::into),
            observed: self.surroundings.observed_at(&place),
            spec,
            place,
            netns,
            listeners,
            phase: watch::Sender::new(Phase::Serving),
            drain: drain::channel().0,
            counts: Counts::default(),
            outbound: outgoing,
        });
        // In this order a connection that is steered finds everything in place.
        let cgroup = self.programs.attach_to_cgroup(&workload.place.cgroup)?;
        self.workers.serve(&workload, Direction::Inbound, &sets).await?;
        self.workers.serve(&workload, Direction::Outbound, &outgoing_sets).await?;
        let steered = self
            .steer(&workload, first, &addresses)
            .and_then(|steering| Ok((steering, self.lead(&workload, outbound)?)))
            .and_then(|steered| self.records.write(&workload, source).map(|()| steered));
        let (steering, outbound) = match steered {
            Ok(steered) => steered,
            Err(error) => {
                workload.phase.send_replace(Phase::Leaving);
                return Err(error);
            }
        };
        let enrolled = Enrolled {
            workload,
            source: source.to_owned(),
            steering,
            cgroup,
            outbound,
            took: started.elapsed(),
        };
        tracing::info!(workload = name, took_us = enrolled.took.as_micros(), "enrolled");
        self.surroundings.metrics.put(Row {
            workload: Arc::clone(&enrolled.workload),
            kernel: enrolled.steering.counts(),
            outbound: enrolled.outbound.as_ref().map(|outward| Arc::clone(&outward.counts)),
            sockets: self.programs.sockets(),
        });
        if let Some(previous) = self.enrolled.insert(name, enrolled) {
            self.leave(previous);
        }
        Ok(())
    }

    fn steer(
        &mut self,
        workload: &Workload,
        inbound: &[std::net::TcpListener],
        addresses: &[std::net::IpAddr],
    ) -> Result<Steering, RedirectError> {
        let fail_closed = match workload.spec.fail_mode {
            FailMode::Open => None,
            FailMode::Closed => Some(self.pins.next()?),
        };
        let ports: Vec<u16> = workload.spec.ports.iter().copied().collect();
        let options = SteeringOptions { ports: &ports, fail_closed, inbound, addresses };
        Steering::attach(&workload.place.namespace, &workload.place.netns, &options)
    }

    fn lead(
        &mut self,
        workload: &Workload,
        outbound: Option<Outbound>,
    ) -> Result<Option<Outward>, RedirectError> {
        let Some(outbound) = outbound else { return Ok(None) };
        let pins = match workload.spec.fail_mode {
            FailMode::Open => None,
            FailMode::Closed => Some([self.pins.next()?, self.pins.next()?]),
        };
        let counts = outbound.counts();
        let (leading, telling) = outbound.attach(&workload.place.cgroup, pins)?;
        Ok(Some(Outward { leading, telling, counts }))
    }

    /// Steers no longer: new connections reach the application, those that are open go on.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), RedirectError> {
        let enrolled =
            self.enrolled.remove(name).ok_or_else(|| RedirectError::Unknown(name.to_owned()))?;
        self.records.remove(name);
        tracing::info!(workload = name, "removed");
        self.leave(enrolled);
        self.pins.tidy();
        Ok(())
    }

    pub(super) fn remove_all(&mut self) -> usize {
        let names: Vec<_> = self.enrolled.keys().cloned().collect();
        names.iter().filter(|name| self.remove(name).is_ok()).count()
    }

    /// Removes what `source` has enrolled and does not name any more.
    pub(super) fn keep_only(&mut self, source: &str, named: &BTreeSet<String>) -> usize {
        let gone: Vec<_> = self
            .enrolled
            .iter()
            .filter(|(name, enrolled)| enrolled.source == source && !named.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        gone.iter().filter(|name| self.remove(name).is_ok()).count()
    }

    /// Removes workloads whose cgroup is gone: they have ended.
    pub(super) fn sweep(&mut self) {
        let gone: Vec<_> = self
            .enrolled
            .iter()
            .filter(|(_, enrolled)| !enrolled.workload.place.is_there())
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            tracing::info!(workload = name, "its cgroup is gone");
            let _ = self.remove(&name);
        }
        while self.leaving.try_join_next().is_some() {}
    }

    /// Everything is steered by another agent now: its programs have the last word already.
    pub(super) fn hand_over(&mut self) {
        for (_, enrolled) in std::mem::take(&mut self.enrolled) {
            self.leave(enrolled);
        }
        self.pins.remove();
    }

    fn leave(&mut self, enrolled: Enrolled) {
        let Enrolled { workload, steering, cgroup, outbound, .. } = enrolled;
        self.surroundings.metrics.remove(&workload);
        drop(steering);
        let telling = outbound.map(|Outward { leading, telling, .. }| {
            drop(leading);
            telling
        });
        let mut cut = self.cut.subscribe();
        self.leaving.spawn_local(async move {
            tokio::time::sleep(GRACE).await;
            workload.phase.send_replace(Phase::Leaving);
            workload.drain.begin();
            tokio::select! {
                () = workload.phase.closed() => {}
                _ = cut.wait_for(|cut| *cut) => {
                    workload.phase.send_replace(Phase::Cut);
                    workload.phase.closed().await;
                }
            }
            // Now that no connection is left whose other end the application could ask for.
            drop((cgroup, telling));
        });
    }

    /// Waits until the last connection of those that leave has ended.
    pub(super) async fn drain(&mut self) {
        while self.leaving.join_next().await.is_some() {}
    }

    /// Cuts what is still open, and ends the threads.
    pub(super) async fn end(mut self) {
        self.cut.send_replace(true);
        self.drain().await;
        self.pins.remove();
        self.workers.join();
    }

    /// For the agent that takes over: with the namespace as this process holds it, which is right
    /// whatever has become of the path that it was named by.
    pub(super) fn export(&self) -> Vec<Handed> {
        let own = std::process::id();
        self.enrolled
            .values()
            .map(|enrolled| {
                let fd = enrolled.workload.place.namespace.as_fd().as_raw_fd();
                Handed {
                    workload: enrolled.workload.spec.clone(),
                    source: enrolled.source.clone(),
                    held: Some(format!("/proc/{own}/fd/{fd}").into()),
                }
            })
            .collect()
    }

    /// What an agent that did not stop in order had enrolled.
    pub(super) fn left_by_a_crash(&self) -> Vec<Handed> {
        self.records
            .read()
            .into_iter()
            .map(|(workload, source)| Handed { workload, source, held: None })
            .collect()
    }

    /// Removes what earlier runs have pinned. Returns how many programs there were.
    pub(super) fn remove_leftovers(&self) -> usize {
        self.pins.remove_leftovers()
    }

    /// Does not try again to enrol it.
    pub(super) fn forget(&self, name: &str) {
        self.records.remove(name);
    }

    /// After a stop in order the next agent has nothing to continue.
    pub(super) fn remove_records(&self) {
        self.records.remove_folder();
    }

    pub(super) fn list(&self) -> Vec<Value> {
        self.enrolled.values().map(|enrolled| self.describe(enrolled)).collect()
    }

    fn describe(&self, enrolled: &Enrolled) -> Value {
        let Enrolled { workload, steering, .. } = enrolled;
        let by_name = |(name, value): (&str, u64)| (name.to_owned(), Value::from(value));
        let connections: Map<_, _> = workload.counts.connections().map(by_name).collect();
        let requests: Map<_, _> = workload.counts.requests().map(by_name).collect();
        let counts = steering.counts();
        let kernel: Map<_, _> =
            VERDICTS.iter().map(|(which, name)| by_name((*name, counts.read(*which)))).collect();
        let sockets = self.programs.sockets().read(workload.netns);
        let outbound = workload.outbound.as_ref().zip(enrolled.outbound.as_ref()).map(
            |(outgoing, outward)| {
                let connections: Map<_, _> = outgoing.counts.connections().map(by_name).collect();
                let requests: Map<_, _> = outgoing.counts.requests().map(by_name).collect();
                let kernel: Map<_, _> = OUTBOUND_VERDICTS
                    .iter()
                    .map(|(which, name)| by_name((*name, outward.counts.read(*which))))
                    .collect();
                json!({
                    "policies": outgoing.policies.as_deref(),
                    "connections": connections,
                    "requests": requests,
                    "kernel": kernel,
                })
            },
        );
        let left_alone: Map<_, _> = KINDS.into_iter().zip(sockets).map(by_name).collect();
        json!({
            "name": workload.spec.name,
            "source": enrolled.source,
            "cgroup": workload.place.cgroup,
            "netns": workload.place.netns,
            "ports": workload.spec.ports,
            "fail_mode": workload.spec.fail_mode,
            "policies": workload.spec.policies,
            "tenant": &*workload.tenant,
            "observed_as": workload.observed.as_ref().map(|observed| &*observed.service),
            "enrol_us": u64::try_from(enrolled.took.as_micros()).unwrap_or(u64::MAX),
            "connections": connections,
            "requests": requests,
            "kernel": kernel,
            "left_alone": left_alone,
            "outbound": outbound,
        })
    }
}

fn addresses_of(
    listeners: &[std::net::TcpListener],
) -> Result<Vec<std::net::SocketAddr>, RedirectError> {
    let addresses = listeners.iter().map(std::net::TcpListener::local_addr);
    addresses.collect::<Result<_, _>>().map_err(RedirectError::Listen)
}
