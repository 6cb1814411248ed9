//! Does a segment begin an HTTP/1 message, and where does its head end?

use aya_ebpf::bindings::__sk_buff;

use crate::packet::load_bytes;

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

/// How far the end of a head is searched; the verifier walks through every step.
const SEARCHED: u32 = 1 << 10;
const BLOCK: usize = 128;
/// Blocks overlap by one less than what is searched for.
const STEP: u32 = BLOCK as u32 - 3;

/// Length of the head that ends within the first bytes of a segment, 0 if its end is not there.
/// The result goes to `head`, which points into a map: the verifier would follow each of its many
/// values.
///
/// The four bytes of CR LF CR LF cover exactly one index of the form 4k + 3, so one byte in four
/// is looked at until that byte is a CR or an LF.
///
/// # Safety
/// `head` is writable.
#[inline(never)]
pub unsafe fn find_head_end(skb: *mut __sk_buff, payload: u32, len: u32, head: *mut u32) {
    let mut block = [0u8; BLOCK];
    // SAFETY: see above.
    unsafe { head.write_volatile(0) };
    let mut done = 0;
    while done < SEARCHED {
        if done + BLOCK as u32 > len {
            // The tail that is shorter than a block: a body that short costs little either way.
            return;
        }
        // SAFETY: as many bytes as the block has.
        let result =
            unsafe { load_bytes(skb, (payload + done).into(), block.as_mut_ptr(), BLOCK as u64) };
        if result != 0 {
            return;
        }
        // SAFETY: within the block, which holds 4k + 3 for the last k.
        let at = |k: usize| unsafe { *block.get_unchecked(k) };
        let mut i = 3usize;
        while i < BLOCK {
            let c = at(i);
            if c == b'\r' || c == b'\n' {
                let mut start = i - 3;
                while start <= i && start + 4 <= BLOCK {
                    if at(start) == b'\r'
                        && at(start + 1) == b'\n'
                        && at(start + 2) == b'\r'
                        && at(start + 3) == b'\n'
                    {
                        // SAFETY: see above.
                        unsafe { head.write_volatile(done + start as u32 + 4) };
                        return;
                    }
                    start += 1;
                }
            }
            i += 4;
        }
        done += STEP;
    }
}
