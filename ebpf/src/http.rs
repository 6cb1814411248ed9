//! Does a segment begin an HTTP/1 message, and where does its head end?

use aya_ebpf::bindings::__sk_buff;

use crate::packet::{load, load_bytes};

// What the first bytes of a segment look like. Numbers, because the verifier must forget them.
pub const REQUEST: u32 = 1;
pub const RESPONSE: u32 = 2;
/// A TLS record: what follows on this connection cannot be read here.
pub const TLS: u32 = 3;
pub const NONE: u32 = 4;

/// As many first bytes as the decision needs.
pub const PEEK: usize = 16;

/// Looks at the first `len` bytes of a segment (at most [`PEEK`]); the rest of `bytes` is zero.
#[inline(always)]
pub fn recognize(bytes: &[u8; PEEK], len: u32) -> u32 {
    if bytes[0] == b'H' && bytes[1] == b'T' {
        if bytes[2] == b'T'
            && bytes[3] == b'P'
            && bytes[4] == b'/'
            && bytes[5] == b'1'
            && bytes[6] == b'.'
        {
            return RESPONSE;
        }
        return NONE;
    }
    // Content types of TLS records (RFC 8446 section 5.1), then the major version 3.
    if bytes[0] >= 20 && bytes[0] <= 23 && bytes[1] == 3 && len >= 3 {
        return TLS;
    }
    // A method is a token (RFC 9110 section 9.1). Those in use are upper case, some with a hyphen;
    // a target begins with `/`, `*`, a scheme or, for CONNECT, a host.
    let mut i = 0;
    while i < PEEK {
        let c = bytes[i];
        if c == b' ' {
            if i < 3 {
                return NONE;
            }
            let next = if i + 1 < PEEK { bytes[i + 1] } else { 0 };
            let is_target = next == b'/'
                || next == b'*'
                || next == 0
                || next == b'h'
                || next == b'H'
                || bytes[0] == b'C' && bytes[1] == b'O' && bytes[2] == b'N' && bytes[3] == b'N';
            return if is_target { REQUEST } else { NONE };
        }
        if !(c.is_ascii_uppercase() || c == b'-') {
            return NONE;
        }
        i += 1;
    }
    NONE
}

/// Printable text, as a head that goes on would be. Looks at the first 8 bytes.
#[inline(always)]
pub fn looks_like_text(bytes: &[u8; PEEK]) -> bool {
    let mut i = 0;
    while i < 8 {
        let c = bytes[i];
        if !((0x20..0x7f).contains(&c) || c == b'\r' || c == b'\n' || c == b'\t') {
            return false;
        }
        i += 1;
    }
    true
}

/// Where a segment of requests ends as a head does and another head ends before: it holds several.
pub const SEVERAL: u32 = u32::MAX;
/// Segments longer than this are searched for the end of the head.
const SEARCHED_ABOVE: u32 = 1400;
/// The same where the segment looks like several requests.
const SEARCHED_FOR_PIPELINE: u32 = 512;
const END_OF_HEAD: u32 = u32::from_le_bytes(*b"\r\n\r\n");

/// Length of the head that ends in this payload, 0 if its end is not found, or [`SEVERAL`].
///
/// A global function, as are others here that take only the context and numbers: the verifier walks
/// through each of them once, and not once for each state that a caller may be in (Linux 5.6,
/// `do_check_subprogs`).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_head(skb: *mut __sk_buff, payload: u32, len: u32, is_request: u32) -> u32 {
    let is_ended =
        len >= 4 && load::<u32>(skb, payload + len - 4).map(u32::from_le) == Some(END_OF_HEAD);
    // A long segment of requests that ends as a head does is one head, or several.
    let searched_above =
        if is_ended && is_request != 0 { SEARCHED_FOR_PIPELINE } else { SEARCHED_ABOVE };
    let mut head = 0;
    if len > searched_above && (!is_ended || is_request != 0) {
        head = search_head_end(skb, payload, len);
    }
    if !is_ended {
        head
    } else if head != 0 && head < len {
        SEVERAL
    } else {
        len
    }
}

/// How far the end of a head is searched; the verifier walks through every step.
const SEARCHED: u32 = 1 << 10;
/// What is read at a time. Blocks overlap by a word, so that the end is whole in one of them.
const WORDS: usize = 17;
const BLOCK: u32 = 4 * WORDS as u32;

/// Looks at every place without a branch that comes back: what the verifier would have to follow
/// twice at each of them, it would follow a million times in all.
#[inline(always)]
fn search_head_end(skb: *mut __sk_buff, payload: u32, len: u32) -> u32 {
    let mut block = [0u32; WORDS];
    let mut done = 0;
    while done < SEARCHED {
        if done + BLOCK > len {
            // The tail that is shorter than a block: a body that short costs little either way.
            return 0;
        }
        let to = block.as_mut_ptr().cast();
        // SAFETY: as many bytes as the block has.
        if unsafe { load_bytes(skb, (payload + done).into(), to, BLOCK.into()) } != 0 {
            return 0;
        }
        let mut k = 0;
        while k < WORDS - 1 {
            let around = u64::from(block[k].to_le()) | u64::from(block[k + 1].to_le()) << 32;
            let mut before = 0;
            while before < 4 {
                if (around >> (8 * before)) as u32 == END_OF_HEAD {
                    return done + 4 * k as u32 + before + 4;
                }
                before += 1;
            }
            k += 1;
        }
        done += BLOCK - 4;
    }
    0
}
