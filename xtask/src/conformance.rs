//! The wire and controller suites: what real Pravega answered, asked of a node of their own.

use crate::node::Node;
use crate::pending::Pending;
use crate::{process, python};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::time::Duration;

const SUITE_LIMIT: Duration = Duration::from_secs(600);

/// `cargo xtask conformance`.
pub(crate) fn command(suites: Option<&Path>) -> Result<()> {
    let Some(suites) = suites else {
        println!("SKIP conformance: no suites (give --suites DIR)");
        return Ok(());
    };
    println!("{}\n{}", wire(suites)?, controller(suites)?);
    Ok(())
}

/// The segment-store protocol's cases.
pub(crate) fn wire(suites: &Path) -> Result<String> {
    let python = python::environment(None)?;
    let mut node = Node::start("conformance-wire")?;
    let json = node.folder().join("results.json");
    let mut command = process::command(&python);
    command.arg(suites.join("conformance/wire/run.py"));
    command.args(["--port", &node.segment_store.to_string()]).arg("--json").arg(&json);
    let done = process::bounded(&mut command, SUITE_LIMIT, &node.folder().join("suite.log"))?;
    node.check_alive()?;
    if done.hung {
        bail!("the wire suite hung: {}", done.last_line());
    }
    let results = read(&json, serde_json::Value::as_array, |case| case["outcome"] == "pass")?;
    Pending::load("wire")?.judge(&results).conclude("wire")
}

/// The controller API's cases.
pub(crate) fn controller(suites: &Path) -> Result<String> {
    let folder = suites.join("conformance/controller");
    let python = python::environment(Some(&folder.join("requirements.txt")))?;
    let mut node = Node::start("conformance-controller")?;
    let json = node.folder().join("results.json");
    let mut command = process::command(&python);
    // The suite compiles its messages beside itself, and the folder may be read-only.
    let copy = node.folder().join("suite");
    copy_folder(&folder, &copy)?;
    command.arg(copy.join("run.py")).args(["--uri", &format!("127.0.0.1:{}", node.controller)]);
    command.arg("--json").arg(&json).env("PYTHONDONTWRITEBYTECODE", "1");
    let done = process::bounded(&mut command, SUITE_LIMIT, &node.folder().join("suite.log"))?;
    node.check_alive()?;
    if done.hung {
        bail!("the controller suite hung: {}", done.last_line());
    }
    let results =
        read(&json, |whole| whole["cases"].as_array(), |case| case["ok"].as_bool() == Some(true))?;
    Pending::load("controller")?.judge(&results).conclude("controller")
}

fn read(
    json: &Path,
    cases: impl Fn(&serde_json::Value) -> Option<&Vec<serde_json::Value>>,
    passed: impl Fn(&serde_json::Value) -> bool,
) -> Result<Vec<(String, bool)>> {
    let text = std::fs::read_to_string(json)
        .with_context(|| format!("the suite left no results at {}", json.display()))?;
    let whole = serde_json::from_str(&text)?;
    let cases = cases(&whole).context("the results are not a list of cases")?;
    let name = |case: &serde_json::Value| case["name"].as_str().unwrap_or("?").to_owned();
    Ok(cases.iter().map(|case| (name(case), passed(case))).collect())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
