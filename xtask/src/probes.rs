//! The rare branches of `log/src`, each marked by a probe: a swarm of the simulator has to reach them all.

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(30);
/// Seeds by default.
const SEEDS: &str = "500";
const MARK: &str = "probe!(";

/// `cargo xtask probes [--seeds N]`.
pub(crate) fn command(args: &[String]) -> Result<()> {
    let seeds = process::option(args, "--seeds");
    let mut sites = BTreeSet::new();
    collect(&process::root().join("log/src"), &mut sites)?;
    let log = process::scratch("probes")?.join("swarm.log");
    let mut swarm = process::command("cargo");
    swarm.args(["sim", "swarm", "--scenario", "ledger", "--seeds"]);
    swarm.arg(seeds.as_deref().unwrap_or(SEEDS));
    let finished = process::bounded(&mut swarm, LIMIT, &log)?;
    let said = finished.output.lines().find(|line| line.starts_with("probes reached"));
    let said =
        said.with_context(|| format!("the swarm says nothing of probes:\n{}", finished.output))?;
    let missed: Vec<&String> = sites.iter().filter(|site| !is_in(said, site)).collect();
    for site in &missed {
        println!("     not reached: {site}");
    }
    println!("     {}", finished.last_line());
    println!("probes: {} of {} reached", sites.len() - missed.len(), sites.len());
    if !finished.passed || !missed.is_empty() {
        bail!("the swarm is not clean, or misses a rare branch");
    }
    Ok(())
}

/// True if the line of counts has `site`, followed by in how many seeds.
fn is_in(said: &str, site: &str) -> bool {
    let mut behind = said.match_indices(site).map(|(at, _)| &said[at + site.len()..]);
    behind.any(|rest| {
        rest.strip_prefix(' ')
            .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()))
    })
}

/// The probes of the code below `folder`, but for tests and what only tests use.
fn collect(folder: &Path, sites: &mut BTreeSet<String>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        if matches!(name.as_deref(), Some("tests" | "testing")) {
            continue;
        }
        if path.is_dir() {
            collect(&path, sites)?;
        } else {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            sites.extend(sites_of(&text));
        }
    }
    Ok(())
}

fn sites_of(text: &str) -> impl Iterator<Item = String> {
    let behind = text.match_indices(MARK).map(|(at, _)| text[at + MARK.len()..].trim_start());
    behind.filter_map(|rest| rest.strip_prefix('"')?.split('"').next().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_found_however_its_line_is_broken() {
        let text = "probe!(\"a: b, or c\");\n    probe!(\n  \"d\"\n);";
        assert_eq!(sites_of(text).collect::<Vec<_>>(), ["a: b, or c", "d"]);
    }

    #[test]
    fn a_site_that_only_begins_another_is_not_reached() {
        let said = "probes reached (in so many seeds): a: b 3, a: b, or c 1, f: g h 2";
        assert!(is_in(said, "a: b") && is_in(said, "a: b, or c"));
        assert!(!is_in(said, "f: g") && !is_in(said, "a: b, or"));
    }
}
