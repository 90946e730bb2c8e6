//! The list of outside cases that do not pass yet, each with its reason.
//!
//! One case a line in `server/tests/conformance-pending.txt`: `SUITE PATTERN # reason`; `*` in a pattern stands for any
//! text. A pending case that passes is an error too, so that the list can only be true.

use crate::process;
use anyhow::{Context as _, Result, bail};

/// The patterns of one suite.
pub(crate) struct Pending {
    patterns: Vec<String>,
}

impl Pending {
    /// What is pending in `suite`.
    pub(crate) fn load(suite: &str) -> Result<Self> {
        let path = process::root().join("server/tests/conformance-pending.txt");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut patterns = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            let Some((case, reason)) = line.split_once('#') else {
                bail!("{}:{}: no reason given", path.display(), at + 1);
            };
            let words: Vec<&str> = case.split_whitespace().collect();
            let [of, pattern] = words[..] else {
                bail!("{}:{}: want `SUITE PATTERN # reason`", path.display(), at + 1);
            };
            if reason.trim().is_empty() {
                bail!("{}:{}: no reason given", path.display(), at + 1);
            }
            if of == suite {
                patterns.push(pattern.to_owned());
            }
        }
        Ok(Self { patterns })
    }

    /// True if `name` is expected to fail.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, name))
    }

    /// The verdict over `results` (name, passed): the names that should have passed, and those that should not.
    pub(crate) fn judge<'a>(&self, results: &'a [(String, bool)]) -> Verdict<'a> {
        let names = |want: bool| {
            let odd =
                |(name, passed): &&'a (String, bool)| *passed == want && self.holds(name) == want;
            results.iter().filter(odd).map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        };
        let pending = results.iter().filter(|(name, _)| self.holds(name)).count();
        Verdict { broken: names(false), healed: names(true), pending, all: results.len() }
    }
}

/// How a suite's results compare with the list.
pub(crate) struct Verdict<'a> {
    broken: Vec<&'a str>,
    healed: Vec<&'a str>,
    pending: usize,
    all: usize,
}

impl Verdict<'_> {
    /// One line for people; an error if anything differs from the list.
    pub(crate) fn conclude(&self, suite: &str) -> Result<String> {
        if !self.broken.is_empty() {
            bail!("{suite}: {} of {} fail: {}", self.broken.len(), self.all, self.broken.join(" "));
        }
        if !self.healed.is_empty() {
            bail!("{suite}: listed as pending, yet they pass: {}", self.healed.join(" "));
        }
        if self.all == 0 {
            bail!("{suite}: no case ran");
        }
        let passed = self.all - self.pending;
        Ok(format!("{suite}: {passed} passed, {} pending as listed, of {}", self.pending, self.all))
    }
}

/// Shell-like match with `*` alone.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(tail) = name.strip_prefix(head) else { return false };
    (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| matches(rest, &tail[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("txn.*", "txn.begin"));
        assert!(matches("*group*", "reader_group_x"));
        assert!(!matches("txn.*", "scope.txn"));
        assert!(!matches("a", "ab"));
    }

    #[test]
    fn a_pending_case_that_passes_is_an_error() {
        let pending = Pending { patterns: vec!["txn*".to_owned()] };
        let results = [("txn1".to_owned(), true), ("a".to_owned(), true)];
        assert!(pending.judge(&results).conclude("x").is_err());
        let results = [("txn1".to_owned(), false), ("a".to_owned(), true)];
        assert!(pending.judge(&results).conclude("x").is_ok());
        let results = [("txn1".to_owned(), false), ("a".to_owned(), false)];
        assert!(pending.judge(&results).conclude("x").is_err());
    }
}
