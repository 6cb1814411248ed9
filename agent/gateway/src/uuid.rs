//! Random names: UUIDs of version 4 (RFC 9562 section 5.4).

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid {
    high: u64,
    low: u64,
}

impl Uuid {
    /// Of 122 of these bits, which are random: six say what it is.
    pub const fn from_random(high: u64, low: u64) -> Self {
        Self { high: high & !0xf000 | 0x4000, low: low & (u64::MAX >> 2) | 1 << 63 }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { high, low } = self;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_version_and_variant_show_and_nothing_else_is_changed() {
        assert_eq!(Uuid::from_random(0, 0).to_string(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(
            Uuid::from_random(u64::MAX, u64::MAX).to_string(),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
    }
}
