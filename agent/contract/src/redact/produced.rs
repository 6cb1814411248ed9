//! Which values the service itself handed out, as cut keyed hashes in fixed memory.

/// One line of the processor's cache: finding and remembering a value touches no other memory.
const WAYS: usize = 16;

/// A set in which the oldest of sixteen neighbours gives way to the newest. Hashes are cut to 32
/// bits: one value in some hundred million is taken for another.
pub(super) struct Produced {
    lines: Vec<[u32; WAYS]>,
    /// Which neighbour gives way next, for each line.
    next: Vec<u8>,
    /// A power of two.
    count: usize,
}

impl Produced {
    /// `capacity`: about as many values are remembered.
    pub fn new(capacity: usize) -> Self {
        let count = capacity.div_ceil(WAYS).clamp(1, 1 << 20).next_power_of_two();
        Self { lines: Vec::new(), next: Vec::new(), count }
    }

    pub fn insert(&mut self, hash: u64) {
        if self.lines.is_empty() {
            self.lines = vec![[0; WAYS]; self.count];
            self.next = vec![0; self.count];
        }
        let index = self.index(hash);
        let (Some(line), Some(next)) = (self.lines.get_mut(index), self.next.get_mut(index)) else {
            return;
        };
        let tag = tag(hash);
        if line.contains(&tag) {
            return;
        }
        if let Some(oldest) = line.get_mut(usize::from(*next) % WAYS) {
            *oldest = tag;
        }
        *next = next.wrapping_add(1);
    }

    pub fn contains(&self, hash: u64) -> bool {
        self.lines.get(self.index(hash)).is_some_and(|line| line.contains(&tag(hash)))
    }

    fn index(&self, hash: u64) -> usize {
        hash as usize & (self.count - 1)
    }
}

/// Never zero, which stands for no value.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::Produced;

    #[test]
    fn remembers_the_newest_in_fixed_memory() {
        let mut produced = Produced::new(1024);
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert!(!produced.contains(hash(0)));
        for n in 0..100_000 {
            produced.insert(hash(n));
        }
        assert!((99_900..100_000).all(|n| produced.contains(hash(n))));
        assert!((0..90_000).all(|n| !produced.contains(hash(n))));
        assert_eq!(produced.lines.len(), 64);
    }
}
