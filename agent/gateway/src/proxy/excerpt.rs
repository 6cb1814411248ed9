//! The beginning of a body, copied as the body passes: nothing waits for it.

use std::{cell::RefCell, rc::Rc};

use crate::telemetry::snapshots::Beginning;

/// A clone is the same excerpt.
#[derive(Clone, Debug, Default)]
pub struct Excerpt {
    copied: Rc<RefCell<Copied>>,
}

#[derive(Debug, Default)]
struct Copied {
    bytes: Vec<u8>,
    /// How much has passed.
    seen: u64,
    most: usize,
    is_longer: bool,
    has_ended: bool,
}

impl Excerpt {
    pub fn up_to(most: usize) -> Self {
        Self { copied: Rc::new(RefCell::new(Copied { most, ..Copied::default() })) }
    }

    pub fn see(&self, data: &[u8]) {
        let mut copied = self.copied.borrow_mut();
        copied.seen += data.len() as u64;
        let room = copied.most - copied.bytes.len();
        copied.is_longer |= data.len() > room;
        copied.bytes.extend_from_slice(data.get(..room).unwrap_or(data));
    }

    pub fn end(&self) {
        self.copied.borrow_mut().has_ended = true;
    }

    /// Bytes that have passed.
    pub fn seen(&self) -> u64 {
        self.copied.borrow().seen
    }

    pub fn beginning(&self) -> Beginning {
        let copied = self.copied.borrow();
        Beginning { bytes: copied.bytes.clone(), is_cut: copied.is_longer || !copied.has_ended }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_was_asked_for() {
        let excerpt = Excerpt::up_to(5);
        for piece in ["abc", "d", "efg", "h"] {
            excerpt.see(piece.as_bytes());
        }
        excerpt.end();
        assert_eq!(excerpt.beginning(), Beginning { bytes: b"abcde".to_vec(), is_cut: true });
        assert_eq!(excerpt.seen(), 8);
        let excerpt = Excerpt::up_to(5);
        excerpt.see(b"abcde");
        assert!(excerpt.beginning().is_cut, "more may come");
        excerpt.end();
        assert!(!excerpt.beginning().is_cut);
    }
}
