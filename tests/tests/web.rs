//! Inputs from the web: fetched by whoever runs the job, checked, kept, and never from where the operator does not want.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bacnode_tests::{Swarm, example};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Bytes that are the same each time and compress badly.
fn data() -> Vec<u8> {
    (0..750_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A server with one file, which breaks off the first answers half-way; how often it was asked for bytes.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(breaks: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, asked) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                std::thread::spawn(move || _ = answer(stream, &count, breaks));
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn answer(mut stream: TcpStream, asked: &AtomicUsize, breaks: usize) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let line = headers.iter().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let say = |stream: &mut TcpStream, head: &str| {
        stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes())
    };
    let path = request.split(' ').nth(1).unwrap_or_default();
    match path {
        "/data.bin" if header("if-none-match").as_deref() == Some("\"one\"") => say(&mut stream, "304 Not Modified"),
        "/data.bin" => {
            let (bytes, before) = (data(), asked.fetch_add(1, Ordering::SeqCst));
            let range = header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            let from: usize = range.unwrap_or(0);
            let whole = bytes.len();
            let part = format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{whole}", whole - 1);
            let status = if range.is_some() { part.as_str() } else { "200 OK" };
            let length = bytes.len() - from;
            say(&mut stream, &format!("{status}\r\nETag: \"one\"\r\nContent-Length: {length}"))?;
            let to = if before < breaks { from + length / 2 } else { bytes.len() };
            stream.write_all(&bytes[from..to])
        }
        "/round" => say(&mut stream, "302 Found\r\nLocation: /round"),
        _ => say(&mut stream, "404 Not Found\r\nContent-Length: 0"),
    }
}

/// A job that only says hello, and has the URL as an input.
fn job(swarm: &Swarm, url: &str, sha256: Option<&str>) -> String {
    let hello = std::fs::read(example("hello/hello.wasm")).expect("the example");
    let added = swarm.dir().join("hello.wasm");
    std::fs::write(&added, hello).expect("written");
    let added = swarm.nodes[0].run(&["content", "add", &added.to_string_lossy(), "--output", "json"]).ok().json();
    let cid = added["Cid"].as_str().or(added["CID"].as_str()).expect("a CID").to_owned();
    let mut params = json!({ "URL": url });
    if let Some(sha256) = sha256 {
        params["ChecksumSHA256"] = Value::from(sha256);
    }
    let spec = json!({
        "Type": "batch",
        "Tasks": [{
            "Engine": { "Type": "wasm", "Params": { "EntryModule": "/hello.wasm" } },
            "InputSources": [
                { "Source": { "Type": "ipfs", "Params": { "CID": cid } }, "Target": "/hello.wasm" },
                { "Source": { "Type": "urlDownload", "Params": params }, "Target": "/inputs" },
            ],
        }],
    });
    let path = swarm.dir().join("job.json");
    std::fs::write(&path, spec.to_string()).expect("written");
    path.to_string_lossy().into_owned()
}

fn swarm(rules: &[&str]) -> Swarm {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("node", rules);
    swarm
}

#[test]
fn a_broken_download_is_taken_up_again_and_a_second_one_is_not_needed() {
    let swarm = swarm(&["--web", "any"]);
    let server = Server::start(2);
    let digest = hex::encode(Sha256::digest(data()));
    let spec = job(&swarm, &server.url("/data.bin"), Some(&digest));
    swarm.nodes[0].run(&["submit", &spec]).ok();
    assert_eq!(server.asked.load(Ordering::SeqCst), 3, "twice it broke off");
    swarm.nodes[0].run(&["submit", &spec]).ok();
    assert_eq!(server.asked.load(Ordering::SeqCst), 3, "it has not changed, and is here");
}

#[test]
fn what_cannot_be_fetched_is_explained() {
    let swarm = swarm(&["--web", "any"]);
    let server = Server::start(0);
    let zeros = "0".repeat(64);
    let cases = [
        (server.url("/data.bin"), Some(zeros.as_str()), "not the one in the job"),
        (server.url("/lost.bin"), None, "the server says 404 Not Found"),
        (server.url("/round"), None, "it redirects too often"),
        ("http://127.0.0.1:1/x".to_owned(), None, "refused"),
        ("http://no.such.host.invalid/x".to_owned(), None, "no.such.host.invalid"),
    ];
    for (url, sha256, expected) in cases {
        let ran = swarm.nodes[0].run(&["submit", &job(&swarm, &url, sha256)]);
        assert!(ran.code == 1 && ran.stderr.contains(expected), "{url}: {ran:#?}");
    }
    let ran = swarm.nodes[0].run(&["submit", &job(&swarm, "https://user:secret@example.org/x", None)]);
    assert!(ran.code == 2 && ran.stderr.contains("must not carry a user"), "{ran:#?}");
}

#[test]
fn nothing_is_fetched_from_where_the_operator_does_not_want() {
    let careful = swarm(&[]);
    let server = Server::start(0);
    for url in [server.url("/data.bin"), format!("http://localhost:{}/data.bin", server.address.port())] {
        let ran = careful.nodes[0].run(&["submit", &job(&careful, &url, None)]);
        assert!(ran.code == 1 && ran.stderr.contains("is not a public address"), "{url}: {ran:#?}");
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
    let offline = swarm(&["--web", "none"]);
    let ran = offline.nodes[0].run(&["submit", &job(&offline, "https://example.org/x", None)]);
    assert!(ran.code == 1 && ran.stderr.contains("fetches no inputs from the web (rule: web)"), "{ran:#?}");
}
