//! S3-compatible stores: inputs from them, results to them, and the node's credentials for what the operator lends them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use bacnode_tests::{Ran, Swarm, example, s3};
use serde_json::{Value, json};

/// A swarm of one node that may use the store's key for the bucket `data` and write into `results`.
fn swarm(server: &s3::Server) -> Swarm {
    let mut swarm = Swarm::empty(&[]);
    let url = server.url();
    let env =
        [("AWS_ACCESS_KEY_ID", s3::KEY), ("AWS_SECRET_ACCESS_KEY", s3::SECRET), ("AWS_ENDPOINT_URL", url.as_str())];
    swarm.add_with("node", &["--s3", "data", "--s3", "results:rw"], &env);
    swarm
}

/// Runs a trial program on node 0 with one input at `/in`.
fn run(swarm: &Swarm, input: &str, more: &[&str], args: &[&str]) -> Ran {
    let (input, trial) = (format!("{input}:/in"), example("trials/trial.wasm"));
    let mut all = vec!["wasm", "run", "--id-only", "-i", &input];
    all.extend(more);
    all.extend([trial.as_str(), "--"]);
    all.extend(args);
    swarm.nodes[0].run(&all)
}

fn printed(swarm: &Swarm, job: &Ran) -> String {
    swarm.nodes[0].run(&["job", "logs", job.text()]).ok().stdout
}

#[test]
fn objects_are_read_by_key_by_prefix_and_by_star_and_kept() {
    let server = s3::Server::start(tempfile::tempdir().expect("a folder").keep());
    for (key, bytes) in [("logs/a.txt", "first\n"), ("logs/deep/b.txt", "second\n"), ("logs-old/c.txt", "third\n")] {
        server.put("data", key, bytes.as_bytes());
    }
    let swarm = swarm(&server);
    let one = run(&swarm, "s3://data/logs/a.txt", &[], &["cat", "/in/a.txt"]).ok();
    assert_eq!(printed(&swarm, &one), "first\n");
    let folder = run(&swarm, "s3://data/logs/", &[], &["list", "/in"]).ok();
    assert_eq!(printed(&swarm, &folder), "/in/a.txt 6\n/in/deep/b.txt 7\n");
    let star = run(&swarm, "s3://data/logs*", &[], &["list", "/in"]).ok();
    assert_eq!(printed(&swarm, &star), "/in/logs/a.txt 6\n/in/logs/deep/b.txt 7\n/in/logs-old/c.txt 6\n");

    // A second task finds it here; a change is seen.
    let usage = |job: &Ran| {
        let described = swarm.nodes[0].job(job.text());
        let executions = described.executions.expect("executions").items;
        executions[0].usage["BytesIn"].as_u64().expect("a number")
    };
    assert!(usage(&star) >= 19);
    let again = run(&swarm, "s3://data/logs*", &[], &["list", "/in"]).ok();
    assert!(usage(&again) < 19, "what is here came again");
    server.put("data", "logs/a.txt", b"changed\n");
    let changed = run(&swarm, "s3://data/logs/a.txt", &[], &["cat", "/in/a.txt"]).ok();
    assert_eq!(printed(&swarm, &changed), "changed\n");
}

/// Hands in a job with these parameters of its input and publisher, and waits for it.
fn submit(swarm: &Swarm, source: &Value, count: i64, publisher: &Value, args: &[&str], more: &[&str]) -> Ran {
    let spec = json!({
        "Type": "batch", "Count": count,
        "Tasks": [{
            "Name": "main",
            "Engine": { "Type": "wasm", "Params": { "EntryModule": "/trial.wasm", "Parameters": args } },
            "InputSources": [
                { "Source": { "Type": "file", "Params": { "Path": example("trials/trial.wasm") } }, "Target": "/trial.wasm" },
                { "Source": { "Type": "s3", "Params": source }, "Target": "/in" },
            ],
            "ResultPaths": [{ "Name": "outputs", "Path": "/outputs" }],
            "Publisher": publisher,
        }],
    });
    let path = swarm.dir().join("job.json");
    std::fs::write(&path, spec.to_string()).expect("written");
    let path = path.to_string_lossy().into_owned();
    let mut all = vec!["submit", &path, "--id-only"];
    all.extend(more);
    swarm.nodes[0].run(&all)
}

#[test]
fn objects_are_dealt_out_to_the_slots() {
    let server = s3::Server::start(tempfile::tempdir().expect("a folder").keep());
    for day in 1..=20 {
        server.put("data", &format!("days/2024-01-{day:02}.csv"), b"x");
    }
    server.put("data", "days/readme.txt", b"not data");
    let swarm = swarm(&server);
    let source = json!({ "Bucket": "data", "Key": "days/", "Filter": r"\.csv$", "Partition": { "Type": "object" } });
    let to = swarm.dir().join("lists");
    submit(&swarm, &source, 3, &json!({}), &["list", "/in"], &["--download", &to.to_string_lossy()]).ok();
    let lists: Vec<String> =
        (0..3).map(|slot| std::fs::read_to_string(to.join(format!("{slot}/stdout"))).expect("a list")).collect();
    assert!(lists.iter().all(|list| !list.is_empty()), "{lists:?}");
    let text = lists.concat();
    let seen: Vec<&str> = text.lines().collect();
    assert_eq!(seen.len(), 20, "{text}");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 20, "each goes to one slot: {text}");
}

#[test]
fn results_go_to_a_store_and_come_back_from_it() {
    let server = s3::Server::start(tempfile::tempdir().expect("a folder").keep());
    server.put("data", "a.txt", b"first\n");
    server.bucket("results");
    let swarm = swarm(&server);
    let source = json!({ "Bucket": "data", "Key": "a.txt" });
    for (encoding, object) in [("gzip", "of-JOB.tar.gz"), ("plain", "of-JOB/outputs/large.bin")] {
        let params = json!({
            "Bucket": "results", "Key": "of-{jobID}", "Endpoint": server.url(), "Encoding": encoding,
        });
        let to = swarm.dir().join(encoding);
        let publisher = json!({ "Type": "s3", "Params": params });
        let more = ["--download", &to.to_string_lossy()];
        // More than one part, which for an archive is a matter of what does not compress.
        let size = (20u64 << 20).to_string();
        let job = submit(&swarm, &source, 1, &publisher, &["write", &size], &more).ok();
        assert!(server.bucket("results").join(object.replace("JOB", job.text())).exists(), "{job:#?}");
        assert_eq!(std::fs::metadata(to.join("outputs/large.bin")).expect("the result").len(), 20 << 20);
        assert_eq!(std::fs::read_to_string(to.join("exitCode")).expect("the exit code"), "0");
        // The network keeps only what is small.
        let executions = swarm.nodes[0].job(job.text()).executions.expect("executions").items;
        let root = executions[0].published_result.params["CID"].as_str().expect("a CID").to_owned();
        let small = swarm.dir().join(format!("{encoding}-small"));
        swarm.nodes[0].run(&["content", "get", &root, "-o", &small.to_string_lossy()]).ok();
        assert!(small.join("published.json").exists() && !small.join("outputs").exists());
    }
}

#[test]
fn credentials_are_lent_for_what_the_operator_lists_only() {
    let server = s3::Server::start(tempfile::tempdir().expect("a folder").keep());
    server.put("data", "a.txt", b"first\n");
    server.put("secret", "a.txt", b"hidden\n");
    server.bucket("data");
    let swarm = swarm(&server);
    let refused = |ran: Ran, why: &str| {
        assert_ne!(ran.code, 0, "{ran:#?}");
        assert!(ran.stderr.contains(why), "{why}: {ran:#?}");
    };
    // Whoever names the operator's private store without a grant comes up against the rule for the web.
    let endpoint = server.url();
    let secret = json!({ "Bucket": "secret", "Key": "a.txt", "Endpoint": endpoint });
    let wait = ["--wait-timeout", "20"];
    let publisher = json!({});
    refused(submit(&swarm, &secret, 1, &publisher, &["list", "/in"], &wait), "not a public address");
    let missing = json!({ "Bucket": "data", "Key": "b.txt" });
    refused(submit(&swarm, &missing, 1, &publisher, &["list", "/in"], &wait), "no such bucket or object");
    let source = json!({ "Bucket": "data", "Key": "a.txt" });
    let readable = json!({ "Type": "s3", "Params": { "Bucket": "data", "Key": "x" } });
    refused(submit(&swarm, &source, 1, &readable, &["list", "/in"], &wait), "rule: s3");
    let checked = json!({ "Bucket": "data", "Key": "a.txt", "ChecksumSHA256": "0".repeat(64) });
    refused(submit(&swarm, &checked, 1, &publisher, &["list", "/in"], &wait), "not the one in the job");
}

#[test]
fn a_store_that_is_gone_or_refuses_is_told_in_words() {
    let server = s3::Server::start(tempfile::tempdir().expect("a folder").keep());
    server.put("data", "a.txt", b"first\n");
    let mut swarm = Swarm::empty(&[]);
    let url = server.url();
    let expired = [("AWS_ACCESS_KEY_ID", s3::KEY), ("AWS_SECRET_ACCESS_KEY", "another"), ("AWS_ENDPOINT_URL", &url)];
    swarm.add_with("wrong key", &["--s3", "data", "--web", "any"], &expired);
    let ran = run(&swarm, "s3://data/a.txt", &["--timeout", "30"], &["list", "/in"]);
    assert!(ran.code != 0 && ran.stderr.contains("403 Forbidden): its credentials are wrong"), "{ran:#?}");
    let ran = run(&swarm, "s3://other/a.txt,opt=endpoint=http://127.0.0.1:1", &[], &["list", "/in"]);
    assert!(ran.code != 0 && ran.stderr.contains("refused"), "{ran:#?}");
}

/// A store that keeps versions, which the one above does not: one object, whose latest version is `new`.
fn versioned() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            let _ = lines.take_while(|line| !line.is_empty()).count();
            let version = if request.contains("versionId=old") { "old" } else { "new" };
            let body = if request.starts_with("HEAD") { String::new() } else { format!("{version}\n") };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"{version}\"\r\nx-amz-version-id: {version}\r\n\
                 Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn an_object_is_read_in_the_version_that_the_job_names() {
    let mut swarm = Swarm::empty(&[]);
    let keys = [("AWS_ACCESS_KEY_ID", s3::KEY), ("AWS_SECRET_ACCESS_KEY", s3::SECRET)];
    swarm.add_with("node", &["--s3", "data", "--web", "any"], &keys);
    let mut source = json!({ "Bucket": "data", "Key": "a.txt", "Endpoint": versioned() });
    for (version, text) in [(None, "new\n"), (Some("old"), "old\n"), (Some("new"), "new\n")] {
        if let Some(version) = version {
            source["VersionID"] = json!(version);
        }
        let job = submit(&swarm, &source, 1, &json!({}), &["cat", "/in/a.txt"], &[]).ok();
        assert_eq!(printed(&swarm, &job), text, "{version:?}");
    }
}

#[test]
fn objects_are_dealt_out_by_what_their_names_have_in_common() {
    let server = s3::Server::start(tempfile::tempdir().expect("a folder").keep());
    for day in ["2024-01-01", "2024-01-02", "2024-02-01", "2024-03-01", "2024-03-09"] {
        server.put("data", &format!("days/{day}.csv"), b"x");
    }
    let swarm = swarm(&server);
    for (index, partition) in [
        json!({ "Type": "regex", "Pattern": r"\d{4}-(\d{2})" }),
        json!({ "Type": "substring", "StartIndex": 5, "EndIndex": 7 }),
        json!({ "Type": "date", "DateFormat": "2006-01" }),
    ]
    .into_iter()
    .enumerate()
    {
        let source = json!({ "Bucket": "data", "Key": "days/", "Partition": partition });
        let to = swarm.dir().join(format!("months-{index}"));
        submit(&swarm, &source, 4, &json!({}), &["list", "/in"], &["--download", &to.to_string_lossy()]).ok();
        let lists = (0..4).map(|slot| std::fs::read_to_string(to.join(format!("{slot}/stdout"))).expect("a list"));
        let lists: Vec<String> = lists.collect();
        for month in ["2024-01", "2024-02", "2024-03"] {
            let slots = lists.iter().filter(|list| list.contains(month)).count();
            assert_eq!(slots, 1, "{partition}: {month} is in one slot: {lists:?}");
        }
        assert_eq!(lists.concat().matches("2024-").count(), 5, "{partition}: {lists:?}");
    }
}
