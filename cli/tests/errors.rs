//! What the command line says when something is wrong, without any node: the exit code, and stderr. A change of these texts is
//! a change for users: look at it, then `INSTA_UPDATE=always cargo test -p bacnode --test errors`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs it in `dir`, whose path is not part of what it says.
fn said(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bacnode"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BACNODE_")) {
        command.env_remove(name);
    }
    command.env("HOME", dir).current_dir(dir).stdin(Stdio::null());
    let output = command.args(args).output().expect("bacnode runs");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8").replace(&*dir.to_string_lossy(), "DIR");
    assert!(output.stdout.is_empty(), "{args:?}: what is wrong is no data");
    let line = args.iter().map(|arg| arg.replace(&*dir.to_string_lossy(), "DIR")).collect::<Vec<_>>().join(" ");
    format!("$ bacnode {line}\n{stderr}exit {}\n", output.status.code().unwrap_or(-1))
}

#[test]
fn what_is_wrong_is_said_in_a_sentence_with_its_cause_and_a_hint() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().canonicalize().expect("a path");
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    };
    write("short.key", "/key/swarm/psk/1.0.0/\n/base16/\nabcd\n");
    write("odd.key", &format!("/key/swarm/psk/1.0.0/\n/base16/\n{}x{}\n", "a".repeat(9), "a".repeat(54)));
    write("none.key", "hello\n");
    write("typo.yaml", "Name: x\nTyp: batch\nTasks: []\n");
    write("broken.yaml", "Name: [\n");
    write("old.toml", "name = \"lab\"\nadress = []\n");
    let api = ["--api", "127.0.0.1:1"];
    let commands: [&[&str]; 24] = [
        &["jbo"],
        &["job", "lst"],
        &["job", "list", "--limt", "3"],
        &["job", "list", "--output", "tabel"],
        &["submit"],
        &["submit", "nowhere.yaml"],
        &["submit", "typo.yaml"],
        &["submit", "broken.yaml"],
        &["job", "describe", "x"],
        &["top"],
        &["serve", "--listen", "/ip4/127.0.0.1"],
        &["serve", "--listen", "/ip4/127.0.0.1/tpc/1"],
        &["serve", "--bootstrap", "peer:http"],
        &["serve", "--network", "a b"],
        &["serve", "--network", "demo"],
        &["serve", "--network", "old.toml"],
        &["serve", "--swarm-key", "nowhere.key"],
        &["serve", "--swarm-key", "none.key"],
        &["serve", "--swarm-key", "short.key"],
        &["serve", "--swarm-key", "odd.key"],
        &["serve", "--founder", "self"],
        &["serve", "--join", "bacnode1abc*"],
        &["serve", "--max-upload", "fast"],
        &["swarm", "keygen", "none.key"],
    ];
    let said: Vec<String> = commands.iter().map(|command| said(&dir, &[command, &api[..]].concat())).collect();
    insta::assert_snapshot!(said.join("\n"));
}
