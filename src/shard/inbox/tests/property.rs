//! A random life of an inbox.

use proptest::prelude::*;

use super::*;

/// One step of a random life.
#[derive(Debug, Clone)]
enum Step {
    Open(usize),
    Close(usize),
    Read,
    Ack(usize, u64),
    Nack(usize, u64, Then),
    Time(u64),
    ConnectionLost,
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![Just(Then::Bury), Just(Then::Retry), (0u64..5000).prop_map(Then::Later)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..3).prop_map(Step::Open),
        (0usize..3).prop_map(Step::Close),
        (0usize..3, 0u64..30).prop_map(|(n, e)| Step::Ack(n, e)),
        (0usize..3, 0u64..30, then()).prop_map(|(n, e, then)| Step::Nack(n, e, then)),
        (1u64..2000).prop_map(Step::Time),
        Just(Step::ConnectionLost),
        Just(Step::Read),
    ]
}

proptest! {
    /// Whatever happens: nobody exceeds their credit, no entry is with two holders, and once things calm
    /// down every message has been acknowledged, is dead, or is with a session.
    #[test]
    fn no_message_is_forgotten_and_no_credit_leaks(steps in proptest::collection::vec(step(), 1..120)) {
        let config = config();
        let mut inbox = inbox();
        let mut sessions: HashMap<usize, SessionKey> = HashMap::new();
        let mut holder: HashMap<u64, usize> = HashMap::new();
        // Each delivery has an id of its own.
        let mut tokens: HashMap<u64, u64> = HashMap::new();
        let mut acked = std::collections::BTreeSet::new();
        let (mut now_ms, mut next_entry) = (0u64, 0u64);

        fn settle(
            inbox: &mut Inbox,
            now_ms: u64,
            holder: &mut HashMap<u64, usize>,
            tokens: &mut HashMap<u64, u64>,
        ) {
            for claim in due(inbox, now_ms) {
                let n: usize = claim.instance.as_str()[1..].parse().unwrap();
                for Wanted { entry, delivery: attempt, .. } in claim.entries {
                    let token = tokens.entry(entry.ms).or_insert(1);
                    *token += 1;
                    let id = delivery(entry.ms, *token);
                    inbox.delivered_again(&claim.instance, id, (Uuid::nil(), 100), attempt, 5);
                    assert!(holder.insert(entry.ms, n).is_none(), "entry {} is with two", entry.ms);
                }
            }
        }

        for step in steps {
            match step {
                Step::Open(n) => {
                    if let std::collections::hash_map::Entry::Vacant(slot) = sessions.entry(n) {
                        let _ = slot.insert(open(&mut inbox, n));
                    }
                }
                Step::Close(n) => {
                    if let Some(session) = sessions.remove(&n) {
                        prop_assert!(inbox.close(session, now_ms + RECLAIM_MS).is_some());
                        holder.retain(|_, h| *h != n);
                    }
                }
                Step::Read => {
                    inbox.added(1, 100, 164);
                    for read in reads(&mut inbox) {
                        let n: usize = read.instance.as_str()[1..].parse().unwrap();
                        let got = usize::from(read.source == Source::Shared && read.count > 0);
                        for _ in 0..got {
                            inbox.delivered_new(&read.instance, id(next_entry), (Uuid::nil(), 100), 5);
                            prop_assert!(holder.insert(next_entry, n).is_none());
                            next_entry += 1;
                        }
                        inbox.read_answered(&read.instance, read.source, read.count, got);
                    }
                }
                Step::Ack(n, entry) => {
                    let known = holder.get(&entry) == Some(&n);
                    let current = delivery(entry, tokens.get(&entry).copied().unwrap_or(1));
                    // An id of an earlier, or of no delivery.
                    prop_assert!(inbox.ack(&instance(n), delivery(entry, current.token - 1)).is_none());
                    prop_assert_eq!(inbox.ack(&instance(n), current).is_some(), known);
                    if known {
                        let _ = holder.remove(&entry);
                        let _ = acked.insert(entry);
                    }
                }
                Step::Nack(n, entry, then) => {
                    let known = holder.get(&entry) == Some(&n);
                    let current = delivery(entry, tokens.get(&entry).copied().unwrap_or(1));
                    let nacked = inbox.nack(&instance(n), current, ("r", then), now_ms, &config);
                    prop_assert_eq!(nacked != Nacked::Unknown, known);
                    if known {
                        let _ = holder.remove(&entry);
                    }
                }
                Step::Time(ms) => now_ms += ms,
                Step::ConnectionLost => {
                    // Claims that were under way never reached anybody.
                    let _ = due(&mut inbox, now_ms);
                    inbox.mark_unverified();
                }
            }
            settle(&mut inbox, now_ms, &mut holder, &mut tokens);
            for n in sessions.keys() {
                let held = holder.values().filter(|h| *h == n).count();
                let slot = inbox.consumer(&instance(*n)).unwrap();
                prop_assert_eq!(slot.in_flight, held, "credit of i{}", n);
                prop_assert!(held <= config.max_in_flight);
            }
        }

        // Calm: one instance that acknowledges everything.
        if !sessions.contains_key(&9) {
            let _ = open(&mut inbox, 9);
        }
        for _ in 0..200 {
            now_ms += RECLAIM_MS;
            settle(&mut inbox, now_ms, &mut holder, &mut tokens);
            let all: Vec<(u64, usize)> = holder.drain().collect();
            for (entry, n) in all {
                let current = delivery(entry, tokens.get(&entry).copied().unwrap_or(1));
                prop_assert!(inbox.ack(&instance(n), current).is_some());
                let _ = acked.insert(entry);
            }
        }
        let dead: std::collections::BTreeSet<u64> = inbox.dead.iter().map(|letter| letter.key.entry.ms).collect();
        for entry in 0..next_entry {
            prop_assert!(acked.contains(&entry) != dead.contains(&entry), "entry {} is lost or both", entry);
        }
    }
}
