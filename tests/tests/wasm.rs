//! What WebAssembly programs may be beside a module of WASI preview 1: components, and modules that import others.

use std::path::{Path, PathBuf};
use std::process::Command;

use bacnode_tests::{Ran, Swarm, eventually, example, web_server};

fn run(swarm: &Swarm, options: &[&str], module: &str, args: &[&str]) -> Ran {
    let module = example(module);
    let command = [&["wasm", "run", "--id-only"], options, &[&module, "--"], args].concat();
    swarm.nodes[0].run(&command)
}

/// What a run printed, that ended well.
fn printed(swarm: &Swarm, options: &[&str], module: &str, args: &[&str]) -> String {
    let ran = run(swarm, options, module, args).ok();
    swarm.nodes[0].run(&["job", "logs", ran.text()]).ok().stdout
}

#[test]
fn a_module_imports_another_that_its_task_lists_or_that_lies_beside_it() {
    let swarm = Swarm::new(1);
    let library = example("trials/library.wasm");
    assert_eq!(printed(&swarm, &["-I", &library], "trials/dynamic.wasm", &[]), "8 42 2\n");
    // As files for Bacalhau have it: under the name by which it is imported.
    let beside = format!("{library}:/library.wasm");
    assert_eq!(printed(&swarm, &["-i", &beside], "trials/dynamic.wasm", &[]), "8 42 2\n");
    // The same program again, warm: another instance, that was asked nothing yet.
    assert_eq!(printed(&swarm, &["-i", &beside], "trials/dynamic.wasm", &[]), "8 42 2\n");
    let lacking = run(&swarm, &[], "trials/dynamic.wasm", &[]);
    assert!(lacking.stderr.contains("`twice` of `library.wasm`"), "{lacking:#?}");
    let wrong = run(&swarm, &["-I", &example("trials/fetch.wasm")], "trials/dynamic.wasm", &[]);
    assert!(wrong.stderr.contains("`twice` of `library.wasm`"), "{wrong:#?}");
    let component = format!("{}:/library.wasm", example("trials/fetch.wasm"));
    let wrong = run(&swarm, &["-i", &component], "trials/dynamic.wasm", &[]);
    assert!(wrong.stderr.contains("`library.wasm` is a component; modules import modules"), "{wrong:#?}");
}

#[test]
fn a_component_reads_its_inputs_and_speaks_to_the_domains_of_its_job() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("open", &["--task-network", "http", "--web", "any"]);
    let address = web_server();
    let text = swarm.dir().join("text");
    std::fs::write(&text, "from a file\n").expect("a file");
    let input = format!("{}:/data/text", text.display());
    let url = format!("http://{address}/x");
    let options = ["-i", &input, "--domain", "127.0.0.1"];
    let said = printed(&swarm, &options, "trials/fetch.wasm", &["/data/text", &url]);
    assert_eq!(said, format!("from a file\n{url}: 200, hello\n"));
    // Another name for the same server, and a job that names no domain.
    let other = format!("http://localhost:{}/x", address.port());
    for (options, url) in [(&options[..], &other), (&[], &url)] {
        let denied = run(&swarm, options, "trials/fetch.wasm", &[url]);
        assert_eq!(denied.code, 1, "{denied:#?}");
        let job = swarm.nodes[0].run(&["job", "list", "--limit", "1", "--output", "json"]).ok().json();
        let printed = swarm.nodes[0].run(&["job", "logs", job[0]["ID"].as_str().expect("an id")]);
        assert!(printed.stderr.contains("HttpRequestDenied"), "{printed:#?}");
    }
}

/// A module that imports `f` of another and calls it, and one that has such a function.
fn modules(import: &str) -> (Vec<u8>, Vec<u8>) {
    let section = |id: u8, bytes: &[u8]| [&[id, u8::try_from(bytes.len()).expect("short")], bytes].concat();
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let module = |sections: &[Vec<u8>]| [&b"\0asm\x01\0\0\0"[..], &sections.concat()].concat();
    let (kind, function) = (section(1, &[1, 0x60, 0, 0]), section(3, &[1, 0]));
    let imports = section(2, &[&[1][..], &text(import), &text("f"), &[0, 0]].concat());
    let export = |name: &str, index: u8| section(7, &[&[1][..], &text(name), &[0, index]].concat());
    let importing =
        module(&[kind.clone(), imports, function.clone(), export("_start", 1), section(10, &[1, 4, 0, 0x10, 0, 0x0b])]);
    (importing, module(&[kind, function, export("f", 0), section(10, &[1, 2, 0, 0x0b])]))
}

#[test]
fn a_module_imports_nothing_from_outside_its_inputs() {
    let mut swarm = Swarm::empty(&[]);
    let (open, secret) = (swarm.dir().join("open"), swarm.dir().join("secret.wasm"));
    std::fs::create_dir(&open).expect("a folder");
    swarm.add("lender", &["--allow-local", &open.to_string_lossy()]);
    let input = format!("local://{}:/data", open.display());
    std::os::unix::fs::symlink(&secret, open.join("link.wasm")).expect("a link");
    let program = swarm.dir().join("program.wasm");
    for (import, is_there) in [("data/../secret.wasm", false), ("data/link.wasm", false), ("data/own.wasm", true)] {
        let (importing, imported) = modules(import);
        std::fs::write(&program, importing).expect("written");
        std::fs::write(&secret, &imported).expect("written");
        std::fs::write(open.join("own.wasm"), &imported).expect("written");
        let ran = swarm.nodes[0].run(&["wasm", "run", "--id-only", "-i", &input, &program.to_string_lossy()]);
        assert_eq!(ran.code == 0, is_there, "{import}: {ran:#?}");
        assert!(is_there || ran.stderr.contains("which nobody has"), "{ran:#?}");
    }
}

/// A web server that speaks TLS, and the certificate by which it is known.
struct Secure(std::process::Child);

impl Secure {
    #[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
    fn start(dir: &Path) -> Option<(Self, u16, PathBuf)> {
        let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
        let openssl = |args: &[&str]| {
            let quiet = std::process::Stdio::null;
            Command::new("openssl").args(args).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().ok()
        };
        let (key, shown) = (key.to_str()?, certificate.to_str()?);
        let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
        let more = [
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            key,
            "-out",
            shown,
        ];
        let Some(mut made) = openssl(&[&request[..], &more].concat()) else {
            eprintln!("NOT RUN: there is no openssl here");
            return None;
        };
        assert!(made.wait().expect("it ends").success());
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let server = openssl(&["s_server", "-accept", &free.to_string(), "-key", key, "-cert", shown, "-www"])?;
        eventually("the server", || std::net::TcpStream::connect(("127.0.0.1", free)).ok());
        Some((Self(server), free, certificate))
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_component_trusts_the_certificates_that_the_operator_trusts() {
    let mut swarm = Swarm::empty(&[]);
    let Some((_server, port, certificate)) = Secure::start(swarm.dir()) else { return };
    let rules = ["--task-network", "http", "--web", "any"];
    swarm.add_with("trusting", &rules, &[("SSL_CERT_FILE", &certificate.to_string_lossy())]);
    let url = format!("https://localhost:{port}/");
    let said = printed(&swarm, &["--domain", "localhost"], "trials/fetch.wasm", &[&url]);
    assert!(said.starts_with(&format!("{url}: 200, ")) && said.contains("TLSv1.3"), "{said}");
    let mut strict = Swarm::empty(&[]);
    strict.add("strict", &rules);
    let refused = run(&strict, &["--domain", "localhost"], "trials/fetch.wasm", &[&url]);
    assert_eq!(refused.code, 1, "{refused:#?}");
}

#[test]
fn a_node_that_allows_no_network_takes_no_job_that_wants_one() {
    let swarm = Swarm::new(1);
    let refused = run(&swarm, &["--domain", "example.org", "--wait-timeout", "10"], "trials/fetch.wasm", &[]);
    assert!(refused.stderr.contains("rule: task-network"), "{refused:#?}");
}
