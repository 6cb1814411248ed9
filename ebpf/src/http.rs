//! Does a segment begin an HTTP/1 message, and where does its head end?

use aya_ebpf::bindings::__sk_buff;

use crate::packet::{load, load_bytes, load_some};

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

/// How far it is searched where the agent will not.
const MEASURED: u32 = 2 << 10;
/// Two requests do not fit into less.
const SHORT: u32 = 4 * SHORT_WORDS as u32;
const SHORT_WORDS: usize = 9;

/// Length of the first head in this payload; 0 if its end is not among what is searched. Unlike
/// [`find_head`] it takes nothing for granted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn measure_head(skb: *mut __sk_buff, payload: u32, len: u32) -> u32 {
    if len < 4 {
        return 0;
    }
    // Blocks that overlap by a word: the first ones, and one that ends with the payload.
    let mut head = 0;
    if len >= BLOCK {
        head = search::<END_OF_HEAD, MEASURED>(skb, payload, len);
        if head == 0 {
            if len > MEASURED {
                return 0;
            }
            head = search_block::<END_OF_HEAD, WORDS>(skb, payload, len - BLOCK);
        }
    } else if len >= SHORT {
        head = search_block::<END_OF_HEAD, SHORT_WORDS>(skb, payload, 0);
        if head == 0 {
            head = search_block::<END_OF_HEAD, SHORT_WORDS>(skb, payload, len - SHORT);
        }
    }
    if head != 0 {
        return head;
    }
    // What a block ends with is not found in it.
    let is_ended = load::<u32>(skb, payload + len - 4).map(u32::from_le) == Some(END_OF_HEAD);
    if is_ended { len } else { 0 }
}

/// Whether a request begins behind the head in this payload.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_request_at(skb: *mut __sk_buff, payload: u32, len: u32, head: u32) -> u32 {
    let mut first = [0u8; PEEK];
    let left = len.saturating_sub(head);
    let n = if left > PEEK as u32 { PEEK as u32 } else { left };
    // SAFETY: at most as many bytes as there are.
    let is_readable = unsafe { load_some(skb, payload + head, first.as_mut_ptr(), n, PEEK) };
    u32::from(is_readable && recognize(&first, left) == REQUEST)
}

/// Of `Content-Length:`, in the two spellings that are in use.
const END_OF_NAME: u32 = u32::from_le_bytes(*b"gth:");
const VALUE: u32 = 12;
/// How far the end of a head is searched; the verifier walks through every step.
const SEARCHED: u32 = 1 << 10;
/// What is read at a time. Blocks overlap by a word, so that the end is whole in one of them.
const WORDS: usize = 17;
const BLOCK: u32 = 4 * WORDS as u32;

#[inline(always)]
fn search_head_end(skb: *mut __sk_buff, payload: u32, len: u32) -> u32 {
    search::<END_OF_HEAD, SEARCHED>(skb, payload, len)
}

/// Value of the `Content-Length` in a head of this length, which begins a payload of `len` bytes, as
/// far as it is found at the head's end or within its first half KiB; else 0. What is found is only
/// a hint on where to look for the next message.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_content_length(
    skb: *mut __sk_buff,
    payload: u32,
    len: u32,
    head: u32,
) -> u32 {
    const NAME: &[u8; 12] = b"content-leng";
    if len < BLOCK {
        return 0;
    }
    // Many clients write it last.
    let last = head.saturating_sub(BLOCK);
    let mut colon = search_block::<END_OF_NAME, WORDS>(skb, payload, last);
    if colon == 0 {
        colon = search::<END_OF_NAME, { SEARCHED / 2 }>(skb, payload, head);
    }
    if colon < NAME.len() as u32 + 4 || colon > head {
        return 0;
    }
    let Some(name) = load::<[u8; NAME.len()]>(skb, payload + colon - 3 - NAME.len() as u32) else {
        return 0;
    };
    let mut i = 0;
    while i < NAME.len() {
        if name[i] | 0x20 != NAME[i] | 0x20 {
            return 0;
        }
        i += 1;
    }
    // A space, ten digits and what ends them; the payload may end before that.
    let before = (colon + VALUE).saturating_sub(len);
    let Some(value) = load::<[u8; VALUE as usize]>(skb, payload + colon - before) else { return 0 };
    let mut length = 0u32;
    let mut i = 0;
    while i < value.len() {
        let place = i as u32;
        if place > before || place == before && value[i] != b' ' {
            let digit = value[i].wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            length = length.wrapping_mul(10).wrapping_add(digit.into());
        }
        i += 1;
    }
    length
}

/// The offset behind the first four bytes that are `WANTED`, 0 if they are not there.
///
/// Looks at every place without a branch that comes back: what the verifier would have to follow
/// twice at each of them, it would follow a million times in all.
#[inline(always)]
fn search<const WANTED: u32, const WITHIN: u32>(
    skb: *mut __sk_buff,
    payload: u32,
    len: u32,
) -> u32 {
    let mut done = 0;
    while done < WITHIN {
        if done + BLOCK > len {
            // The tail that is shorter than a block: a body that short costs little either way.
            return 0;
        }
        let found = search_block::<WANTED, WORDS>(skb, payload, done);
        if found != 0 {
            return found;
        }
        done += BLOCK - 4;
    }
    0
}

#[inline(always)]
fn search_block<const WANTED: u32, const N: usize>(
    skb: *mut __sk_buff,
    payload: u32,
    at: u32,
) -> u32 {
    let mut block = [0u32; N];
    let to = block.as_mut_ptr().cast();
    // SAFETY: as many bytes as the block has.
    if unsafe { load_bytes(skb, (payload + at).into(), to, 4 * N as u64) } != 0 {
        return 0;
    }
    let mut k = 0;
    while k < N - 1 {
        let around = u64::from(block[k].to_le()) | u64::from(block[k + 1].to_le()) << 32;
        let mut before = 0;
        while before < 4 {
            if (around >> (8 * before)) as u32 == WANTED {
                return at + 4 * k as u32 + before + 4;
            }
            before += 1;
        }
        k += 1;
    }
    0
}
