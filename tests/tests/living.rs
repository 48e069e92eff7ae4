//! Living with it: installing, looking for what is wrong, keeping a copy.

use std::path::{Path, PathBuf};
use std::process::Command;

use bacnode_tests::docker::{PYTHON, docker, has};
use bacnode_tests::{Swarm, bacnode, example, program};

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn a_backup_becomes_the_same_node_with_the_same_jobs_and_results() {
    let mut swarm = Swarm::new(1);
    let hello = example("hello/hello.wasm");
    let result = swarm.nodes[0].run(&["wasm", "run", "--name", "kept", &hello]).ok().text().to_owned();
    let (data, file, copy) = (swarm.dir().join("node-0"), swarm.dir().join("copy.tar.gz"), swarm.dir().join("copy"));
    let (data, file, copy) = (text(&data), text(&file), text(&copy));
    let busy = bacnode(&["backup", "--data-dir", &data, &file]);
    assert!(busy.code == 1 && busy.stderr.contains("hint: stop the node first"), "{busy:#?}");
    let me = swarm.nodes[0].identity.peer_id.clone();
    swarm.nodes[0].terminate();
    bacnode(&["backup", "--data-dir", &data, &file]).ok();
    let again = bacnode(&["backup", "--data-dir", &data, &file]);
    assert!(again.code == 2 && again.stderr.contains("exists"), "nothing is written over: {again:#?}");
    std::fs::remove_dir_all(&data).expect("it is gone");
    let used = bacnode(&["restore", "--data-dir", &text(swarm.dir()), &file]);
    assert!(used.code == 2 && used.stderr.contains("is not empty"), "{used:#?}");
    let broken = swarm.dir().join("broken");
    std::fs::write(&broken, "no archive").expect("written");
    let refused = bacnode(&["restore", "--data-dir", &copy, &text(&broken)]);
    assert!(refused.code == 2 && refused.stderr.contains("is not a backup"), "{refused:#?}");
    bacnode(&["restore", "--data-dir", &data, &file]).ok();
    swarm.nodes[0].restart();
    assert_eq!(swarm.nodes[0].identity.peer_id, me);
    assert_eq!(swarm.nodes[0].result_of("kept"), result);
    let to = text(&swarm.dir().join("to"));
    swarm.nodes[0].run(&["job", "get", "kept", "-o", &to]).ok();
    swarm.nodes[0].run(&["wasm", "run", &hello]).ok();
}

#[test]
fn the_doctor_says_what_is_wrong() {
    let swarm = Swarm::new(2);
    let data = text(&swarm.dir().join("node-0"));
    let well = swarm.nodes[0].run(&["doctor", "--data-dir", &data]).ok();
    for expected in ["node-0 answers at", "2 connected", "can be read, by its owner only"] {
        assert!(well.stdout.contains(expected), "{expected}: {well:#?}");
    }
    let nobody =
        ["doctor", "--api", "127.0.0.1:1", "--data-dir", "/proc/nothing", "--bootstrap", "/ip4/127.0.0.1/tcp/1"];
    let ill = bacnode(&nobody);
    assert_eq!(ill.code, 1, "{ill:#?}");
    assert!(ill.stdout.contains("bad   bootstrap"), "{ill:#?}");
    assert!(ill.stdout.contains("odd   node        none answers"), "{ill:#?}");
    let json = bacnode(&[&nobody[..], &["--output", "json"]].concat()).json();
    assert!(json.as_array().expect("a list").iter().any(|found| found["Is"] == "bad"), "{json}");
}

#[test]
fn settings_are_written_where_serve_finds_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = text(dir.path());
    let set = |args: &[&str]| bacnode(&[&["config", "set", "--data-dir", &data], args].concat());
    set(&["name", "carol"]).ok();
    set(&["max-queue", "7"]).ok();
    set(&["label", "zone=eu", "disk=ssd"]).ok();
    set(&["withhold", "true"]).ok();
    let shown = bacnode(&["config", "list", "--data-dir", &data, "--output", "csv"]).ok().stdout;
    for line in [
        "name,carol,config.toml",
        "max-queue,7,config.toml",
        "label,\"zone=eu, disk=ssd\",config.toml",
        "withhold,true,config.toml",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let unknown = set(&["nmae", "x"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("there is no setting `nmae`"), "{unknown:#?}");
    let wrong = set(&["max-queue", "many"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("`max-queue` cannot be that"), "{wrong:#?}");
}

#[test]
fn the_journal_is_told_how_grave_each_line_is() {
    let mut swarm = Swarm::empty(&[]);
    let node = swarm.add_with("node-0", &["--no-docker", "--bootstrap", "127.0.0.1:1"], &[("JOURNAL_STREAM", "8:1")]);
    let lines = bacnode_tests::eventually("lines of both kinds", || {
        let log = node.log();
        (log.contains("<6>") && log.contains("<4>a bootstrap peer cannot be reached")).then_some(log)
    });
    let told = lines.lines().filter(|line| line.starts_with('<'));
    assert!(told.clone().count() >= 2 && told.clone().all(|line| !line.contains("INFO")), "{lines}");
}

#[test]
fn it_is_installed_and_uninstalled_without_a_trace() {
    let top =
        ["Makefile", "../Makefile"].map(PathBuf::from).into_iter().find(|path| path.exists()).expect("a Makefile");
    let top = std::path::absolute(&top).expect("a path").parent().expect("a folder").to_owned();
    let target = program("bacnode").ancestors().nth(2).expect("a folder").to_owned();
    let dir = tempfile::tempdir().expect("a folder");
    let make = |args: &[&str]| {
        let mut make = Command::new("make");
        // What is built is built: the test does not build while it is itself run by cargo.
        make.args(["-C", &text(&top), "CARGO=true"]).args(args).env("CARGO_TARGET_DIR", &target);
        let ran = make.output().expect("make runs");
        assert!(
            ran.status.success(),
            "{}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let prefix = format!("PREFIX={}", text(dir.path()));
    make(&["install", &prefix]);
    let version = Command::new(dir.path().join("bin/bacnode")).args(["--version"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("bacnode 0."), "{version:?}");
    let unit = std::fs::read_to_string(dir.path().join("lib/systemd/system/bacnode.service")).expect("a unit");
    assert!(unit.contains(&format!("ExecStart={}/bin/bacnode serve", text(dir.path()))), "{unit}");
    make(&["uninstall", &prefix]);
    let left = Command::new("find").arg(dir.path()).args(["-type", "f"]).output().expect("find runs").stdout;
    assert_eq!(String::from_utf8_lossy(&left), "");
    if Command::new("dpkg-deb").arg("--version").output().is_ok() {
        let said = make(&["-s", "deb"]);
        let package = said.lines().last().expect("its path").to_owned();
        let listed = Command::new("dpkg-deb").args(["--contents", &package]).output().expect("it runs").stdout;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        for file in [
            "./usr/bin/bacnode",
            "./usr/lib/systemd/system/bacnode.service",
            "./usr/lib/systemd/system/bacnode-bootstrap.service",
            "./etc/default/bacnode",
        ] {
            assert!(listed.lines().any(|line| line.ends_with(file)), "{file}: {listed}");
        }
        is_installed_and_removed(&package);
    } else {
        make(&["stage"]);
    }
    let stage = make(&["-s", "stage-dir"]).trim().to_owned();
    is_a_node_in_a_container(&top, Path::new(&stage));
}

/// Gives the package to dpkg, as if a folder were a machine's root.
fn is_installed_and_removed(package: &str) {
    let root = tempfile::tempdir().expect("a folder");
    for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        std::fs::create_dir_all(root.path().join(dir)).expect("a folder");
    }
    for file in ["status", "available"] {
        std::fs::write(root.path().join("var/lib/dpkg").join(file), "").expect("a file");
    }
    // Its scripts would make a user, and talk to systemd.
    let (tools, called) = (root.path().join("tools"), root.path().join("called"));
    std::fs::create_dir(&tools).expect("a folder");
    for (tool, code) in [("adduser", 0), ("getent", 2), ("systemctl", 0)] {
        use std::os::unix::fs::PermissionsExt as _;
        let script = format!("#!/bin/sh\necho {tool} \"$@\" >>{}\nexit {code}\n", text(&called));
        std::fs::write(tools.join(tool), script).expect("it is written");
        std::fs::set_permissions(tools.join(tool), std::fs::Permissions::from_mode(0o755)).expect("it is a program");
    }
    let path = format!("{}:{}", text(&tools), std::env::var("PATH").unwrap_or_default());
    let dpkg = |args: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        // The libraries that it needs are those of the real root, of which this one knows nothing.
        dpkg.arg(format!("--root={}", text(root.path()))).env("PATH", &path);
        dpkg.args(["--force-depends", "--force-not-root", "--force-script-chrootless"]).args(args);
        let ran = dpkg.output().expect("dpkg runs");
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    dpkg(&["--install", package]);
    let ran = Command::new(root.path().join("usr/bin/bacnode")).arg("--version").output().expect("it runs");
    assert!(String::from_utf8_lossy(&ran.stdout).starts_with("bacnode 0."), "{ran:?}");
    let called = std::fs::read_to_string(called).expect("the scripts ran");
    assert!(called.contains("adduser --quiet --system --group --home /var/lib/bacnode"), "{called}");
    let own = root.path().join("etc/default/bacnode");
    std::fs::write(&own, "# mine\n").expect("it is written");
    dpkg(&["--remove", "bacnode"]);
    assert!(!root.path().join("usr/bin/bacnode").exists() && own.exists(), "what is of one's own stays");
    dpkg(&["--purge", "bacnode"]);
    assert!(!own.exists());
}

/// Builds the container file on a Debian of this machine's, where no package can be had, and does a job in it.
#[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
fn is_a_node_in_a_container(top: &Path, stage: &Path) {
    const BASE: &str = "bacnode-test/base:1";
    const IMAGE: &str = "bacnode-test/node:1";
    if !has(PYTHON) {
        return;
    }
    let context = tempfile::tempdir().expect("a folder");
    let linked = Command::new("ldd").arg(stage.join("usr/bin/bacnode")).output().expect("ldd runs").stdout;
    let linked = String::from_utf8_lossy(&linked).into_owned();
    std::fs::create_dir(context.path().join("libraries")).expect("a folder");
    for library in linked.split_whitespace().map(Path::new).filter(|word| word.is_absolute()) {
        let name = library.file_name().expect("a name").to_string_lossy();
        // The packages that the file asks for.
        if name.starts_with("libstdc++") || name.starts_with("libgcc_s") {
            std::fs::copy(library, context.path().join("libraries").join(&*name)).expect("a library");
        }
    }
    let file = format!(
        "FROM {PYTHON}\nRUN printf '#!/bin/sh\\n' >/usr/bin/apt-get && chmod +x /usr/bin/apt-get\n\
         COPY libraries /usr/lib\n"
    );
    std::fs::write(context.path().join("Dockerfile"), file).expect("it is written");
    docker(&["build", "-q", "-t", BASE, &text(context.path())]).expect("the base is built");
    let file = text(&top.join("cli/packaging/Containerfile"));
    let base = format!("BASE={BASE}");
    docker(&["build", "-q", "-f", &file, "--build-arg", &base, "-t", IMAGE, &text(stage)]).expect("the image is built");
    if docker(&["run", "--rm", "--entrypoint", "bacnode", IMAGE, "--version"]).is_none() {
        eprintln!("NOT RUN: what this machine builds does not run on Debian 12, of which the container is made");
        return;
    }
    let examples = format!("{}:/examples:ro", text(&top.join("examples")));
    let run = ["run", "-d", "-v", &examples, IMAGE, "--network", "boxed", "--no-docker"];
    let container = docker(&run).expect("it starts").trim().to_owned();
    let hello = ["exec", &container, "bacnode", "wasm", "run", "/examples/hello/hello.wasm"];
    bacnode_tests::eventually("a job in a container", || docker(&hello));
    let logs = docker(&["exec", &container, "bacnode", "job", "list", "--output", "csv"]).expect("it answers");
    docker(&["stop", "-t", "20", &container]).expect("it stops");
    let code = docker(&["inspect", "-f", "{{.State.ExitCode}}", &container]).expect("it is there");
    docker(&["rm", "-v", &container]).expect("it is removed");
    docker(&["rmi", IMAGE, BASE]).expect("they are removed");
    assert!(logs.contains("Completed") && code.trim() == "0", "{logs} {code}");
}
