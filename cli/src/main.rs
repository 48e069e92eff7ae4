//! `bacnode`: one binary turns a machine into a peer of a compute network.

mod args;
mod client;
mod commands;
mod error;
mod output;
mod settings;
mod socket;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A worker of a node's WASM engine is this program under a hidden name; it must not even parse arguments.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == bacnode_node::engine::wasm::worker::COMMAND) {
        bacnode_node::engine::wasm::worker::main();
    }
    if std::env::args_os().nth(1).is_some_and(|arg| arg == bacnode_node::engine::docker::guard::COMMAND) {
        bacnode_node::engine::docker::guard::main();
    }
    commands::run()
}
