//! pcap and pcapng files.

use std::{
    io::{self, BufReader, Read},
    net::SocketAddr,
};

use crate::{
    counters::Counters,
    exchange::Exchange,
    packet::LinkType,
    pcapng,
    reader::{Reader, ReaderConfig},
    segment::{Loss, Nanos},
    tracker::{Frame, PacketCounters, Tracker, TrackerConfig},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "not a capture file: it begins with {0:02x?}; give a pcap or pcapng file, as tcpdump or Wireshark writes"
    )]
    NotACapture(Vec<u8>),
    #[error("the capture file is empty; record one with `tcpdump -w FILE`")]
    Empty,
    #[error("not a HAR file: {0}; export one from a browser's network panel (\"Save all as HAR\")")]
    NotAHar(String),
    #[error("cannot read the file: {0}; check that it is readable and not on a failing disk")]
    Io(#[from] io::Error),
}

/// What a whole file held.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub packets: PacketCounters,
    pub reader: Counters,
    /// The server address and port behind each `Endpoints::service` number.
    pub services: Vec<SocketAddr>,
    /// Names given to services by the file (interface names of a recording), same index.
    pub service_names: Vec<Option<String>>,
    /// The file ends in the middle of a record that began at this offset; what came before it
    /// was used.
    pub truncated_at: Option<u64>,
    /// The file is damaged at this offset; what came before it was used.
    pub damaged_at: Option<u64>,
}

/// Reads a pcap or pcapng file of any size in bounded memory.
pub fn read_capture(
    reader: impl Read,
    config: ReaderConfig,
    sink: &mut dyn FnMut(Exchange),
) -> Result<Summary, Error> {
    let tracker = TrackerConfig {
        max_flows: config.max_flows,
        memory_limit: config.memory_limit / 4,
        idle_timeout: config.idle_timeout,
    };
    let mut replay = Replay {
        tracker: Tracker::new(tracker),
        reader: Reader::new(config),
        newest: 0,
        next_expiry: 0,
    };
    let mut interfaces = Vec::new();
    let end = read_packets(reader, &mut interfaces, &mut |frame| replay.take(frame, sink))?;
    let Replay { mut tracker, mut reader, .. } = replay;
    tracker.finish(&mut |event| reader.push(event, sink));
    reader.finish(sink);
    let name = |group: &Option<u32>| interfaces.get((*group)? as usize).cloned().flatten();
    Ok(Summary {
        packets: tracker.counters().clone(),
        reader: reader.counters().clone(),
        services: tracker.services().to_vec(),
        service_names: tracker.groups().iter().map(name).collect(),
        truncated_at: end.truncated_at,
        damaged_at: end.damaged_at,
    })
}

struct Replay {
    tracker: Tracker,
    reader: Reader,
    newest: Nanos,
    next_expiry: Nanos,
}

impl Replay {
    fn take(&mut self, frame: &Frame<'_>, sink: &mut dyn FnMut(Exchange)) {
        self.newest = self.newest.max(frame.at);
        // The file's clock stands for the wall's.
        if self.newest >= self.next_expiry {
            self.next_expiry = self.newest.saturating_add(1_000_000_000);
            self.reader.expire(self.newest, sink);
        }
        self.tracker.push_frame(frame, &mut |event| self.reader.push(event, sink));
    }
}

/// How a file ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    pub truncated_at: Option<u64>,
    pub damaged_at: Option<u64>,
}

/// Reads packets in file order. `names`: of the interfaces of a recording of our own, by group.
pub fn read_packets(
    reader: impl Read,
    names: &mut Vec<Option<String>>,
    sink: &mut dyn FnMut(&Frame<'_>),
) -> Result<End, Error> {
    let mut source = Source { inner: BufReader::with_capacity(256 << 10, reader), position: 0 };
    let mut magic = [0_u8; 4];
    match source.fill(&mut magic)? {
        Filled::Whole => {}
        Filled::Nothing => return Err(Error::Empty),
        Filled::Part(n) => return Err(Error::NotACapture(magic[..n].to_vec())),
    }
    match u32::from_le_bytes(magic) {
        0xa1b2_c3d4 => read_pcap(&mut source, u32::from_le_bytes, 1000, sink),
        0xd4c3_b2a1 => read_pcap(&mut source, u32::from_be_bytes, 1000, sink),
        0xa1b2_3c4d => read_pcap(&mut source, u32::from_le_bytes, 1, sink),
        0x4d3c_b2a1 => read_pcap(&mut source, u32::from_be_bytes, 1, sink),
        pcapng::SECTION_HEADER => pcapng::read_sections(&mut source, names, sink),
        _ => Err(Error::NotACapture(magic.to_vec())),
    }
}

/// Longer than any packet that a capture tool writes.
pub(crate) const LONGEST_PACKET: usize = 16 << 20;

pub(crate) struct Source<R> {
    inner: BufReader<R>,
    /// Bytes read so far.
    pub position: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    Whole,
    Part(usize),
    Nothing,
}

impl<R: Read> Source<R> {
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Filled> {
        let mut have = 0;
        while have < buffer.len() {
            match self.inner.read(&mut buffer[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += have as u64;
        Ok(match have {
            0 if !buffer.is_empty() => Filled::Nothing,
            n if n < buffer.len() => Filled::Part(n),
            _ => Filled::Whole,
        })
    }

    /// True where all of it was there.
    pub fn skip(&mut self, n: u64) -> io::Result<bool> {
        let skipped = io::copy(&mut self.inner.by_ref().take(n), &mut io::sink())?;
        self.position += skipped;
        Ok(skipped == n)
    }
}

fn read_pcap<R: Read>(
    source: &mut Source<R>,
    word: fn([u8; 4]) -> u32,
    nanos_per_tick: u64,
    sink: &mut dyn FnMut(&Frame<'_>),
) -> Result<End, Error> {
    let at = |bytes: &[u8], i: usize| word([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let mut header = [0_u8; 20];
    if source.fill(&mut header)? != Filled::Whole {
        return Ok(End { truncated_at: Some(0), damaged_at: None });
    }
    // The upper half tells of a frame check sequence, which lies behind the IP datagram.
    let link = LinkType(at(&header, 16) as u16);
    let mut packet = Vec::new();
    loop {
        let start = source.position;
        let truncated = End { truncated_at: Some(start), damaged_at: None };
        let mut record = [0_u8; 16];
        match source.fill(&mut record)? {
            Filled::Whole => {}
            Filled::Nothing => return Ok(End::default()),
            Filled::Part(_) => return Ok(truncated),
        }
        let captured = at(&record, 8) as usize;
        if captured > LONGEST_PACKET {
            return Ok(End { truncated_at: None, damaged_at: Some(start) });
        }
        packet.resize(captured, 0);
        if source.fill(&mut packet)? != Filled::Whole {
            return Ok(truncated);
        }
        let nanos = u64::from(at(&record, 0)) * 1_000_000_000
            + u64::from(at(&record, 4)).saturating_mul(nanos_per_tick);
        sink(&Frame {
            link,
            at: nanos,
            bytes: &packet,
            original_len: at(&record, 12),
            missing: Loss::Unseen,
            group: None,
        });
    }
}

#[cfg(test)]
#[path = "packet_file_tests.rs"]
mod tests;
