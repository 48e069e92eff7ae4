//! What the command line says of itself. A change of these texts is a change for users: look at it, then
//! `INSTA_UPDATE=always cargo test -p bacnode --test help`.

use std::process::Command;

fn help(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bacnode"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BACNODE_")) {
        command.env_remove(name);
    }
    let output = command.args(args).arg("--help").output().expect("bacnode runs");
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_command_explains_itself() {
    let commands: [&[&str]; 13] = [
        &[],
        &["serve"],
        &["submit"],
        &["wasm", "run"],
        &["docker", "run"],
        &["job"],
        &["job", "list"],
        &["job", "get"],
        &["job", "logs"],
        &["node"],
        &["content"],
        &["content", "get"],
        &["demo"],
    ];
    for command in commands {
        let name = if command.is_empty() { "bacnode".to_owned() } else { command.join("-") };
        insta::assert_snapshot!(name, help(command));
    }
}
