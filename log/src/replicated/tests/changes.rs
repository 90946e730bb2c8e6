use super::*;

fn last_ensemble(world: &World) -> Vec<ReplicaId> {
    world.record().ledgers.last().unwrap().last_fragment().ensemble.clone()
}

/// A world with a spare node: the ledger is on three of four. Named are a member far from its owner, and the spare.
fn with_spare() -> (World, Arc<ReplicatedLogs>, Opened, ReplicaId, ReplicaId) {
    let world = World::new(4);
    let logs = world.logs(1);
    let opened = world.open(&logs);
    let ensemble = last_ensemble(&world);
    assert!(ensemble.contains(&replica(1)), "the owner's own node is preferred");
    let gone = *ensemble.iter().find(|member| member.node != NodeId(1)).unwrap();
    let spare = (1..=4).map(replica).find(|known| !ensemble.contains(known)).unwrap();
    (world, logs, opened, gone, spare)
}

#[test]
fn a_silent_member_is_replaced_under_load() {
    for fault in [Fault::Cut, Fault::Stalled, Fault::LosesReplies, Fault::LosesRequests] {
        let (world, _logs, opened, gone, spare) = with_spare();
        append(&opened, 0, 50);
        world.committed(&opened, 50);
        world.links.set_fault(gone, fault);
        let mut end = 50;
        for _ in 0..30 {
            append(&opened, end, end + 10);
            end += 10;
            world.committed(&opened, end);
            world.pass(Duration::from_millis(10));
        }
        let ensemble = last_ensemble(&world);
        assert!(!ensemble.contains(&gone) && ensemble.contains(&spare), "{fault:?}");
        assert_eq!(world.record().ledgers[0].fragments.len(), 2, "{fault:?}");
        let second = world.logs(2);
        let next = world.open(&second);
        assert_eq!(world.replayed(&second, &next).unwrap(), numbers(end), "{fault:?}");
        let read = opened.ledger.read(Address::new(Epoch(1), EntryId(end - 1)));
        assert_eq!(world.executor.run(read).unwrap(), format!("<{}", end - 1));
    }
}

#[test]
fn a_former_member_hears_of_trims() {
    let (world, _logs, opened, gone, spare) = with_spare();
    append(&opened, 0, 5);
    world.committed(&opened, 5);
    world.pass(Duration::from_millis(5));
    world.links.cut(gone);
    append(&opened, 5, 10);
    world.pass(Duration::from_secs(1));
    assert!(last_ensemble(&world).contains(&spare));
    world.links.restore(gone);
    let keep_from = Address::new(Epoch(1), EntryId(3));
    let kept = opened.ledger.set_keep_from(keep_from, SnapshotPointers::default());
    world.executor.run(kept).unwrap();
    world.pass(Duration::from_millis(5));
    assert_eq!((world.copies(1, 2), world.copies(1, 3)), (0, 3));
}

#[test]
fn nothing_stalls_while_a_member_is_silent() {
    let (world, _logs, opened, gone, _spare) = with_spare();
    world.links.cut(gone);
    let before = world.env().clock.now();
    append(&opened, 0, 100);
    world.committed(&opened, 100);
    assert!(world.env().clock.now().since(before) < Duration::from_millis(1));
}

#[test]
fn lost_answers_of_the_register_leave_a_change_in_doubt_but_harm_nothing() {
    let (world, _logs, opened, gone, spare) = with_spare();
    append(&opened, 0, 5);
    world.committed(&opened, 5);
    world.register.lose.store(3, Ordering::Relaxed);
    world.links.cut(gone);
    append(&opened, 5, 10);
    world.pass(Duration::from_secs(1));
    assert!(last_ensemble(&world).contains(&spare));
    append(&opened, 10, 20);
    world.committed(&opened, 20);
    let second = world.logs(2);
    let next = world.open(&second);
    assert_eq!(world.replayed(&second, &next).unwrap(), numbers(20));
}

#[test]
fn two_silent_members_stop_the_commits_and_lose_nothing() {
    let world = World::new(3);
    let opened = world.open(&world.logs(1));
    append(&opened, 0, 5);
    world.committed(&opened, 5);
    world.links.set_fault(replica(2), Fault::Stalled);
    world.links.cut(replica(3));
    append(&opened, 5, 10);
    world.pass(Duration::from_secs(20));
    let seen = opened.ledger.progress().borrow().clone();
    assert_eq!((seen.committed, seen.stopped), (Some(EntryId(4)), None));
    let ahead = opened.ledger.read(Address::new(Epoch(1), EntryId(5)));
    let refused = world.executor.run(ahead);
    assert!(matches!(refused, Err(ReadError::Unknown { .. })), "one replica has it, but who knows");
    world.links.restore(replica(2));
    world.committed(&opened, 10);
    world.links.restore(replica(3));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.copies(1, 9), 3, "the third one catches up");
}

#[test]
fn two_silent_members_are_replaced_one_by_one_if_it_lasts() {
    let world = World::new(5);
    let opened = world.open(&world.logs(1));
    let ensemble = last_ensemble(&world);
    let gone: Vec<_> = ensemble.iter().filter(|m| m.node != NodeId(1)).copied().collect();
    for member in &gone {
        world.set_up(*member, false);
    }
    append(&opened, 0, 10);
    world.pass(Duration::from_secs(4));
    assert_eq!(last_ensemble(&world), ensemble, "it may pass");
    world.committed(&opened, 10);
    world.pass(Duration::from_secs(3));
    assert!(gone.iter().all(|member| !last_ensemble(&world).contains(member)));
    append(&opened, 10, 20);
    world.committed(&opened, 20);
}

#[test]
fn a_disk_that_comes_back_blank_or_rolled_back_counts_no_more() {
    for rolled_back in [false, true] {
        let (mut world, _logs, opened, gone, spare) = with_spare();
        append(&opened, 0, 20);
        world.committed(&opened, 20);
        world.pass(Duration::from_millis(5));
        let storage = world.storages[&gone].clone();
        world.links.remove(gone);
        // All that it has may be right, but it was mounted more often before: what has it forgotten?
        let again = if rolled_back { storage.rolled_back() } else { blank_after(&storage) };
        world.mount(gone, again);
        append(&opened, 20, 30);
        world.committed(&opened, 30);
        world.pass(Duration::from_secs(2));
        let ensemble = last_ensemble(&world);
        assert!(!ensemble.contains(&gone) && ensemble.contains(&spare), "{rolled_back}");
        let second = world.logs(2);
        let next = world.open(&second);
        assert_eq!(world.replayed(&second, &next).unwrap(), numbers(30));
    }
}

/// A blank storage that says it was mounted once more than `before`.
fn blank_after(before: &MemoryStorage) -> Arc<MemoryStorage> {
    let mut storage = MemoryStorage::auto();
    while storage.mount_seq() <= before.mount_seq() {
        storage = storage.restart();
    }
    storage
}

#[test]
fn a_replica_that_starts_anew_goes_on_where_it_was() {
    let world = &mut World::new(3);
    let opened = world.open(&world.logs(1));
    let mut end = 0;
    for node in [3, 2, 1, 3] {
        append(&opened, end, end + 10);
        world.committed(&opened, end + 10);
        let again = world.storages[&replica(node)].restart();
        world.links.remove(replica(node));
        append(&opened, end + 10, end + 20);
        world.committed(&opened, end + 20);
        world.mount(replica(node), again);
        end += 20;
        world.pass(Duration::from_millis(100));
        assert_eq!(world.copies(1, end - 1), 3);
    }
    assert_eq!(world.record().ledgers[0].fragments.len(), 1);
}

#[test]
fn a_full_disk_on_one_member_is_gone_around_until_there_is_room() {
    let world = World::new(3);
    let opened = world.open(&world.logs(1));
    append(&opened, 0, 5);
    world.committed(&opened, 5);
    world.storages[&replica(3)].hold(Some("the disk is full"));
    world.pass(Duration::from_millis(1));
    append(&opened, 5, 10);
    world.committed(&opened, 10);
    assert_eq!(opened.ledger.progress().borrow().held, None);
    assert_eq!(world.copies(1, 9), 2);
    // On two of them: nothing more commits, and it is said why.
    world.storages[&replica(2)].hold(Some("the disk is full"));
    world.pass(Duration::from_millis(1));
    append(&opened, 10, 15);
    world.pass(Duration::from_secs(3));
    let seen = opened.ledger.progress().borrow().clone();
    assert_eq!((seen.committed, seen.stopped), (Some(EntryId(9)), None));
    assert!(seen.held.unwrap().contains("full"));
    // An entry that may use the reserve gets through, and draws the others along.
    let relief = Entry { exempt: true, ..entry("15") };
    assert_eq!(opened.ledger.append(relief), Ok(EntryId(15)));
    world.committed(&opened, 16);
    world.storages[&replica(2)].hold(None);
    append(&opened, 16, 20);
    world.committed(&opened, 20);
    world.storages[&replica(3)].hold(None);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.copies(1, 19), 3);
    assert_eq!(opened.ledger.progress().borrow().held, None);
}

#[test]
fn a_member_whose_disk_is_full_is_replaced_where_there_is_another() {
    let (world, _logs, opened, gone, spare) = with_spare();
    world.storages[&gone].hold(Some("the disk is full"));
    world.pass(Duration::from_millis(1));
    append(&opened, 0, 5);
    world.committed(&opened, 5);
    world.pass(Duration::from_secs(1));
    assert!(last_ensemble(&world).contains(&spare));
}

#[test]
fn one_process_changes_one_ensemble_a_second() {
    let world = World::new(4);
    let logs = world.logs(1);
    let mut all = Vec::new();
    for container in 0..4 {
        let opened = world.executor.run(logs.open(ContainerId(container))).unwrap();
        opened.ledger.append(entry("0")).unwrap();
        all.push(opened);
    }
    world.pass(Duration::from_millis(20));
    let ledger_of = |container| world.register.inner.get(ContainerId(container)).unwrap();
    let with = |gone: ReplicaId| {
        let on = |c: &u32| ledger_of(*c).ledgers[0].last_fragment().ensemble.contains(&gone);
        (0..4).filter(on).count()
    };
    let gone = (2..=4).map(replica).max_by_key(|replica| with(*replica)).unwrap();
    let before = with(gone);
    assert!(before >= 2, "the seed gives something to do");
    world.set_up(gone, false);
    for opened in &all {
        opened.ledger.append(entry("1")).unwrap();
    }
    world.pass(Duration::from_millis(900));
    assert_eq!(with(gone), before - 1);
    world.pass(Duration::from_secs(8));
    assert_eq!(with(gone), 0);
}

#[test]
fn where_only_a_former_member_can_help_a_new_epoch_is_asked_for() {
    let mut world = World::new(3);
    let logs = world.logs(1);
    let opened = world.open(&logs);
    append(&opened, 0, 20);
    world.committed(&opened, 20);
    world.pass(Duration::from_millis(5));
    world.links.remove(replica(3));
    world.mount(replica(3), blank_after(&world.storages[&replica(3)].clone()));
    append(&opened, 20, 30);
    world.committed(&opened, 30);
    world.pass(Duration::from_secs(30));
    assert_eq!(stopped(&opened), None, "at most once a minute");
    world.pass(Duration::from_secs(40));
    let seen = opened.ledger.progress().borrow().clone();
    assert!(seen.renew && seen.stopped.is_some());
    let next = world.open(&logs);
    assert_eq!(world.replayed(&logs, &next).unwrap(), numbers(30));
    append(&next, 0, 10);
    world.committed(&next, 10);
    world.pass(Duration::from_millis(5));
    assert_eq!(world.copies(2, 9), 3);
}

#[test]
fn a_ledger_that_can_commit_nothing_more_is_renewed_within_seconds() {
    let mut world = World::new(3);
    let logs = world.logs(1);
    let opened = world.open(&logs);
    append(&opened, 0, 20);
    world.committed(&opened, 20);
    world.pass(Duration::from_millis(5));
    // One has lost what it had acked, and one is gone: only a new ledger can use the first of them again.
    world.links.remove(replica(3));
    world.mount(replica(3), blank_after(&world.storages[&replica(3)].clone()));
    append(&opened, 20, 21);
    world.committed(&opened, 21);
    world.set_up(replica(2), false);
    append(&opened, 21, 22);
    world.pass(Duration::from_secs(8));
    let seen = opened.ledger.progress().borrow().clone();
    assert_eq!(seen.committed, Some(EntryId(20)));
    assert!(seen.renew);
}

#[test]
fn an_idle_ledger_tells_its_commit_point() {
    let world = World::new(3);
    let opened = world.open(&world.logs(1));
    append(&opened, 0, 7);
    world.committed(&opened, 7);
    world.pass(Duration::from_millis(25));
    let ledger = opened.ledger.id();
    for service in &world.services {
        assert_eq!(service.facts(ledger).unwrap().committed_end, EntryId(7));
    }
}

#[test]
fn a_register_that_belongs_to_somebody_else_stops_the_ledger() {
    let (world, _logs, opened, gone, _spare) = with_spare();
    // Another process has taken over and has not reached any replica yet.
    for change in [
        Change::Assign { host: NodeId(2), session: 3, incarnation: Incarnation(8) },
        Change::BeginRecovery { epoch: Epoch(2), incarnation: Incarnation(8) },
    ] {
        let command = RegisterCommand { container: CONTAINER, change };
        world.executor.run(world.register.submit(command)).unwrap();
    }
    world.links.cut(gone);
    append(&opened, 0, 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(stopped(&opened).as_deref(), Some("a newer epoch owns the container"));
}
