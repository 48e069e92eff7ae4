//! What a container costs over a plain one, and an input from the web over `curl`.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use bacnode_tests::Swarm;
use bacnode_tests::docker::{self, IMAGE};
use serde_json::json;

use super::{jobs, percentile, say};

/// Pairs of containers, one ours and one plain.
const PAIRS: usize = 15;
const WEB_BYTES: usize = 512 << 20;

/// The same image and program, in turn as a job and as `docker run` with the same limits.
pub(super) fn containers(runtime: &tokio::runtime::Runtime) {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(4);
    let job = json!({"Job": {"Name": "bench", "Type": "batch", "Tasks": [{
        "Engine": {"Type": "docker", "Params": {"Image": IMAGE, "Parameters": ["true"]}},
        "Resources": {"CPU": "100m", "Memory": "64Mb"},
    }]}});
    let plain = ["run", "--rm", "--init", "--network", "none", "--cpus", "0.1", "--memory", "64m", IMAGE, "true"];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        ours.extend(runtime.block_on(jobs(&swarm.nodes[0], &job, 1, 1)));
        let started = Instant::now();
        assert!(docker::docker(&plain).is_some(), "docker run");
        theirs.push(started.elapsed());
    }
    let (ours, theirs) = (percentile(&mut ours, 50), percentile(&mut theirs, 50));
    let against = format!("{:.2} × `docker run --rm` ({theirs:.0} ms), in pairs", ours / theirs);
    say("container job, submit to result, p50", &format!("{ours:.0} ms"), &against);
}

/// A file from a server of this machine: as an input of a job, whole, hashed and kept, and by `curl`.
pub(super) fn web() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("node", &["--web", "any", "--no-docker"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/data.bin", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let block = vec![7; 256 << 10];
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {WEB_BYTES}\r\n\r\n").as_bytes());
            for _ in 0..WEB_BYTES / block.len() {
                let _ = stream.write_all(&block);
            }
        }
    });
    let hello = bacnode_tests::example("hello/hello.wasm");
    let input = format!("{url}:/inputs");
    let (mut ours, mut theirs) = (Vec::<Duration>::new(), Vec::new());
    for _ in 0..3 {
        let started = Instant::now();
        swarm.nodes[0].run(&["wasm", "run", "-i", &input, &hello]).ok();
        ours.push(started.elapsed());
        let to = swarm.dir().join("curled");
        let started = Instant::now();
        let ran = Command::new("curl").args(["--silent", "--output"]).arg(&to).arg(&url).status();
        if !ran.is_ok_and(|status| status.success()) {
            return say("input from the web", "not run", "there is no curl");
        }
        theirs.push(started.elapsed());
    }
    let rate = |times: &mut [Duration]| WEB_BYTES as f64 / 1e3 / percentile(times, 50);
    let (ours, theirs) = (rate(&mut ours), rate(&mut theirs));
    let against = format!("{:.2} × curl to a file ({theirs:.0} MB/s)", ours / theirs);
    say("input from the web, hashed and kept", &format!("{ours:.0} MB/s"), &against);
}
