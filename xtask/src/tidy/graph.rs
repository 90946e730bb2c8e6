//! Which crate may use which, and who may name the operating system or the simulator.

use crate::process;
use anyhow::{Context as _, Result};

/// Every crate with the crates of ours that it may use.
pub(super) const CRATES: [(&str, &[&str]); 11] = [
    ("types", &[]),
    ("actor", &["types"]),
    ("wire", &["types"]),
    ("log", &["types", "actor", "wire"]),
    ("segment", &["types", "actor", "wire", "log"]),
    ("controller", &["types", "actor", "wire", "log"]),
    ("client", &["types", "actor", "wire"]),
    ("node", &["types", "actor", "wire", "log", "segment", "controller"]),
    ("server", &["types", "actor", "wire", "log", "segment", "controller", "client", "node"]),
    ("sim", &["types", "actor", "wire", "log", "segment", "controller", "client", "node"]),
    ("xtask", &[]),
];

/// Packages that decide what a crate can reach, and the only crates that may depend on them.
const FENCED: [(&str, &[&str]); 6] = [
    ("madsim", &["sim"]),
    ("tonic", &["server"]),
    ("axum", &["server"]),
    ("clap", &["server"]),
    ("rustix", &["server"]),
    ("anyhow", &["server", "xtask"]),
];

/// Features of tokio that only the binary may have: below it, tokio is channels.
const TOKIO_BELOW: [&str; 2] = ["sync", "macros"];

/// What is wrong with the crates' manifests.
pub(super) fn check() -> Result<Vec<String>> {
    let out = process::command(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&out.stdout).context("cargo metadata gave no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let folder = folder_of(package["manifest_path"].as_str().unwrap_or_default());
        let Some((_, may_use)) = CRATES.iter().find(|(name, _)| *name == folder) else {
            findings.push(format!(
                "{folder}: a crate that the house does not know; see xtask/src/tidy/graph.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            findings.extend(judge(&folder, may_use, dependency));
        }
    }
    Ok(findings)
}

fn judge(folder: &str, may_use: &[&str], dependency: &serde_json::Value) -> Option<String> {
    let name = dependency["name"].as_str().unwrap_or_default();
    if let Some(ours) = name.strip_prefix("thalweg-") {
        return (!may_use.contains(&ours)).then(|| format!("{folder} must not use {ours}"));
    }
    if let Some((_, allowed)) = FENCED.iter().find(|(fenced, _)| *fenced == name) {
        return (!allowed.contains(&folder)).then(|| format!("{folder} must not depend on {name}"));
    }
    // Tests may drive their futures as they like.
    let is_for_tests = dependency["kind"].as_str() == Some("dev");
    if name == "tokio" && folder != "server" && !is_for_tests {
        let features = dependency["features"].as_array().into_iter().flatten();
        let odd: Vec<&str> = features
            .filter_map(serde_json::Value::as_str)
            .filter(|feature| !TOKIO_BELOW.contains(feature))
            .collect();
        return (!odd.is_empty())
            .then(|| format!("{folder} may use tokio's channels only, not {}", odd.join(", ")));
    }
    None
}

fn folder_of(manifest: &str) -> String {
    let parts: Vec<&str> = manifest.split('/').collect();
    parts.len().checked_sub(2).map_or_else(String::new, |at| parts[at].to_owned())
}
