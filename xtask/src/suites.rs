//! The conformance suites and acceptance scripts that live outside the project.

use crate::process;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// The folder that holds `conformance/` and `acceptance/`: `--suites DIR`, or `../shared` where that exists.
pub(crate) fn folder(args: &[String]) -> Result<Option<PathBuf>> {
    if let Some(given) = process::option(args, "--suites") {
        let folder = PathBuf::from(given);
        if !folder.join("conformance").is_dir() {
            bail!("--suites {}: there is no folder conformance/ in it", folder.display());
        }
        return Ok(Some(folder.canonicalize()?));
    }
    let beside = process::root().join("../shared");
    Ok(beside.join("conformance").is_dir().then(|| beside.canonicalize()).transpose()?)
}

/// The folder of the acceptance programs: the one given, or that beside the other suites.
pub(crate) fn programs(given: Option<&str>) -> Result<Option<PathBuf>> {
    match given {
        Some(given) => Ok(Some(PathBuf::from(given))),
        None => Ok(folder(&[])?.map(|folder| folder.join("acceptance"))),
    }
}
