//! What a read says, and what an answer that comes late or twice does: B6, B17 to B20, B24, B25.

use super::cluster::{Cluster, Damage, Shape, content};
use super::play::{Budget, OWNER, Outcome, PLAIN, Play, R1, R2, R3, SECOND, Setup, ensure};
use crate::message::{Refusal, Reply, Request};
use crate::testing::small::Action;
use thalweg_types::id::{EntryId, Epoch};

const ONE: Budget = Budget { takeovers: 1, ..PLAIN.budget };

/// B6. *Given* a replica whose log is damaged in front of the last entries, *when* it starts again and a recovery asks
/// it and one that lacks them, *then* it does not pass for one that never had them, and a read of what is damaged is
/// UNKNOWN.
pub(super) fn b06() -> Outcome {
    let mut cluster = Cluster::new(Shape::THREE)?;
    cluster.open_all()?;
    cluster.append_to(3, &[0, 1, 2])?;
    cluster.append_to(3, &[0, 1])?;
    // Nothing of it but its frames' headers are in the batch's first block.
    cluster.restart_damaged(0, 3, 0)?;
    let site = cluster.site(0).ok_or("B6: it does not start")?;
    let reply = site.ask(Request::Read { ledger: Cluster::ledger(1), entry: EntryId(3) });
    ensure(matches!(reply[..], [Reply::Unknown { .. }]), &format!("L11: {reply:?}"))?;
    cluster.down(1);
    if cluster.take_over().is_ok() {
        cluster.judge()?;
    }
    cluster.up(1)?;
    cluster.take_over().map_err(|why| format!("B6: {why}"))?;
    cluster.judge()
}

/// B17. *Given* an entry whose payload has rotted on one replica, *when* a recovery or a reader asks that one first,
/// *then* it gets UNKNOWN and asks the next; of several entries only those in front of the damage are given.
pub(super) fn b17() -> Outcome {
    let mut cluster = Cluster::new(Shape::THREE)?;
    cluster.open_all()?;
    for _ in 0..3 {
        cluster.append_to(1, &[0, 1, 2])?;
    }
    cluster.rot(0, 2)?;
    cluster.take_over().map_err(|why| format!("B17: {why}"))?;
    cluster.judge()?;
    // Its headers are whole; those of the entry behind are not.
    cluster.restart_damaged(0, 1, 0)?;
    let (from, entries_max, bytes_max) = (EntryId(0), 9, 1 << 20);
    let run = Request::Headers { ledger: Cluster::ledger(1), from, entries_max, bytes_max };
    let replies = cluster.site(0).ok_or("it runs")?.ask(run);
    let [Reply::Headers { entries, .. }] = &replies[..] else {
        return Err(format!("B17: {replies:?}"));
    };
    ensure(entries.len() == 1, &format!("B17: headers of {} entries", entries.len()))?;
    // What rots under a running storage before anybody has read it is no more there than that.
    cluster.damage(0, 2, Damage::BatchHeader(0))?;
    let (ledger, from) = (Cluster::ledger(1), EntryId(2));
    let read = Request::Read { ledger, entry: from };
    for ask in [Request::Headers { ledger, from, entries_max, bytes_max }, read] {
        let replies = cluster.site(0).ok_or("it runs")?.ask(ask);
        ensure(matches!(replies[..], [Reply::Unknown { .. }]), &format!("B17: {replies:?}"))?;
    }
    Ok(())
}

/// B18. *When* a replica's answer comes again after it was counted, *then* it counts once: one replica is no quorum.
pub(super) fn b18() -> Outcome {
    let budget = Budget { strays: 1, ..ONE };
    let mut play = Play::new(&Setup { budget, ..PLAIN });
    play.submit(OWNER)?;
    play.arrive(OWNER, R1)?;
    play.arrive_one(OWNER, R2)?;
    play.take_over()?;
    play.round(SECOND, &[R1])?;
    play.round(SECOND, &[R2])?;
    // The copy that R1 is offered is one that it has.
    play.arrive_one(SECOND, R1)?;
    play.act(Action::CopyReply { host: SECOND, slot: R1 })?;
    play.hear_one(SECOND, R1)?;
    play.act(Action::Stray)?;
    if play.world().calls(SECOND) > 0 {
        play.answer(SECOND)?;
    }
    play.waits(1)?;
    play.finish()?;
    play.closed_at(1, 1)?;
    play.copies(1, 0, 2)
}

/// B19. *Given* an owner that fell idle behind its last entry, whose commit point no later entry has carried, *when* a
/// new owner recovers the ledger, *then* the entry is in it; and no replica takes for committed what its owner has not
/// said.
///
/// Only owners read open ledgers, up to their own commit point; so no reader waits for a commit point to be told.
pub(super) fn b19() -> Outcome {
    let mut play = Play::new(&Setup { budget: ONE, ..PLAIN });
    play.submit(OWNER)?;
    play.arrive(OWNER, R1)?;
    play.arrive_one(OWNER, R3)?;
    let run = play.world().run_of(R1, 1).ok_or("it is open there")?;
    ensure(run.committed_end == EntryId(0), "L10: a replica has committed on its own")?;
    play.round(OWNER, &[R1, R2])?;
    ensure(play.world().committed(OWNER) == 1, "the script: it is not committed")?;
    play.take_over()?;
    play.proceed(SECOND, &[R3, R1])?;
    play.closed_at(1, 1)
}

/// B20. *When* somebody reads beyond what is there, of a ledger that nobody has fenced, *then* the answer is UNKNOWN:
/// what is not there yet may come at any moment.
pub(super) fn b20() -> Outcome {
    let mut cluster = Cluster::new(Shape::THREE)?;
    cluster.open_all()?;
    cluster.append_to(1, &[0, 1])?;
    let read = Request::Read { ledger: Cluster::ledger(1), entry: EntryId(0) };
    let site = cluster.site(2).ok_or("it runs")?;
    let open = site.ask(read.clone());
    ensure(matches!(open[..], [Reply::Unknown { .. }]), &format!("L11: {open:?} unfenced"))?;
    cluster.take_over().map_err(|why| format!("B20: {why}"))?;
    let site = cluster.site(2).ok_or("it runs")?;
    let copied = site.ask(read);
    ensure(matches!(copied[..], [Reply::Have(_)]), &format!("B20: {copied:?}"))?;
    let beyond = Request::Read { ledger: Cluster::ledger(1), entry: EntryId(1) };
    let never = site.ask(beyond);
    ensure(matches!(never[..], [Reply::NeverHad { .. }]), &format!("B20: {never:?}"))
}

/// B24. *Given* a closed ledger of which one replica has an entry that cannot be read, *when* it is copied there again,
/// *then* the copy is stored before it is called done; a copier that was fenced meanwhile is refused.
pub(super) fn b24() -> Outcome {
    let mut cluster = Cluster::new(Shape::THREE)?;
    cluster.open_all()?;
    for _ in 0..3 {
        cluster.append_to(1, &[0, 1, 2])?;
    }
    cluster.take_over().map_err(|why| format!("B24: {why}"))?;
    cluster.rot(0, 1)?;
    let ledger = Cluster::ledger(1);
    let read = |entry| Request::Read { ledger, entry: EntryId(entry) };
    let site = cluster.site(0).ok_or("it runs")?;
    ensure(matches!(site.ask(read(1))[..], [Reply::Unknown { .. }]), "the script: it can be read")?;
    let copy = |by| Request::Repair { by: Epoch(by), entry: content(ledger, EntryId(1)) };
    let done = site.ask(copy(2));
    ensure(matches!(done[..], [Reply::Repaired { .. }]), &format!("B24: {done:?}"))?;
    let again = site.ask(read(1));
    ensure(
        matches!(again[..], [Reply::Have(_)]),
        &format!("B24: called copied, and a read says {again:?}"),
    )?;
    let copied = content(ledger, EntryId(2));
    let late = site.ask(Request::Fence { ledger, by: Epoch(3) });
    ensure(matches!(late[..], [Reply::FenceDone { .. }]), &format!("B24: {late:?}"))?;
    let refused = site.ask(Request::Repair { by: Epoch(2), entry: copied });
    ensure(matches!(refused[..], [Reply::Fenced { .. }]), &format!("L14: {refused:?}"))
}

/// B25. *Given* a ledger with two replicas, both of which need to have an entry, *when* both disks are replaced by
/// blank ones and the owner, idle until then, appends, *then* the append is refused: a blank storage knows no ledger,
/// and an append begins none. It gets that far only if something takes the blank disk for the old one.
pub(super) fn b25() -> Outcome {
    let mut cluster = Cluster::new(Shape::TWO)?;
    cluster.open_all()?;
    cluster.append_to(1, &[0, 1])?;
    for slot in [0, 1] {
        let before = cluster.site(slot).ok_or("it runs")?.id();
        cluster.replace_disk(slot)?;
        let now = cluster.site(slot).ok_or("it runs")?.id();
        ensure(before != now, "L18: a blank disk has the old one's id")?;
    }
    let committed = cluster.committed();
    let replies = cluster.append_in_spite(&[0, 1])?;
    ensure(cluster.committed() == committed, "L1: appended to disks that know no ledger")?;
    let unknown =
        |reply: &Reply| matches!(reply, Reply::Refused { why: Refusal::UnknownLedger, .. });
    ensure(replies.len() == 2 && replies.iter().all(unknown), &format!("B25: {replies:?}"))
}
