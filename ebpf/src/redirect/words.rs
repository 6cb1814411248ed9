//! Addresses of IPv6 in the contexts of programs.

use stoa_common::redirect::Address;

/// Word by word: the verifier wants accesses to a context to be aligned as declared.
///
/// # Safety
/// `words` points to four of them.
#[inline(always)]
pub unsafe fn read_words(words: *const u32) -> Address {
    // SAFETY: see above.
    unsafe {
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}
