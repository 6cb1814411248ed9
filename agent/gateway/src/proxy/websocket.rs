//! How many messages a WebSocket connection may carry. Only the heads of frames are read
//! (RFC 6455 section 5.2); payload passes untouched and unseen, compressed or not.

use std::sync::atomic::AtomicU64;

use stoa_policy::gcra::{Answer, Rate};

/// RFC 6455 section 7.4.1: the connection violates a policy.
const POLICY_VIOLATION: [u8; 2] = 1008_u16.to_be_bytes();
const REASON: &[u8] = b"too many messages";
const FIN: u8 = 0x80;
const MASK: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTINUATION: u8 = 0x0;
const CLOSE: u8 = 0x8;

/// One direction of a connection.
pub struct Meter {
    rate: Rate,
    arrival: AtomicU64,
    next: Next,
    /// Messages, pings and pongs that passed.
    pub messages: u64,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The first of a frame.
    Opcode,
    Length,
    /// Bytes of the extended length and of the masking key that are still to come.
    Extended {
        length: u8,
        mask: u8,
        payload: u64,
    },
    Payload(u64),
}

/// A message came too early; bytes before `at` belong to those that did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub at: usize,
}

impl Meter {
    pub fn new(rate: Rate) -> Self {
        Self { rate, arrival: AtomicU64::new(0), next: Next::Opcode, messages: 0 }
    }

    /// Reads on. A message counts once, with its first frame, however many it has; so do pings and
    /// pongs, which somebody must answer. `now` is in nanoseconds of a clock that never runs back.
    pub fn read(&mut self, bytes: &[u8], now: u64) -> Result<(), TooMany> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match self.next {
                Next::Opcode => {
                    let opcode = byte & OPCODE;
                    if opcode != CONTINUATION && opcode != CLOSE {
                        if let Answer::Refused { .. } = self.rate.take(&self.arrival, now) {
                            return Err(TooMany { at });
                        }
                        self.messages += 1;
                    }
                    self.next = Next::Length;
                }
                Next::Length => {
                    let (length, payload) = match byte & !MASK {
                        126 => (2, 0),
                        127 => (8, 0),
                        short => (0, u64::from(short)),
                    };
                    let mask = if byte & MASK == 0 { 0 } else { 4 };
                    self.next = Next::Extended { length, mask, payload }.settle();
                }
                Next::Extended { length, mask, payload } => {
                    self.next = match length {
                        0 => Next::Extended { length, mask: mask - 1, payload },
                        _ => {
                            let payload = payload << 8 | u64::from(*byte);
                            Next::Extended { length: length - 1, mask, payload }
                        }
                    }
                    .settle();
                }
                Next::Payload(left) => {
                    let here = bytes.len() - at;
                    let passed = usize::try_from(left).map_or(here, |left| left.min(here));
                    self.next = match left - passed as u64 {
                        0 => Next::Opcode,
                        left => Next::Payload(left),
                    };
                    at += passed;
                    continue;
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// Between two frames, where a frame of ours may stand. It may stand within a message that has
    /// several (section 5.4).
    pub fn is_between_frames(&self) -> bool {
        self.next == Next::Opcode
    }
}

impl Next {
    /// A head that is whole is followed by payload, or by the next frame.
    fn settle(self) -> Self {
        match self {
            Self::Extended { length: 0, mask: 0, payload: 0 } => Self::Opcode,
            Self::Extended { length: 0, mask: 0, payload } => Self::Payload(payload),
            other => other,
        }
    }
}

/// A frame that closes the connection, as a server sends it: unmasked (section 5.1).
pub fn close_frame() -> Vec<u8> {
    // Shorter than 126 bytes: the length is one byte.
    let length = (POLICY_VIOLATION.len() + REASON.len()) as u8;
    [&[FIN | CLOSE, length], &POLICY_VIOLATION[..], REASON].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn meter(burst: u64) -> Meter {
        Meter::new(Rate::per_second(1000, burst))
    }

    /// FIN or not, an opcode, and a payload of `length` bytes.
    fn frame(first: u8, length: u64, is_masked: bool) -> Vec<u8> {
        let mask = if is_masked { MASK } else { 0 };
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..0x1_0000 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(if is_masked { &[0x81, 0x82, 0x83, 0x84][..] } else { &[] });
        // Payload that would be heads of messages, if it were read as heads.
        bytes.extend(std::iter::repeat_n(0x81, length as usize));
        bytes
    }

    #[test]
    fn the_examples_of_the_rfc_are_one_message_each() {
        // RFC 6455 section 5.7.
        let hello = b"\x81\x05Hello".to_vec();
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
        let fragmented = b"\x01\x03Hel\x80\x02lo".to_vec();
        let ping = b"\x89\x05Hello".to_vec();
        let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec();
        let medium = [b"\x82\x7e\x01\x00", &[0x82; 256][..]].concat();
        let long = [b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", &[0x82; 65_536][..]].concat();
        for bytes in [hello, masked, fragmented, ping, pong, medium, long] {
            let mut meter = meter(10);
            assert_eq!(meter.read(&bytes, SECOND), Ok(()));
            assert_eq!((meter.messages, meter.is_between_frames()), (1, true), "{:?}", &bytes[..2]);
        }
    }

    #[test]
    fn messages_are_counted_alike_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0, 1, 125, 126, 127, 4000, 65_535, 65_536, 70_000] {
            for is_masked in [false, true] {
                bytes.extend(frame(0x82, length, is_masked));
                bytes.extend(frame(0x01, length, is_masked));
                bytes.extend(frame(0x89, 3, is_masked));
                bytes.extend(frame(0x00, 5, is_masked));
                bytes.extend(frame(0x80, length, is_masked));
            }
        }
        bytes.extend(frame(0x88, 2, true));
        for size in [1, 2, 3, 7, 1000, 16_384, bytes.len()] {
            let mut meter = meter(1000);
            for piece in bytes.chunks(size) {
                assert_eq!(meter.read(piece, SECOND), Ok(()));
            }
            assert_eq!((meter.messages, meter.is_between_frames()), (54, true), "{size}");
        }
    }

    #[test]
    fn the_message_that_is_too_early_is_found_where_it_begins() {
        let one = frame(0x82, 300, true);
        let bytes = one.repeat(4);
        let mut whole = meter(3);
        assert_eq!(whole.read(&bytes, SECOND), Err(TooMany { at: one.len() * 3 }));
        assert!(whole.is_between_frames());
        // A second later there is room for one.
        let mut meter = meter(3);
        assert_eq!(meter.read(&one.repeat(3), SECOND), Ok(()));
        assert_eq!(meter.read(&one, SECOND), Err(TooMany { at: 0 }));
        assert_eq!(meter.read(&one.repeat(2), 2 * SECOND), Err(TooMany { at: one.len() }));
        // Closing is never too early.
        assert_eq!(meter.read(&frame(0x88, 2, true), 2 * SECOND), Ok(()));
    }

    #[test]
    fn any_bytes_are_read_without_panic() {
        let mut meter = meter(u64::MAX);
        let mut seed = 1_u64;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = seed.to_be_bytes();
            let _ = meter.read(&bytes[..(seed % 9) as usize], SECOND);
        }
        let mut longest = self::meter(9);
        let head = [&[0x82, 127][..], &[0xff; 8]].concat();
        assert_eq!(longest.read(&head, SECOND), Ok(()));
        assert_eq!(longest.read(&[0x82; 100], SECOND), Ok(()));
        assert_eq!(longest.messages, 1);
    }

    #[test]
    fn the_close_frame_says_1008() {
        let frame = close_frame();
        assert_eq!(frame[..4], [0x88, 19, 0x03, 0xf0]);
        assert_eq!(&frame[4..], b"too many messages");
        assert_eq!(frame.len(), 2 + 19);
    }
}
