//! A bounded memory of what is asked for again and again, in two generations.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Remembers values by their keys. When the young generation is full it becomes the old one, and what was not recalled
/// of the old one is forgotten. So a key is remembered until as many others have come as a generation holds, and twice
/// as many are held at most.
pub(super) struct Memory<K, V> {
    max_generation: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Memory<K, V> {
    pub(super) fn new(max_generation: usize) -> Self {
        Self { max_generation, young: HashMap::new(), old: HashMap::new() }
    }

    /// What the young generation holds under that key.
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.young.get(key)
    }

    /// What either generation holds under that key; it is young from now on.
    pub(super) fn recall<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.max_generation {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        let _ = self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `key` had to be learned.
    fn misses(memory: &mut Memory<u32, u32>, key: u32) -> bool {
        let known = memory.get(&key).copied().or_else(|| memory.recall(&key).copied());
        if known.is_none() {
            memory.insert(key, key);
        }
        assert!(memory.young.len() <= memory.max_generation && memory.old.len() <= memory.max_generation);
        assert_eq!(memory.get(&key), Some(&key));
        known.is_none()
    }

    #[test]
    fn those_who_come_evenly_are_remembered_up_to_the_bound() {
        let mut memory = Memory::new(100);
        let evenly = (0..10).flat_map(|_| 0..100);
        assert_eq!(evenly.filter(|key| misses(&mut memory, *key)).count(), 100);
        // Also where a generation ends in between.
        assert_eq!((100..150).filter(|key| misses(&mut memory, *key)).count(), 50);
        assert_eq!((50..100).filter(|key| misses(&mut memory, *key)).count(), 0);
    }

    #[test]
    fn more_than_fit_do_not_drive_out_those_who_come_most_often() {
        let mut memory = Memory::new(100);
        let regulars = (0..10_000_u32).filter(|n| {
            let missed = misses(&mut memory, n % 10);
            // A stranger who comes once.
            let _ = misses(&mut memory, 1000 + n);
            missed
        });
        assert_eq!(regulars.count(), 10);
    }
}
