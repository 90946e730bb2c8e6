//! Line coverage of `log/src` by its own tests, the scenarios and damages among them, and by a few small worlds that
//! are searched whole.
//!
//! Test code and what only tests use (`tests`, `testing`) do not count. Without the toolchain's own LLVM tools this is
//! a SKIP: those of another LLVM cannot read what this compiler writes.

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of all lines, in per cent.
const FLOOR: f64 = 90.0;
/// Files below this are named.
const NAMED_BELOW: f64 = 90.0;
/// Small worlds that take seconds, even with counters.
const WORLDS: [&str; 5] = ["W0", "W1", "X1", "X3", "X4"];
const IGNORED: &str = r"--ignore-filename-regex=(/tests/|/tests\.rs|/testing/|/testing\.rs)";
const FLAGS: &str = "build.rustflags=['-C','instrument-coverage']";

/// `cargo xtask coverage [--missed FILE]`.
pub(crate) fn command(args: &[String]) -> Result<()> {
    let Some(tools) = Tools::find()? else {
        println!(
            "SKIP coverage: no llvm-cov and llvm-profdata of this toolchain (rustup component add llvm-tools)"
        );
        return Ok(());
    };
    let profiles = process::scratch("coverage")?;
    let programs = run_all(&profiles)?;
    let merged = tools.merge(&profiles)?;
    if let Some(file) = process::option(args, "--missed") {
        return tools.show_missed(&merged, &programs, &file);
    }
    let mut rows = tools.report(&merged, &programs)?;
    let total = rows.pop().context("llvm-cov reports nothing")?;
    for row in rows.iter().filter(|row| row.percent() < NAMED_BELOW) {
        println!(
            "     {:5.1} %  {} of {} lines  {}",
            row.percent(),
            row.covered(),
            row.lines,
            row.file
        );
    }
    let (probes, unreached) = tools.probes(&merged, &programs)?;
    for probe in &unreached {
        println!("     probe not reached: {probe}");
    }
    println!("     {} of {probes} probes reached", probes - unreached.len());
    let (percent, lines) = (total.percent(), total.lines);
    println!("coverage: {percent:.1} % of {lines} lines of log/src");
    if percent < FLOOR {
        bail!("less than {FLOOR} %");
    }
    Ok(())
}

/// Runs everything that counts; which programs that were.
fn run_all(profiles: &Path) -> Result<Vec<PathBuf>> {
    let fixed = ["--config", FLAGS, "--target-dir", "target/coverage", "-p", "thalweg-log"];
    let pattern = profiles.join("%p-%m.profraw");
    let listed = process::command(env!("CARGO"))
        .arg("test")
        .args(fixed)
        .args(["--lib", "--tests", "--no-run", "--message-format=json"])
        // What runs while it builds has counters, too.
        .env("LLVM_PROFILE_FILE", &pattern)
        .output()
        .context("cargo does not start")?;
    if !listed.status.success() {
        bail!("the tests do not build: {}", String::from_utf8_lossy(&listed.stderr));
    }
    let messages = String::from_utf8_lossy(&listed.stdout).into_owned();
    let named = |line: &str| {
        let rest = line.split_once("\"executable\":\"")?.1;
        Some(PathBuf::from(rest.split('"').next()?))
    };
    let programs: Vec<PathBuf> = messages.lines().filter_map(named).collect();
    let exhaust = process::root().join("target/coverage/debug/examples/exhaust");
    let mut cargo = process::command(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", "exhaust"]).args(fixed);
    let built =
        cargo.env("LLVM_PROFILE_FILE", &pattern).status().context("cargo does not start")?;
    if !built.success() {
        bail!("the search of small worlds does not build");
    }
    for program in &programs {
        run(Command::new(program).arg("--quiet"), &pattern)?;
    }
    run(Command::new(&exhaust).args(WORLDS), &pattern)?;
    Ok(programs.into_iter().chain([exhaust]).collect())
}

fn run(command: &mut Command, profiles: &Path) -> Result<()> {
    let name = command.get_program().display().to_string();
    let folder = process::root().join("log");
    let output = command
        .current_dir(folder)
        .env("LLVM_PROFILE_FILE", profiles)
        .output()
        .with_context(|| format!("{name} does not start"))?;
    if !output.status.success() {
        let [said, complained] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        bail!("{name} fails ({}): {said}{complained}", output.status);
    }
    Ok(())
}

/// One line of the report.
struct Row {
    file: String,
    lines: u64,
    missed: u64,
}

impl Row {
    fn covered(&self) -> u64 {
        self.lines - self.missed
    }

    #[expect(clippy::cast_precision_loss, reason = "few lines")]
    fn percent(&self) -> f64 {
        100.0 * self.covered() as f64 / self.lines.max(1) as f64
    }
}

/// The toolchain's LLVM programs.
struct Tools {
    folder: PathBuf,
    libraries: PathBuf,
}

impl Tools {
    fn find() -> Result<Option<Self>> {
        let ask = |args: &[&str]| -> Result<String> {
            let output = process::command("rustc").args(args).output().context("no rustc")?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
        let version = ask(&["-vV"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("rustc does not say its host")?;
        let folder = sysroot.join("lib/rustlib").join(host).join("bin");
        let there = |name: &str| folder.join(name).exists();
        let complete = there("llvm-cov") && there("llvm-profdata");
        Ok(complete.then(|| Self { folder, libraries: sysroot.join("lib") }))
    }

    fn output(&self, name: &str, args: &[String]) -> Result<String> {
        let mut command = Command::new(self.folder.join(name));
        let command = command.env("LD_LIBRARY_PATH", &self.libraries).args(args);
        let output = command.output().with_context(|| format!("{name} does not start"))?;
        if !output.status.success() {
            bail!("{name} fails: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn merge(&self, profiles: &Path) -> Result<PathBuf> {
        let merged = profiles.join("merged.profdata");
        let mut args = vec!["merge".to_owned(), "-sparse".to_owned(), "-o".to_owned()];
        args.push(merged.display().to_string());
        for file in std::fs::read_dir(profiles)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "profraw") {
                args.push(path.display().to_string());
            }
        }
        self.output("llvm-profdata", &args)?;
        Ok(merged)
    }

    fn args(what: &[&str], merged: &Path, programs: &[PathBuf]) -> Vec<String> {
        let mut args: Vec<String> = what.iter().map(|arg| (*arg).to_owned()).collect();
        args.push(format!("--instr-profile={}", merged.display()));
        for (at, program) in programs.iter().enumerate() {
            let program = program.display();
            args.push(if at == 0 { program.to_string() } else { format!("--object={program}") });
        }
        args
    }

    /// Every file of `log/src` that counts, and behind them the total.
    fn report(&self, merged: &Path, programs: &[PathBuf]) -> Result<Vec<Row>> {
        let what = ["export", "--format=lcov", "--summary-only", IGNORED];
        let mut args = Self::args(&what, merged, programs);
        args.push("--sources".to_owned());
        args.push(process::root().join("log/src").display().to_string());
        let text = self.output("llvm-cov", &args)?;
        let (mut rows, mut file) = (Vec::new(), String::new());
        let (mut all, mut all_missed, mut lines) = (0, 0, 0_u64);
        for line in text.lines() {
            if let Some(path) = line.strip_prefix("SF:") {
                path.clone_into(&mut file);
            } else if let Some(found) = line.strip_prefix("LF:") {
                lines = found.parse()?;
            } else if let Some(hit) = line.strip_prefix("LH:") {
                let missed = lines - hit.parse::<u64>()?;
                (all, all_missed) = (all + lines, all_missed + missed);
                let short = file.split_once("/log/src/").map_or(&*file, |(_, short)| short);
                rows.push(Row { file: short.to_owned(), lines, missed });
            }
        }
        rows.push(Row { file: "all".to_owned(), lines: all, missed: all_missed });
        Ok(rows)
    }

    /// How many rare branches are marked, and which of them nothing reaches.
    fn probes(&self, merged: &Path, programs: &[PathBuf]) -> Result<(usize, Vec<String>)> {
        let what = ["show", "--show-instantiations=false", IGNORED];
        let mut args = Self::args(&what, merged, programs);
        args.push("--sources".to_owned());
        args.push(process::root().join("log/src").display().to_string());
        let text = self.output("llvm-cov", &args)?;
        let (mut count, mut unreached) = (0, Vec::new());
        for line in text.lines() {
            let mut parts = line.splitn(3, '|').skip(1);
            let (Some(times), Some(code)) = (parts.next(), parts.next()) else { continue };
            let Some((_, rest)) = code.split_once("probe!(\"") else { continue };
            count += 1;
            if times.trim() == "0" {
                unreached.push(rest.split('"').next().unwrap_or_default().to_owned());
            }
        }
        Ok((count, unreached))
    }

    /// The lines of one file that nothing reaches.
    fn show_missed(&self, merged: &Path, programs: &[PathBuf], file: &str) -> Result<()> {
        let mut args = Self::args(&["show", "--show-instantiations=false"], merged, programs);
        args.push("--sources".to_owned());
        args.push(process::root().join("log/src").join(file).display().to_string());
        for line in self.output("llvm-cov", &args)?.lines() {
            let mut parts = line.splitn(3, '|');
            let _number = parts.next();
            if parts.next().is_some_and(|count| count.trim() == "0") {
                println!("{line}");
            }
        }
        Ok(())
    }
}
