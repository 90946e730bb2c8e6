use super::*;
use proptest::prelude::*;
use thalweg_types::id::StorageUuid;

fn replica(node: u64, disk: u128) -> ReplicaId {
    ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node) * 100 + disk) }
}

fn candidate(node: u64, zone: &str, rack: &str) -> Candidate {
    Candidate {
        replica: replica(node, 0),
        zone: zone.into(),
        rack: rack.into(),
        free_bytes: 1 << 30,
        load: 0,
        up: true,
    }
}

const THREE: Quorum = Quorum { write: 3, ack: 2 };

fn of(candidates: &[Candidate], replica: ReplicaId) -> &Candidate {
    candidates.iter().find(|candidate| candidate.replica == replica).unwrap()
}

/// What an ensemble is judged by, found without the code under test.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Merit {
    fit: usize,
    near: bool,
    two_zones: bool,
    racks: usize,
}

fn merit(
    policy: &Policy,
    candidates: &[Candidate],
    ensemble: &[ReplicaId],
    near: Option<NodeId>,
) -> Merit {
    let members: Vec<_> = ensemble.iter().map(|member| of(candidates, *member)).collect();
    let fit = |c: &&&Candidate| c.up && c.free_bytes >= policy.free_bytes_min;
    let zones: BTreeSet<_> = members.iter().map(|c| &c.zone).collect();
    let racks: BTreeSet<_> = members.iter().map(|c| (&c.zone, &c.rack)).collect();
    Merit {
        fit: members.iter().filter(fit).count(),
        near: members.iter().filter(fit).any(|c| Some(c.replica.node) == near),
        two_zones: zones.len() > 1,
        racks: racks.len(),
    }
}

/// The rules that are never negotiable.
fn allowed(policy: &Policy, candidates: &[Candidate], ensemble: &[ReplicaId]) -> bool {
    let Quorum { write, ack } = policy.quorum;
    let members: Vec<_> = ensemble.iter().map(|member| of(candidates, *member)).collect();
    let nodes: BTreeSet<_> = ensemble.iter().map(|member| member.node).collect();
    let fit = merit(policy, candidates, ensemble, None).fit;
    let spread = |key: &dyn Fn(&Candidate) -> String| {
        members.iter().all(|c| {
            let same = members.iter().filter(|other| key(other) == key(c)).count();
            same < usize::from(ack)
        })
    };
    let domains = match policy.spread {
        Spread::Prefer => true,
        Spread::Strict(Domain::Zone) => spread(&|c| c.zone.to_string()),
        Spread::Strict(Domain::Rack) => spread(&|c| format!("{}/{}", c.zone, c.rack)),
    };
    let down = usize::from(write) - fit.min(usize::from(write));
    nodes.len() == usize::from(write) && down <= usize::from(write - ack) && domains
}

fn choices(from: &[ReplicaId], count: usize) -> Vec<Vec<ReplicaId>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let Some((head, rest)) = from.split_first() else { return Vec::new() };
    let mut all = choices(rest, count);
    all.extend(choices(rest, count - 1).into_iter().map(|mut chosen| {
        chosen.push(*head);
        chosen
    }));
    all
}

fn arb_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    // One label per node: zone, rack, disks.
    let node = (0..3_u8, 0..3_u8, 1..3_u128);
    let disk = (any::<bool>(), 0..4_u64, 0..1000_u64);
    proptest::collection::vec((node, [disk.clone(), disk]), 1..7).prop_map(|nodes| {
        let mut all = Vec::new();
        for (number, ((zone, rack, disks), states)) in nodes.into_iter().enumerate() {
            for disk in 0..disks {
                let (up, free_bytes, load) = states[usize::try_from(disk).unwrap()];
                let replica = replica(number as u64, disk);
                let zone = format!("z{zone}").as_str().into();
                let rack = format!("r{rack}").as_str().into();
                all.push(Candidate { replica, zone, rack, free_bytes, load, up });
            }
        }
        all
    })
}

fn arb_policy() -> impl Strategy<Value = Policy> {
    let quorum = prop_oneof![Just((1, 1)), Just((2, 2)), Just((3, 2)), Just((4, 3)), Just((5, 3))];
    let spread = prop_oneof![
        Just(Spread::Prefer),
        Just(Spread::Strict(Domain::Rack)),
        Just(Spread::Strict(Domain::Zone))
    ];
    (quorum, spread, 0..2_u64).prop_map(|((write, ack), spread, free_bytes_min)| Policy {
        quorum: Quorum { write, ack },
        spread,
        free_bytes_min,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Against every choice there is: one is found exactly if there is one, it breaks no rule, and none has fewer
    /// members that are down, or, those being equal, better honours what is preferred.
    #[test]
    fn no_other_choice_is_allowed_and_better(
        candidates in arb_candidates(),
        policy in arb_policy(),
        near in proptest::option::of(0..7_u64),
        seed in any::<u64>(),
    ) {
        let near = near.map(NodeId);
        let all: Vec<_> = candidates.iter().map(|c| c.replica).collect();
        let choices = choices(&all, usize::from(policy.quorum.write));
        let best = choices
            .iter()
            .filter(|chosen| allowed(&policy, &candidates, chosen))
            .map(|chosen| merit(&policy, &candidates, chosen, near))
            .max();
        match ensemble(&policy, &candidates, near, seed) {
            Ok(chosen) => {
                prop_assert!(allowed(&policy, &candidates, &chosen));
                prop_assert_eq!(Some(merit(&policy, &candidates, &chosen, near)), best);
            }
            Err(error) => prop_assert!(best.is_none(), "{} but {:?}", error, best),
        }
    }

    #[test]
    fn the_seed_decides_and_the_order_of_candidates_does_not(
        candidates in arb_candidates(),
        policy in arb_policy(),
        seed in any::<u64>(),
    ) {
        let mut turned = candidates.clone();
        turned.reverse();
        let first = ensemble(&policy, &candidates, None, seed);
        prop_assert_eq!(&first, &ensemble(&policy, &turned, None, seed));
        if let Ok(members) = first {
            let one = substitute(&policy, &candidates, &members, members[0], &[], seed);
            let two = substitute(&policy, &turned, &members, members[0], &[], seed);
            prop_assert_eq!(one, two);
        }
    }

    /// A substitute exactly if some storage may take the place, and then one that may.
    #[test]
    fn a_substitute_keeps_every_rule(
        candidates in arb_candidates(),
        policy in arb_policy(),
        avoid in 0..8_usize,
        member in 0..8_usize,
        seed in any::<u64>(),
    ) {
        let Ok(members) = ensemble(&policy, &candidates, None, seed) else { return Ok(()) };
        let old = members[member % members.len()];
        let avoid: Vec<_> = candidates.get(avoid).into_iter().map(|c| c.replica).collect();
        let may = |new: &Candidate| {
            let mut after = members.clone();
            after.retain(|member| *member != old);
            after.push(new.replica);
            let fit = new.up && new.free_bytes >= policy.free_bytes_min;
            let fits = fit && new.replica != old && !avoid.contains(&new.replica);
            fits && !members.contains(&new.replica) && allowed(&policy, &candidates, &after)
        };
        let open: Vec<_> = candidates.iter().filter(|c| may(c)).collect();
        match substitute(&policy, &candidates, &members, old, &avoid, seed) {
            Ok(new) => {
                prop_assert!(open.iter().any(|c| c.replica == new));
                let elsewhere = open.iter().any(|c| c.replica.node != old.node);
                prop_assert!(!elsewhere || new.node != old.node);
            }
            Err(error) => prop_assert!(open.is_empty(), "{} but {:?}", error, open),
        }
    }
}

#[test]
fn two_zones_cannot_keep_an_ack_quorum_apart() {
    let candidates: Vec<_> =
        (0..6).map(|node| candidate(node, if node < 3 { "a" } else { "b" }, "r")).collect();
    let policy = Policy { spread: Spread::Strict(Domain::Zone), ..Policy::new(THREE) };
    let refused = ensemble(&policy, &candidates, None, 1).unwrap_err();
    let text = "3 members with at most 1 in one zone need 3 of them, and there are 2";
    assert_eq!(refused.to_string(), text);
    assert!(ensemble(&Policy::new(THREE), &candidates, None, 1).is_ok());
}

#[test]
fn an_ack_quorum_of_one_is_never_spread() {
    let policy = Policy { spread: Spread::Strict(Domain::Rack), ..Policy::new(Quorum::ONE) };
    let refused = ensemble(&policy, &[candidate(1, "a", "r")], None, 1);
    assert_eq!(refused, Err(PlacementError::AckQuorumOfOne { domain: Domain::Rack }));
}

#[test]
fn nodes_that_are_down_only_fill_up() {
    let mut candidates: Vec<_> = (0..4).map(|node| candidate(node, "", "")).collect();
    candidates[0].up = false;
    candidates[1].up = false;
    for seed in 0..50 {
        let members = ensemble(&Policy::new(THREE), &candidates, Some(NodeId(0)), seed).unwrap();
        let down = members.iter().filter(|member| !of(&candidates, **member).up).count();
        assert_eq!(down, 1);
    }
    candidates[2].up = false;
    let refused = ensemble(&Policy::new(THREE), &candidates, None, 1).unwrap_err();
    let text = "2 of 3 members would be down or short of space, and 1 may be";
    assert_eq!(refused.to_string(), text);
    let refused = ensemble(&Policy::new(THREE), &candidates[..2], None, 1).unwrap_err();
    let text = "3 members need as many nodes, and 2 can be used at once (2 known)";
    assert_eq!(refused.to_string(), text);
}

#[test]
fn a_new_disk_on_the_node_of_the_old_one_may_take_its_place_when_nobody_else_can() {
    let mut candidates: Vec<_> = (0..3).map(|node| candidate(node, "", "")).collect();
    let members: Vec<_> = candidates.iter().map(|c| c.replica).collect();
    let refused = substitute(&Policy::new(THREE), &candidates, &members, members[2], &[], 7);
    let text = "nobody can take the place of n2/000000000000000000000000000000c8: of 2 other storages 2 share a \
                node with a member, 0 are avoided, 0 are down or short of space, 0 lie in a full domain";
    assert_eq!(refused.unwrap_err().to_string(), text);
    let fresh = Candidate { replica: replica(2, 5), ..candidate(2, "", "") };
    candidates.push(fresh.clone());
    let found = substitute(&Policy::new(THREE), &candidates, &members, members[2], &[], 7);
    assert_eq!(found, Ok(fresh.replica));
}

#[test]
fn idle_and_roomy_storages_are_chosen_more_often() {
    let policy = Policy { free_bytes_min: 1 << 20, ..Policy::new(Quorum::ONE) };
    let mut candidates: Vec<_> = (0..4).map(|node| candidate(node, "", "")).collect();
    candidates[1].load = 4000;
    candidates[2].free_bytes = 1 << 20;
    candidates[3].free_bytes = (1 << 20) - 1;
    let mut chosen = [0; 4];
    for seed in 0..2000 {
        let members = ensemble(&policy, &candidates, None, seed).unwrap();
        chosen[usize::try_from(members[0].node.0).unwrap()] += 1;
    }
    assert!(chosen[0] > 2 * chosen[1] && chosen[1] > 2 * chosen[2], "{chosen:?}");
    assert!(chosen[2] > 0 && chosen[3] == 0, "{chosen:?}");
}
