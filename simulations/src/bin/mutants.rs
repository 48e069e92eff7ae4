//! `mutants [NAME]`: plants every mutant in a copy of the sources, builds it once, and sees whether the simulator notices
//! each, or those whose names contain NAME.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use bacnode_simulations::mutants;

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(survivors) => {
            println!("{survivors} mutants survive");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, String> {
    let root = Path::new(".");
    if !root.join("simulations/mutants.toml").exists() {
        return Err("run it in the project's folder: mutants are planted in a copy of its sources".into());
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("mutants");
    let copy = target.join("sources");
    copy_sources(root, &copy)?;
    mutants::plant_all(&copy)?;
    eprintln!("building the sources with all mutants in them");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "-p", "bacnode-simulations", "--bin", "sim", "--target-dir"]).arg(&target);
    build.current_dir(&copy).env("RUSTFLAGS", "-Awarnings");
    if !build.status().map_err(|error| error.to_string())?.success() {
        return Err("the sources with the mutants in them do not compile".into());
    }
    let sim = target.join("debug/sim");
    let mut survivors = 0;
    let only = std::env::args().nth(1).unwrap_or_default();
    for (index, mutant) in mutants::all()?.iter().enumerate().filter(|(_, mutant)| mutant.name.contains(&only)) {
        let started = Instant::now();
        let output = Command::new(&sim)
            .args(["run", "--seeds", "10000", "--until", &mutant.kills])
            .env("BACNODE_MUTANT", index.to_string())
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.lines().find_map(|line| line.strip_prefix("found: "));
        survivors += usize::from(found.is_none());
        let how = found.map_or_else(|| "SURVIVES".to_owned(), |seed| format!("killed by seed {seed}"));
        println!("{:<4} {how:<24} {:>6.1} s  {}", mutant.kills, started.elapsed().as_secs_f64(), mutant.name);
    }
    Ok(survivors)
}

/// The workspace without what git does not keep.
fn copy_sources(root: &Path, to: &Path) -> Result<(), String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let listed = listed.map_err(|error| format!("git: {error}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names: BTreeSet<&str> = listed.split('\0').filter(|name| root.join(name).is_file()).collect();
    remove_others(to, to, &names);
    for name in names {
        let (from, to) = (root.join(name), to.join(name));
        let Ok(bytes) = std::fs::read(&from) else { continue };
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        // What is as it was is left alone, so that it is not built again.
        if std::fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        std::fs::write(&to, bytes).map_err(|error| format!("{}: {error}", to.display()))?;
    }
    Ok(())
}

/// Removes from an earlier copy what is not among the sources any more.
fn remove_others(copy: &Path, dir: &Path, names: &BTreeSet<&str>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(copy, &path, names);
        } else if path.strip_prefix(copy).ok().and_then(Path::to_str).is_some_and(|name| !names.contains(name)) {
            let _ = std::fs::remove_file(path);
        }
    }
}
