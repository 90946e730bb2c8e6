use super::*;
use thalweg_types::codec;
use thalweg_types::id::StorageUuid;

const CONTAINER: ContainerId = ContainerId(3);
const QUORUM: Quorum = Quorum { write: 3, ack: 2 };

fn replica(node: u64) -> ReplicaId {
    ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) }
}

fn ensemble(nodes: [u64; 3]) -> Vec<ReplicaId> {
    nodes.map(replica).to_vec()
}

fn assign(log: &mut ContainerLog) -> Epoch {
    let assign = Change::Assign { host: NodeId(1), session: 9, incarnation: Incarnation(5) };
    done(log.apply(&assign)).assigned.unwrap().epoch
}

fn begin(epoch: Epoch) -> Change {
    Change::BeginRecovery { epoch, incarnation: Incarnation(5) }
}

fn close(epoch: Epoch, start: u64, end: u64, ending: [u64; 3]) -> Change {
    let (start, end) = (EntryId(start), EntryId(end));
    let ending = Ending { start, end, ensemble: ensemble(ending) };
    Change::Close { epoch, ending, quorum: QUORUM, ensemble: ensemble([1, 2, 3]) }
}

fn change(epoch: Epoch, id: u64, first: u64, members: [u64; 3]) -> Change {
    Change::ChangeEnsemble { epoch, id, first: EntryId(first), ensemble: ensemble(members) }
}

fn keep(epoch: Epoch, keep_from: Address) -> Change {
    Change::SetKeepFrom { epoch, keep_from, snapshots: SnapshotRecords::default() }
}

fn done(reply: RegisterReply) -> ContainerLog {
    match reply {
        RegisterReply::Done(log) => *log,
        refused => panic!("refused: {refused:?}"),
    }
}

fn is_stale(reply: &RegisterReply) -> bool {
    matches!(reply, RegisterReply::Stale { .. })
}

fn is_invalid(reply: &RegisterReply) -> bool {
    matches!(reply, RegisterReply::Invalid { .. })
}

/// A log whose first ledger is open.
fn opened() -> (ContainerLog, Epoch) {
    let mut log = ContainerLog::new(CONTAINER);
    let epoch = assign(&mut log);
    done(log.apply(&begin(epoch)));
    done(log.apply(&close(epoch, 0, 0, [1, 2, 3])));
    (log, epoch)
}

#[test]
fn the_first_owner_opens_a_ledger_with_nothing_to_close() {
    let (log, epoch) = opened();
    assert_eq!((epoch, log.epoch), (Epoch(1), Epoch(1)));
    assert_eq!(log.ledgers.len(), 1);
    assert_eq!(log.ledgers[0].stage, LedgerStage::Open);
    assert_eq!(log.owner.unwrap().host, NodeId(1));
}

#[test]
fn a_recovery_makes_the_old_owner_stale() {
    let (mut log, old) = opened();
    let new = assign(&mut log);
    done(log.apply(&begin(new)));
    assert_eq!(log.ledgers[0].stage, LedgerStage::Recovering);
    assert!(is_stale(&log.apply(&change(old, 1, 4, [1, 2, 4]))));
    assert!(is_stale(&log.apply(&keep(old, Address::new(old, EntryId(2))))));
    assert!(is_stale(&log.apply(&close(old, 0, 0, [1, 2, 3]))));
    assert!(is_stale(&log.apply(&begin(old))));
    done(log.apply(&close(new, 3, 7, [1, 2, 3])));
    assert_eq!(log.ledgers[0].end(), Some(EntryId(7)));
    assert_eq!(log.ledgers[1].epoch, new);
}

#[test]
fn only_the_assigned_process_may_begin() {
    let mut log = ContainerLog::new(CONTAINER);
    let epoch = assign(&mut log);
    let stranger = Change::BeginRecovery { epoch, incarnation: Incarnation(6) };
    assert!(is_stale(&log.apply(&stranger)));
    let newer = assign(&mut log);
    assert!(is_stale(&log.apply(&begin(epoch))));
    done(log.apply(&begin(newer)));
}

#[test]
fn a_command_sent_again_gets_the_same_reply() {
    let (mut log, _) = opened();
    let epoch = assign(&mut log);
    assert_eq!(log.apply(&begin(epoch)), log.clone().apply(&begin(epoch)));
    let closing = close(epoch, 3, 7, [1, 2, 4]);
    assert_eq!(log.apply(&closing), log.clone().apply(&closing));
    let changing = change(epoch, 1, 4, [1, 2, 4]);
    assert_eq!(log.apply(&changing), log.clone().apply(&changing));
    // The number alone does not make it the same command.
    assert!(is_stale(&log.apply(&change(epoch, 1, 4, [1, 3, 4]))));
    assert!(is_stale(&log.apply(&change(epoch, 3, 9, [1, 3, 4]))));
}

#[test]
fn closing_records_who_holds_the_recovered_tail() {
    let (mut log, _) = opened();
    let epoch = assign(&mut log);
    done(log.apply(&begin(epoch)));
    done(log.apply(&close(epoch, 3, 7, [1, 2, 4])));
    let closed = &log.ledgers[0];
    assert_eq!(closed.fragments.len(), 2);
    assert_eq!(closed.fragment_of(EntryId(2)).unwrap().ensemble, ensemble([1, 2, 3]));
    assert_eq!(closed.fragment_of(EntryId(3)).unwrap().ensemble, ensemble([1, 2, 4]));
}

#[test]
fn closing_an_empty_tail_leaves_the_fragments_alone() {
    let (mut log, _) = opened();
    let epoch = assign(&mut log);
    done(log.apply(&begin(epoch)));
    done(log.apply(&close(epoch, 3, 3, [1, 2, 4])));
    assert_eq!(log.ledgers[0].fragments.len(), 1);
}

#[test]
fn a_change_at_the_same_first_replaces_the_fragment() {
    let (mut log, epoch) = opened();
    done(log.apply(&change(epoch, 1, 4, [1, 2, 4])));
    done(log.apply(&change(epoch, 2, 4, [1, 2, 5])));
    assert_eq!(log.ledgers[0].fragments.len(), 2);
    assert_eq!(log.ledgers[0].last_fragment().ensemble, ensemble([1, 2, 5]));
    assert!(is_invalid(&log.apply(&change(epoch, 3, 3, [1, 2, 3]))));
}

#[test]
fn what_lies_wholly_below_keep_from_leaves_the_register() {
    let (mut log, first) = opened();
    done(log.apply(&change(first, 1, 4, [1, 2, 4])));
    done(log.apply(&change(first, 2, 8, [1, 2, 3])));
    done(log.apply(&keep(first, Address::new(first, EntryId(7)))));
    assert_eq!(log.ledgers[0].fragments.len(), 2, "entry 7 is still in the second");
    done(log.apply(&keep(first, Address::new(first, EntryId(8)))));
    assert_eq!(log.ledgers[0].fragments.len(), 1);

    let second = assign(&mut log);
    done(log.apply(&begin(second)));
    done(log.apply(&close(second, 8, 9, [1, 2, 3])));
    done(log.apply(&keep(second, Address::new(second, EntryId(0)))));
    assert_eq!(log.ledgers.len(), 1);
    assert!(is_stale(&log.apply(&keep(second, Address::new(first, EntryId(9))))));
    let future = Address::new(Epoch(second.0 + 1), EntryId(0));
    assert!(is_invalid(&log.apply(&keep(second, future))));
}

#[test]
fn a_closed_ledger_without_an_entry_to_keep_leaves_the_register() {
    let (mut log, first) = opened();
    let reopen = |log: &mut ContainerLog, end: u64| {
        let epoch = assign(log);
        done(log.apply(&begin(epoch)));
        let closing = close(epoch, end, end, [1, 2, 3]);
        let reply = done(log.apply(&closing));
        assert_eq!(done(log.apply(&closing)), reply, "sent again");
        epoch
    };
    let second = reopen(&mut log, 5);
    let third = reopen(&mut log, 0);
    let listed = |log: &ContainerLog| log.ledgers.iter().map(|l| l.epoch).collect::<Vec<_>>();
    assert_eq!((listed(&log), log.lowest()), (vec![first, third], Address::new(first, EntryId(0))));
    // The last of the first ledger's five entries is still needed.
    done(log.apply(&keep(third, Address::new(first, EntryId(4)))));
    assert_eq!((listed(&log), log.lowest()), (vec![first, third], Address::new(first, EntryId(4))));
    done(log.apply(&keep(third, Address::new(first, EntryId(5)))));
    assert_eq!((listed(&log), log.lowest()), (vec![third], Address::new(third, EntryId(0))));
    assert_eq!(log.keep_from, Address::new(first, EntryId(5)));
    // Trimmed to its end while it was open, it is not needed once it is closed.
    done(log.apply(&keep(third, Address::new(third, EntryId(7)))));
    let fourth = reopen(&mut log, 7);
    assert_eq!(listed(&log), [fourth]);
    assert!(second < third);
}

#[test]
fn thousands_of_idle_owners_leave_no_trace_and_the_limit_counts_only_what_stays() {
    let (mut log, _) = opened();
    let reopen = |log: &mut ContainerLog, end: u64| {
        let epoch = assign(log);
        done(log.apply(&begin(epoch)));
        log.apply(&close(epoch, end, end, [1, 2, 3]))
    };
    for _ in 0..10_000 {
        done(reopen(&mut log, 0));
    }
    assert_eq!((log.ledgers.len(), log.epoch), (1, Epoch(10_001)));
    while log.ledgers.len() < LEDGERS_MAX {
        done(reopen(&mut log, 1));
    }
    done(reopen(&mut log, 0));
    assert_eq!(log.ledgers.len(), LEDGERS_MAX);
    assert!(is_invalid(&reopen(&mut log, 1)));
}

#[test]
fn a_repair_touches_closed_ledgers_only() {
    let (mut log, first) = opened();
    let repair = |old, new| Change::Repair {
        ledger: first,
        first: EntryId(0),
        old: replica(old),
        new: replica(new),
    };
    assert!(is_stale(&log.apply(&repair(1, 4))));
    let second = assign(&mut log);
    done(log.apply(&begin(second)));
    done(log.apply(&close(second, 0, 5, [1, 2, 3])));
    done(log.apply(&repair(1, 4)));
    done(log.apply(&repair(1, 4)));
    assert_eq!(log.ledgers[0].fragments[0].ensemble, ensemble([4, 2, 3]));
    assert!(is_invalid(&log.apply(&repair(4, 2))), "two members on one node");
    assert!(is_stale(&log.apply(&repair(7, 8))));
}

#[test]
fn a_refused_command_changes_nothing() {
    let (mut log, epoch) = opened();
    let before = log.clone();
    assert!(is_invalid(&log.apply(&change(epoch, 1, 4, [1, 1, 4]))));
    assert!(is_stale(&log.apply(&change(Epoch(9), 1, 4, [1, 2, 4]))));
    assert_eq!(log, before);

    let next = assign(&mut log);
    done(log.apply(&begin(next)));
    let before = log.clone();
    assert!(is_invalid(&log.apply(&close(next, 5, 4, [1, 2, 3]))));
    assert_eq!(log, before);
}

#[test]
fn an_unknown_container_has_no_register_until_it_is_assigned() {
    let mut registers = Registers::default();
    let command = |change| RegisterCommand { container: CONTAINER, change };
    assert!(is_stale(&registers.apply(&command(begin(Epoch(1))))));
    assert!(registers.get(CONTAINER).is_none());
    let assign = Change::Assign { host: NodeId(1), session: 9, incarnation: Incarnation(5) };
    done(registers.apply(&command(assign)));
    assert_eq!(registers.iter().count(), 1);
}

#[test]
fn registers_and_commands_survive_their_encoding() {
    let (log, epoch) = opened();
    let mut registers = Registers::default();
    registers.logs.insert(CONTAINER, log);
    assert_eq!(codec::decode(&codec::encode(&registers), 1 << 20), Ok(registers));
    let command = RegisterCommand { container: CONTAINER, change: close(epoch, 1, 2, [1, 2, 4]) };
    assert_eq!(codec::decode(&codec::encode(&command), 1 << 20), Ok(command));
}
