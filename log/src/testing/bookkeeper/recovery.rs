//! What a recovery may leave out and what it must wait for: B2, B4, B7, B8, B21, B23.

use super::play::{
    Budget, OWNER, Outcome, PLAIN, Play, R1, R2, R3, R4, SECOND, Setup, THIRD, ensure,
};
use crate::testing::small::Action;
use thalweg_types::id::{EntryId, Epoch};

const ONE: Budget = Budget { takeovers: 1, ..PLAIN.budget };

/// B2. *Given* an empty second fragment, *when* the ledger is recovered, *then* recovery begins where that fragment
/// does: nothing is copied, and no fragment begins below an existing one.
pub(super) fn b02() -> Outcome {
    let budget = Budget { changes: 1, ..ONE };
    let mut play = Play::new(&Setup { budget, ..PLAIN });
    play.commit(OWNER, &[R1, R2, R3])?;
    play.replace(R3, R4)?;
    play.answer(OWNER)?;
    play.proceed(OWNER, &[R4])?;
    play.take_over()?;
    play.finish()?;
    play.closed_at(1, 1)?;
    let register = play.world().register();
    let ledger = register.ledger(Epoch(1)).ok_or("it is listed")?;
    let firsts: Vec<EntryId> = ledger.fragments.iter().map(|fragment| fragment.first).collect();
    ensure(firsts == [EntryId(0), EntryId(1)], &format!("B2: fragments from {firsts:?} on"))?;
    ensure(!play.world().holds(R4, 1, 0), "B2: an entry below the fragment was copied")
}

/// B4. *Given* an entry on R1 and R2, *when* R1 starts without it and R3 never had it, *then* the two of them do not
/// end the ledger in front of it: R1 is in limbo, and the recovery waits for R2.
pub(super) fn b04() -> Outcome {
    let budget = Budget { doubts: 1, retries: 1, ..ONE };
    let mut play = Play::new(&Setup { budget, ..PLAIN });
    play.arrive_one(OWNER, R3)?;
    play.commit(OWNER, &[R1, R2])?;
    play.act(Action::Doubt { slot: R1, epoch: Epoch(1), from: EntryId(0), fence: false })?;
    play.take_over()?;
    play.proceed(SECOND, &[R1, R3])?;
    play.waits(1)?;
    let certain = play.world().run_of(R1, 1).is_some_and(|run| run.certain);
    ensure(!certain, "B4: a replica that lost an entry vouches")?;
    play.finish()?;
    play.closed_at(1, 1)?;
    play.copies(1, 0, 2)?;
    // The copy has brought the entry back, not the certainty.
    let certain = play.world().run_of(R1, 1).is_some_and(|run| run.certain);
    ensure(!certain, "L16: a copy from a peer has ended the doubt")
}

/// B7. *When* one replica hangs, before the fence or behind it, *then* the recovery completes with the others.
pub(super) fn b07() -> Outcome {
    // It never answers.
    let mut play = Play::new(&Setup { entries: 2, budget: ONE, ..PLAIN });
    play.commit(OWNER, &[R1, R2, R3])?;
    play.commit(OWNER, &[R1, R2, R3])?;
    play.take_over()?;
    play.proceed(SECOND, &[R1, R2])?;
    play.closed_at(1, 2).map_err(|_| "I16: it waits for one that hangs".to_owned())?;
    // It answers the fence, and hangs when it is read from.
    let budget = Budget { retries: 2, ..ONE };
    let mut play = Play::new(&Setup { entries: 1, reads: true, budget, ..PLAIN });
    play.commit(OWNER, &[R1, R2, R3])?;
    play.take_over()?;
    for slot in [R1, R2] {
        play.round(SECOND, &[slot])?;
    }
    let (reads, _) = play.world().on_the_way(SECOND, R1);
    ensure(reads == 1, "the script: R1 is not the one that is read from")?;
    play.proceed(SECOND, &[R2, R3])?;
    for _ in 0..2 {
        play.retry(SECOND)?;
        play.proceed(SECOND, &[R2, R3])?;
    }
    play.closed_at(1, 1).map_err(|_| "I16: it waits for a read that hangs".to_owned())
}

/// B8. *Given* an ensemble change on its way and two recoveries, *when* their commands reach the register in a bad
/// order, *then* one of them closes, behind every acked entry, and the others hear that they have lost.
pub(super) fn b08() -> Outcome {
    let budget = Budget { changes: 1, takeovers: 2, ..ONE };
    let mut play = Play::new(&Setup { later_entries: 1, budget, ..PLAIN });
    play.commit(OWNER, &[R1, R2])?;
    play.replace(R3, R4)?;
    play.take_over()?;
    play.round(SECOND, &[R2, R3])?;
    play.take_over()?;
    play.proceed(SECOND, &[R1, R2, R3])?;
    play.waits(1)?;
    play.answer(OWNER)?;
    play.proceed(THIRD, &[R1, R3])?;
    play.finish()?;
    play.closed_at(1, 1)?;
    let world = play.world();
    ensure(!world.writes(OWNER) && !world.writes(SECOND), "B8: a loser goes on")?;
    ensure(!world.recovers(SECOND), "B8: a loser still recovers")?;
    ensure(world.writes(THIRD), "B8: nobody has won")?;
    let ledgers: Vec<Epoch> = world.register().ledgers.iter().map(|l| l.epoch).collect();
    ensure(ledgers == [Epoch(1), Epoch(3)], &format!("B8: ledgers of epochs {ledgers:?}"))
}

/// B21. *Given* an entry on R1 and R2 alone, *when* both are out of reach, *then* the ledger cannot be recovered, and
/// is not cut; *when* one of them is back, *then* nothing is missing.
pub(super) fn b21() -> Outcome {
    let mut play = Play::new(&Setup { budget: ONE, ..PLAIN });
    play.arrive_one(OWNER, R3)?;
    play.commit(OWNER, &[R1, R2])?;
    play.take_over()?;
    play.proceed(SECOND, &[R3])?;
    play.waits(1)?;
    play.proceed(SECOND, &[R2, R3])?;
    play.closed_at(1, 1)?;
    play.copies(1, 0, 2)
}

/// B23. *Given* a recovery that ended in the middle, *when* the next owner comes, *then* it recovers that ledger too.
///
/// Only the last ledger of a log can be unclosed here, because a ledger opens in the step that closes the one before;
/// so the one that could be passed over is the one whose recoverer died.
pub(super) fn b23() -> Outcome {
    let budget = Budget { takeovers: 2, changes: 1, ..ONE };
    let mut play = Play::new(&Setup { entries: 2, later_entries: 1, budget, ..PLAIN });
    play.commit(OWNER, &[R1, R2])?;
    play.replace(R3, R4)?;
    play.answer(OWNER)?;
    play.commit(OWNER, &[R1, R2])?;
    play.take_over()?;
    play.round(SECOND, &[R4])?;
    play.take_over()?;
    play.proceed(THIRD, &[R2, R4])?;
    play.closed_at(1, 2)?;
    play.copies(1, 1, 2)
}
