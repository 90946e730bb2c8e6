//! One replica of three damaged in every way in every place, on all cores.

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::time::{Duration, Instant};

/// How long a part may take.
const LIMIT: Duration = Duration::from_hours(4);

/// `cargo xtask damage [--full]`.
pub(crate) fn command(args: &[String]) -> Result<()> {
    let full = match args {
        [] => false,
        [only] if only == "--full" => true,
        _ => bail!("damage [--full]"),
    };
    let fixed = ["build", "--quiet", "--release", "-p", "thalweg-log", "--example", "damage"];
    process::cargo(&fixed)?;
    let program = process::root().join("target/release/examples/damage");
    let folder = process::scratch("damage")?;
    let started = Instant::now();
    let parts = std::thread::available_parallelism().map_or(1, usize::from);
    let outcomes = std::thread::scope(|scope| {
        let run = |part: usize| {
            let (program, folder) = (&program, &folder);
            scope.spawn(move || {
                let mut command = process::command(program);
                command.args(full.then_some("--full")).arg("--part").arg(format!("{part}/{parts}"));
                process::bounded(&mut command, LIMIT, &folder.join(format!("part-{part}.log")))
            })
        };
        let running: Vec<_> = (0..parts).map(run).collect();
        running
            .into_iter()
            .map(|part| part.join().expect("a part does not panic"))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut sums = Vec::new();
    for outcome in &outcomes {
        print_but_last(&outcome.output);
        add(&mut sums, outcome.last_line()).with_context(|| outcome.output.clone())?;
    }
    let [runs, lost, wrong, repaired, replaced, findings, _] = sums[..] else {
        bail!("a part has said something else");
    };
    let seconds = started.elapsed().as_secs();
    println!(
        "damage: {runs} runs, {lost} lost, {wrong} wrong, {repaired} repaired, {replaced} replaced, \
         {findings} findings, {seconds} seconds"
    );
    if outcomes.iter().any(|outcome| !outcome.passed) {
        bail!("one replica's damage has had an effect");
    }
    Ok(())
}

fn print_but_last(output: &str) {
    let lines: Vec<&str> = output.lines().collect();
    for line in lines.iter().take(lines.len().saturating_sub(2)) {
        println!("{line}");
    }
}

/// Adds the numbers of a part's last line to `sums`.
fn add(sums: &mut Vec<u64>, line: &str) -> Result<()> {
    let words = line.split(|letter: char| !letter.is_ascii_digit());
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    if sums.is_empty() {
        *sums = vec![0; numbers.len()];
    }
    if sums.len() != numbers.len() {
        bail!("{line:?} is no figure of a part");
    }
    sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    Ok(())
}
