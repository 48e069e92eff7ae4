//! Bacalhau's own client and job files against a node, unmodified.

use std::process::Command;

use bacnode_tests::docker::{self, IMAGE};
use bacnode_tests::outside::program;
use bacnode_tests::{Node, Swarm, eventually, example};
use serde_json::{Value, json};

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32, at: u32| char::from(LETTERS[(bits >> at & 63) as usize]);
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            text.push(if place <= chunk.len() { letter(bits, 18 - 6 * place as u32) } else { '=' });
        }
    }
    text
}

/// A module as data within a spec.
fn inline(module: &str) -> String {
    format!("data:application/wasm;base64,{}", base64(&std::fs::read(example(module)).expect("a module")))
}

/// Hands a spec in as it is, waits, and gives what each run printed.
fn printed(swarm: &Swarm, name: &str, spec: &str) -> Vec<String> {
    let path = swarm.dir().join(name);
    std::fs::write(&path, spec).expect("written");
    let node = &swarm.nodes[0];
    let job = node.run(&["submit", &path.to_string_lossy(), "--id-only"]).ok().text().to_owned();
    let executions = node.job(&job).executions.expect("executions").items;
    executions.into_iter().map(|execution| execution.run_output.stdout).collect()
}

/// What is wrong with a spec, as its user is told.
fn refusal(node: &Node, swarm: &Swarm, spec: &str) -> String {
    let path = swarm.dir().join("wrong.yaml");
    std::fs::write(&path, spec).expect("written");
    let ran = node.run(&["submit", &path.to_string_lossy()]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    ran.stderr
}

#[test]
fn the_python_client_does_everything_that_it_can() {
    let Some(clients) = program("clients") else { return };
    let swarm = Swarm::new(2);
    let node = &swarm.nodes[0];
    let write = |name: &str, spec: &Value| {
        let path = swarm.dir().join(name);
        std::fs::write(&path, spec.to_string()).expect("written");
        path
    };
    let task = |module: &str, arguments: Value| {
        json!([{
            "Name": "main",
            "Engine": {"Type": "wasm", "Params": {"EntryModule": "/main.wasm", "Entrypoint": "_start", "Parameters": arguments}},
            "Publisher": {"Type": "", "Params": {}},
            "InputSources": [{"Source": {"Type": "inline", "Params": {"URL": inline(module)}}, "Target": "/main.wasm"}],
        }])
    };
    let batch = json!({"Name": "hello", "Type": "batch", "Count": 2, "Tasks": task("hello/hello.wasm", json!([]))});
    let sleep = task("trials/trial.wasm", json!(["sleep", "1000000000"]));
    let service = json!({"Name": "sleeper", "Type": "service", "Count": 1, "Tasks": sleep});
    let (batch, service) = (write("batch.json", &batch), write("service.json", &service));
    let (host, port) = node.identity.api.trim_start_matches("http://").rsplit_once(':').expect("an address");
    let script = if std::path::Path::new("tests/clients").is_dir() { "tests/clients/sdk.py" } else { "clients/sdk.py" };
    let mut python = Command::new(clients.join("bin/python"));
    python.arg(script).args([&batch, &service]).env("BACALHAU_API_HOST", host).env("BACALHAU_API_PORT", port);
    let ran = python.env("BACALHAU_DIR", swarm.dir()).output().expect("python runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("the client is content"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn job_files_for_modules_give_what_they_should() {
    let swarm = Swarm::new(1);
    let (hello, trial) = (inline("hello/hello.wasm"), inline("trials/trial.wasm"));
    let module = |path: &str, arguments: &str, url: &str| {
        format!(
            "Name: module\nNamespace: default\nType: batch\nCount: 1\nTasks:\n  - Name: main\n    Engine:\n      Type: wasm\n      \
             Params:\n        EntryModule: {path}\n        Entrypoint: _start\n        Parameters: [{arguments}]\n    InputSources:\n      \
             - Source:\n          Type: inline\n          Params: {{URL: \"{url}\"}}\n        Target: /{path}\n"
        )
    };
    // The module's path as it stands in the file system, or without its first slash.
    let said = printed(&swarm, "module.yaml", &module("wasm.main", "", &hello));
    assert!(said[0].to_lowercase().starts_with("hello"), "{said:?}");
    // The older form: an input source where the path belongs.
    let legacy = format!(
        "name: legacy\ntype: batch\ncount: 1\ntasks:\n  - name: main\n    engine:\n      type: wasm\n      params:\n        \
         entrymodule:\n          source:\n            type: inline\n            params:\n              url: \"{hello}\"\n        entrypoint: _start\n"
    );
    assert!(printed(&swarm, "legacy.yaml", &legacy)[0].to_lowercase().starts_with("hello"));
    let with_file = module("main.wasm", "cat, /data/file.txt", &trial)
        + "      - Source:\n          Type: inline\n          Params: {URL: 'data:,some%20words'}\n        Target: /data/file.txt\n";
    assert_eq!(printed(&swarm, "cat.yaml", &with_file), ["some words"]);
    let path = swarm.dir().join("exit.yaml");
    std::fs::write(&path, module("main.wasm", "exit, 5", &trial)).expect("written");
    let ran = swarm.nodes[0].run(&["submit", &path.to_string_lossy()]);
    assert!(ran.code == 1 && ran.stderr.contains("the program exited 5"), "{ran:#?}");
    assert_eq!(swarm.nodes[0].job("module").job.state.state_type, "Completed", "as Bacalhau has it");
}

#[test]
fn job_files_for_containers_give_what_they_should() {
    if !docker::is_here() {
        return;
    }
    let mut swarm = Swarm::empty(&[]);
    swarm.add("one", &["--publish-listen", "127.0.0.1:0", "--task-network", "bridge"]);
    swarm.everybody_knows(2);
    let lower_case = format!(
        "name: A Simple Docker Job\ntype: batch\nnamespace: default\ncount: 1\ntasks:\n  - name: My main task\n    engine:\n      type: \
         docker\n      params:\n        image: {IMAGE}\n        entrypoint: [/bin/echo]\n        parameters: [Hello Bacalhau!]\n"
    );
    assert_eq!(printed(&swarm, "hello.yaml", &lower_case), ["Hello Bacalhau!\n"]);
    let in_json = json!({
        "Name": "sum", "Type": "batch", "Count": 1, "Labels": {"team": "a"}, "Meta": {"who": "me"},
        "Tasks": [{
            "Name": "main",
            "Engine": {"Type": "docker", "Params": {
                "Image": IMAGE,
                "Entrypoint": ["/bin/sh"],
                "Parameters": ["-c", "echo $((7 + 8)); echo custom > /output_custom/output.txt"],
            }},
            "Publisher": {"Type": "local"},
            "ResultPaths": [{"Name": "output_custom", "Path": "/output_custom"}],
            "Resources": {"CPU": "100m", "Memory": "64Mb", "Disk": "10Mb"},
            "Network": {"Type": "None"},
        }],
    });
    assert_eq!(printed(&swarm, "sum.json", &in_json.to_string()), ["15\n"]);
    let results = swarm.nodes[0].run(&["job", "get", "sum", "-o", &swarm.dir().join("sum").to_string_lossy()]);
    results.ok();
    let output = std::fs::read_to_string(swarm.dir().join("sum/output_custom/output.txt")).expect("the result");
    assert_eq!(output, "custom\n");
    // Both streams, a while apart, and two runs, each of which knows which it is.
    let emitter = format!(
        "Name: log emitter\nType: batch\nCount: 2\nTasks:\n  - Name: main\n    Engine:\n      Type: docker\n      Params:\n        Image: \
         {IMAGE}\n        Parameters:\n          - sh\n          - -c\n          - |\n            for i in 1 2 3 4 5; do\n              \
         echo out $BACALHAU_PARTITION_INDEX of $BACALHAU_PARTITION_COUNT $BACALHAU_JOB_TYPE; echo err >&2; sleep 0.1\n            done\n"
    );
    let mut said = printed(&swarm, "emitter.yaml", &emitter);
    said.sort();
    assert_eq!(said, ["out 0 of 2 batch\n".repeat(5), "out 1 of 2 batch\n".repeat(5)]);
    // A daemon, and its next version.
    let daemon = |seconds: u32| {
        format!(
            "Name: daemon\nType: daemon\nTasks:\n  - Name: main\n    Engine:\n      Type: docker\n      Params:\n        Image: {IMAGE}\n        \
             Parameters: [sleep, '{seconds}']\n"
        )
    };
    let node = &swarm.nodes[0];
    for (version, seconds) in [(1, 900), (2, 901)] {
        let path = swarm.dir().join("daemon.yaml");
        std::fs::write(&path, daemon(seconds)).expect("written");
        node.run(&["submit", &path.to_string_lossy()]).ok();
        eventually("that version", || {
            let executions = node.job("daemon").executions?.items;
            let runs: Vec<_> = executions.iter().filter(|e| e.compute_state.state_type == 6).collect();
            (runs.len() == 1 && runs[0].job_version == version).then_some(())
        });
    }
    node.run(&["job", "stop", "daemon"]).ok();
}

#[test]
fn what_goes_through_a_container_comes_out_as_it_should() {
    if !docker::is_here() {
        return;
    }
    let swarm = Swarm::new(1);
    let through = |name: &str, text: &str, command: &[&str]| {
        let spec = json!({"Name": name, "Type": "batch", "Count": 1, "Tasks": [{
            "Name": "main",
            "Engine": {"Type": "docker", "Params": {
                "Image": IMAGE, "Entrypoint": command, "EnvironmentVariables": ["FRUIT=kiwi", "COUNT=2"],
            }},
            "InputSources": [{
                "Source": {"Type": "inline", "Params": {"URL": format!("data:;base64,{}", base64(text.as_bytes()))}},
                "Target": "/hello",
            }],
        }]});
        let told = printed(&swarm, &format!("{name}.json"), &spec.to_string()).concat();
        let all = swarm.nodes[0].run(&["job", "logs", name]).ok().stdout;
        assert!(all.starts_with(&told), "the beginning of it is told in place: {told}");
        all
    };
    let fruit = "apple is sour\nkiwi is delicious\npear is sweet\nkiwi is delicious\n";
    assert_eq!(through("cat", fruit, &["cat", "/hello"]), fruit);
    assert_eq!(through("grep", fruit, &["grep", "kiwi", "/hello"]), "kiwi is delicious\n".repeat(2));
    let places = "OPORTO,41.15,-8.61\nLISBON,38.72,-9.13\nFARO,37.01,-7.93\n".repeat(5);
    let lisbon = through("sed", &places, &["sed", "-n", "/38.7[0-9],-9.1[0-9]/p", "/hello"]);
    assert_eq!(lisbon, "LISBON,38.72,-9.13\n".repeat(5));
    let numbers = (0..1_001).map(|n| format!("{n},{}\n", n * n)).collect::<Vec<_>>().concat();
    let even = through("awk", &numbers, &["awk", "-F,", "{if ($1 % 2 == 0) print $2}", "/hello"]);
    assert_eq!((even.lines().count(), even.lines().last()), (501, Some("1000000")));
    let env = through("env", "", &["sh", "-c", "env | grep -E '^(FRUIT|COUNT|BACALHAU_JOB_TYPE)=' | sort"]);
    assert_eq!(env, "BACALHAU_JOB_TYPE=batch\nCOUNT=2\nFRUIT=kiwi\n");
    let words = through("much", "", &["sh", "-c", "yes 0123456789abcde | head -n 12800"]);
    assert_eq!(words, "0123456789abcde\n".repeat(12_800));
    let to = swarm.dir().join("much").to_string_lossy().into_owned();
    swarm.nodes[0].run(&["job", "get", "much", "-o", &to]).ok();
    let whole = std::fs::metadata(std::path::Path::new(&to).join("stdout")).expect("all that was printed");
    assert_eq!(whole.len(), 204_800);
    let last = swarm.nodes[0].run(&["job", "logs", "much", "--tail", "2"]).ok();
    assert_eq!(last.stdout, "0123456789abcde\n".repeat(2));
}

#[test]
fn job_files_that_are_wrong_are_told_so() {
    let swarm = Swarm::new(1);
    let node = &swarm.nodes[0];
    let spec =
        |kind: &str| format!("Type: batch\nTasks:\n  - Name: main\n    Engine: {{Type: {kind}, Params: {{}}}}\n");
    assert!(refusal(node, &swarm, "").contains("the spec is empty"));
    assert!(
        refusal(node, &swarm, &spec("custom"))
            .contains("Tasks[0].Engine.Type: `custom` is not an engine (wasm, docker)")
    );
    assert!(refusal(node, &swarm, &spec("noop")).contains("`noop` is not an engine"));
    assert!(refusal(node, &swarm, "Name: x\nType: batch\n").contains("Tasks: is required: what should run?"));
    let nameless = format!(
        "Type: batch\nCount: 1\nTasks:\n  - Engine: {{Type: wasm, Params: {{EntryModule: /m.wasm}}}}\n    InputSources: [{{Source: {{Type: \
         inline, Params: {{URL: '{}'}}}}, Target: /m.wasm}}]\n",
        inline("hello/hello.wasm")
    );
    let said = printed(&swarm, "nameless.yaml", &nameless);
    assert!(said[0].to_lowercase().starts_with("hello"), "a name is not needed: {said:?}");
}
