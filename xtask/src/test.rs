//! `cargo xtask test`: every test there is, and a plain total.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    str::FromStr,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use sandbox::command::shown;

use crate::{
    ebpf, interrupt, kernel, provision, setup,
    workspace::{PROFILE, build, cargo, root, target},
};

#[derive(Default)]
pub struct Options {
    pub only: Option<Part>,
    pub filter: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Unit,
    Policy,
    System,
    Kernel,
    Inference,
}

impl FromStr for Part {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "unit" => Ok(Self::Unit),
            "policy" => Ok(Self::Policy),
            "system" => Ok(Self::System),
            "kernel" => Ok(Self::Kernel),
            "inference" => Ok(Self::Inference),
            _ => bail!("no part `{text}`; there are: unit, policy, system, kernel, inference"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub passed: u64,
    pub failed: u64,
}

pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let is_wanted = |part| options.only.is_none_or(|only| only == part);
    if is_wanted(Part::System) && !sandbox::is_root() {
        bail!(
            "the system tests make network namespaces, cgroups and eBPF programs, and need root:\n  \
             sudo -E env \"PATH=$PATH\" cargo xtask test\n\
             without root there is `cargo xtask test --only unit`"
        );
    }
    setup::run()?;
    ebpf::run()?;
    interrupt::catch()?;
    let mut totals = Totals::default();
    if is_wanted(Part::Unit) {
        let mut command = cargo();
        command.args(["test", "--workspace", "--exclude", "system-tests"]);
        command.args(["--exclude", "policy-tests", "--no-fail-fast"]);
        provision::tools(&[provision::REDIS])?;
        totals.add(counted("unit and integration tests", filtered(command, options, &[]))?);
        let mut command = cargo();
        command.args(["test", "--profile", PROFILE, "-p", "system-tests", "--lib", "--bins"]);
        totals.add(counted("the tests' own tests", filtered(command, options, &[]))?);
    }
    if is_wanted(Part::Policy) {
        let mut command = cargo();
        command.args(["test", "-p", "policy-tests", "--no-fail-fast"]);
        command.env("TEST_OPA", provision::go_tool(&provision::OPA)?);
        totals.add(counted("policies against a real OPA", filtered(command, options, &[]))?);
    }
    if is_wanted(Part::System) {
        totals.add(system(options)?);
    }
    // A guest without KVM takes minutes, and what is in it is no part of this machine.
    if options.only == Some(Part::Kernel) && options.filter.is_none() {
        totals.add(kernel::short().unwrap_or_else(|error| {
            println!("\n== steering and capture on another kernel\n{error:#}");
            Totals { passed: 0, failed: 1 }
        }));
        interrupt::check()?;
    }
    if is_wanted(Part::Inference) && options.filter.is_none() {
        totals.add(inference()?);
    }
    if options.only.is_none() {
        println!("\nother kernels were not run: cargo xtask test --kernel 6.1");
    }
    println!("\nall tests took {} s", started.elapsed().as_secs());
    println!("{} passed, {} failed", totals.passed, totals.failed);
    if totals.failed > 0 || totals.passed == 0 {
        bail!("{} failed", totals.failed);
    }
    Ok(())
}

fn filtered(mut command: Command, options: &Options, arguments: &[&str]) -> Command {
    command.arg("--").args(arguments);
    command.args(&options.filter);
    command
}

fn system(options: &Options) -> Result<Totals> {
    provision::tools(&provision::ALL)?;
    let python = provision::python()?;
    let keycloak = provision::keycloak()?;
    let kafka = provision::kafka()?;
    let h2spec = provision::go_tool(&provision::H2SPEC)?;
    let place = build(PROFILE)?;
    let mut command = cargo();
    command.args(["test", "--profile", PROFILE, "-p", "system-tests", "--test", "*"]);
    command.arg("--no-fail-fast");
    command.env("TEST_BINARIES", place).env("TEST_PYTHON", python);
    command.env("TEST_OPA", provision::go_tool(&provision::OPA)?);
    command.env("TEST_KAFKA", kafka);
    command.env("TEST_KEYCLOAK", keycloak).env("TEST_H2SPEC", h2spec);
    interrupt::check()?;
    // One at a time: they measure, and share two cores with what they measure.
    let totals = counted("system tests", filtered(command, options, &["--test-threads=1"]));
    // A test that was killed could not tidy up.
    sandbox::sandbox::remove_leftovers()?;
    interrupt::check()?;
    totals
}

/// The comparison of inferred contracts with published ones.
fn inference() -> Result<Totals> {
    let script = root().join("tests/inference/run.py");
    if !script.exists() {
        bail!("{} is missing", script.display());
    }
    provision::tools(&[provision::PYTHON, provision::NODE, provision::NPM])?;
    let place = build(PROFILE)?;
    let mut command = Command::new("python3");
    command.arg(script).current_dir(root()).env("CARGO_TARGET_DIR", target());
    command.env("STOACTL", place.join("stoactl"));
    command.env("STOA_GATEWAY", place.join("stoa-gateway"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    counted("inference against published specifications", command)
}

/// Runs it, shows what it prints, and counts. A program that counts no tests is one test.
fn counted(title: &str, mut command: Command) -> Result<Totals> {
    println!("\n== {title}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(&command)))?;
    let mut totals = Totals::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            totals.add(Totals::read(&line).unwrap_or_default());
        }
    }
    let status = child.wait()?;
    if status.success() {
        if totals == Totals::default() {
            totals.passed = 1;
        }
    } else if totals.failed == 0 {
        // It failed without a failed test: it did not build, or is no test harness.
        totals.failed = 1;
    }
    Ok(totals)
}

impl Totals {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Reads `test result: ok. 3 passed; 0 failed; ...` and `3 passed, 0 failed`.
    pub fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        let counts = match line.strip_prefix("test result: ") {
            Some(result) => result.split_once(". ")?.1,
            None => line,
        };
        let mut words = counts.split([' ', ';', ',']).filter(|word| !word.is_empty());
        let passed = words.next()?.parse().ok()?;
        (words.next()? == "passed").then_some(())?;
        let failed = words.next()?.parse().ok()?;
        (words.next()? == "failed").then_some(Self { passed, failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_from_harness_and_scripts() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; finished in 0.1s";
        assert_eq!(Totals::read(line), Some(Totals { passed: 12, failed: 3 }));
        assert_eq!(Totals::read("4 passed, 0 failed"), Some(Totals { passed: 4, failed: 0 }));
        assert_eq!(Totals::read("4 of them passed"), None);
        assert_eq!(Totals::read("running 3 tests"), None);
    }

    #[test]
    fn a_program_that_fails_without_counting_is_a_failure() {
        let run = |word: &str| counted("x", Command::new(word)).unwrap();
        assert_eq!(run("false"), Totals { passed: 0, failed: 1 });
        assert_eq!(run("true"), Totals { passed: 1, failed: 0 });
    }
}
