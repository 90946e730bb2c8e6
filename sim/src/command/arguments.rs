//! Words of the command line.

use crate::scenario::{ALL, Scenario};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print the help.
    Help,
    /// Print the scenarios.
    List,
    /// One seed.
    Run,
    /// Many seeds, no bug.
    Swarm,
    /// Planted bugs.
    Bugs,
    /// Determinism.
    Meta,
    /// Recorded seeds.
    Regressions,
}

/// A parsed command line.
pub(crate) struct Arguments {
    /// What to do.
    pub(crate) command: Command,
    /// In which scenario.
    pub(crate) scenario: &'static Scenario,
    /// How many seeds.
    pub(crate) seeds: Option<u64>,
    /// The first seed.
    pub(crate) start: u64,
    /// The planted bug.
    pub(crate) bug: Option<String>,
    /// Print the trace.
    pub(crate) trace: bool,
    /// Print what the code under test logs.
    pub(crate) log: bool,
    /// Print what a run has shown for another process.
    pub(crate) report: bool,
}

impl Arguments {
    /// Reads the words after the program's name.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = words;
        let command = match words.next().as_deref() {
            None | Some("help" | "--help" | "-h") => Command::Help,
            Some("list") => Command::List,
            Some("run") => Command::Run,
            Some("swarm") => Command::Swarm,
            Some("bugs") => Command::Bugs,
            Some("meta") => Command::Meta,
            Some("regressions") => Command::Regressions,
            Some(other) => return Err(format!("unknown command {other}")),
        };
        let last = ALL.last().expect("there are scenarios");
        let mut all = Self {
            command,
            scenario: last,
            seeds: None,
            start: 0,
            bug: None,
            trace: false,
            log: false,
            report: false,
        };
        while let Some(word) = words.next() {
            if word == "--trace" {
                all.trace = true;
                continue;
            }
            if word == "--log" {
                all.log = true;
                continue;
            }
            if word == "--report" {
                all.report = true;
                continue;
            }
            if word == "--help" {
                all.command = Command::Help;
                continue;
            }
            let value = words.next().ok_or(format!("{word} needs a value"))?;
            let number =
                || value.parse::<u64>().map_err(|_| format!("{word} {value}: not a number"));
            match word.as_str() {
                "--seeds" => all.seeds = Some(number()?),
                "--seed" | "--start" => all.start = number()?,
                "--bug" | "--only" => all.bug = Some(value),
                "--scenario" => all.scenario = find(&value)?,
                _ => return Err(format!("unknown option {word}")),
            }
        }
        Ok(all)
    }
}

/// The scenario of that name.
pub(crate) fn find(name: &str) -> Result<&'static Scenario, String> {
    let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
    ALL.iter()
        .find(|scenario| scenario.name == name)
        .ok_or(format!("unknown scenario {name}; there are: {}", names.join(", ")))
}
