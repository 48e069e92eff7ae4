//! What the commands print of a network with one job in it. A change of these texts is a change for users: look at it, then
//! `INSTA_UPDATE=always cargo nextest run -p bacnode-tests -E 'binary(output)'`.

use bacnode_tests::{Node, Ran, Swarm, example};
use regex::Regex;

/// A text without what is different each time. Columns follow the widest cell, so that their gaps say nothing.
struct Masks(Vec<(Regex, &'static str)>);

impl Masks {
    fn new() -> Self {
        let masks = [
            (r"12D3KooW\w+", "PEER"),
            (r"j-[a-z2-7]{8}-[a-z2-7]+", "JOB"),
            (r"e-[a-z2-7]{16,}", "EXECUTION"),
            (r"\b[A-Za-z0-9]{8}\b \(one\)", "SHORT (one)"),
            (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "TIME"),
            (r"127\.0\.0\.1:\d+", "ADDRESS"),
            (r"/ip4/\S+", "MULTIADDR"),
            (r"\b\d+(\.\d+)? (ms|s|min|h)\b( ago)?", "SPAN"),
            (r"\b\d+(\.\d+)? ([KMGT]i)?B\b", "BYTES"),
            (r"\b\d+(\.\d+)?/\d+(\.\d+)?\b", "PART"),
            (r"\b\d+(\.\d+)? cores\b", "N cores"),
            (r"v?\d+\.\d+\.\d+\S*", "VERSION"),
            (r"[·░▓▒?]{2,}[✓✗]?|[·░▓▒]+[✓✗]", "DRAWING"),
            (r" {2,}", "  "),
        ];
        Self(masks.map(|(pattern, mask)| (Regex::new(pattern).expect("a pattern"), mask)).into())
    }

    fn of(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (pattern, mask)| pattern.replace_all(&text, *mask).into_owned())
    }

    fn shown(&self, node: &Node, args: &[&str]) -> String {
        let Ran { code, stdout, stderr } = node.run(args);
        let told = if stderr.is_empty() { String::new() } else { format!("--- stderr\n{stderr}") };
        let shown = args.iter().filter(|arg| !arg.contains('/')).copied().collect::<Vec<_>>().join(" ");
        self.of(&format!("$ bacnode {shown}\n{stdout}{told}--- exit code {code}\n"))
    }
}

#[test]
fn what_is_printed_is_looked_at() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("one", &["--no-docker", "--cpu", "2", "--memory", "1GiB"]);
    let (node, masks) = (&swarm.nodes[0], Masks::new());
    let hello = example("hello/hello.wasm");
    let submit = ["wasm", "run", "--name", "greeting", "--node-details", "--group-events", &hello];
    insta::assert_snapshot!("submit", masks.shown(node, &submit));
    for (name, args) in [
        ("job-list", &["job", "list"][..]),
        ("job-list-csv", &["job", "list", "--output", "csv"]),
        ("job-describe", &["job", "describe", "greeting"]),
        ("job-executions", &["job", "executions", "greeting"]),
        ("job-history", &["job", "history", "greeting"]),
        ("job-versions", &["job", "versions", "greeting"]),
        ("job-logs", &["job", "logs", "greeting"]),
        ("job-stop", &["job", "stop", "greeting"]),
        ("job-adopt", &["job", "adopt"]),
        ("node-list", &["node", "list"]),
        ("node-describe", &["node", "describe", "one"]),
        ("node-usage", &["node", "usage"]),
        ("node-id", &["node", "id"]),
        ("content-ls", &["content", "ls"]),
        ("peers-blocked", &["peers", "blocked"]),
        ("swarm-info", &["swarm", "info"]),
    ] {
        insta::assert_snapshot!(name, masks.shown(node, args));
    }
}
