//! Work that waits for one worker, in turns: whoever has much of it waiting does not keep the others from theirs. A
//! deficit round robin over the agents that asked.

use std::collections::{HashMap, VecDeque};

/// What one agent's turn may cost, in bytes.
const QUANTUM_BYTES: usize = 2 * 1024;
/// What a job costs beside its payload, in bytes.
const JOB_BYTES: usize = 512;

/// What one agent asked for.
#[derive(Debug)]
struct Asked<J> {
    /// In the order in which it was asked, each with its payload's bytes.
    jobs: VecDeque<(J, usize)>,
    /// What is left of its turns, in bytes.
    left: usize,
}

/// Jobs, by who asked for them.
#[derive(Debug)]
pub struct Turns<J> {
    asked: HashMap<u16, Asked<J>, foldhash::fast::RandomState>,
    /// Whose turn comes next; each of `asked` once.
    order: VecDeque<u16>,
}

impl<J> Default for Turns<J> {
    fn default() -> Self {
        Self { asked: HashMap::default(), order: VecDeque::new() }
    }
}

impl<J> Turns<J> {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds a job of `from`, behind its others.
    pub fn add(&mut self, from: u16, job: J, bytes: usize) {
        let order = &mut self.order;
        let asked = self.asked.entry(from).or_insert_with(|| {
            order.push_back(from);
            Asked { jobs: VecDeque::new(), left: 0 }
        });
        asked.jobs.push_back((job, bytes));
    }

    /// Takes at most `most` jobs, and none when `most_bytes` are passed; one always. `taken` is told of each.
    pub fn take(&mut self, most: usize, most_bytes: usize, mut taken: impl FnMut(u16, usize)) -> Vec<J> {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while jobs.len() < most && bytes < most_bytes {
            let Some(from) = self.order.pop_front() else { break };
            let Some(asked) = self.asked.get_mut(&from) else { continue };
            // What is left of earlier turns is used up first.
            if asked.jobs.front().is_some_and(|(_, size)| asked.left < size + JOB_BYTES) {
                asked.left += QUANTUM_BYTES;
            }
            while jobs.len() < most && bytes < most_bytes {
                let Some((_, size)) = asked.jobs.front() else { break };
                let Some(left) = asked.left.checked_sub(size + JOB_BYTES) else { break };
                asked.left = left;
                if let Some((job, size)) = asked.jobs.pop_front() {
                    bytes += size;
                    taken(from, size);
                    jobs.push(job);
                }
            }
            if asked.jobs.is_empty() {
                drop(self.asked.remove(&from));
            } else {
                self.order.push_back(from);
            }
        }
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_asks_for_little_does_not_wait_behind_who_asks_for_much() {
        let mut turns = Turns::default();
        (0..8_000).for_each(|n| turns.add(1, n, 200));
        (0..3).for_each(|n| turns.add(2, 10_000 + n, 200));
        let first = turns.take(256, 1 << 20, |_, _| ());
        assert_eq!(first.len(), 256);
        assert_eq!(first.iter().filter(|n| **n >= 10_000).count(), 3);
    }

    #[test]
    fn turns_are_shared_by_bytes() {
        let mut turns = Turns::default();
        (0..50).for_each(|n| turns.add(1, n, 1 << 20));
        (0..1_000).for_each(|n| turns.add(2, 10_000 + n, 200));
        // Before the first large one, the other has had as many bytes as that has.
        let first = turns.take(2_000, 1 << 20, |_, _| ());
        assert_eq!(first.iter().filter(|n| **n >= 10_000).count(), 1_000);
    }

    proptest! {
        #[test]
        fn all_are_taken_once_and_each_ones_in_their_order(
            jobs in proptest::collection::vec((0_u16..5, 0_usize..100_000), 0..300),
            most in 1_usize..64,
            most_bytes in 1_usize..300_000,
        ) {
            let mut turns = Turns::default();
            for (n, (from, bytes)) in jobs.iter().enumerate() {
                turns.add(*from, (*from, n), *bytes);
            }
            let mut all = Vec::new();
            let mut told = 0;
            while !turns.is_empty() {
                let before = all.len();
                let batch = turns.take(most, most_bytes, |_, _| told += 1);
                prop_assert!(!batch.is_empty() && batch.len() <= most);
                all.extend(batch);
                prop_assert_eq!(told, all.len());
                let bytes: usize = all[before..all.len() - 1].iter().map(|(_, n)| jobs[*n].1).sum();
                prop_assert!(bytes < most_bytes, "the last one alone may pass it");
            }
            prop_assert_eq!(all.len(), jobs.len());
            for from in 0..5 {
                let of: Vec<usize> = all.iter().filter(|(f, _)| *f == from).map(|(_, n)| *n).collect();
                prop_assert!(of.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }
}
