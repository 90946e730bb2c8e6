//! What compilers do not check: who may name whom, how long things may be, what every file must say.

mod graph;
mod text;

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

/// A source file of the project.
struct Source {
    /// Relative to the top folder, with `/`.
    path: String,
    text: String,
}

/// `cargo xtask tidy`.
pub(crate) fn tidy() -> Result<()> {
    let sources = sources()?;
    let mut findings = graph::check()?;
    for source in &sources {
        findings.extend(text::check(source));
    }
    findings.extend(text::check_documents(&process::root()));
    if !findings.is_empty() {
        bail!("tidy found {}:\n  {}", findings.len(), findings.join("\n  "));
    }
    println!("tidy: {} files, nothing found", sources.len());
    Ok(())
}

/// Every Rust file of every crate, but what is built.
fn sources() -> Result<Vec<Source>> {
    let root = process::root();
    let mut files = Vec::new();
    for crate_folder in graph::CRATES.iter().map(|(name, _)| *name) {
        collect(&root.join(crate_folder), &mut files)?;
    }
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let path =
                path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
            Ok(Source { path, text })
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if name != "target" && name != "testdata" {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_project_is_tidy() {
        super::tidy().unwrap();
    }
}
