//! Every rule that a spec must keep, broken alone, and what is said then.

use bacnode_protocol::job::{ValidJob, parse};
use serde_json::{Value, json};

/// A job that keeps them all.
fn good(engine: &str) -> Value {
    let params = if engine == "wasm" { json!({"EntryModule": "main.wasm"}) } else { json!({"Image": "busybox:1"}) };
    json!({
        "Name": "hello",
        "Type": "batch",
        "Count": 1,
        "Tasks": [{
            "Name": "main",
            "Engine": {"Type": engine, "Params": params},
            "InputSources": [{
                "Source": {"Type": "inline", "Params": {"URL": "data:application/wasm;base64,AGFzbQ=="}},
                "Target": "/main.wasm",
            }],
        }],
    })
}

fn check(spec: &Value) -> Result<ValidJob, String> {
    let job = parse(spec).and_then(ValidJob::new).map_err(|error| error.to_string())?;
    let inputs = job.inputs.iter().map(|_| bacnode_protocol::wire::task::Source::Content(cid())).collect();
    job.task(inputs).map_err(|error| error.to_string())?;
    Ok(job)
}

fn cid() -> bacnode_protocol::content::Cid {
    bacnode_protocol::content::Cid::of(bacnode_protocol::content::Codec::Raw, b"")
}

/// `Tasks[0]` is meant by paths that start with `.`; a set of fields is laid over the one that is there.
fn change(spec: &mut Value, path: &str, value: &Value) {
    let (mut at, path) = match path.strip_prefix('.') {
        Some(rest) => (&mut spec["Tasks"][0], rest),
        None => (spec, path),
    };
    for name in path.split('.').filter(|name| !name.is_empty()) {
        at = match name.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[name],
        };
    }
    match (at, value) {
        (Value::Object(fields), Value::Object(over)) => fields.extend(over.clone()),
        (at, value) => *at = value.clone(),
    }
}

/// Each: where, what is put there, and what is said of it.
fn each_is_told(engine: &str, rules: &[(&str, Value, &str)]) {
    check(&good(engine)).expect("a good job");
    for (path, value, expected) in rules {
        let mut spec = good(engine);
        change(&mut spec, path, value);
        let said = check(&spec).expect_err(&format!("{path}: {value} breaks a rule"));
        assert!(said.contains(expected), "{path}: {value} should say\n  {expected}\nand says\n  {said}");
    }
}

fn many(count: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..count).map(item).collect()
}

#[test]
fn of_a_job() {
    each_is_told(
        "wasm",
        &[
            ("Type", json!(""), "Type: is required: one of batch, service, ops, daemon"),
            ("Type", json!("cron"), "Type: `cron` is not a job type (batch, service, ops, daemon)"),
            ("Type", json!(["batch"]), "Type: must be a text, not a list"),
            ("Count", json!(0), "Count: must be from 1 to 1000, not 0"),
            ("Count", json!(-1), "Count: must be from 1 to 1000, not -1"),
            ("Count", json!(1.5), "Count: must be a whole number, not"),
            ("", json!({"Type": "service", "Count": -1}), "Count: must be from 0 to 1000, not -1"),
            ("", json!({"Type": "ops", "Count": 2}), "Count: is not for ops jobs, which run once on every node"),
            ("", json!({"Type": "daemon", "Count": 2}), "Count: is not for daemon jobs, which run once on every node"),
            ("Priority", json!(1_i64 << 40), "Priority: must be between -2147483647 and 2147483647"),
            ("Name", json!("a\nb"), "Name: must be at most 255 bytes of plain text"),
            ("Namespace", json!("n".repeat(256)), "Namespace: must be at most 255 bytes of plain text"),
            ("Labels", json!(["a"]), "Labels: must be a set of names and texts, not a list"),
            ("Meta", json!("a"), "Meta: must be a set of names and texts, not a text"),
            ("Tasks", json!([]), "Tasks: is required: what should run?"),
            ("Tasks", json!({}), "Tasks: must be a list, not"),
            ("Tasks", json!(["main"]), "Tasks[0]: must be a set of fields, not a text"),
            ("", json!({"Taks": []}), "Taks: is not a known field (did you mean `Tasks`?)"),
            ("", json!({"count": 2}), "is given twice, in different letter case"),
            (
                "Constraints",
                many(17, |n| json!({"Key": n.to_string(), "Operator": "exists"})),
                "Constraints: has 17 entries; at most 16",
            ),
            (
                "Constraints",
                json!([{"Key": "a", "Operator": "=", "Values": ["v".repeat(257)]}]),
                "Constraints[0].Values: are at most 32 of 256 bytes",
            ),
        ],
    );
}

#[test]
fn of_a_module() {
    let engine = ".Engine";
    let params = ".Engine.Params";
    each_is_told(
        "wasm",
        &[
            (engine, json!({"Type": ""}), "Tasks[0].Engine.Type: is required: `wasm` or `docker`"),
            (engine, json!({"Type": "noop"}), "Tasks[0].Engine.Type: `noop` is not an engine (wasm, docker)"),
            (engine, json!({"Params": "a"}), "Tasks[0].Engine.Params: must be a set of fields, not a text"),
            (params, json!({"EntryModule": ""}), "Params.EntryModule: is required: the path of an input"),
            (params, json!({"EntryModule": "b.wasm"}), "EntryModule: `b.wasm` is not among the inputs (/main.wasm)"),
            (".InputSources", json!([]), "EntryModule: `main.wasm` is not among the inputs: there are none"),
            (params, json!({"ImportModules": ["b.wasm"]}), "ImportModules[0]: `b.wasm` is not among the inputs"),
            (params, json!({"ImportModules": many(17, |_| json!("main.wasm"))}), "has 17 entries; at most 16"),
            (params, json!({"Parameters": many(257, |n| json!(n))}), "has 257 entries; at most 256 are passed"),
            (params, json!({"Parameters": ["\u{0}"]}), "Parameters[0]: must be at most 8192 bytes without NUL"),
            (params, json!({"Parameter": []}), "Parameter: is not a known field (did you mean `Parameters`?)"),
            (
                params,
                json!({"Parameters": many(40, |_| json!("x".repeat(8_000)))}),
                "Tasks[0]: arguments, environment and paths make",
            ),
            (".Resources", json!({"GPU": "1"}), "Tasks[0].Resources.GPU: wasm tasks cannot use a GPU"),
            (".Resources", json!({"Memory": "5Gi"}), "Resources.Memory: `5Gi` is more than the 4 GiB"),
            (".Network", json!({"Type": "Host"}), "Network.Type: wasm tasks have no network of their own"),
        ],
    );
}

#[test]
fn of_a_container() {
    let params = ".Engine.Params";
    each_is_told(
        "docker",
        &[
            (params, json!({"Image": ""}), "Params.Image: is required: which container image should run?"),
            (params, json!({"Image": "a b"}), "Params.Image: `a b` is not the name of an image"),
            (params, json!({"Entrypoint": "sh"}), "Params.Entrypoint: must be a list, not a text"),
            (params, json!({"Entrypoint": ["\u{0}"]}), "Entrypoint[0]: must be at most 8192 bytes without NUL"),
            (params, json!({"WorkingDirectory": "here"}), "`here` must be an absolute path without `..`"),
            (params, json!({"User": "a b"}), "Params.User: must be a user or number, with or without `:group`"),
            (params, json!({"EnvironmentVariables": ["A"]}), "EnvironmentVariables[0]: must be `NAME=value`"),
            (params, json!({"EnvironmentVariables": ["BACALHAU_X=1"]}), "Env.BACALHAU_X: names with this prefix"),
            (
                ".InputSources.0",
                json!({"Target": "/etc"}),
                "Tasks[0]: inputs and results of a container must lie apart from each other, and from /, /proc",
            ),
        ],
    );
}

#[test]
fn of_inputs() {
    let input = ".InputSources.0";
    let source = |kind: &str, params: Value| json!({"Source": {"Type": kind, "Params": params}});
    let deal = |how: Value| source("s3", json!({"Bucket": "bucket", "Key": "a/*", "Partition": how}));
    each_is_told(
        "docker",
        &[
            (input, json!({"Target": ""}), "InputSources[0].Target: is required: the path at which the task sees"),
            (input, json!({"Target": "/a/../b"}), "InputSources[0].Target: `/a/../b` must be an absolute path without"),
            (".InputSources", many(33, |n| json!({"Target": format!("/{n}")})), "has 33 entries; at most 32"),
            (input, source("", json!({})), "Source.Type: is required (ipfs, inline, local, urlDownload, s3)"),
            (input, source("ftp", json!({})), "Source.Type: `ftp` is not a source (ipfs, inline, local"),
            (input, source("ipfs", json!({})), "Source.Params.CID: is required"),
            (input, source("ipfs", json!({"CID": "Qm"})), "Source.Params.CID: `Qm`: not a content identifier"),
            (input, source("inline", json!({"URL": "http://a"})), "Source.Params.URL: must be a data: URL"),
            (input, source("local", json!({"SourcePath": "a"})), "`a` must be an absolute path on the compute node"),
            (input, source("urlDownload", json!({"URL": "ftp://a"})), "`ftp://a` must be an http or https URL"),
            (input, source("urlDownload", json!({"URL": "http://u:p@a/"})), "URL: must not carry a user or a password"),
            (
                input,
                source("urlDownload", json!({"URL": "http://a", "ChecksumSHA256": "f00"})),
                "ChecksumSHA256: must be 64 hexadecimal digits",
            ),
            (input, source("s3", json!({"Bucket": "B"})), "Bucket: `B` is not the name of a bucket"),
            (input, source("s3", json!({"Bucket": "bucket", "Key": "/a"})), "Key: must be a key of at most 1024 bytes"),
            (input, source("s3", json!({"Bucket": "bucket", "Key": "a*b"})), "Key: may have a `*` at its end only"),
            (input, source("s3", json!({"Bucket": "bucket", "Key": "a", "Region": "e u"})), "Region: is not the name"),
            (
                input,
                source("s3", json!({"Bucket": "bucket", "Key": "a", "Endpoint": "minio"})),
                "Endpoint: must be the http or https URL of a store",
            ),
            (
                input,
                source("s3", json!({"Bucket": "bucket", "Key": "a/*", "VersionID": "1"})),
                "Key: names several objects: a version or a checksum goes with one",
            ),
            (
                input,
                source("s3", json!({"Bucket": "bucket", "Key": "a/*", "Filter": "("})),
                "Filter: is not a regular expression",
            ),
            (
                input,
                deal(json!({"Type": "dice"})),
                "Partition.Type: `dice` is not a way to deal out objects (none, object",
            ),
            (input, deal(json!({"Type": "regex"})), "Partition.Pattern: is required with `regex`"),
            (input, deal(json!({"Type": "regex", "Pattern": "("})), "Partition.Pattern: is not a regular expression"),
            (
                input,
                deal(json!({"Type": "substring", "StartIndex": 2, "EndIndex": 2})),
                "Partition.EndIndex: must be more than StartIndex, from 1 to 1024",
            ),
            (input, deal(json!({"Type": "date"})), "Partition.DateFormat: is required with `date`"),
        ],
    );
    let twice = json!([
        {"Source": {"Type": "ipfs", "Params": {"CID": cid().to_string()}}, "Target": "/a"},
        {"Source": {"Type": "ipfs", "Params": {"CID": cid().to_string()}}, "Target": "/a"},
    ]);
    let aliased = json!([
        {"Source": {"Type": "ipfs", "Params": {"CID": cid().to_string()}}, "Target": "/a", "Alias": "x"},
        {"Source": {"Type": "ipfs", "Params": {"CID": cid().to_string()}}, "Target": "/b", "Alias": "x"},
    ]);
    each_is_told(
        "docker",
        &[
            (".InputSources", twice, "InputSources[1].Target: `/a` is used twice"),
            (".InputSources", aliased, "InputSources[1].Alias: `x` is used twice"),
        ],
    );
}

#[test]
fn of_results_and_where_they_go() {
    let result = |name: &str, path: &str| json!({"Name": name, "Path": path});
    let s3 = |params: Value| json!({"Type": "s3", "Params": params});
    each_is_told(
        "docker",
        &[
            (".ResultPaths", json!([result("", "/out")]), "ResultPaths[0].Name: `` must be a plain file name"),
            (".ResultPaths", json!([result("a/b", "/out")]), "ResultPaths[0].Name: `a/b` must be a plain file name"),
            (".ResultPaths", json!([result("stdout", "/out")]), "`stdout` must be a plain file name of its own"),
            (".ResultPaths", json!([result("a", "out")]), "ResultPaths[0].Path: `out` must be an absolute path"),
            (".ResultPaths", json!([result("a", "/")]), "ResultPaths[0].Path: `/` must be a folder of its own"),
            (".ResultPaths", json!([result("a", "/a"), result("a", "/b")]), "ResultPaths[1].Name: `a` is used twice"),
            (
                ".ResultPaths",
                json!([result("a", "/a"), result("b", "/a")]),
                "ResultPaths[1].Path: `/a` must be a folder of its own",
            ),
            (
                ".ResultPaths",
                many(17, |n| result(&n.to_string(), &format!("/{n}"))),
                "ResultPaths: has 17 entries; at most 16 are kept",
            ),
            (".Publisher", json!({"Type": "ftp"}), "Publisher.Type: `ftp` is not a publisher (ipfs, local, s3)"),
            (".Publisher", json!({"Type": "s3Managed"}), "`s3managed` needs an orchestrator's keys (ipfs, local, s3)"),
            (".Publisher", s3(json!({"Key": "a"})), "Publisher.Params.Bucket: is required"),
            (".Publisher", s3(json!({"Bucket": "bucket", "Key": "a/*"})), "Key: must be the key of the result, like"),
            (
                ".Publisher",
                s3(json!({"Bucket": "bucket", "Key": "a", "Encoding": "zip"})),
                "Encoding: `zip` is not an encoding (gzip, plain)",
            ),
        ],
    );
}

#[test]
fn of_what_it_may_use_and_how_long() {
    each_is_told(
        "docker",
        &[
            (
                ".Resources",
                json!({"CPU": "lots"}),
                "Resources.CPU: `lots` is not an amount (write it like `500m` or `2`)",
            ),
            (".Resources", json!({"Memory": "1XB"}), "Resources.Memory: `1XB` is not an amount (write it like `512Mb`"),
            (".Resources", json!({"Disk": "-1Gb"}), "Resources.Disk: `-1Gb` is not an amount (write it like `1Gb`)"),
            (".Resources", json!({"GPU": "half"}), "Resources.GPU: `half` is not an amount (write it like `1`)"),
            (
                ".Timeouts",
                json!({"ExecutionTimeout": -1}),
                "ExecutionTimeout: must be from 0 seconds to a year, not -1",
            ),
            (".Timeouts", json!({"QueueTimeout": -1}), "QueueTimeout: must be from 0 seconds to a year, not -1"),
            (".Timeouts", json!({"TotalTimeout": 40_000_000}), "TotalTimeout: must be from 0 seconds to a year"),
            (
                ".Timeouts",
                json!({"ExecutionTimeout": 30, "QueueTimeout": 30, "TotalTimeout": 50}),
                "TotalTimeout: is less than ExecutionTimeout and QueueTimeout together",
            ),
            (".Timeouts", json!({"Execution": 1}), "Timeouts.Execution: is not a known field"),
            (".Lease", json!({"Heartbeat": 0}), "Lease.Heartbeat: must be from 1 to 600 seconds, not 0"),
            (".Lease", json!({"Length": 1}), "Lease.Length: must be from 2 to 3600 seconds, not 1"),
            (".Lease", json!({"Grace": 0}), "Lease.Grace: must be from 1 to 600 seconds, not 0"),
            (".Lease", json!({"Heartbeat": 60, "Length": 60}), "Lease.Length: must be longer than the heartbeat"),
            (".OrphanTTL", json!(-1), "OrphanTTL: must not be negative"),
            (".Exclusive", json!("yes"), "Exclusive: must be true or false, not a text"),
            (".Durability", json!("twice"), "Durability: must be quorum or local, not `twice`"),
            (".Replicas", json!(4), "Replicas: must be 1 to 3, not 4"),
            (".Replicas", json!("two"), "Replicas: must be a whole number, not a text"),
            (
                ".Meta",
                json!({"bacnode/Durability": "local", "bacnode/Replicas": "2"}),
                "Replicas: with `Durability: local` nobody else holds",
            ),
            (".Meta", json!({"bacnode/Exclusive": "yes"}), "Meta.bacnode/Exclusive: `yes` is not understood"),
            (".Env", json!({"1A": "b"}), "Env.1A: a name has letters, digits and `_`, and does not start with a digit"),
            (".Env", json!({"A-B": "b"}), "Env.A-B: a name has letters, digits and `_`"),
            (".Env", json!({"BACALHAU_A": "b"}), "Env.BACALHAU_A: names with this prefix are set by the network"),
            (".Env", json!({"A": "b\u{0}"}), "Env.A: must be at most 8192 bytes without NUL"),
            (".Env", json!({"A": "env:"}), "Env.A: `env:` is followed by the name of a variable"),
            (
                ".Env",
                Value::Object((0..257).map(|n| (format!("A{n}"), json!("b"))).collect()),
                "Env: has 257 entries; at most 256 are passed",
            ),
        ],
    );
}

#[test]
fn of_its_network() {
    let network = |kind: &str, more: Value| {
        let mut network = json!({"Type": kind});
        change(&mut network, "", &more);
        network
    };
    let ports = |ports: Value| json!({"Type": "Bridge", "Ports": ports});
    each_is_told(
        "docker",
        &[
            (".Network", network("Wifi", json!({})), "Network.Type: `Wifi` is not a network type (None, HTTP, Bridge"),
            (".Network", network("None", json!({"Domains": ["a.b"]})), "Domains: go with the network type `HTTP`"),
            (
                ".Network",
                network("HTTP", json!({})),
                "Domains: is required with `HTTP`: which domains may it speak to?",
            ),
            (".Network", network("HTTP", json!({"Domains": ["http://a"]})), "Domains[0]: `http://a` is not a domain"),
            (
                ".Network",
                network("HTTP", json!({"Domains": many(65, |n| json!(format!("{n}.org")))})),
                "Domains: has 65 entries; at most 64",
            ),
            (
                ".Network",
                network("None", json!({"Ports": [{"Name": "a"}]})),
                "Ports: go with the network types `Bridge`",
            ),
            (".Network", ports(json!([{"Target": 80}])), "Ports[0].Name: is required: letters, digits and `_`"),
            (".Network", ports(json!([{"Name": "a"}, {"Name": "A"}])), "Ports[1].Name: `A` is there twice"),
            (
                ".Network",
                ports(json!([{"Name": "a", "Static": 80}])),
                "Static: must be from 1024 to 65535, or 0 for any",
            ),
            (
                ".Network",
                ports(json!([{"Name": "a", "Target": 0}, {"Name": "b", "Target": 70_000}])),
                "from 1 to 65535",
            ),
            (
                ".Network",
                ports(json!([{"Name": "a", "Static": 2_000}, {"Name": "b", "Static": 2_000}])),
                "Ports[1].Static: 2000 is there twice",
            ),
            (
                ".Network",
                ports(json!([{"Name": "a", "HostNetwork": "eth0"}])),
                "Ports[0].HostNetwork: must be `0.0.0.0` or `127.0.0.1`",
            ),
        ],
    );
    let mut still = good("docker");
    change(&mut still, ".", &json!({"Deterministic": true, "Network": {"Type": "Bridge"}}));
    let said = check(&still).expect_err("not deterministic");
    assert!(said.contains("Network.Type: what comes over a network is not the same in every run"), "{said}");
}
