//! SipHash-2-4 (Aumasson and Bernstein, 2012) of a whole token at once.

use super::intern::read_tail;

#[derive(Clone, Copy)]
pub(super) struct KeyedHash {
    state: [u64; 4],
}

impl KeyedHash {
    pub fn new(secret: [u8; 16]) -> Self {
        let [low, high] = [0, 8].map(|from| {
            secret.get(from..).and_then(|s| s.first_chunk()).copied().map_or(0, u64::from_le_bytes)
        });
        Self {
            state: [
                low ^ 0x736f_6d65_7073_6575,
                high ^ 0x646f_7261_6e64_6f6d,
                low ^ 0x6c79_6765_6e65_7261,
                high ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    #[inline]
    pub fn hash(self, bytes: &[u8]) -> u64 {
        let mut state = self.state;
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            compress(&mut state, u64::from_le_bytes(*word));
        }
        compress(&mut state, (bytes.len() as u64) << 56 | read_tail(tail));
        state[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

#[inline(always)]
fn compress(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

#[inline(always)]
fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::KeyedHash;
    use siphasher::sip::SipHasher24;

    #[test]
    fn hashes_as_the_reference_does() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in (0..40).chain([63, 64, 65, 255]) {
            let secret = [length as u8 ^ 0x5c; 16];
            let secret = std::array::from_fn(|i| secret[i].wrapping_mul(i as u8 + 3));
            let reference = SipHasher24::new_with_key(&secret).hash(&bytes[..length]);
            assert_eq!(KeyedHash::new(secret).hash(&bytes[..length]), reference, "{length}");
        }
    }
}
