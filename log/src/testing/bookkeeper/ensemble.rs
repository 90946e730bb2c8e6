//! Ensembles, the register, and the chain of ledgers: B10, B11, B13, B22, B25.

use super::play::{
    ALL, Budget, E0, OWNER, Outcome, PLAIN, Play, R1, R2, R3, R4, SECOND, Setup, ensure,
};
use crate::testing::small::Action;
use thalweg_types::id::{EntryId, Epoch};

const ONE: Budget = Budget { takeovers: 1, ..PLAIN.budget };

/// B10. *Given* an entry that R1 and R2 have, *when* R1 is being replaced as their acks come, *then* the entry is not
/// committed before the ack quorum of every ensemble that the register may hold has it.
pub(super) fn b10() -> Outcome {
    let budget = Budget { changes: 1, ..ONE };
    let mut play = Play::new(&Setup { budget, ..PLAIN });
    play.submit(OWNER)?;
    play.arrive(OWNER, R1)?;
    play.arrive(OWNER, R2)?;
    play.replace(R1, R4)?;
    play.hear(OWNER, R1)?;
    play.hear(OWNER, R2)?;
    ensure(play.world().committed(OWNER) == 0, "L4: a member that leaves was counted")?;
    play.answer(OWNER)?;
    play.hear(OWNER, R1)?;
    ensure(play.world().committed(OWNER) == 0, "L4: a member that left was counted")?;
    // What is pending was sent to the new member, which makes two.
    play.proceed(OWNER, &[R4])?;
    ensure(play.world().committed(OWNER) == 1, "B10: what was pending is not committed")?;
    play.finish()?;
    play.copies(1, 0, 3)
}

/// B11. *Given* two ensemble changes, *when* the first command comes again behind the second, *then* the register goes
/// on naming the replicas that have the entries. (A writer has one change under way at a time, so no callbacks race;
/// the command that comes late is what is left.)
pub(super) fn b11() -> Outcome {
    let budget = Budget { changes: 2, strays: 1, ..PLAIN.budget };
    let mut play = Play::new(&Setup { entries: 2, budget, ..PLAIN });
    play.commit(OWNER, &[R1, R2, R3])?;
    play.replace(R3, R4)?;
    play.act(Action::CopyCall { host: OWNER })?;
    play.answer(OWNER)?;
    play.proceed(OWNER, &[R4])?;
    play.replace(R1, R3)?;
    play.answer(OWNER)?;
    play.act(Action::Stray)?;
    play.commit(OWNER, &[R2, R3])?;
    let register = play.world().register();
    let named = &register.ledgers[0].last_fragment().ensemble;
    let nodes: Vec<u64> = named.iter().map(|replica| replica.node.0).collect();
    ensure(nodes == [R3 as u64, R2 as u64, R4 as u64], &format!("B11: {nodes:?} are named"))
}

/// B13. *Given* an owner's ensemble change that is on its way, *when* a recovery closes the ledger first, *then* the
/// change has no effect, and the owner hears that it is none.
pub(super) fn b13() -> Outcome {
    let budget = Budget { changes: 1, ..ONE };
    let mut play = Play::new(&Setup { budget, ..PLAIN });
    play.submit(OWNER)?;
    play.arrive(OWNER, R1)?;
    play.arrive(OWNER, R2)?;
    play.replace(R1, R4)?;
    play.take_over()?;
    play.proceed(SECOND, &[R1, R2])?;
    play.closed_at(1, 1)?;
    let before = play.world().register().clone();
    play.answer(OWNER)?;
    ensure(*play.world().register() == before, "B13: the register has changed")?;
    ensure(!play.world().writes(OWNER), "B13: the old owner goes on")
}

/// B22. *Given* a new owner whose ledger follows the old one's, *when* its close comes again and the old owner's
/// entries arrive late, *then* there is still one successor, and no entry of one ledger turns up in the other.
///
/// There is no rollover: a ledger begins only with an epoch, in the step that closes the one before.
pub(super) fn b22() -> Outcome {
    let budget = Budget { strays: 1, ..ONE };
    let mut play = Play::new(&Setup { entries: 2, later_entries: 1, budget, ..PLAIN });
    play.commit(OWNER, &[R1, R2, R3])?;
    play.submit(OWNER)?;
    play.take_over()?;
    play.round(SECOND, &[R1])?;
    play.round(SECOND, &[R2])?;
    play.proceed_without_register(SECOND, &[R1, R2])?;
    play.act(Action::CopyCall { host: SECOND })?;
    play.answer(SECOND)?;
    play.proceed(SECOND, &[R1, R2])?;
    play.commit(SECOND, &[R1, R2])?;
    for slot in [R1, R2, R3] {
        play.arrive(OWNER, slot)?;
    }
    play.act(Action::Stray)?;
    play.finish()?;
    play.closed_at(1, 1)?;
    let epochs: Vec<Epoch> = play.world().register().ledgers.iter().map(|l| l.epoch).collect();
    ensure(epochs == [Epoch(1), Epoch(2)], &format!("B22: ledgers of epochs {epochs:?}"))?;
    for slot in ALL {
        let end = play.world().run_of(slot, 2).map_or(E0, |run| run.end);
        ensure(end <= EntryId(1), &format!("B22: {end} entries in the second ledger"))?;
    }
    ensure(play.world().committed(OWNER) == 1, "B22: acked after the close")
}
