//! PortMirror: packets of a network interface, by AF_PACKET (packet(7)).
//!
//! The socket is of type SOCK_DGRAM, so that every kind of interface gives packets that begin with
//! their IP header. Binding to an interface by number needs an address that safe code cannot make,
//! so the socket is given a filter on the interface's number instead: packets of other interfaces
//! are refused in the kernel, before they are copied.

use std::{
    collections::HashMap,
    io::IoSliceMut,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
        recvmsg, setsockopt, socket, sockopt,
    },
};
use stoa_wire::{
    packet::LinkType,
    segment::{Endpoints, Event, FlowId, Loss, Nanos, Segment, name_of_server},
    tracker::{Tracker, TrackerConfig},
};

use super::{CaptureError, CaptureSource, ServiceCounters, WatchSpec, Watched};

/// As long as an IP packet can be after the kernel joined segments (without BIG TCP).
const PACKET_BYTES: usize = 64 << 10;
/// Packets read by one `drain`, so that the analysis gets to its other duties.
const PACKETS_PER_DRAIN: usize = 2048;

/// Services of a mirrored interface or a file: those named by `--watch NAME=port:PORT`, or, where
/// nothing is named, one for each server address and port.
pub struct MirroredServices {
    by_port: HashMap<u16, u32>,
    by_server: HashMap<SocketAddr, u32>,
    names: Vec<String>,
    found_from: usize,
    /// Connections to servers beyond the bound on services.
    pub flows_refused: u64,
}

/// Services that are told apart without being named.
const MAX_FOUND: usize = 256;

impl MirroredServices {
    /// `names`: of the services in `watched`, by number.
    pub fn new(names: Vec<String>, watched: &[Watched]) -> Result<Self, CaptureError> {
        let mut by_port = HashMap::new();
        for watch in watched {
            let WatchSpec::Port(port) = watch.spec else {
                return Err(CaptureError::Watch {
                    name: watch.name.clone(),
                    spec: watch.spec.to_string(),
                    reason: "mirrored packets know ports only: use NAME=port:PORT".to_owned(),
                });
            };
            by_port.insert(port, watch.service);
        }
        let found_from = names.len();
        Ok(Self { by_port, by_server: HashMap::new(), names, found_from, flows_refused: 0 })
    }

    /// The service that a server address belongs to; `None` where it is not watched.
    pub fn number(&mut self, server: SocketAddr) -> Option<u32> {
        if !self.by_port.is_empty() {
            return self.by_port.get(&server.port()).copied();
        }
        if let Some(number) = self.by_server.get(&server) {
            return Some(*number);
        }
        if self.by_server.len() >= MAX_FOUND {
            self.flows_refused += 1;
            return None;
        }
        let number = u32::try_from(self.names.len()).ok()?;
        self.names.push(name_of_server(server));
        self.by_server.insert(server, number);
        Some(number)
    }

    /// Those that were not named by the operator.
    pub fn found(&self) -> Vec<(u32, String)> {
        let numbered = (0_u32..).zip(&self.names).skip(self.found_from);
        numbered.map(|(number, name)| (number, name.clone())).collect()
    }
}

pub struct PortMirrorSource {
    socket: OwnedFd,
    interface: String,
    index: usize,
    is_loopback: bool,
    tracker: Tracker,
    services: MirroredServices,
    /// The service of each connection that is followed.
    flows: HashMap<FlowId, u32>,
    counters: HashMap<u32, ServiceCounters>,
    buffer: Vec<u8>,
    packets: u64,
    kernel_drops: u64,
    last_drop_count: u32,
}

impl PortMirrorSource {
    pub fn open(
        interface: &str,
        ring_bytes: usize,
        services: MirroredServices,
    ) -> Result<Self, CaptureError> {
        let refused =
            |reason: String| CaptureError::Interface { interface: interface.to_owned(), reason };
        let index = nix::net::if_::if_nametoindex(interface).map_err(|_| {
            refused(format!("there is no such interface; there are: {}", list_interfaces()))
        })?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .map_err(|e| match e {
            Errno::EPERM | Errno::EACCES => refused(
                "packet sockets need CAP_NET_RAW: run as root, or use --capture inline, which \
                 needs no privilege"
                    .to_owned(),
            ),
            e => refused(format!("no packet socket: {}", e.desc())),
        })?;
        attach_filter(&socket, index)
            .map_err(|e| refused(format!("no filter on the packet socket: {e}")))?;
        let ask = |e: Errno| refused(format!("a socket option was refused: {}", e.desc()));
        setsockopt(&socket, sockopt::RxqOvfl, &1).map_err(ask)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &ring_bytes).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &ring_bytes).map_err(ask)?;
        }
        Ok(Self {
            socket,
            interface: interface.to_owned(),
            index: usize::try_from(index).unwrap_or(usize::MAX),
            is_loopback: is_loopback(interface),
            tracker: Tracker::new(TrackerConfig::default()),
            services,
            flows: HashMap::new(),
            counters: HashMap::new(),
            buffer: vec![0; PACKET_BYTES],
            packets: 0,
            kernel_drops: 0,
            last_drop_count: 0,
        })
    }
}

/// Refuses in the kernel what is not of the interface. Classic BPF; `SKF_AD_IFINDEX` of
/// linux/filter.h.
fn attach_filter(socket: &OwnedFd, interface: u32) -> std::io::Result<()> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const INTERFACE_INDEX: u32 = 0xffff_f000 + 8;
    let step = |code, jt, jf, k| socket2::SockFilter::new(code, jt, jf, k);
    let program = [
        step(LOAD_WORD, 0, 0, INTERFACE_INDEX),
        step(JUMP_IF_EQUAL, 0, 1, interface),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ];
    socket2::SockRef::from(&socket.as_fd()).attach_filter(&program)
}

fn list_interfaces() -> String {
    let names = nix::net::if_::if_nameindex().map(|all| {
        all.iter().map(|i| i.name().to_string_lossy().into_owned()).collect::<Vec<_>>().join(", ")
    });
    names.unwrap_or_else(|_| "none that can be listed".to_owned())
}

fn is_loopback(interface: &str) -> bool {
    let addresses = nix::ifaddrs::getifaddrs();
    addresses.is_ok_and(|mut all| {
        all.any(|a| {
            a.interface_name == interface
                && a.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK)
        })
    })
}

impl CaptureSource for PortMirrorSource {
    fn describe(&self) -> Vec<String> {
        vec![
            format!("PortMirror: packets of interface {} by AF_PACKET", self.interface),
            "PortMirror: packets that the kernel drops before they are read are counted".to_owned(),
        ]
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Event<'_>)) -> Result<usize, CaptureError> {
        let mut events = 0;
        for _ in 0..PACKETS_PER_DRAIN {
            let mut control = nix::cmsg_space!(u32);
            let mut vectors = [IoSliceMut::new(&mut self.buffer)];
            // MSG_TRUNC makes the kernel return the packet's true length.
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let received = recvmsg::<LinkAddr>(
                self.socket.as_raw_fd(),
                &mut vectors,
                Some(&mut control),
                flags,
            );
            let received = match received {
                Ok(received) => received,
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(Errno::ENETDOWN) => continue,
                Err(e) => {
                    return Err(CaptureError::Stopped(format!(
                        "interface {}: {}",
                        self.interface,
                        e.desc()
                    )));
                }
            };
            let length = received.bytes;
            let address = received.address;
            for message in received.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::RxqOvfl(count) = message {
                    // The kernel's counter has 32 bits and wraps.
                    self.kernel_drops += u64::from(count.wrapping_sub(self.last_drop_count));
                    self.last_drop_count = count;
                }
            }
            let Some(address) = address else { continue };
            // On loopback every packet passes twice, once as outgoing; once is enough.
            const PACKET_OUTGOING: u8 = 4;
            if address.ifindex() != self.index
                || (self.is_loopback && address.pkttype() == PACKET_OUTGOING)
            {
                continue;
            }
            self.packets += 1;
            let packet = self.buffer.get(..length.min(PACKET_BYTES)).unwrap_or(&[]);
            let original = u32::try_from(length).unwrap_or(u32::MAX);
            let (services, flows) = (&mut self.services, &mut self.flows);
            let counters = &mut self.counters;
            self.tracker.push(LinkType::RAW, now(), packet, original, &mut |event| {
                if let Some(event) = admit(services, flows, counters, event) {
                    events += 1;
                    emit(event);
                }
            });
        }
        Ok(events)
    }

    fn counters(&self) -> Vec<ServiceCounters> {
        let mut all: Vec<_> = self.counters.values().cloned().collect();
        all.sort_by_key(|c| c.service);
        all
    }

    fn refresh(&mut self) -> Result<(), CaptureError> {
        Ok(())
    }

    fn source_counters(&self) -> Vec<(&'static str, u64)> {
        let tracker = self.tracker.counters();
        vec![
            ("mirror_packets", self.packets),
            ("mirror_kernel_drops", self.kernel_drops),
            ("mirror_not_tcp", tracker.not_tcp),
            ("mirror_malformed", tracker.malformed),
            ("mirror_flows_refused", self.services.flows_refused),
        ]
    }
}

/// Gives the event its service's number and counts it; `None` where it is not watched.
fn admit<'a>(
    services: &mut MirroredServices,
    flows: &mut HashMap<FlowId, u32>,
    counters: &mut HashMap<u32, ServiceCounters>,
    event: Event<'a>,
) -> Option<Event<'a>> {
    match event {
        Event::Open { flow, at, endpoints, from_start } => {
            let service = services.number(endpoints.server)?;
            flows.insert(flow, service);
            let endpoints = Endpoints { service, ..endpoints };
            Some(Event::Open { flow, at, endpoints, from_start })
        }
        Event::Segment(segment) => {
            let service = *flows.get(&segment.flow)?;
            let counter = counters.entry(service).or_default();
            counter.service = service;
            count_segment(counter, &segment);
            Some(event)
        }
        Event::Lost { flow, .. } => flows.contains_key(&flow).then_some(event),
        Event::Close { flow, .. } => flows.remove(&flow).map(|_| event),
    }
}

fn count_segment(counter: &mut ServiceCounters, segment: &Segment<'_>) {
    if segment.len == 0 {
        return;
    }
    let (due, captured) = (u64::from(segment.len), segment.data.len() as u64);
    counter.due_segments += 1;
    counter.due_bytes += due;
    counter.captured_bytes += captured;
    let missing = due.saturating_sub(captured);
    if missing == 0 {
        counter.captured_segments += 1;
        return;
    }
    let reason = segment.missing.unwrap_or(Loss::Unseen);
    match counter.lost.iter_mut().find(|(r, _, _)| *r == reason) {
        Some((_, segments, bytes)) => {
            *segments += 1;
            *bytes += missing;
        }
        None => counter.lost.push((reason, 1, missing)),
    }
}

fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn servers_are_told_apart_where_nothing_is_named() {
        let mut services = MirroredServices::new(Vec::new(), &[]).unwrap();
        assert_eq!(services.number(server("10.0.0.1:80")), Some(0));
        assert_eq!(services.number(server("[fd00::7]:80")), Some(1));
        assert_eq!(services.number(server("10.0.0.1:80")), Some(0));
        let names: Vec<_> = services.found().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["10.0.0.1-80", "ip6-fd00--7-80"]);
        for name in names {
            super::super::watch::check_service_name(&name).unwrap();
        }
    }

    #[test]
    fn named_ports_leave_the_others_out() {
        let watched = [Watched { service: 0, name: "api".to_owned(), spec: WatchSpec::Port(8000) }];
        let mut services = MirroredServices::new(vec!["api".to_owned()], &watched).unwrap();
        assert_eq!(services.number(server("10.0.0.1:8000")), Some(0));
        assert_eq!(services.number(server("10.0.0.1:8001")), None);
        assert_eq!(services.found(), []);
    }

    #[test]
    fn the_number_of_services_found_is_bounded() {
        let mut services = MirroredServices::new(Vec::new(), &[]).unwrap();
        for port in 1..=1000 {
            services.number(SocketAddr::from(([10, 0, 0, 1], port)));
        }
        assert_eq!(services.found().len(), MAX_FOUND);
        assert_eq!(services.flows_refused, 1000 - MAX_FOUND as u64);
    }

    #[test]
    fn an_interface_that_is_not_there_is_answered_with_those_that_are() {
        let services = MirroredServices::new(Vec::new(), &[]).unwrap();
        let error = PortMirrorSource::open("nope0", 1 << 20, services).err().unwrap().to_string();
        assert!(error.contains("nope0") && error.contains("lo"), "{error}");
    }
}
