//! Who may use a node's API: its own user at once, others over TLS with a token that may do it.

use std::path::Path;
use std::process::Command;

use bacnode_tests::{Ran, Swarm, bacnode, example, program};

/// The command line as somebody else would use it.
fn from_elsewhere(api: &str, token: &str, ca: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(program("bacnode"));
    command.args(args).env("BACNODE_API", api).env("BACNODE_API_CA", ca);
    if !token.is_empty() {
        command.env("BACNODE_TOKEN", token);
    }
    command.output().expect("bacnode runs").into()
}

/// A certificate of one's own for this machine, and its key; nothing if nobody is here to make one.
#[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
fn certificate(dir: &Path) -> Option<(String, String)> {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name).to_string_lossy().into_owned());
    let make = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"];
    let alternative = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let mut openssl = Command::new("openssl");
    openssl.args(make).args([
        alternative,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        &key,
        "-out",
        &cert,
    ]);
    if openssl.output().is_ok_and(|output| output.status.success()) {
        return Some((cert, key));
    }
    eprintln!("NOT RUN: openssl is not here");
    None
}

#[test]
fn tokens_open_what_they_may_over_tls_and_nothing_else() {
    let mut swarm = Swarm::empty(&[]);
    let dir = swarm.dir().to_owned();
    let Some((cert, key)) = certificate(&dir) else { return };
    let data = dir.join("guarded").to_string_lossy().into_owned();
    std::fs::create_dir(&data).expect("a folder");
    let create = |name: &str, scopes: &[&str]| {
        let scopes: Vec<&str> = scopes.iter().flat_map(|scope| ["--scope", scope]).collect();
        bacnode(&[&["token", "create", "--data-dir", &data, name], &scopes[..]].concat()).ok().text().to_owned()
    };
    let (full, reader) = (create("ops", &["*"]), create("viewer", &["read:job"]));
    let worker = bacnode(&["token", "create", "--data-dir", &data, "worker"]).ok().text().to_owned();
    swarm.add("guarded", &["--no-docker", "--api-cert", &cert, "--api-key", &key, "--api-needs-token"]);
    let (api, ca) = (swarm.nodes[0].identity.api.clone(), Path::new(&cert));
    assert!(api.starts_with("https://127.0.0.1:"), "{api}");
    let hello = example("hello/hello.wasm");

    let nobody = from_elsewhere(&api, "", ca, &["job", "list"]);
    assert!(nobody.code == 2 && nobody.stderr.contains("this needs a token"), "{nobody:#?}");
    let stranger = from_elsewhere(&api, "bnt_00", ca, &["job", "list"]);
    assert!(stranger.stderr.contains("the token is not known here"), "{stranger:#?}");
    let untrusting = from_elsewhere(&api, &full, &dir.join("key.pem"), &["job", "list"]);
    assert_ne!(untrusting.code, 0, "{untrusting:#?}");

    from_elsewhere(&api, &worker, ca, &["wasm", "run", "--name", "far", "--follow", &hello]).ok();
    let said = from_elsewhere(&api, &worker, ca, &["job", "logs", "far"]).ok();
    assert!(said.stdout.to_lowercase().starts_with("hello"), "{said:#?}");
    let listed = from_elsewhere(&api, &reader, ca, &["job", "list"]).ok();
    assert!(listed.stdout.contains("far"), "{listed:#?}");
    let refused = from_elsewhere(&api, &reader, ca, &["job", "stop", "far"]);
    assert!(refused.stderr.contains("the token may not do this: it needs `write:job`"), "{refused:#?}");
    let refused = from_elsewhere(&api, &worker, ca, &["node", "list"]);
    assert!(refused.stderr.contains("it needs `read:node`"), "{refused:#?}");
    from_elsewhere(&api, &full, ca, &["node", "list"]).ok();

    // Taken back, at once.
    bacnode(&["token", "revoke", "--data-dir", &data, "viewer"]).ok();
    let revoked = from_elsewhere(&api, &reader, ca, &["job", "list"]);
    assert!(revoked.stderr.contains("was taken back"), "{revoked:#?}");
    let left = bacnode(&["token", "list", "--data-dir", &data, "--output", "csv"]).ok();
    assert_eq!(left.stdout.lines().count(), 3, "{left:#?}");

    // Who has the data folder has the socket.
    let socket = format!("unix:{data}/api.sock");
    let own = from_elsewhere(&socket, "", ca, &["job", "list"]).ok();
    assert!(own.stdout.contains("far"), "{own:#?}");
    let mode = std::fs::metadata(format!("{data}/api.sock")).expect("a socket").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    from_elsewhere(&socket, "", ca, &["wasm", "run", "--follow", &hello]).ok();
}

#[test]
fn a_token_does_not_go_where_others_could_read_it() {
    let ran = from_elsewhere("http://192.0.2.1:1234", "bnt_00", Path::new("/dev/null"), &["job", "list"]);
    assert!(ran.code == 2 && ran.stderr.contains("a token is not sent over http:// to another machine"), "{ran:#?}");
}
