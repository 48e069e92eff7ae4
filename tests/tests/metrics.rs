//! What a node counts, against what its guide and its dashboard say.

use std::collections::BTreeSet;

use bacnode_tests::{Node, Swarm, example};
use serde_json::Value;

/// What libp2p counts of itself is its own affair.
const OF_LIBP2P: [&str; 2] = ["bacnode_libp2p_", "bacnode_gossipsub_"];

fn text(node: &Node) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("{}/metrics", node.identity.api);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = reqwest::Client::builder().tls_certs_only([]).build().expect("a client");
    runtime.block_on(async { client.get(url).send().await.expect("an answer").text().await.expect("a text") })
}

/// Every name, as samples have it; of a histogram its own.
fn names(text: &str) -> BTreeSet<String> {
    let sample = |line: &str| {
        let name = line.split(['{', ' ']).next()?;
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        Some(histogram.unwrap_or(name).to_owned())
    };
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample);
    samples.filter(|name| name.starts_with("bacnode_") && !OF_LIBP2P.iter().any(|of| name.starts_with(of))).collect()
}

/// All that looks like a name in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("bacnode_") && word.len() > "bacnode_".len()).map(str::to_owned).collect()
}

fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(sample)).unwrap_or_else(|| panic!("{sample}: {text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path).or_else(|_| std::fs::read_to_string(format!("../{path}"))).expect("a file")
}

#[test]
fn what_is_counted_is_what_is_documented_and_drawn() {
    let swarm = Swarm::new(1);
    let node = &swarm.nodes[0];
    for _ in 0..3 {
        node.run(&["submit", &example("hello/job.yaml")]).ok();
    }
    let failed = node.run(&["wasm", "run", &example("trials/trial.wasm"), "--", "exit", "7"]);
    assert_eq!(failed.code, 1, "{failed:#?}");
    // Gauges are set each second.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let text = text(node);
    let counted = names(&text);
    let guide = file("node/README.md");
    let table = guide.lines().filter(|line| line.starts_with("| `bacnode_")).collect::<Vec<_>>().join("\n");
    assert_eq!(counted, named(&table), "what is counted, and the table in node/README.md");
    for (sample, expected) in [
        ("bacnode_jobs_submitted_total", 4.0),
        ("bacnode_jobs_ended_total{state=\"completed\"}", 4.0),
        ("bacnode_runs_ended_total{outcome=\"completed\"}", 3.0),
        ("bacnode_runs_ended_total{outcome=\"exit_code\"}", 1.0),
        ("bacnode_awards_total", 4.0),
        ("bacnode_nodes_known", 2.0),
        ("bacnode_jobs_open", 0.0),
        ("bacnode_run_seconds_count", 4.0),
    ] {
        assert!(
            (value(&text, sample) - expected).abs() < 0.5,
            "{sample}: {}, {expected} expected",
            value(&text, sample)
        );
    }
    assert!(value(&text, "bacnode_content_bytes") > 0.0);
    let dashboard: Value = serde_json::from_str(&file("cli/packaging/grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let drawn: BTreeSet<String> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"))
        .flat_map(|target| named(target["expr"].as_str().expect("an expression")))
        .map(|name| name.trim_end_matches("_bucket").to_owned())
        .filter(|name| !OF_LIBP2P.iter().any(|of| name.starts_with(of)))
        .collect();
    assert!(drawn.len() >= 12 && drawn.is_subset(&counted), "{:?} are not counted", drawn.difference(&counted));
    for name in drawn_of_libp2p(panels) {
        assert!(text.contains(&name), "{name} is not counted");
    }
}

fn drawn_of_libp2p(panels: &[Value]) -> BTreeSet<String> {
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let names = targets.flat_map(|target| named(target["expr"].as_str().expect("an expression")));
    names.filter(|name| OF_LIBP2P.iter().any(|of| name.starts_with(of))).collect()
}
