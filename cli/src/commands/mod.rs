//! One file per noun; this one leads there.

mod backup;
mod config;
mod content;
mod demo;
mod doctor;
mod download;
mod job;
mod node;
mod peers;
mod published;
mod serve;
mod submit;
mod swarm;
mod task;
mod timeline;
mod token;
mod top;
mod version;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::error::Result;
use crate::output;

/// Parses, does, and says how it went.
pub(crate) fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(workers(&cli)).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("error: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(cli, &matches));
    // Time for a node's database to close; a command has nothing that would need it.
    runtime.shutdown_timeout(std::time::Duration::from_secs(3));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&failure.to_string());
            failure.exit_code()
        }
    }
}

/// A daemon uses the machine; a command that asks it something needs one thread.
fn workers(cli: &Cli) -> usize {
    match cli.command {
        Command::Serve(_) => std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)),
        _ => 1,
    }
}

async fn dispatch(cli: Cli, matches: &ArgMatches) -> Result<()> {
    let global = cli.global;
    let client = || Client::of(&global.api);
    match cli.command {
        Command::Serve(mut args) => {
            let (name, own) = matches.subcommand().unwrap_or(("serve", matches));
            debug_assert_eq!(name, "serve");
            serve::listen_where_told(&mut args, &global.api, own)?;
            serve::run(&args, own).await
        }
        Command::Submit(args) => submit::run(&client()?, args).await,
        Command::Wasm { command: crate::args::Wasm::Run(args) } => task::run_module(&client()?, args).await,
        Command::Docker { command: crate::args::Docker::Run(args) } => task::run_container(&client()?, args).await,
        Command::Job { command } => job::run(&client()?, global.output, command).await,
        Command::Node { command } => node::run(&client()?, global.output, command).await,
        Command::Top => top::run(&client()?).await,
        Command::Peers { command } => peers::run(&client()?, global.output, command).await,
        Command::Swarm { command } => swarm::run(client, global.output, command).await,
        Command::Content { command } => content::run(&client()?, global.output, command).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Config { command: crate::args::Config::Show(args) } => {
            let own =
                matches.subcommand().and_then(|(_, config)| config.subcommand()).map_or(matches, |(_, show)| show);
            config::show(&args, own, global.output)
        }
        Command::Config { command: crate::args::Config::Set { data_dir, name, value } } => {
            config::set(data_dir, &name, &value)
        }
        Command::Doctor(args) => {
            let own = matches.subcommand().map_or(matches, |(_, doctor)| doctor);
            doctor::run(&args, own, &client()?, global.output).await
        }
        Command::Token { command } => token::run(global.output, command),
        Command::Backup { data_dir, file } => backup::backup(data_dir, &file),
        Command::Restore { data_dir, file } => backup::restore(data_dir, &file),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bacnode", &mut script);
            // Whoever reads may have had enough.
            let _ = output::raw(&script);
            Ok(())
        }
        Command::Version => version::run(&client()?, global.output).await,
    }
}
