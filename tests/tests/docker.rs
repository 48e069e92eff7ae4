//! Containers: what they do, what they may not do, and what is left when somebody dies.

use std::path::Path;
use std::time::{Duration, Instant};

use bacnode_tests::docker::{self, IMAGE, containers};
use bacnode_tests::{Node, Ran, Swarm, eventually, example, web_server};
use serde_json::json;

fn run(node: &Node, options: &[&str], script: &str) -> Ran {
    let args: Vec<&str> =
        ["docker", "run"].iter().chain(options).copied().chain([IMAGE, "--", "sh", "-c", script]).collect();
    node.run(&args)
}

/// What a job's only run printed.
fn printed(node: &Node, dir: &Path, options: &[&str], script: &str) -> String {
    let to = dir.join(format!("printed-{}", options.len() + script.len()));
    let to = to.to_string_lossy().into_owned();
    run(node, &[options, &["--download", &to]].concat(), script).ok();
    std::fs::read_to_string(Path::new(&to).join("stdout")).expect("stdout")
}

#[test]
fn a_container_reads_its_inputs_and_leaves_a_result_that_everybody_finds() {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(2);
    let text = swarm.dir().join("text.txt");
    std::fs::write(&text, "one two\nthree\n").expect("written");
    let input = format!("{}:/in/text.txt", text.display());
    let options = ["-i", &input, "--result", "out:/out", "-e", "WHO=me", "--workdir", "/tmp", "--name", "count"];
    let ran = run(&swarm.nodes[0], &options, "pwd; wc -w < /in/text.txt > /out/words; echo $WHO >&2; exit 0").ok();
    let to = swarm.dir().join("found");
    swarm.nodes[1].run(&["content", "get", ran.text(), "-o", &to.to_string_lossy()]).ok();
    let read = |name: &str| std::fs::read_to_string(to.join(name)).expect("a file");
    assert_eq!((read("stdout"), read("stderr"), read("exitCode")), ("/tmp\n".into(), "me\n".into(), "0".into()));
    assert_eq!(read("out/words").trim(), "3");
    let story = swarm.nodes[0].run(&["job", "describe", "count"]).ok().stdout;
    assert!(story.contains("image sha256:"), "{story}");
    let failed = run(&swarm.nodes[0], &[], "exit 7");
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("the program exited 7"), "{failed:#?}");
}

#[test]
fn the_words_of_many_files_are_counted_side_by_side() {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(2);
    let to = swarm.dir().join("words");
    let (image, to_text) = (format!("image={IMAGE}"), to.to_string_lossy().into_owned());
    swarm.nodes[0].run(&["submit", &example("wordcount/job.yaml"), "-V", &image, "--download", &to_text]).ok();
    let count = |part: usize, word: &str| -> u64 {
        let table = to.join(part.to_string()).join("outputs/words.txt");
        let table = std::fs::read_to_string(table).expect("a table");
        let line = table.lines().find(|line| line.trim().ends_with(&format!(" {word}")));
        line.and_then(|line| line.trim().split(' ').next()).map_or(0, |number| number.parse().expect("a number"))
    };
    let sum = |word| (0..3).map(|part| count(part, word)).sum::<u64>();
    assert_eq!((sum("tyger"), sum("liberty"), sum("eternal")), (2, 3, 2));
}

#[test]
fn a_container_has_no_rights() {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(1);
    let file = swarm.dir().join("input.txt");
    std::fs::write(&file, "x").expect("written");
    let input = format!("{}:/in/x", file.display());
    let script = "id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | tr '\\t' ' '; ip link | grep -c '^[0-9]'; \
                  (echo y > /in/x) 2>&1; (echo y > /bin/y) 2>&1; (mknod /tmp/d b 8 0) 2>&1; (chown 0 /tmp) 2>&1; ls /in; \
                  ulimit -n; test -e /var/run/docker.sock || echo alone";
    let text = printed(&swarm.nodes[0], swarm.dir(), &["-i", &input], script);
    let user = if rustix::process::geteuid().is_root() { 65_534 } else { rustix::process::geteuid().as_raw() };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], user.to_string(), "{text}");
    for part in ["CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2", "1024", "alone"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(lines.iter().filter(|line| line.contains("Read-only file system")).count(), 2, "{text}");
    assert!(lines.contains(&"chown: /tmp: Operation not permitted"), "{text}");
    assert!(lines.iter().any(|line| line.starts_with("mknod: ") && line.contains("ermi")), "{text}");
    assert!(lines.contains(&"1"), "only the loopback: {text}");
    assert_eq!(std::fs::read_to_string(&file).expect("the input"), "x");
}

#[test]
fn every_bomb_ends_as_a_failed_job_that_names_the_limit() {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(1);
    let node = &swarm.nodes[0];
    let neighbour = node.run(&["docker", "run", "--no-wait", IMAGE, "--", "sh", "-c", "sleep 25; echo unharmed"]).ok();
    let out = ["--result", "out:/out", "--memory", "64Mb", "--cpu", "200m"];
    let small = ["--result", "out:/out", "--disk", "1Mb", "--cpu", "200m"];
    let bombs: [(&str, &[&str], &str, &str); 9] = [
        ("memory", &out, "tail /dev/zero", "wanted more than its 61 MiB of memory"),
        ("time", &["--timeout", "2"], "while :; do :; done", "ran longer than its 2 s"),
        ("logs", &[], "yes", "printed more than the 16 MiB that are kept"),
        ("disk", &small, "yes > /out/big", "more than 976.6 KiB of files"),
        // No file may be longer, full or empty, than all of them together.
        ("sparse file", &small, "dd if=/dev/null of=/out/big bs=1 seek=1000000000000", "the program exited"),
        (
            "inodes",
            &["--result", "out:/out", "--cpu", "200m"],
            "cd /out; i=0; while :; do : > $i; i=$((i+1)); done",
            "made more than 100000 files",
        ),
        ("fifo", &out, "mkfifo /out/pipe", "pipe"),
        ("link", &out, "ln -s /etc /out/link", "link"),
        // A shell gives up when it can start no more; this one goes on for a while after that.
        (
            "processes",
            &[],
            "(while :; do sleep 100 & done); i=0; while [ $i -lt 4000000 ]; do i=$((i+1)); done; exit 9",
            "wanted more than 256 processes",
        ),
    ];
    for (name, options, script, expected) in bombs {
        let at = Instant::now();
        let ran = run(node, options, script);
        assert_eq!(ran.code, 1, "{name}: {ran:#?}");
        assert!(ran.stderr.contains(expected), "{name}: {ran:#?}");
        assert!(at.elapsed() < Duration::from_secs(40), "{name}: {:?}", at.elapsed());
    }
    node.await_job(neighbour.text(), "Completed");
    assert!(node.run(&["job", "logs", neighbour.text()]).ok().stdout.contains("unharmed"));
    assert_eq!(containers(&node.identity.peer_id), Vec::<String>::new());
}

#[test]
fn what_cannot_run_is_explained() {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(1);
    let node = &swarm.nodes[0];
    let digest = format!("{IMAGE}@sha256:{}", "0".repeat(64));
    let cases: [(&[&str], &str); 8] = [
        (&["no.such.registry.invalid/image:1"], "is not here: no.such.registry.invalid is not known"),
        (&["127.0.0.1:5000/image:1"], "is not here: 127.0.0.1 is not a public address"),
        (&["--user", "svc", IMAGE], "runs containers only as users by number, and not as root (rule: allow-root)"),
        (&[&digest], "is not here, and its registry does not have it"),
        (&["--user", "root", IMAGE], "runs containers only as users by number, and not as root (rule: allow-root)"),
        (&["--network", "host", IMAGE], "allows tasks the network `none`, not `host` (rule: task-network)"),
        (&["--gpu", "1", IMAGE], "gpu"),
        (&["-e", "SECRET=env:PATH", IMAGE], "does not pass on its variable `PATH` (rule: pass-env)"),
    ];
    for (args, expected) in cases {
        let ran = node.run(&[&["docker", "run"], args].concat());
        assert_eq!(ran.code, 1, "{args:?}: {ran:#?}");
        assert!(ran.stderr.contains(expected), "{args:?}: {ran:#?}");
    }
    for targets in [["/in", "/in/a"], ["/proc/x", "/b"], ["/a", "/a"]] {
        let file = swarm.dir().join("f").to_string_lossy().into_owned();
        std::fs::write(&file, "x").expect("written");
        let inputs = targets.map(|target| format!("{file}:{target}"));
        let ran = node.run(&["docker", "run", "-i", &inputs[0], "-i", &inputs[1], IMAGE]);
        assert_eq!(ran.code, 2, "{targets:?}: {ran:#?}");
    }
    let ran = node.run(&["docker", "run", "Bad Image!"]);
    assert!(ran.code == 2 && ran.stderr.contains("is not the name of an image"), "{ran:#?}");
}

#[test]
fn a_node_without_docker_says_so_once_and_everything_else_works() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add_with("plain", &[], &[("DOCKER_HOST", "unix:///no/such/socket")]);
    let node = &swarm.nodes[0];
    assert_eq!(node.log().matches("docker is not here").count(), 1, "{}", node.log());
    node.run(&["wasm", "run", &example("hello/hello.wasm")]).ok();
    let ran = node.run(&["docker", "run", IMAGE]);
    assert!(ran.code == 1 && ran.stderr.contains("has no docker engine"), "{ran:#?}");
}

#[test]
fn rules_are_kept_and_a_secret_stays_where_it_is() {
    if !docker::is_here() {
        return;
    }
    let mut swarm = Swarm::empty(&[]);
    let rules = ["--pass-env", "JOBS_*", "--image", "bacnode-test/*", "--allow-root"];
    swarm.add_with("ruled", &rules, &[("JOBS_TOKEN", "hush-hush"), ("OTHER", "no")]);
    let node = &swarm.nodes[0];
    let text = printed(node, swarm.dir(), &["-e", "TOKEN=env:JOBS_TOKEN"], "test ${#TOKEN} = 9 && echo same");
    assert_eq!(text, "same\n");
    let story = node.run(&["job", "list", "--output", "json"]).ok().stdout;
    assert!(!story.contains("hush-hush") && !node.log().contains("hush-hush"), "{story}");
    let ran = run(node, &["-e", "TOKEN=env:OTHER"], "true");
    assert!(ran.stderr.contains("(rule: pass-env)"), "{ran:#?}");
    let ran = node.run(&["docker", "run", "alpine:3"]);
    assert!(ran.stderr.contains("does not run the image `alpine:3` (rule: image)"), "{ran:#?}");
    assert_eq!(printed(node, swarm.dir(), &["--user", "0:0"], "id -u"), "0\n");
    let ran = node.run(&["docker", "run", "-u", "nosuchuser", IMAGE]);
    assert!(ran.code == 1 && ran.stderr.contains("unable to find user"), "{ran:#?}");
}

/// An exclusive job with a short lease, whose container sleeps.
fn submit_exclusive(swarm: &Swarm, node: &Node) -> String {
    let spec = json!({
        "Type": "batch",
        "Tasks": [{
            "Engine": { "Type": "docker", "Params": { "Image": IMAGE, "Parameters": ["sleep", "300"] } },
            "Exclusive": true,
            "Lease": { "Heartbeat": 1, "Length": 4, "Grace": 2 },
        }],
    });
    let path = swarm.dir().join("exclusive.json");
    std::fs::write(&path, spec.to_string()).expect("written");
    let job = node.run(&["submit", "--no-wait", &path.to_string_lossy()]).ok().text().to_owned();
    let _ = node.runner_of(&job);
    job
}

fn guards_of(dir: &Path) -> Vec<rustix::process::Pid> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let folder = dir.to_string_lossy().into_owned();
    let is_guard = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("guard-containers") && line.contains(&folder)
    };
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_guard).filter_map(rustix::process::Pid::from_raw).collect()
}

#[test]
fn no_container_outlives_its_lease_whoever_is_killed() {
    if !docker::is_here() {
        return;
    }
    let mut swarm = Swarm::new(1);
    let (id, dir) = (swarm.nodes[0].identity.peer_id.clone(), swarm.dir().to_owned());
    let gone_within = |seconds: u64| {
        let at = Instant::now();
        eventually("the end of the container", || containers(&id).is_empty().then_some(()));
        assert!(at.elapsed() < Duration::from_secs(seconds), "{:?}", at.elapsed());
    };
    // The node: the guard ends the container when the lease is over.
    let job = submit_exclusive(&swarm, &swarm.nodes[0]);
    assert_eq!(containers(&id).len(), 1);
    swarm.nodes[0].kill();
    gone_within(10);
    eventually("the end of the guard", || guards_of(&dir).is_empty().then_some(()));

    // The guard: another takes its place with the next container, and the node keeps its word by itself.
    swarm.nodes[0].restart();
    swarm.nodes[0].run(&["job", "stop", &job]).ok();
    let job = submit_exclusive(&swarm, &swarm.nodes[0]);
    for guard in guards_of(&dir) {
        rustix::process::kill_process(guard, rustix::process::Signal::KILL).expect("killed");
    }
    swarm.nodes[0].run(&["job", "stop", &job]).ok();
    gone_within(12);

    // Both: the next life of the node removes what they left.
    submit_exclusive(&swarm, &swarm.nodes[0]);
    let guards = guards_of(&dir);
    assert_eq!(guards.len(), 1, "{guards:?}");
    rustix::process::kill_process(guards[0], rustix::process::Signal::KILL).expect("killed");
    swarm.nodes[0].kill();
    let left = containers(&id);
    assert_eq!(left.len(), 1);
    swarm.nodes[0].restart();
    // The job is started again; what was left of its first attempt is gone.
    assert!(!containers(&id).contains(&left[0]), "{left:?}");
}

#[test]
fn a_container_speaks_to_the_domains_of_its_job_and_to_nobody_else() {
    if !docker::is_here() {
        return;
    }
    let address = web_server();
    let mut swarm = Swarm::empty(&[]);
    swarm.add("open", &["--task-network", "http", "--web", "any"]);
    let node = &swarm.nodes[0];
    let options = ["--network", "http", "--domain", "127.0.0.1"];
    let said = printed(node, swarm.dir(), &options, &format!("wget -qO- http://{address}/x"));
    assert_eq!(said, "hello\n");
    // By another name, by another way, at another port: nothing.
    let port = address.port();
    let script = format!(
        "wget -qO- http://localhost:{port}/x 2>&1; \
         env -i /bin/busybox wget -T 2 -qO- http://{address}/x 2>&1; \
         wget -qO- http://127.0.0.1:22/ 2>&1; ip route; true"
    );
    let said = printed(node, swarm.dir(), &options, &script);
    assert!(!said.contains("hello"), "{said}");
    assert_eq!(said.matches("403 Forbidden").count(), 2, "{said}");
    assert!(containers(&node.identity.peer_id).is_empty(), "what was made for it is left");
}

#[test]
fn a_private_address_behind_an_allowed_domain_is_not_reached() {
    if !docker::is_here() {
        return;
    }
    let address = web_server();
    let mut swarm = Swarm::empty(&[]);
    swarm.add("careful", &["--task-network", "http"]);
    let options = ["--network", "http", "--domain", "127.0.0.1", "--domain", "localhost"];
    let script = format!("wget -qO- http://{address}/ 2>&1; wget -qO- http://localhost:{}/ 2>&1; true", address.port());
    let said = printed(&swarm.nodes[0], swarm.dir(), &options, &script);
    assert_eq!(said.matches("403 Forbidden").count(), 2, "{said}");
    let refused = run(&swarm.nodes[0], &["--network", "bridge", "--wait-timeout", "10"], "true");
    assert!(refused.stderr.contains("rule: task-network"), "{refused:#?}");
}

#[test]
fn a_container_answers_at_the_ports_that_its_job_names() {
    if !docker::is_here() {
        return;
    }
    let mut swarm = Swarm::empty(&[]);
    swarm.add("open", &["--task-network", "bridge", "--ports", "23450-23459"]);
    let node = &swarm.nodes[0];
    let serve =
        "mkdir /tmp/www; env | grep PORT | sort > /tmp/www/index.html; exec httpd -f -p $BACNODE_PORT_web -h /tmp/www";
    let id = run(node, &["--network", "bridge", "--port", "web=8080", "--no-wait", "--id-only"], serve).ok();
    let said = eventually("its page", || {
        let ports: Vec<u16> = (23_450..23_460).collect();
        ports.into_iter().find_map(|port| get(port).filter(|page| page.contains("BACNODE_HOST_PORT_web=2345")))
    });
    for variable in ["BACALHAU_HOST_PORT_web=2345", "BACALHAU_PORT_web=8080", "BACNODE_PORT_web=8080"] {
        assert!(said.contains(variable), "{said}");
    }
    let story = node.run(&["job", "history", id.text()]).ok();
    assert!(story.stdout.contains("answers for it: web at port 2345"), "{story:#?}");
    // One that wants that very port is not taken on, and says so.
    let port = said.lines().find_map(|line| line.strip_prefix("BACNODE_HOST_PORT_web=")).expect("a port");
    let wanted = format!("web={port}:8080");
    let refused = run(node, &["--network", "bridge", "--port", &wanted, "--wait-timeout", "4"], serve);
    assert_ne!(refused.code, 0, "{refused:#?}");
    let story = node.run(&["job", "list", "--limit", "1", "--output", "json"]).ok().json();
    let story = node.run(&["job", "history", story[0]["ID"].as_str().expect("an id")]).ok();
    assert!(story.stdout.contains(&format!("port {port} is taken")), "{story:#?}");
    node.run(&["job", "stop", id.text()]).ok();
    eventually("the port's end", || get(port.parse().expect("a number")).is_none().then_some(()));
}

/// The page of a web server of this machine.
fn get(port: u16) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

/// How long a node is down that is started again at once.
const SHORT: Duration = Duration::from_millis(500);

/// A job whose node is killed while it runs, and is `down` for a while: what it printed, and how many
/// attempts it took.
fn outlives(options: &[&str], rules: &[&str], script: &str, down: Duration) -> Option<(String, usize)> {
    if !docker::is_here() {
        return None;
    }
    let mut swarm = Swarm::empty(&[]);
    swarm.add("mortal", rules);
    let id = run(&swarm.nodes[0], &[options, &["--no-wait", "--id-only"]].concat(), script).ok();
    let started = || containers(&swarm.nodes[0].identity.peer_id).len() == 1;
    eventually("its start", || started().then_some(()));
    std::thread::sleep(Duration::from_millis(700));
    swarm.nodes[0].kill();
    std::thread::sleep(down);
    swarm.nodes[0].restart();
    let job = swarm.nodes[0].await_job(id.text(), "Completed");
    let printed = swarm.nodes[0].run(&["job", "logs", id.text()]).ok().stdout;
    eventually("the end of its container", || containers(&swarm.nodes[0].identity.peer_id).is_empty().then_some(()));
    Some((printed, job.executions.expect("executions").items.len()))
}

#[test]
fn a_container_and_all_that_it_prints_outlive_their_node() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 0.3; done";
    let Some((printed, attempts)) = outlives(&[], &[], script, SHORT) else { return };
    let lines: Vec<String> = (1..=10).map(|i| format!("line {i}")).collect();
    assert_eq!((printed.trim_end(), attempts), (lines.join("\n").as_str(), 1));
    // One that ends while nobody looks.
    let (printed, attempts) = outlives(&[], &[], "echo first; sleep 1; echo last", SHORT).expect("as above");
    assert_eq!((printed.as_str(), attempts), ("first\nlast\n", 1));
    // The time for which its node was down is not held against it.
    let script = "echo first; sleep 1; echo last";
    let (printed, attempts) = outlives(&["--timeout", "4"], &[], script, Duration::from_secs(5)).expect("as above");
    assert_eq!((printed.as_str(), attempts), ("first\nlast\n", 1));
}

#[test]
fn a_container_that_was_told_to_stop_with_its_node_is_not_taken_for_one_that_ended() {
    if !docker::is_here() {
        return;
    }
    let mut swarm = Swarm::empty(&[]);
    swarm.add("orderly", &[]);
    let script = "trap 'sleep 1; exit 0' TERM; i=0; while [ $i -lt 30 ]; do sleep 0.1; i=$((i+1)); done; echo whole";
    let id = run(&swarm.nodes[0], &["--no-wait", "--id-only"], script).ok();
    eventually("its start", || (containers(&swarm.nodes[0].identity.peer_id).len() == 1).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    swarm.nodes[0].terminate();
    swarm.nodes[0].restart();
    swarm.nodes[0].await_job(id.text(), "Completed");
    assert_eq!(swarm.nodes[0].run(&["job", "logs", id.text()]).ok().stdout, "whole\n");
}

#[test]
fn a_container_finds_its_inputs_and_its_way_to_the_web_after_its_node_came_back() {
    let address = web_server();
    let input = std::env::temp_dir().join(format!("bacnode-input-{}", std::process::id()));
    std::fs::write(&input, "from a file\n").expect("a file");
    let mounted = format!("{}:/data/text", input.display());
    let options = ["-i", &mounted, "--network", "http", "--domain", "127.0.0.1"];
    let script = format!("cat /data/text; sleep 2; cat /data/text; wget -qO- http://{address}/x");
    let outlived = outlives(&options, &["--task-network", "http", "--web", "any"], &script, SHORT);
    std::fs::remove_file(&input).expect("it is there");
    let Some((printed, attempts)) = outlived else { return };
    assert_eq!((printed.as_str(), attempts), ("from a file\nfrom a file\nhello\n", 1));
}
