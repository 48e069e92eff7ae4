//! What a container costs over a plain one, and an input from the web or a store over `curl`.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use bacnode_tests::Swarm;
use bacnode_tests::docker::{self, IMAGE};
use bacnode_tests::s3;
use serde_json::json;

use super::{jobs, percentile, say};

/// Pairs of containers, one ours and one plain.
const PAIRS: usize = 15;
const WEB_BYTES: usize = 512 << 20;
/// How often each is fetched.
const TURNS: usize = 3;

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
    race("input from the web, hashed and kept", &swarm, |_| (format!("{url}:/inputs"), vec![url.clone()]));
}

/// An object of a store of this machine: as an input of a job, whole, hashed and kept, and by `curl`.
pub(super) fn store() {
    let mut swarm = Swarm::empty(&[]);
    let server = s3::Server::start(swarm.dir().join("store"));
    let object = vec![7; WEB_BYTES];
    // A new one each time: what is known to be unchanged is not fetched again.
    for turn in 0..TURNS {
        server.put("bucket", &format!("{turn}/data.bin"), &object);
    }
    drop(object);
    let keys =
        [("AWS_ACCESS_KEY_ID", s3::KEY), ("AWS_SECRET_ACCESS_KEY", s3::SECRET), ("AWS_ENDPOINT_URL", &server.url())];
    swarm.add_with("node", &["--web", "any", "--s3", "bucket", "--no-docker"], &keys);
    race("input from a store, hashed and kept", &swarm, |turn| {
        // By its folder: this server hashes an object whenever it is asked about it by name.
        let input = format!("s3://bucket/{turn}/,opt=endpoint={}:/inputs", server.url());
        let user = format!("{}:{}", s3::KEY, s3::SECRET);
        let url = format!("{}/bucket/{turn}/data.bin", server.url());
        (
            input,
            [
                "--aws-sigv4",
                "aws:amz:us-east-1:s3",
                "--header",
                "x-amz-content-sha256: UNSIGNED-PAYLOAD",
                "--user",
                &user,
                &url,
            ]
            .map(str::to_owned)
            .to_vec(),
        )
    });
}

/// In turn: a job with an input, and `curl` with what it must be told to fetch the same.
fn race(what: &str, swarm: &Swarm, parts: impl Fn(usize) -> (String, Vec<String>)) {
    let hello = bacnode_tests::example("hello/hello.wasm");
    let (mut ours, mut theirs) = (Vec::<Duration>::new(), Vec::new());
    for turn in 0..TURNS {
        let (input, curl) = parts(turn);
        let started = Instant::now();
        swarm.nodes[0].run(&["wasm", "run", "-i", &input, &hello]).ok();
        ours.push(started.elapsed());
        let to = swarm.dir().join("curled");
        let started = Instant::now();
        let ran = Command::new("curl").args(["--silent", "--fail", "--output"]).arg(&to).args(curl).status();
        if !ran.is_ok_and(|status| status.success()) {
            return say(what, "not run", "there is no curl that can");
        }
        theirs.push(started.elapsed());
    }
    let rate = |times: &mut [Duration]| WEB_BYTES as f64 / 1e3 / percentile(times, 50);
    let (ours, theirs) = (rate(&mut ours), rate(&mut theirs));
    let against = format!("{:.2} × curl to a file ({theirs:.0} MB/s)", ours / theirs);
    say(what, &format!("{ours:.0} MB/s"), &against);
}
