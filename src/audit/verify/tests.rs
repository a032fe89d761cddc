use super::*;
use crate::audit::lane::Lane;
use crate::audit::record::{Decision, Fields};
use crate::clock::Now;
use proptest::prelude::*;
use uuid::Uuid;

type StoredBlock = (u64, Vec<u8>, Vec<u8>);

fn write(lane: &mut Lane, blocks: usize, per_block: usize) -> Vec<StoredBlock> {
    let now = Now { unix_us: 1, mono_ms: 0 };
    let mut stored = Vec::new();
    for block in 0..blocks {
        for record in 0..per_block {
            if block == 0 && record == 0 && lane.confirmed().seq == 0 {
                lane.open(now, "boot", &[]);
                continue;
            }
            let _ = lane.append(
                now,
                Action::Send,
                Decision::Allowed,
                &Fields {
                    agent: "alpha",
                    target: "beta",
                    message_id: Some(Uuid::now_v7()),
                    ..Fields::default()
                },
            );
        }
        let block = lane.block().unwrap();
        stored.push((block.first_seq, block.bytes.to_vec(), block.hash.to_vec()));
        lane.confirm();
    }
    stored
}

fn lane() -> Lane {
    Lane::new(LaneId::new(Uuid::now_v7(), 0, 1))
}

fn verify(id: &LaneId, blocks: &[StoredBlock]) -> Result<u64, Damage> {
    let mut verifier = LaneVerifier::new(id.clone());
    for (first_seq, bytes, hash) in blocks {
        let _ = verifier.block(*first_seq, bytes, hash)?;
    }
    Ok(verifier.finish().seq)
}

#[test]
fn what_was_written_verifies() {
    let mut lane = lane();
    let blocks = write(&mut lane, 5, 3);
    assert_eq!(verify(lane.id(), &blocks), Ok(15));
}

#[test]
fn a_missing_block_is_a_gap() {
    let mut lane = lane();
    let mut blocks = write(&mut lane, 4, 2);
    drop(blocks.remove(1));
    let damage = verify(lane.id(), &blocks).unwrap_err();
    assert_eq!((damage.seq, damage.kind), (5, DamageKind::Gap { expected: 3 }));
}

#[test]
fn a_block_of_another_lane_does_not_fit() {
    let (mut one, mut two) = (lane(), lane());
    let mut blocks = write(&mut one, 3, 1);
    blocks[1] = write(&mut two, 3, 1).remove(1);
    let damage = verify(one.id(), &blocks).unwrap_err();
    assert_eq!((damage.seq, damage.kind), (2, DamageKind::HashMismatch));
}

#[test]
fn swapped_blocks_are_found() {
    let mut lane = lane();
    let mut blocks = write(&mut lane, 4, 1);
    blocks.swap(1, 2);
    assert!(verify(lane.id(), &blocks).is_err());
    let (first, second) = (blocks[1].0, blocks[2].0);
    blocks[1].0 = second;
    blocks[2].0 = first;
    let damage = verify(lane.id(), &blocks).unwrap_err();
    assert_eq!(damage.kind, DamageKind::WrongSequence { claimed: 3 });
}

#[test]
fn a_discarded_block_leaves_no_trace() {
    let mut lane = lane();
    let mut blocks = write(&mut lane, 1, 1);
    let now = Now { unix_us: 1, mono_ms: 0 };
    let _ = lane.append(now, Action::Send, Decision::Allowed, &Fields::default());
    lane.discard();
    assert!(lane.block().is_none());
    let _ = lane.append(now, Action::Reply, Decision::Allowed, &Fields::default());
    let block = lane.block().unwrap();
    blocks.push((block.first_seq, block.bytes.to_vec(), block.hash.to_vec()));
    assert_eq!(verify(lane.id(), &blocks), Ok(2));
}

fn end(id: &LaneId, blocks: &[StoredBlock], predecessor: Option<&str>) -> LaneEnd {
    let mut verifier = LaneVerifier::new(id.clone());
    for (first_seq, bytes, hash) in blocks {
        let _ = verifier.block(*first_seq, bytes, hash).unwrap();
    }
    let mut end = verifier.finish();
    end.predecessor = predecessor.and_then(lane::parse_closing_note);
    end
}

#[test]
fn a_cut_tail_contradicts_the_successor() {
    let (mut one, two) = (lane(), lane());
    let blocks = write(&mut one, 3, 1);
    let note = one.closing_note();
    let registry = [one.id().clone(), two.id().clone()];
    let mut successor = lane();
    let later = write(&mut successor, 1, 1);
    let registry_ok = [one.id().clone(), successor.id().clone()];
    let whole = [end(one.id(), &blocks, None), end(successor.id(), &later, Some(&note))];
    assert_eq!(check_lanes(&whole, &registry_ok), []);

    let cut = [end(one.id(), &blocks[..2], None), end(successor.id(), &later, Some(&note))];
    let damages = check_lanes(&cut, &registry_ok);
    assert_eq!(damages.len(), 1);
    assert_eq!(damages[0].seq, 2);
    assert_eq!(damages[0].kind, DamageKind::TailDiffers { stated: "3".to_owned() });

    let damages = check_lanes(&whole, &registry);
    assert!(damages.iter().any(|d| d.kind == DamageKind::LaneMissing && &d.lane == two.id()));
    assert!(damages.iter().any(|d| d.kind == DamageKind::LaneUnlisted && &d.lane == successor.id()));
}

#[test]
fn an_unknown_last_outcome_allows_both_ends() {
    let mut one = lane();
    let mut blocks = write(&mut one, 2, 1);
    let now = Now { unix_us: 1, mono_ms: 0 };
    let _ = one.append(now, Action::Send, Decision::Allowed, &Fields::default());
    let note = one.closing_note();
    let block = one.block().unwrap();
    let unknown = (block.first_seq, block.bytes.to_vec(), block.hash.to_vec());
    let mut successor = lane();
    let later = write(&mut successor, 1, 1);
    let registry = [one.id().clone(), successor.id().clone()];
    for with_it in [false, true] {
        if with_it {
            blocks.push(unknown.clone());
        }
        let ends = [end(one.id(), &blocks, None), end(successor.id(), &later, Some(&note))];
        assert_eq!(check_lanes(&ends, &registry), [], "with the unknown block: {with_it}");
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_is_found(block in 0usize..4, position in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let mut lane = lane();
        let mut blocks = write(&mut lane, 4, 2);
        let bytes = &mut blocks[block].1;
        let at = position.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let damage = verify(lane.id(), &blocks).unwrap_err();
        let first = block as u64 * 2 + 1;
        prop_assert!((first..=first + 1).contains(&damage.seq), "{damage}");
    }
}
