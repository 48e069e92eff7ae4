//! The examples, as their first lines tell people to run them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bacnode_tests::docker::{self, IMAGE, PYTHON};
use bacnode_tests::outside::program;
use bacnode_tests::{Node, Swarm, example};

/// Hands in the job of an example and gives where its result is.
fn submit(swarm: &Swarm, name: &str, more: &[&str]) -> PathBuf {
    let (spec, to) = (example(&format!("{name}/job.yaml")), swarm.dir().join(name));
    let to_text = to.to_string_lossy().into_owned();
    swarm.nodes[0].run(&[&["submit", &spec, "--download", &to_text], more].concat()).ok();
    to
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_simulation_is_fanned_out_and_put_together_again() {
    let swarm = Swarm::new(2);
    let parts = submit(&swarm, "montecarlo", &[]);
    let (input, option) = (format!("{}:/parts", parts.display()), example("montecarlo/option.wasm"));
    let job = swarm.nodes[1].run(&["wasm", "run", "--id-only", "-i", &input, &option, "--", "combine", "/parts"]).ok();
    let said = swarm.nodes[1].run(&["job", "logs", job.text()]).ok().stdout;
    assert!(said.contains("of 8 runs, 8000000 paths"), "{said}");
    let numbers: Vec<f64> = said.split([' ', '\n']).filter_map(|word| word.parse().ok()).collect();
    let (mean, within, formula) = (numbers[0], numbers[1], *numbers.last().expect("the formula's"));
    assert!((mean - formula).abs() < 2.0 * within && within < 0.02, "{said}");
}

#[test]
fn a_model_tells_penguins_apart_on_all_nodes_at_once() {
    let swarm = Swarm::new(2);
    let to = submit(&swarm, "penguins", &[]);
    let rows: Vec<String> =
        read(Path::new(&example("penguins/penguins.csv"))).lines().skip(1).map(str::to_owned).collect();
    let (mut told, mut right) = (vec![false; rows.len()], 0);
    for part in 0..4 {
        for line in read(&to.join(format!("{part}/outputs/species.csv"))).lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let row: usize = cells[0].parse().expect("a row");
            assert!(!std::mem::replace(&mut told[row], true), "row {row} is told twice");
            right += usize::from(rows[row].starts_with(cells[1]));
        }
    }
    assert!(told.iter().all(|&told| told), "some rows are not told");
    assert!(right * 100 >= rows.len() * 97, "{right} of {}", rows.len());
}

#[test]
fn a_ruby_script_runs_in_a_library_that_a_small_module_imports() {
    let Some(ruby) = program("ruby.wasm") else { return };
    let swarm = Swarm::new(1);
    let to = submit(&swarm, "ruby", &["-V", &format!("ruby={}", ruby.display())]);
    let data = read(Path::new(&example("weather/weather.csv")));
    let rainy = data.lines().filter(|line| line.contains(",2012-") && line.ends_with(",rain")).count();
    let printed = read(&to.join("stdout"));
    assert!(printed.starts_with("Ruby 3.4") && printed.contains(&format!(", {rainy} rain,")), "{printed}");
    assert_eq!(read(&to.join("stderr")), "");
}

#[test]
fn a_python_script_runs_as_it_is_and_reckons_as_the_rust_one_does() {
    let Some(python) = program("python.wasm") else { return };
    let swarm = Swarm::new(1);
    let to = submit(&swarm, "python", &["-V", &format!("python={}", python.display())]);
    let column = |path: PathBuf, name: &str| -> Vec<String> {
        let text = read(&path);
        let index =
            text.lines().next().and_then(|head| head.split(',').position(|cell| cell == name)).expect("a column");
        text.lines().skip(1).map(|line| line.split(',').nth(index).expect("a cell").to_owned()).collect()
    };
    let theirs = column(to.join("outputs/means.csv"), "mean_c");
    let ours = column(submit(&swarm, "weather", &[]).join("outputs/monthly.csv"), "mean_c");
    // The order of cities differs, and how sums are rounded.
    let sorted = |column: Vec<String>| {
        let mut column: Vec<f64> = column.iter().map(|cell| cell.parse().expect("a number")).collect();
        column.sort_by(f64::total_cmp);
        column
    };
    let (theirs, ours) = (sorted(theirs), sorted(ours));
    assert_eq!((theirs.len(), ours.len()), (24, 24));
    assert!(theirs.iter().zip(&ours).all(|(a, b)| (a - b).abs() < 0.0015), "{theirs:?} {ours:?}");
}

/// A database of its own, which ends with this.
struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Postgres {
    /// Says loudly if there is none.
    #[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
    fn start() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let programs = versions.map(|version| version.path().join("bin")).find(|path| path.join("initdb").exists());
        let Some(programs) = programs else {
            eprintln!("NOT RUN: PostgreSQL is not here; `make test` gets it where it can");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let this = Self { folder, programs };
        if rustix::process::geteuid().is_root() {
            // It does not run as root.
            let owned = Command::new("chown").arg("postgres").arg(this.folder.path()).status().expect("chown");
            assert!(owned.success());
        }
        this.run("initdb", &["--auth=trust", "--no-sync", "--username=postgres"]);
        let socket = format!("-k {} -h ''", this.folder.path().display());
        let log = this.folder.path().join("log").to_string_lossy().into_owned();
        this.run("pg_ctl", &["--wait", "--log", &log, "--options", &socket, "start"]);
        Some(this)
    }

    fn run(&self, name: &str, args: &[&str]) {
        let program = self.programs.join(name);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let output = command.arg("--pgdata").arg(self.folder.path().join("data")).args(args).current_dir("/").output();
        let output = output.expect("it starts");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn client(&self, command: &mut Command) -> String {
        let variables = [("PGUSER", "postgres"), ("PGDATABASE", "postgres")];
        let output: Output = command.env("PGHOST", self.folder.path()).envs(variables).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.run("pg_ctl", &["--mode", "immediate", "stop"]);
    }
}

#[test]
fn logs_become_a_table_in_a_database() {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(1);
    let to = submit(&swarm, "etl", &["-V", &format!("image={IMAGE}")]);
    assert!(read(&to.join("stderr")).contains("1 lines were no requests"));
    let table = to.join("outputs/hours.csv");
    let Some(postgres) = Postgres::start() else { return };
    // Twice: what is there already is replaced, not doubled.
    for _ in 0..2 {
        postgres.client(Command::new(example("etl/load.sh")).arg(&table));
    }
    let query = "SELECT count(*), sum(requests), sum(errors) > 0, min(hour), max(hour) FROM hours";
    let answer =
        postgres.client(Command::new("psql").args(["--no-psqlrc", "--tuples-only", "--no-align", "-c", query]));
    let lines: usize =
        [3, 4].map(|day| read(Path::new(&example(&format!("etl/logs/web-{day}.log")))).lines().count()).iter().sum();
    assert_eq!(answer, format!("48|{}|t|2026-03-03 00:00:00|2026-03-04 23:00:00", lines - 1));
}

fn step(node: &Node, folder: &Path, command: &str) -> Output {
    let bin = bacnode_tests::program("bacnode");
    let path = format!("{}:{}", bin.parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    let report = folder.with_extension("report");
    let mut step = Command::new(example("ci/step.sh"));
    step.env("PATH", path).env("BACNODE_API", node.identity.api.clone()).env("BACNODE_CI_REPORT", &report);
    step.arg(folder).args([IMAGE, command]).output().expect("it starts")
}

#[test]
fn a_step_of_a_pipeline_fails_when_its_tests_do() {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(1);
    let folder = swarm.dir().join("source");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("test.sh"), "echo tested; cp test.sh ../seen; exit ${CODE:-0}\n").expect("written");
    let good = step(&swarm.nodes[0], &folder, "sh test.sh");
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(folder.with_extension("report").join("report/seen").exists());
    std::fs::remove_dir_all(folder.with_extension("report")).expect("removed");
    let bad = step(&swarm.nodes[0], &folder, "CODE=3 sh test.sh");
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8_lossy(&bad.stderr).into_owned() + &String::from_utf8_lossy(&bad.stdout);
    assert!(said.contains("tested") && said.contains("exited 3"), "{said}");
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
fn pictures_become_thumbnails_in_three_containers() {
    if !docker::has(PYTHON) {
        return;
    }
    let swarm = Swarm::new(2);
    let to = submit(&swarm, "images", &["-V", &format!("image={PYTHON}")]);
    let mut made = Vec::new();
    for part in 0..3 {
        let folder = to.join(part.to_string()).join("thumbnails");
        made.extend(std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()));
    }
    assert_eq!(made.len(), 6, "{made:?}");
    // What the same script makes here.
    let here = swarm.dir().join("here");
    std::fs::create_dir(&here).expect("a folder");
    let mut script = Command::new("python3");
    script.args(["-B", &example("images/thumbs.py"), &example("images/photos")]).arg(&here);
    let Ok(ran) = script.status() else {
        eprintln!("NOT RUN: there is no python3 here to compare with");
        return;
    };
    assert!(ran.success(), "{ran}");
    for path in made {
        let own = here.join(path.file_name().expect("a name"));
        assert_eq!(std::fs::read(&path).expect("a picture"), std::fs::read(own).expect("a picture"), "{path:?}");
    }
}

#[test]
fn a_fleet_boils_its_logs_down_where_they_lie() {
    let folder = bacnode_tests::program("bacnode").parent().expect("a folder").to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let ran = Command::new(example("fleet/run.sh")).arg("20000").env("PATH", path).output().expect("a shell");
    let (said, told) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}{told}");
    let requests: u64 = said
        .lines()
        .filter(|line| line.starts_with('/'))
        .map(|line| line.split(',').nth(1).and_then(|cell| cell.parse::<u64>().ok()).expect("a number"))
        .sum();
    assert_eq!(requests, 8 * 20_000, "{said}");
    let number = |end: &str| -> u64 {
        let line = said.lines().find(|line| line.contains(end)).expect("a line");
        line.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
    };
    let (logs, moved) = (number("bytes of logs lie"), number("bytes moved"));
    assert!(moved * 5 < logs, "{said}");
}

#[test]
fn a_service_answers_at_its_port_and_its_next_version_does_too() {
    if !docker::is_here() {
        return;
    }
    let mut swarm = Swarm::empty(&[]);
    swarm.add("one", &["--task-network", "bridge", "--ports", "24000-24999"]);
    swarm.everybody_knows(2);
    let node = &swarm.nodes[0];
    let (spec, image) = (example("service/job.yaml"), format!("image={IMAGE}"));
    for greeting in ["hello", "good day"] {
        node.run(&["submit", &spec, "-V", &image, "-V", &format!("greeting={greeting}")]).ok();
        let answered = bacnode_tests::eventually(&format!("that it says {greeting}"), || {
            let executions = node.job("web").executions?.items;
            let runs = executions.into_iter().rev().find(|execution| execution.compute_state.state_type == 6)?;
            let port = runs.ports.first()?.host;
            let page = Command::new("curl").args(["-s", &format!("http://127.0.0.1:{port}/")]).output().ok()?;
            let page = String::from_utf8_lossy(&page.stdout).trim().to_owned();
            (page == greeting).then_some(page)
        });
        assert_eq!(answered, greeting);
    }
    node.run(&["job", "stop", "web"]).ok();
}

#[test]
fn a_daemon_says_how_busy_every_machine_is() {
    if !docker::is_here() {
        return;
    }
    let mut swarm = Swarm::new(1);
    let (spec, image) = (example("daemon/job.yaml"), format!("image={IMAGE}"));
    swarm.nodes[0].run(&["submit", &spec, "-V", &image]).ok();
    swarm.add("late", &[]);
    let runs = |node: &Node| {
        let executions = node.job("load").executions.unwrap_or_default().items;
        executions.into_iter().filter(|execution| execution.compute_state.state_type == 6).collect::<Vec<_>>()
    };
    let both =
        bacnode_tests::eventually("that it runs on both", || Some(runs(&swarm.nodes[0])).filter(|r| r.len() == 2));
    for execution in both {
        bacnode_tests::eventually("that it says something", || {
            let said = swarm.nodes[0].run(&["job", "logs", "load", "--execution", &execution.id]).ok().stdout;
            said.lines().next()?.parse::<f64>().ok()
        });
    }
    swarm.nodes[0].run(&["job", "stop", "load"]).ok();
}
