//! Fences, owners that do not know that they are none, and storages that are not what they were: B1, B3, B5, B9, B12.

use super::play::{
    ALL, Budget, E0, OWNER, Outcome, PLAIN, Play, R1, R2, R3, SECOND, Setup, ensure,
};
use crate::ledger::Entry;
use crate::message::Reply;
use crate::quorum::Quorum;
use crate::testing::small::{Action, SmallWorld};
use crate::writer::{Effect, Input, StopReason, Writer};
use thalweg_actor::machine::Machine as _;
use thalweg_types::id::{Address, Epoch, Incarnation, NodeId, ReplicaId, StorageUuid};
use thalweg_types::time::Instant;

const ONE: Budget = Budget { takeovers: 1, ..PLAIN.budget };

/// B1. *Given* an entry that only R2 has, *when* the recoverer has asked R1 and R3, and the entry then reaches R3,
/// *then* it is either refused there or part of the ledger: what a recovery counts is what stands behind a fence.
///
/// Fence and tail are one answer here; what could go wrong is a tail from before the fence, or a fence without effect.
pub(super) fn b01() -> Outcome {
    let mut play = Play::new(&Setup { budget: ONE, ..PLAIN });
    play.submit(OWNER)?;
    play.arrive(OWNER, R2)?;
    play.arrive_one(OWNER, R1)?;
    play.arrive_one(OWNER, R3)?;
    play.take_over()?;
    play.round(SECOND, &[R1])?;
    play.arrive_one(SECOND, R3)?;
    play.hear_one(SECOND, R3)?;
    // The append that was on its way.
    play.arrive(OWNER, R3)?;
    play.hear(OWNER, R2)?;
    play.hear(OWNER, R3)?;
    play.proceed(SECOND, &[R1, R3])?;
    ensure(play.world().committed(OWNER) == 0, "B1: acked behind the fence")?;
    play.closed_at(1, 0)?;
    play.finish()?;
    ensure(!play.world().writes(OWNER), "B1: the old owner goes on")
}

/// B3. *Given* a ledger that was fenced and closed, *when* every replica that was fenced starts again and the old owner
/// wakes, *then* nothing of it is acked.
pub(super) fn b03() -> Outcome {
    super::files::b03_fence_outlives_its_file()?;
    let budget = Budget { restarts: 3, ..ONE };
    let mut play = Play::new(&Setup { entries: 2, budget, ..PLAIN });
    play.commit(OWNER, &[R1, R2, R3])?;
    play.take_over()?;
    play.proceed(SECOND, &[R1, R2, R3])?;
    play.closed_at(1, 1)?;
    for slot in [R1, R2, R3] {
        play.act(Action::Restart { slot })?;
    }
    play.submit(OWNER)?;
    for slot in [R1, R2, R3] {
        play.arrive(OWNER, slot)?;
    }
    play.finish()?;
    ensure(play.world().committed(OWNER) == 1, "B3: acked after the close")?;
    ensure(!play.world().writes(OWNER), "B3: the old owner goes on")
}

/// B5. *Given* an entry on R1 and R2, *when* the disk of R1 is replaced by a blank one, or has lost even the ledger's
/// beginning, *then* R1 denies nothing: with R3, which never had the entry, it proves no end. A blank disk is another
/// storage under another id; one that lost something doubts every ledger up to the register's epoch.
pub(super) fn b05() -> Outcome {
    for blank in [true, false] {
        let (wipes, limbos) = (u8::from(blank), u8::from(!blank));
        let budget = Budget { wipes, limbos, retries: 1, ..ONE };
        let mut play = Play::new(&Setup { budget, ..PLAIN });
        play.arrive_one(OWNER, R3)?;
        play.commit(OWNER, &[R1, R2])?;
        if blank {
            play.act(Action::Wipe { slot: R1 })?;
        } else {
            play.act(Action::Limbo { slot: R1, epoch: Epoch(1) })?;
        }
        play.take_over()?;
        play.proceed(SECOND, &[R1, R3])?;
        play.waits(1)?;
        play.finish()?;
        play.closed_at(1, 1)?;
        play.copies(1, 0, 2)?;
    }
    super::files::b05_a_blank_disk_is_another_storage()
}

/// B9. *Given* an owner with an entry that one replica has acked, *when* it hears that it is fenced, or that the
/// register belongs to another, *then* the entry stays without an outcome, whoever acks it later.
///
/// No owner closes its own ledger here, so there is no race of two closes: what is left is the late ack.
pub(super) fn b09() -> Outcome {
    let ensemble = [1, 2, 3]
        .map(|node| ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) });
    let ledger = SmallWorld::ledger_of(1);
    let by = Epoch(2);
    let fenced = Reply::Fenced { ledger, by };
    let endings =
        [Input::Reply { from: ensemble[2], reply: fenced }, Input::Stop(StopReason::Superseded)];
    for ending in endings {
        let quorum = Quorum { write: 3, ack: 2 };
        let mut writer = Writer::new(ledger, Incarnation(1), quorum, &ensemble, Address::default());
        let mut step = |input| {
            let mut effects = Vec::new();
            writer.step(Instant::default(), input, &mut effects);
            writer.check();
            (effects, writer.committed_end())
        };
        let ack =
            |from| Input::Reply { from, reply: Reply::Ack { ledger, base: E0, end: E0.next() } };
        step(Input::Begin);
        step(Input::Submit(Entry::default()));
        step(ack(ensemble[0]));
        let (stopped, _) = step(ending);
        let stops = stopped.iter().any(|effect| matches!(effect, Effect::Stopped(_)));
        ensure(stops, "B9: it goes on")?;
        let (late, end) = step(ack(ensemble[1]));
        ensure(late.is_empty() && end == E0, "L1: committed by a writer that has stopped")?;
    }
    Ok(())
}

/// B12. *Given* a ledger that was closed and trimmed away while a replica neither heard of it nor of its fence, *when*
/// the first owner's open and append come there after the trim, *then* they are refused.
pub(super) fn b12() -> Outcome {
    let budget = Budget { trims: 1, losses: 1, ..ONE };
    let mut play = Play::new(&Setup { later_entries: 1, budget, ..PLAIN });
    play.submit(OWNER)?;
    play.arrive_one(OWNER, R1)?;
    play.arrive_one(OWNER, R2)?;
    play.take_over()?;
    play.act(Action::LoseRequest { host: SECOND, slot: R3 })?;
    play.proceed(SECOND, &[R1, R2])?;
    play.closed_at(1, 0)?;
    play.commit(SECOND, &[R1, R2])?;
    play.act(Action::Trim { host: SECOND })?;
    play.proceed(SECOND, &ALL)?;
    // Only now what was sent first.
    play.arrive(OWNER, R3)?;
    play.finish()?;
    ensure(play.world().run_of(R3, 1).is_none(), "B12: a ledger has come back")?;
    ensure(play.world().committed(OWNER) == 0, "B12: acked after the ledger was deleted")
}
