use super::*;
use crate::frame::Frame;

/// A world in which owner 1 has committed `end` entries.
fn written(nodes: u64, end: u64) -> (World, Opened) {
    let world = World::new(nodes);
    let opened = world.open(&world.logs(1));
    append(&opened, 0, end);
    world.committed(&opened, end);
    (world, opened)
}

#[test]
fn what_was_committed_is_replayed_by_the_next_owner() {
    let world = World::new(3);
    let first = world.logs(1);
    let opened = world.open(&first);
    append(&opened, 0, 100);
    world.committed(&opened, 100);
    assert_eq!(world.replayed(&first, &opened).unwrap(), [""; 0]);
    let read = opened.ledger.read(Address::new(Epoch(1), EntryId(7)));
    assert_eq!(world.executor.run(read).unwrap(), "<7");
    let ahead = opened.ledger.read(Address::new(Epoch(1), EntryId(100)));
    assert!(matches!(world.executor.run(ahead), Err(ReadError::Unknown { .. })));
    assert!(!opened.ledger.is_local());

    let second = world.logs(2);
    let next = world.open(&second);
    assert_eq!(next.ledger.id().epoch, Epoch(2));
    assert_eq!(world.replayed(&second, &next).unwrap(), numbers(100));
    append(&next, 0, 1);
    world.committed(&next, 1);
    let third = world.logs(3);
    let last = world.open(&third);
    let mut all = numbers(100);
    all.push("0".to_owned());
    assert_eq!(world.replayed(&third, &last).unwrap(), all);
}

#[test]
fn an_owner_that_wakes_after_a_takeover_commits_nothing() {
    let (world, zombie) = written(3, 10);
    let second = world.logs(2);
    let next = world.open(&second);
    assert_eq!(stopped(&zombie), None, "it has not heard of it");
    // Whether it sends one entry or many: none is ever acked.
    for number in 10..50 {
        if zombie.ledger.append(entry(&number.to_string())).is_err() {
            break;
        }
    }
    world.pass(Duration::from_millis(5));
    let seen = zombie.ledger.progress().borrow().clone();
    assert_eq!(seen.committed, Some(EntryId(9)));
    assert_eq!(seen.stopped.as_deref(), Some("epoch 2 has taken the container over"));
    assert!(zombie.ledger.append(entry("late")).is_err());
    let keep_from = Address::new(Epoch(1), EntryId(5));
    let trim = zombie.ledger.set_keep_from(keep_from, SnapshotPointers::default());
    assert!(world.executor.run(trim).is_err());
    assert_eq!(world.replayed(&second, &next).unwrap(), numbers(10));
}

#[test]
fn a_process_that_takes_its_own_container_over_ends_its_own_ledger() {
    let world = World::new(3);
    let logs = world.logs(1);
    let before = world.open(&logs);
    append(&before, 0, 3);
    world.committed(&before, 3);
    let opened = world.open(&logs);
    assert_eq!(stopped(&before).as_deref(), Some("a newer epoch owns the container"));
    assert!(matches!(world.replayed(&logs, &before), Err(ReadError::Stopped(_))));
    assert_eq!(world.replayed(&logs, &opened).unwrap(), numbers(3));
}

#[test]
fn one_silent_replica_delays_a_takeover_by_nothing() {
    for fault in [Fault::Cut, Fault::Stalled, Fault::LosesRequests, Fault::LosesReplies] {
        let (world, _old) = written(3, 20);
        world.links.set_fault(replica(3), fault);
        let (second, clock) = (world.logs(2), world.env().clock);
        let before = clock.now();
        let opened = world.open(&second);
        assert!(clock.now().since(before) < Duration::from_millis(10), "{fault:?}");
        assert_eq!(world.replayed(&second, &opened).unwrap(), numbers(20), "{fault:?}");
    }
}

#[test]
fn a_recovery_that_waits_for_everybody_never_ends() {
    let (world, _old) = written(3, 20);
    world.links.set_fault(replica(3), Fault::Stalled);
    start_run(Some("PB-V3"), None);
    let (second, clock) = (world.logs(2), world.env().clock);
    let late = clock.sleep_until(clock.now().after(Duration::from_secs(60)));
    let opened = world.executor.run(async {
        tokio::select! {
            biased;
            opened = second.open(CONTAINER) => Some(opened.is_ok()),
            () = late => None,
        }
    });
    start_run(None, None);
    assert_eq!(opened, None);
}

#[test]
fn a_takeover_waits_while_two_are_silent_and_loses_nothing() {
    let (world, _old) = written(3, 20);
    world.links.cut(replica(2));
    world.links.cut(replica(3));
    let (second, clock) = (world.logs(2), world.env().clock);
    let late = clock.sleep_until(clock.now().after(Duration::from_secs(30)));
    let submitted = world.register.submitted.load(Ordering::Relaxed);
    let opened = world.executor.run(async {
        let open = second.open(CONTAINER);
        let back = async {
            late.await;
            assert_eq!(world.record().ledgers[0].end(), None);
            world.links.restore(replica(2));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            opened = open => opened.unwrap(),
            () = back => unreachable!("it waits for ever"),
        }
    });
    let asked = world.register.submitted.load(Ordering::Relaxed) - submitted;
    assert!(asked < 12, "the register is asked now and then: {asked}");
    assert_eq!(world.replayed(&second, &opened).unwrap(), numbers(20));
}

#[test]
fn a_recoverer_that_waits_hears_of_a_newer_one() {
    let (world, _old) = written(3, 5);
    for node in 1..=3 {
        world.links.cut(replica(node));
    }
    let (second, third) = (world.logs(2), world.logs(3));
    let outcome = world.executor.run(async {
        let newer = async {
            let clock = world.env().clock;
            clock.sleep_until(clock.now().after(Duration::from_secs(1))).await;
            third.open(CONTAINER).await
        };
        tokio::select! {
            biased;
            outcome = second.open(CONTAINER) => outcome.err(),
            _ = newer => unreachable!("nobody answers"),
        }
    });
    assert_eq!(outcome, Some(OpenError::Superseded { container: CONTAINER }));
}

#[test]
fn answers_of_the_register_that_are_lost_are_asked_for_again() {
    for lost in 1..=4 {
        let (world, _old) = written(3, 5);
        let second = world.logs(2);
        world.register.lose.store(lost, Ordering::Relaxed);
        let opened = world.open(&second);
        assert_eq!(world.replayed(&second, &opened).unwrap(), numbers(5));
        append(&opened, 0, 1);
        world.committed(&opened, 1);
        // Only an assignment takes another epoch when it is sent again.
        assert_eq!(opened.ledger.id().epoch, Epoch(2 + lost));
    }
}

#[test]
fn what_nobody_can_read_is_an_error_that_names_everybody() {
    let world = World::new(3);
    let opened = world.open(&world.logs(1));
    append(&opened, 0, 3);
    world.committed(&opened, 3);
    let ledger = opened.ledger.id();
    for storage in world.storages.values() {
        storage.damage(ledger, EntryId(2));
    }
    let error = world.executor.run(world.logs(2).open(CONTAINER)).err().unwrap();
    let OpenError::Damaged { container, reason } = &error else { panic!("{error}") };
    assert_eq!(*container, CONTAINER);
    assert!(reason.contains("entry 2 of ledger c5e1 may be committed"), "{reason}");
    for node in 1..=3 {
        let said =
            format!("{} has entries up to 3, exclusive and cannot read entry 2", replica(node));
        assert!(reason.contains(&said), "{reason}");
    }
    assert_eq!(world.record().ledgers[0].end(), None, "stuck, not truncated");
}

#[test]
fn damage_on_one_replica_is_read_around() {
    let (world, opened) = written(3, 30);
    let ledger = opened.ledger.id();
    for (node, entry) in [(1, 7), (2, 29), (3, 12)] {
        world.storages[&replica(node)].damage(ledger, EntryId(entry));
    }
    let second = world.logs(2);
    let next = world.open(&second);
    assert_eq!(world.replayed(&second, &next).unwrap(), numbers(30));
    // On all of them: the replay ends with an error that names them all, and never early.
    for node in 1..=3 {
        world.storages[&replica(node)].damage(ledger, EntryId(12));
    }
    let error = world.replayed(&second, &next).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("e1:12"), "{text}");
    for node in 1..=3 {
        assert!(text.contains(&replica(node).to_string()), "{text}");
    }
}

#[test]
fn a_disk_that_was_replaced_by_a_blank_one_is_nobody_of_the_old_ensemble() {
    let (mut world, _old) = written(3, 20);
    world.links.remove(replica(3));
    let blank = ReplicaId { node: NodeId(3), storage: StorageUuid(33) };
    world.set_up(replica(3), false);
    world.mount(blank, MemoryStorage::auto());
    // The old identity would vouch for nothing; without it two of three decide.
    let second = world.logs(2);
    let opened = world.open(&second);
    assert_eq!(world.replayed(&second, &opened).unwrap(), numbers(20));
    let record = world.record();
    assert!(record.ledgers[1].last_fragment().ensemble.contains(&blank));
    // With two of three replaced the container stays closed.
    let (mut world, _old) = written(3, 20);
    for node in [2, 3] {
        world.links.remove(replica(node));
        let blank = ReplicaId { node: NodeId(node), storage: StorageUuid(33) };
        world.mount(blank, MemoryStorage::auto());
    }
    let (second, clock) = (world.logs(2), world.env().clock);
    let late = clock.sleep_until(clock.now().after(Duration::from_secs(60)));
    let opened = world.executor.run(async {
        tokio::select! {
            biased;
            opened = second.open(CONTAINER) => Some(opened.is_ok()),
            () = late => None,
        }
    });
    assert_eq!(opened, None);
    assert_eq!(world.record().ledgers[0].end(), None);
}

#[test]
fn copies_go_to_a_substitute_while_members_are_silent() {
    let mut world = World::new(3);
    let slow = MemoryStorage::manual();
    world.mount(replica(3), slow.clone());
    let opened = world.open(&world.logs(1));
    slow.make_durable(slow.staged());
    // Replica 3 lacks the last entry.
    append(&opened, 0, 2);
    world.committed(&opened, 2);
    slow.make_durable(slow.staged());
    world.links.cut(replica(3));
    append(&opened, 2, 3);
    world.committed(&opened, 3);
    drop(opened);
    world.links.restore(replica(3));
    world.mount(replica(4), MemoryStorage::auto());
    world.set_up(replica(2), false);
    // Replica 3 answers the fence, and then makes nothing durable any more.
    let (second, clock) = (world.logs(1), world.env().clock);
    let opened = world.executor.run(async {
        let fence = async {
            loop {
                let fenced = slow.frames().iter().any(|frame| matches!(frame, Frame::Fence { .. }));
                if fenced {
                    slow.make_durable(slow.staged());
                    break;
                }
                clock.sleep_until(clock.now().after(Duration::from_micros(100))).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            opened = second.open(CONTAINER) => opened.unwrap(),
            () = fence => unreachable!("it waits for ever"),
        }
    });
    let record = world.record();
    let fragment = record.ledgers[0].last_fragment();
    assert!(fragment.ensemble.contains(&replica(4)), "{fragment:?}");
    assert!(fragment.ensemble.contains(&replica(1)));
    assert_eq!(world.replayed(&second, &opened).unwrap(), numbers(3));
}

#[test]
fn trimmed_entries_leave_the_register_and_every_replica() {
    let (world, opened) = written(3, 10);
    let keep_from = Address::new(Epoch(1), EntryId(4));
    let newest = crate::ledger::SnapshotPointer { at: keep_from, covers: None };
    let snapshots = SnapshotPointers { newest: Some(newest), older: None };
    world.links.cut(replica(2));
    world.executor.run(opened.ledger.set_keep_from(keep_from, snapshots.clone())).unwrap();
    world.pass(Duration::from_millis(1));
    assert_eq!((world.copies(1, 3), world.copies(1, 4)), (1, 3));
    let below = Address::new(Epoch(1), EntryId(3));
    let read = world.executor.run(opened.ledger.read(below));
    assert_eq!(read, Err(ReadError::Trimmed { address: below }));

    let second = world.logs(2);
    let next = world.open(&second);
    // Whoever was away learns of it when it is back, also from another owner.
    drop(opened);
    world.links.restore(replica(2));
    world.pass(Duration::from_millis(1));
    assert_eq!(world.copies(1, 3), 0);
    assert_eq!((next.keep_from, &next.snapshots), (keep_from, &snapshots));
    assert_eq!(world.replayed(&second, &next).unwrap(), numbers(10)[4..]);
    let mut replay = second.replay(&next, Some(below));
    let refused = world.executor.run(async { replay.next().await.map(|_| ()) });
    assert_eq!(refused, Err(ReadError::Trimmed { address: below }));
    // The members of an older ledger hear of it as well.
    let whole = Address::new(Epoch(2), EntryId(0));
    world.executor.run(next.ledger.set_keep_from(whole, snapshots)).unwrap();
    world.pass(Duration::from_millis(1));
    assert_eq!(world.copies(1, 9), 0);
}

#[test]
fn a_replay_reads_many_entries_in_order() {
    let (world, _old) = written(3, 5000);
    let second = world.logs(2);
    let opened = world.open(&second);
    let mut replay = second.replay(&opened, Some(Address::new(Epoch(1), EntryId(1500))));
    let seen = world.executor.run(async {
        let mut at = 1500;
        while let Some(entry) = replay.next().await.unwrap() {
            assert_eq!(entry.address, Address::new(Epoch(1), EntryId(at)));
            at += 1;
        }
        at
    });
    assert_eq!(seen, 5000);
}

#[test]
fn a_replica_that_hangs_delays_a_replay_once() {
    let (world, _old) = written(3, 5000);
    let second = world.logs(2);
    let opened = world.open(&second);
    // The one on the owner's own node would be asked first.
    world.links.set_fault(replica(2), Fault::Stalled);
    let (clock, mut replay) = (world.env().clock, second.replay(&opened, None));
    let before = clock.now();
    let seen = world.executor.run(async {
        let mut seen = 0;
        while replay.next().await.unwrap().is_some() {
            seen += 1;
        }
        seen
    });
    assert_eq!(seen, 5000);
    assert!(clock.now().since(before) < Duration::from_millis(600));
}

#[test]
fn answers_of_the_register_that_overtake_each_other_take_nothing_back() {
    let world = World::new(3);
    let logs = world.logs(1);
    let opened = world.open(&logs);
    append(&opened, 0, 5);
    world.committed(&opened, 5);
    let before = Arc::new(world.record());
    let keep_from = Address::new(Epoch(1), EntryId(2));
    let kept = opened.ledger.set_keep_from(keep_from, SnapshotPointers::default());
    world.executor.run(kept).unwrap();
    let running = logs.container(CONTAINER).running().unwrap();
    running.kept(before);
    assert_eq!(running.log().keep_from, keep_from);
}
