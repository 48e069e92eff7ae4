//! The local publisher: a result by a link, for whoever has no node. And folders that come in a spec.

use std::path::Path;
use std::process::Command;

use bacnode_tests::{Swarm, example};
use serde_json::{Value, json};

fn fetch(url: &str) -> (u16, Vec<u8>) {
    // Another test of this process may have said so before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let response = reqwest::get(url).await.expect("an answer");
        (response.status().as_u16(), response.bytes().await.expect("a body").to_vec())
    })
}

#[test]
fn a_result_can_be_fetched_by_a_link() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("node", &["--no-docker", "--publish-listen", "127.0.0.1:0"]);
    swarm.add("other", &["--no-docker", "--no-compute"]);
    swarm.everybody_knows(3);
    let to = swarm.dir().join("result");
    let args = ["wasm", "run", "-p", "local", "--download", &to.to_string_lossy(), &example("hello/hello.wasm")];
    swarm.nodes[1].run(&args).ok();
    let note: Value = serde_json::from_slice(&std::fs::read(to.join("published.json")).expect("a note")).expect("JSON");
    assert_eq!(note["Type"], "urlDownload");
    let url = note["Params"]["URL"].as_str().expect("a link");
    let (status, packed) = fetch(url);
    assert_eq!(status, 200);
    let (archive, folder) = (swarm.dir().join("packed.tar.gz"), swarm.dir().join("unpacked"));
    std::fs::write(&archive, packed).expect("written");
    std::fs::create_dir(&folder).expect("a folder");
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder).status().expect("tar runs");
    assert!(unpacked.success());
    let read = |folder: &Path| std::fs::read_to_string(folder.join("stdout")).expect("stdout");
    assert_eq!(read(&folder), read(&to));
    let id = url.strip_suffix(".tar.gz").expect("an archive");
    let other = if id.ends_with('a') { "b" } else { "a" };
    // Somebody else's, as far as that can be seen; and nobody's.
    for unknown in [format!("{}{other}.tar.gz", &id[..id.len() - 1]), format!("{id}-x.tar.gz")] {
        assert_eq!(fetch(&unknown).0, 404, "{unknown}");
    }
}

#[test]
fn a_node_without_a_publisher_says_so() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("node", &["--no-docker"]);
    let ran = swarm.nodes[0].run(&["wasm", "run", "-p", "local", &example("hello/hello.wasm")]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.stderr.contains("serves no results by links (rule: publish-listen)"), "{}", ran.stderr);
}

#[test]
fn a_folder_in_a_spec_is_unpacked() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("node", &["--no-docker"]);
    let folder = swarm.dir().join("folder");
    std::fs::create_dir(&folder).expect("a folder");
    for (from, to) in [("weather/weather.wasm", "program.wasm"), ("weather/weather.csv", "weather.csv")] {
        std::fs::copy(example(from), folder.join(to)).expect("copied");
    }
    let packed = Command::new("sh").arg("-c").arg("tar -C \"$0\" -cz . | base64 -w 0").arg(&folder).output();
    let packed = String::from_utf8(packed.expect("tar runs").stdout).expect("base64");
    let submit = |url: String, to: &str| {
        let spec = json!({
            "Type": "batch",
            "Tasks": [{
                "Engine": { "Type": "wasm", "Params": {
                    "EntryModule": "/in/program.wasm", "Parameters": ["/in/weather.csv", "/out", "50"],
                } },
                "InputSources": [{ "Source": { "Type": "inline", "Params": { "URL": url } }, "Target": "/in" }],
                "ResultPaths": [{ "Name": "out", "Path": "/out" }],
            }],
        });
        let path = swarm.dir().join("job.json");
        std::fs::write(&path, spec.to_string()).expect("written");
        let to = swarm.dir().join(to).to_string_lossy().into_owned();
        swarm.nodes[0].run(&["submit", &path.to_string_lossy(), "--download", &to])
    };
    submit(format!("data:application/gzip;base64,{packed}"), "result").ok();
    assert!(swarm.dir().join("result/out/monthly.csv").exists());
    let broken = submit("data:application/gzip;base64,AAAA".to_owned(), "broken");
    assert_eq!(broken.code, 2, "{broken:#?}");
    assert!(broken.stderr.contains("InputSources[0]") && broken.stderr.contains("not a tar archive"), "{broken:#?}");
}
