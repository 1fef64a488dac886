//! Shares of something scarce: who holds how much of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much of something each holder has. A holder is whoever its parts are counted for: an address, a tenant, all.
#[derive(Debug)]
pub struct Shares<H>(Arc<Mutex<HashMap<H, usize>>>);

impl<H> Clone for Shares<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> Default for Shares<H> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// What is held; it goes back when it is dropped.
#[derive(Debug)]
pub struct Share<H: Eq + Hash> {
    shares: Shares<H>,
    holders: Vec<H>,
    amount: usize,
}

impl<H: Eq + Hash + Clone> Shares<H> {
    /// One more for each of these holders, each of whom has a most.
    ///
    /// # Errors
    ///
    /// The number of the first holder that has all it may have; then nobody gets anything.
    pub fn take<const N: usize>(&self, holders: [(H, usize); N]) -> Result<Share<H>, usize> {
        let mut held = self.lock();
        let is_full = |(holder, most): &(H, usize)| held.get(holder).copied().unwrap_or_default() >= *most;
        if let Some(full) = holders.iter().position(is_full) {
            return Err(full);
        }
        let holders: Vec<_> = holders.into_iter().map(|(holder, _)| holder).collect();
        holders.iter().for_each(|holder| *held.entry(holder.clone()).or_default() += 1);
        Ok(Share { shares: self.clone(), holders, amount: 1 })
    }

    /// Nothing yet, for what is not known before it is there: it is counted as it grows.
    #[must_use]
    pub fn none(&self, holder: H) -> Share<H> {
        Share { shares: self.clone(), holders: vec![holder], amount: 0 }
    }

    /// How much a holder has.
    #[must_use]
    pub fn held(&self, holder: &H) -> usize {
        self.lock().get(holder).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<H, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Eq + Hash + Clone> Share<H> {
    /// Counts so much more, whether or not the holder may have it; what the holder has then.
    pub fn grow(&mut self, more: usize) -> usize {
        self.amount += more;
        let mut held = self.shares.lock();
        let mut most = 0;
        for holder in &self.holders {
            let amount = held.entry(holder.clone()).or_default();
            *amount += more;
            most = most.max(*amount);
        }
        most
    }

    /// Gives so much back.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.amount);
        self.amount -= less;
        give_back(&self.shares, &self.holders, less);
    }
}

impl<H: Eq + Hash> Drop for Share<H> {
    fn drop(&mut self) {
        give_back(&self.shares, &self.holders, self.amount);
    }
}

/// Who has nothing any more is forgotten.
fn give_back<H: Eq + Hash>(shares: &Shares<H>, holders: &[H], less: usize) {
    let mut held = shares.0.lock().unwrap_or_else(PoisonError::into_inner);
    for holder in holders {
        if let Some(amount) = held.get_mut(holder) {
            *amount = amount.saturating_sub(less);
            if *amount == 0 {
                held.remove(holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn each_holder_has_a_most_and_who_holds_nothing_is_forgotten() {
        let shares = Shares::default();
        let take = |who: &'static str| shares.take([(who, 2), ("all", 3)]);
        let (first, second) = (take("ada").expect("a share"), take("ada").expect("a share"));
        assert_eq!(take("ada").expect_err("refused"), 0);
        let third = take("ben").expect("a share");
        assert_eq!(take("ben").expect_err("refused"), 1);
        drop(first);
        drop(take("eve").expect("room again"));
        drop((second, third));
        assert!(shares.0.lock().expect("shares").is_empty());
    }

    #[test]
    fn what_grows_is_counted_as_it_does() {
        let shares = Shares::default();
        let mut share = shares.none("ada");
        assert_eq!(shares.held(&"ada"), 0);
        assert_eq!(share.grow(5), 5);
        share.shrink(2);
        assert_eq!(shares.held(&"ada"), 3);
        drop(share);
        assert!(shares.0.lock().expect("shares").is_empty());
    }
}
