//! The API as programs use it: what it says of itself holds, and nothing that is sent to it breaks it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bacnode_tests::outside::program;
use bacnode_tests::{Swarm, example};
use futures::StreamExt as _;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client")
}

/// Every operation that the document names: method, path, whether it takes JSON.
fn operations(document: &Value) -> Vec<(Method, String, bool)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            operations.push((
                method,
                path.clone(),
                operation["requestBody"]["content"]["application/json"].is_object(),
            ));
        }
    }
    operations
}

/// Bodies that nobody should send.
fn malformed() -> Vec<Vec<u8>> {
    let deep = [b"[".repeat(5_000), b"]".repeat(5_000)].concat();
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "null",
        "true",
        "0",
        "-1e400",
        "\"text\"",
        "[]",
        "{",
        "}",
        "{\"Job\"",
        "{\"Job\":}",
        "{\"Job\": null}",
        "{\"Job\": 7}",
        "{\"Job\": []}",
        "{\"Job\": {\"Type\": {}}}",
        "{\"Job\": {\"Tasks\": 1}}",
        "{\"Job\": {\"Tasks\": [null]}}",
        "{\"Job\": {\"Type\": \"batch\", \"Count\": 1e300, \"Tasks\": []}}",
        "{\"Job\": {\"Type\": \"batch\", \"Count\": -9223372036854775808, \"Tasks\": [{}]}}",
        "{\"Job\": {\"Priority\": 99999999999999999999}}",
        "{\"JobVersion\": -1}",
        "{\"JobVersion\": \"one\"}",
        "{\"Action\": 1}",
        "{\"Action\": \"\\u0000\"}",
        "{\"Granted\": \"perhaps\"}",
        "{\"reason\": {}}",
        "{\"Job\": {\"Labels\": [1], \"Meta\": \"\", \"Constraints\": {\"Key\": 1}}}",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.extend([vec![0xff; 64], deep, b"{\"Job\": {\"Name\": \"".to_vec()]);
    assert!(bodies.len() >= 30);
    bodies
}

#[tokio::test]
async fn what_is_handed_in_twice_with_one_token_is_one_job() {
    let swarm = Swarm::new(1);
    let jobs = format!("{}/api/v1/orchestrator/jobs", swarm.nodes[0].identity.api);
    let spec = json!({
        "Job": {"Name": "once", "Type": "batch", "Tasks": [{
            "Name": "main",
            "Engine": {"Type": "wasm", "Params": {"EntryModule": "/main.wasm"}},
            "InputSources": [{"Source": {"Type": "inline", "Params": {"URL": "data:,x"}}, "Target": "/main.wasm"}],
        }]},
    });
    let put = async |query: &str| {
        let answer = client().put(format!("{jobs}{query}")).json(&spec).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        answer["JobID"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let first = put("?idempotency_token=morning").await;
    assert_eq!(put("?idempotency_token=morning").await, first);
    let others = [put("?idempotency_token=evening").await, put("").await, put("").await];
    let all: std::collections::BTreeSet<&String> = others.iter().chain([&first]).collect();
    assert_eq!(all.len(), 4, "{all:?}");
    let listed: Value = client().get(&jobs).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(listed["Items"].as_array().expect("jobs").len(), 4);
}

#[tokio::test]
async fn malformed_bodies_are_refused_with_a_sentence() {
    let mut swarm = Swarm::empty(&[]);
    let api = swarm.add("one", &["--no-docker"]).identity.api.clone();
    let http = client();
    let document: Value = http.get(format!("{api}/openapi.json")).send().await.expect("it").json().await.expect("JSON");
    let mut statuses: BTreeMap<u16, u32> = BTreeMap::new();
    for (method, path, takes_json) in operations(&document) {
        let path = path.replace("{id}", "nothing").replace("{cid}", "nothing").replace("{method}", "nothing");
        if ["/events", "/logs"].iter().any(|end| path.ends_with(end)) || path.ends_with("/gc") {
            continue;
        }
        let bodies = if takes_json { malformed() } else { vec![Vec::new()] };
        for body in bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            let request =
                http.request(method.clone(), format!("{api}{path}")).header("content-type", "application/json");
            let answer = request.body(body).send().await.expect("an answer");
            let status = answer.status();
            *statuses.entry(status.as_u16()).or_default() += 1;
            assert!(!status.is_server_error(), "{method} {path} {shown}: {status}");
            if !status.is_success() {
                let error: Value = answer.json().await.expect("an error is JSON");
                let message = error["Message"].as_str().expect("a sentence");
                assert_eq!(error["Status"], status.as_u16(), "{method} {path} {shown}: {error}");
                let traced =
                    ["panicked", "src/", "RUST_BACKTRACE", "Error {"].iter().any(|word| message.contains(word));
                assert!(!message.is_empty() && !traced, "{method} {path} {shown}: {message}");
            }
        }
    }
    assert!(statuses[&400] >= 100, "{statuses:?}");
}

#[tokio::test]
async fn every_path_of_the_document_is_there_and_is_bacalhaus() {
    let mut swarm = Swarm::empty(&[]);
    let api = swarm.add("one", &["--no-docker"]).identity.api.clone();
    let http = client();
    let document: Value = http.get(format!("{api}/openapi.json")).send().await.expect("it").json().await.expect("JSON");
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let known: Vec<(String, String)> =
        operations(&document).into_iter().map(|(method, path, _)| (method.to_string(), path)).collect();
    for (method, path) in [
        ("PUT", "orchestrator/jobs"),
        ("POST", "orchestrator/jobs"),
        ("PUT", "orchestrator/jobs/diff"),
        ("GET", "orchestrator/jobs"),
        ("GET", "orchestrator/jobs/{id}"),
        ("DELETE", "orchestrator/jobs/{id}"),
        ("PUT", "orchestrator/jobs/{id}/rerun"),
        ("GET", "orchestrator/jobs/{id}/history"),
        ("GET", "orchestrator/jobs/{id}/executions"),
        ("GET", "orchestrator/jobs/{id}/versions"),
        ("GET", "orchestrator/jobs/{id}/results"),
        ("GET", "orchestrator/jobs/{id}/logs"),
        ("GET", "orchestrator/nodes"),
        ("GET", "orchestrator/nodes/{id}"),
        ("PUT", "orchestrator/nodes/{id}"),
        ("GET", "agent/alive"),
        ("GET", "agent/version"),
        ("GET", "agent/node"),
        ("GET", "agent/debug"),
        ("GET", "agent/config"),
        ("GET", "agent/authconfig"),
    ] {
        let wanted = (method.to_owned(), format!("/api/v1/{path}"));
        assert!(known.contains(&wanted), "{wanted:?} is not among {known:?}");
    }
    for (from, to) in [("version", "GitVersion"), ("livez", "Status")] {
        let answer: Value = http.get(format!("{api}/{from}")).send().await.expect("it").json().await.expect("JSON");
        assert!(answer[to].is_string(), "{from}: {answer}");
    }
    let approved = http.put(format!("{api}/api/v1/orchestrator/nodes/one")).json(&json!({ "Action": "approve" }));
    let answer: Value = approved.send().await.expect("it").json().await.expect("JSON");
    assert!(answer["Message"].as_str().is_some_and(|text| text.contains("not approved here")), "{answer}");
    let elsewhere =
        http.get(format!("{api}/api/v1/agent/node")).header("host", "example.org").send().await.expect("it");
    assert_eq!(elsewhere.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn everything_that_happens_can_be_listened_to() {
    let mut swarm = Swarm::empty(&[]);
    let api = swarm.add("one", &["--no-docker"]).identity.api.clone();
    swarm.everybody_knows(2);
    let events = client().get(format!("{api}/api/v1/network/events")).send().await.expect("it");
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut events = events.bytes_stream();
    let hello = example("hello/hello.wasm");
    swarm.nodes[0].run(&["wasm", "run", "--name", "heard", &hello]).ok();
    swarm.add("two", &["--no-docker"]);
    let (mut told, wanted) =
        (String::new(), ["event: job", "submitted", "completed", "event: joined", "\"Name\":\"two\""]);
    while !wanted.iter().all(|part| told.contains(part)) {
        let piece =
            tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap_or_else(|_| panic!("{told}"));
        told.push_str(&String::from_utf8_lossy(&piece.expect("more").expect("bytes")));
    }
}

/// A tester of APIs makes requests of all kinds from the document, and holds the answers against it.
#[test]
fn schemathesis_finds_nothing() {
    let Some(clients) = program("clients") else { return };
    let mut swarm = Swarm::empty(&[]);
    let api = swarm.add("one", &["--no-docker", "--no-compute"]).identity.api.clone();
    let mut tester = Command::new(clients.join("bin/st"));
    let settings = ["clients/schemathesis.toml", "tests/clients/schemathesis.toml"];
    let settings = settings.iter().find(|path| Path::new(path).exists()).expect("its settings");
    let settings = std::path::absolute(settings).expect("a path");
    tester.arg("--config-file").arg(settings).args(["run", &format!("{api}/openapi.json")]);
    tester.args(["--max-examples", "20", "--seed", "1", "--no-color"]);
    // Streams do not end.
    tester.args(["--exclude-path-regex", "/(events|logs)$", "--request-timeout", "20"]);
    tester.args(["--generation-database", "none", "--report-dir", &swarm.dir().to_string_lossy()]);
    let ran = tester.current_dir(swarm.dir()).output().expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
}
