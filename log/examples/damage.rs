//! Damages one replica of three in every way in every place, and judges each time what a new owner finds. Exits with a
//! failure if an acked byte is lost or wrong, or the replica is not whole again.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use thalweg_log::testing::damage::{Damage, Store, Tally};
use tokio::time::Instant;

const HELP: &str = "\
damage [--full] [--part I/N]
  --full        64 KiB of log, not 16
  --part I/N    every Nth damage from the Ith (from 0) on";

/// Findings that are printed.
const SHOWN: usize = 20;

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (mut kib, mut part, mut parts) = (16, 0, 1);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--full" => kib = 64,
            "--part" => {
                let given = args.next().and_then(|text| text.split_once('/'));
                let numbers = given.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
                (part, parts) = numbers.filter(|(i, n)| i < n).ok_or(HELP)?;
            }
            _ => return Err(HELP.to_owned()),
        }
    }
    let begun = Instant::now();
    let stores = [false, true].map(|clean| Store::write(kib * 1024, clean));
    // A failed assertion is a finding like any other.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut tally, mut findings, mut count) = (Tally::default(), 0, 0);
    for store in &stores {
        let damages = store.damages();
        let mine: Vec<&Damage> = damages.iter().skip(part).step_by(parts).collect();
        count += mine.len();
        for damage in mine {
            let Some(finding) = judge(store, damage, &mut tally) else { continue };
            findings += 1;
            if findings <= SHOWN {
                println!("     {finding}");
            }
        }
    }
    let Tally { runs, refused, noticed, unavailable, lost, wrong, repaired, replaced } = tally;
    println!(
        "     {kib} KiB, killed and stopped, {count} damages, {} acked entries: {noticed} noticed, \
         {refused} not started; {unavailable} takeovers with one more down not possible",
        stores[0].acked(),
    );
    println!(
        "damage: {runs} runs, {lost} lost, {wrong} wrong, {repaired} repaired, {replaced} replaced, \
         {findings} findings, {:.0} seconds",
        begun.elapsed().as_secs_f64()
    );
    if findings == 0 { Ok(()) } else { Err(format!("{findings} damages had an effect")) }
}

/// What must not be, if it is.
fn judge(store: &Store, damage: &Damage, tally: &mut Tally) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| store.judge(damage, tally)));
    let panic = match outcome {
        Ok(outcome) => return outcome.err(),
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().cloned();
    let fixed = || panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    Some(format!("{damage:?}: {}", text.or_else(fixed).unwrap_or_default()))
}
