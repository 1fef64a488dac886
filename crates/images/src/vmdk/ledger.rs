//! Two accounts of the same pointers that must be equal, in bounded memory.

use std::hash::{DefaultHasher, Hasher};

/// Groups that are kept apart: half a MiB. Every table of a disk of 2 TiB with usual grains is its own.
const MAX_GROUPS: u64 = 1 << 16;

/// Sums of what was seen and what was said, by groups of places. Whoever finds pointers that only sum up to the right ones has
/// fooled nobody else: what reads the disk goes by the grains themselves.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How many places one group has.
    span: u64,
    sums: Vec<u64>,
}

impl Ledger {
    /// A ledger of `places`.
    pub(super) fn new(places: u64) -> Self {
        let span = places.div_ceil(MAX_GROUPS).max(1);
        let groups = usize::try_from(places.div_ceil(span)).unwrap_or_default();
        Self { span, sums: vec![0; groups] }
    }

    /// At `index`, something was seen at `sector`.
    pub(super) fn seen(&mut self, index: u64, key: u64, sector: u64) {
        let hash = hash(key, sector);
        if let Some(sum) = self.sum(index) {
            *sum = sum.wrapping_add(hash);
        }
    }

    /// At `index`, something is said to be at `sector`.
    pub(super) fn said(&mut self, index: u64, key: u64, sector: u64) {
        let hash = hash(key, sector);
        if let Some(sum) = self.sum(index) {
            *sum = sum.wrapping_sub(hash);
        }
    }

    fn sum(&mut self, index: u64) -> Option<&mut u64> {
        self.sums.get_mut(usize::try_from(index / self.span).ok()?)
    }

    /// The first place of the first group that does not sum up.
    pub(super) fn difference(&self) -> Option<u64> {
        self.sums.iter().position(|sum| *sum != 0).map(|group| group as u64 * self.span)
    }
}

fn hash(key: u64, sector: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(key);
    hasher.write_u64(sector);
    hasher.finish()
}
