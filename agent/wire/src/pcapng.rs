//! pcapng: sections, interfaces and packet blocks (draft-ietf-opsawg-pcapng).

use std::io::Read;

use crate::{
    packet::LinkType,
    packet_file::{End, Error, Filled, LONGEST_PACKET, Source},
    recording,
    segment::{Loss, Nanos},
    tracker::Frame,
};

pub(crate) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
pub(crate) const BYTE_ORDER: u32 = 0x1a2b_3c4d;
pub(crate) const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
pub(crate) const ENHANCED_PACKET: u32 = 6;
pub(crate) const OPTION_COMMENT: u16 = 1;
pub(crate) const OPTION_IF_NAME: u16 = 2;
pub(crate) const OPTION_USER_APPLICATION: u16 = 4;
pub(crate) const OPTION_IF_TSRESOL: u16 = 9;
const OPTION_IF_TSOFFSET: u16 = 14;
/// A hostile file must not make us remember interfaces without end.
const MOST_INTERFACES: usize = 65_536;

struct Interface {
    link: LinkType,
    snap_len: u32,
    ticks_per_second: u128,
    offset_seconds: i64,
    group: Option<u32>,
}

impl Interface {
    fn nanos(&self, high: u32, low: u32) -> Nanos {
        let ticks = u128::from(high) << 32 | u128::from(low);
        let nanos = (ticks.saturating_mul(1_000_000_000) / self.ticks_per_second.max(1)) as i128
            + i128::from(self.offset_seconds) * 1_000_000_000;
        u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
    }
}

#[derive(Clone, Copy)]
struct Order {
    is_big: bool,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let word = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(if self.is_big { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if self.is_big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    }

    /// Code and value of every option; stops at the first that is not whole.
    fn options(self, bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (code, len) = (self.u16(bytes, at)?, usize::from(self.u16(bytes, at + 2)?));
            let value = bytes.get(at + 4..at + 4 + len)?;
            at += 4 + len.next_multiple_of(4);
            (code != 0).then_some((code, value))
        })
    }
}

/// Reads everything behind the first block's type.
pub(crate) fn read_sections<R: Read>(
    source: &mut Source<R>,
    names: &mut Vec<Option<String>>,
    sink: &mut dyn FnMut(&Frame<'_>),
) -> Result<End, Error> {
    let mut section = Section {
        order: Order { is_big: false },
        interfaces: Vec::new(),
        is_own: false,
        last_at: 0,
        first_group: 0,
    };
    let mut kind = SECTION_HEADER;
    let mut body = Vec::new();
    let mut start = 0;
    loop {
        let truncated = End { truncated_at: Some(start), damaged_at: None };
        let damaged = End { truncated_at: None, damaged_at: Some(start) };
        let mut head = [0_u8; 8];
        // A section header's byte order is told only by the word after its length.
        let wanted = if kind == SECTION_HEADER { 8 } else { 4 };
        if source.fill(&mut head[..wanted])? != Filled::Whole {
            return Ok(truncated);
        }
        if kind == SECTION_HEADER {
            match u32::from_le_bytes([head[4], head[5], head[6], head[7]]) {
                BYTE_ORDER => section.order.is_big = false,
                0x4d3c_2b1a => section.order.is_big = true,
                _ => return Ok(damaged),
            }
            section.first_group += section.interfaces.len() as u32;
            section.interfaces.clear();
        }
        let length = section.order.u32(&head, 0).unwrap_or(0) as usize;
        if length < 8 + wanted || !length.is_multiple_of(4) {
            return Ok(damaged);
        }
        let rest = length - 4 - wanted;
        let is_read = matches!(
            kind,
            SECTION_HEADER | INTERFACE | OBSOLETE_PACKET | SIMPLE_PACKET | ENHANCED_PACKET
        );
        if !is_read {
            if !source.skip(rest as u64)? {
                return Ok(truncated);
            }
        } else if rest > LONGEST_PACKET {
            return Ok(damaged);
        } else {
            body.resize(rest, 0);
            if source.fill(&mut body)? != Filled::Whole {
                return Ok(truncated);
            }
            // The length again, which allows reading backwards.
            body.truncate(rest - 4);
            if section.read_block(kind, &body, names, sink).is_none() {
                return Ok(damaged);
            }
        }
        start = source.position;
        let mut next = [0_u8; 4];
        match source.fill(&mut next)? {
            Filled::Whole => kind = section.order.u32(&next, 0).unwrap_or(0),
            Filled::Nothing => return Ok(End::default()),
            Filled::Part(_) => return Ok(End { truncated_at: Some(start), damaged_at: None }),
        }
    }
}

struct Section {
    order: Order,
    interfaces: Vec<Interface>,
    /// Written by our own recorder: interfaces are services, comments say why bytes are missing.
    is_own: bool,
    last_at: Nanos,
    first_group: u32,
}

impl Section {
    /// `None`: the block contradicts itself.
    fn read_block(
        &mut self,
        kind: u32,
        body: &[u8],
        names: &mut Vec<Option<String>>,
        sink: &mut dyn FnMut(&Frame<'_>),
    ) -> Option<()> {
        let order = self.order;
        match kind {
            SECTION_HEADER => {
                // Version (2 + 2) and section length (8) come before the options.
                self.is_own = order.options(body.get(12..)?).any(|(code, v)| {
                    code == OPTION_USER_APPLICATION && v == recording::APPLICATION
                });
            }
            INTERFACE => self.add_interface(body, names)?,
            ENHANCED_PACKET => {
                let captured = order.u32(body, 12)? as usize;
                let bytes = body.get(20..20_usize.checked_add(captured)?)?;
                let options = body.get(20 + captured.next_multiple_of(4)..).unwrap_or_default();
                let missing = order
                    .options(options)
                    .filter(|(code, _)| self.is_own && *code == OPTION_COMMENT)
                    .find_map(|(_, value)| recording::parse_reason(value));
                let interface = order.u32(body, 0)? as usize;
                let (high, low) = (order.u32(body, 4)?, order.u32(body, 8)?);
                let original = order.u32(body, 16)?;
                self.give(interface, Some((high, low)), bytes, original, missing, sink)?;
            }
            OBSOLETE_PACKET => {
                let captured = order.u32(body, 12)? as usize;
                let bytes = body.get(20..20_usize.checked_add(captured)?)?;
                let interface = usize::from(order.u16(body, 0)?);
                let (high, low) = (order.u32(body, 4)?, order.u32(body, 8)?);
                let original = order.u32(body, 16)?;
                self.give(interface, Some((high, low)), bytes, original, None, sink)?;
            }
            SIMPLE_PACKET => {
                let original = order.u32(body, 0)?;
                let snap = self.interfaces.first()?.snap_len;
                let limit = if snap == 0 { original } else { original.min(snap) } as usize;
                let bytes = body.get(4..)?;
                self.give(0, None, &bytes[..bytes.len().min(limit)], original, None, sink)?;
            }
            _ => {}
        }
        Some(())
    }

    fn add_interface(&mut self, body: &[u8], names: &mut Vec<Option<String>>) -> Option<()> {
        if self.interfaces.len() >= MOST_INTERFACES {
            return None;
        }
        let order = self.order;
        let number = self.first_group + self.interfaces.len() as u32;
        let mut interface = Interface {
            link: LinkType(order.u16(body, 0)?),
            snap_len: order.u32(body, 4)?,
            ticks_per_second: 1_000_000,
            offset_seconds: 0,
            group: self.is_own.then_some(number),
        };
        let mut name = None;
        for (code, value) in order.options(body.get(8..)?) {
            match (code, value) {
                (OPTION_IF_NAME, _) => name = Some(String::from_utf8_lossy(value).into_owned()),
                (OPTION_IF_TSRESOL, [exponent, ..]) => {
                    let power = u32::from(exponent & 0x7f);
                    let base: u128 = if exponent & 0x80 != 0 { 2 } else { 10 };
                    interface.ticks_per_second = base.checked_pow(power)?;
                }
                (OPTION_IF_TSOFFSET, _) => {
                    let bytes: [u8; 8] = value.get(..8)?.try_into().ok()?;
                    interface.offset_seconds = if order.is_big {
                        i64::from_be_bytes(bytes)
                    } else {
                        i64::from_le_bytes(bytes)
                    };
                }
                _ => {}
            }
        }
        if self.is_own && names.len() < MOST_INTERFACES {
            names.resize(number as usize, None);
            names.push(name);
        }
        self.interfaces.push(interface);
        Some(())
    }

    fn give(
        &mut self,
        interface: usize,
        ticks: Option<(u32, u32)>,
        bytes: &[u8],
        original_len: u32,
        missing: Option<Loss>,
        sink: &mut dyn FnMut(&Frame<'_>),
    ) -> Option<()> {
        let interface = self.interfaces.get(interface)?;
        if let Some((high, low)) = ticks {
            self.last_at = interface.nanos(high, low);
        }
        sink(&Frame {
            link: interface.link,
            at: self.last_at,
            bytes,
            original_len,
            missing: missing.unwrap_or(Loss::Unseen),
            group: interface.group,
        });
        Some(())
    }
}
