//! What the kernel side puts into the ring.

/// Begins every record. `captured` payload bytes follow in the same record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RecordHeader {
    /// The socket cookie: unique among the sockets of one boot.
    pub flow: u64,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub at: u64,
    /// The service slot that the loader gave to the watch.
    pub slot: u32,
    pub seq: u32,
    pub ack: u32,
    /// Payload bytes on the wire that this record stands for.
    pub len: u32,
    /// How many of them follow the header.
    pub captured: u32,
    pub kind: u8,
    pub direction: u8,
    /// TCP flags as on the wire.
    pub flags: u8,
    /// Why `captured` is less than `len`, or why the bytes of a `LOST` record are lost.
    pub reason: u8,
}

/// A connection's two ends and where its streams begin.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OpenRecord {
    pub header: RecordHeader,
    /// IPv4 addresses use the first four bytes.
    pub client: [u8; 16],
    pub server: [u8; 16],
    /// In host byte order.
    pub client_port: u16,
    pub server_port: u16,
    /// 4 or 6.
    pub family: u8,
    /// 1 where the connection was seen being established; the two sequence numbers hold only then.
    pub from_start: u8,
    pub reserved: [u8; 2],
    /// Sequence number of the first byte from the client.
    pub client_seq: u32,
    /// Sequence number of the first byte from the server.
    pub server_seq: u32,
    /// The name under which segments came before the connection had a socket, or 0.
    pub deferred: u64,
}

/// Marks, in [`RecordHeader::flow`], the name of a connection that has no socket yet. An
/// [`OpenRecord`] tells which one it became, if it came to be. Below it is the number of the CPU
/// that saw it: the next such name from the same CPU means that the one before is over.
pub const DEFERRED: u64 = 1 << 63;
/// Where in such a name the number of the CPU begins.
pub const DEFERRED_CPU_SHIFT: u32 = 40;

pub const HEADER_LEN: usize = size_of::<RecordHeader>();
pub const OPEN_LEN: usize = size_of::<OpenRecord>();

/// Payload room of a segment record, by size class: a reservation's size is a constant to the
/// verifier, and a record much larger than its data wastes the ring.
pub const CLASSES: [usize; 5] = [208, 464, 1488, 4048, 16336];
/// The most payload that one record carries.
pub const CHUNK: u32 = CLASSES[4] as u32;

pub mod kind {
    pub const OPEN: u8 = 1;
    pub const SEGMENT: u8 = 2;
    pub const LOST: u8 = 3;
    pub const CLOSE: u8 = 4;
}

pub mod direction {
    pub const TO_SERVER: u8 = 0;
    pub const TO_CLIENT: u8 = 1;
}

/// Reasons of loss; also the index into [`crate::tally::Tally::lost`].
pub mod reason {
    pub const RING_FULL: u8 = 0;
    pub const BUDGET: u8 = 1;
    pub const UNREADABLE: u8 = 2;
    pub const SHED: u8 = 3;
    pub const EVICTED: u8 = 4;
    pub const COUNT: usize = 5;
    pub const NONE: u8 = 255;
}

const _: () = assert!(HEADER_LEN == 40 && OPEN_LEN == 96);
