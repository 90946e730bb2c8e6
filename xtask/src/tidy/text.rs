//! Rules about the text of files: lengths, headers, words.

use super::Source;
use std::path::Path;

/// Lines of a file.
const FILE_LINES_MAX: usize = 800;
/// Columns of a line of code; a comment may be longer by a fifth.
const COLUMNS_MAX: usize = 120;

/// Things that must not stand in a source file, with what to do instead.
const FORBIDDEN: [(&str, &str); 8] = [
    ("FIXME", "mend it, or write down why not"),
    ("TODO", "do it, or write down why not"),
    ("#[ignore]", "a test that does not run is no test"),
    ("bookie", "we say replica"),
    ("static mut ", "state is passed, never ambient"),
    ("OnceLock", "state is passed, never ambient"),
    ("LazyLock", "state is passed, never ambient"),
    ("thread_rng", "randomness comes through the entropy seam"),
];

/// This file speaks of what it forbids.
const OWN: &str = "xtask/src/tidy/text.rs";
/// What may name the operating system: the binary and its tests, the project's own commands, and what of the simulator
/// starts one process a seed.
const MAY_NAME_THE_SYSTEM: [&str; 4] = ["server/", "xtask/", "sim/src/main.rs", "sim/src/command"];
const SYSTEM: [&str; 6] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// What is wrong with one source file.
pub(super) fn check(source: &Source) -> Vec<String> {
    let path = &source.path;
    let mut findings = Vec::new();
    let lines: Vec<&str> = source.text.lines().collect();
    if lines.len() > FILE_LINES_MAX {
        findings.push(format!("{path}: {} lines, at most {FILE_LINES_MAX}", lines.len()));
    }
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    if !lines.first().is_some_and(|line| line.starts_with("//!")) && !is_test {
        findings.push(format!("{path}: starts without a //! header that says what it is"));
    }
    for (number, line) in lines.iter().enumerate().map(|(at, line)| (at + 1, *line)) {
        findings.extend(check_line(path, number, line));
    }
    findings.extend(unbiased_selects(path, &lines));
    findings
}

fn check_line(path: &str, number: usize, line: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if line.chars().count() > COLUMNS_MAX {
        findings.push(format!("{path}:{number}: more than {COLUMNS_MAX} columns"));
    }
    for (word, instead) in FORBIDDEN {
        if line.contains(word) && path != OWN {
            findings.push(format!("{path}:{number}: {word}: {instead}"));
        }
    }
    let code = line.split("//").next().unwrap_or_default();
    if !MAY_NAME_THE_SYSTEM.iter().any(|folder| path.starts_with(folder)) {
        for name in SYSTEM.iter().filter(|name| code.contains(**name)) {
            findings.push(format!("{path}:{number}: names {name}; ask a seam of Env"));
        }
    }
    findings
}

/// tokio's `select!` picks its first branch from a generator of its own, unless it is told not to.
fn unbiased_selects(path: &str, lines: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    if path == OWN {
        return findings;
    }
    for (at, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let opens = code.contains("select! {") || code.trim_end().ends_with("select!{");
        let next = lines.get(at + 1).map_or("", |next| next.trim());
        if opens && !next.starts_with("biased;") && !code.contains("biased;") {
            findings.push(format!("{path}:{}: select! without biased;", at + 1));
        }
    }
    findings
}

/// The documents that every commit keeps true must at least be there.
pub(super) fn check_documents(root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "GLOSSARY.md",
        "LICENSE",
        "docs/limits.md",
        "docs/compat.md",
    ] {
        if !root.join(name).is_file() {
            findings.push(format!("{name} is missing"));
        }
    }
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    for (name, _) in super::graph::CRATES {
        if !architecture.contains(&format!("`{name}/`")) {
            findings.push(format!("ARCHITECTURE.md does not speak of `{name}/`"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&Source { path: path.to_owned(), text: text.to_owned() })
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        assert_eq!(findings("log/src/a.rs", "//! A file.\nfn f() {}\n"), Vec::<String>::new());
    }

    #[test]
    fn each_rule_finds_its_offender() {
        for bad in [
            "fn f() {}\n".to_owned(),
            format!("//! A.\n{}", "\n".repeat(801)),
            format!("//! A.\n// {}", "x".repeat(130)),
            "//! A.\n// FIXME".to_owned(),
            "//! A.\nuse std::fs::read;\n".to_owned(),
            "//! A.\ntokio::select! {\n    a = b => {}\n}\n".to_owned(),
        ] {
            assert_ne!(findings("log/src/a.rs", &bad), Vec::<String>::new(), "{bad:.40}");
        }
    }
}
