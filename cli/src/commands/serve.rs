//! `serve`: the daemon.

use std::path::Path;

use bacnode_node::Node;
use bacnode_protocol::api::NodeIdentity;
use clap::ArgMatches;
use clap::parser::ValueSource;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::args::{LogFormat, LogLevel, Serve};
use crate::error::{Exit, Failure, Result};
use crate::output;
use crate::settings::{Settings, data_dir};

/// For `serve`, `--api` is where to listen.
pub(super) fn listen_where_told(args: &mut Serve, api: &str, matches: &ArgMatches) -> Result<()> {
    if matches.value_source("api") == Some(ValueSource::CommandLine) {
        let address = api.trim_start_matches("http://").trim_end_matches('/').replace("localhost", "127.0.0.1");
        let parsed = address.parse().map_err(|_| {
            Failure::usage(format!("--api {api}: not an address to listen on")).hint("write it like 127.0.0.1:1234")
        })?;
        args.api_listen = Some(parsed);
    }
    Ok(())
}

pub(super) async fn run(args: &Serve, matches: &ArgMatches) -> Result<()> {
    if let Some(line) = &args.join {
        super::swarm::join(&data_dir(args.data_dir.as_ref())?, line)?;
    }
    let settings = Settings::resolve(args, matches)?;
    log_to_stderr(settings.log_level, settings.log_format);
    let private = settings.config.swarm_key.is_some();
    let node = Node::start(settings.config).await.map_err(|error| explain(&error))?;
    let identity = node.identity().await;
    announce(&node, &identity, private);
    if let Some(path) = &settings.ready_file {
        write_ready_file(path, &identity)?;
    }
    let told = bacnode_node::until_told(args.until_eof).await;
    told.map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))?;
    output::note("taking leave …");
    node.stop().await;
    if let Some(path) = &settings.ready_file {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

fn explain(error: &bacnode_node::StartError) -> Failure {
    use bacnode_node::StartError;
    let failure = Failure::new(
        match error {
            StartError::Network(_) | StartError::Key(_) | StartError::Api { .. } | StartError::Tls { .. } => {
                Exit::Usage
            }
            StartError::Store(_) | StartError::Content(_) | StartError::System { .. } => Exit::Failed,
        },
        error.to_string(),
    );
    match error {
        StartError::Api { .. } => {
            failure.hint("is another node running? --api names another address, port 0 any free one")
        }
        StartError::Network(text) if text.contains("cannot listen") => {
            failure.hint("is another node running? --listen names another address, port 0 any free one")
        }
        StartError::Store(bacnode_node::store::StoreError::Locked(_)) => {
            failure.hint("every node needs a data folder of its own: --data-dir")
        }
        StartError::Key(bacnode_node::identity::KeyError::Open { path, .. }) => {
            failure.hint(format!("chmod 600 {}", path.display()))
        }
        _ => failure,
    }
}

fn announce(node: &Node, identity: &NodeIdentity, private: bool) {
    let kind = if private { "private network" } else { "network" };
    output::note(&format!("{} {}", output::bold("node    "), identity.peer_id));
    output::note(&format!("{} {} ({kind})", output::bold("network "), identity.network));
    for address in node.listening() {
        output::note(&format!("{} {address}/p2p/{}", output::bold("join at "), identity.peer_id));
    }
    output::note(&format!("{} {}", output::bold("api     "), identity.api));
}

/// Written aside and renamed: whoever sees it sees all of it.
fn write_ready_file(path: &Path, identity: &NodeIdentity) -> Result<()> {
    let text = serde_json::to_string_pretty(identity).unwrap_or_default();
    let aside = path.with_extension("part");
    let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, path));
    written.map_err(|error| Failure::failed(format!("cannot write the ready file {}: {error}", path.display())))
}

fn log_to_stderr(level: LogLevel, format: LogFormat) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries speak up when an operator may act.
    let others = if own >= LevelFilter::DEBUG { LevelFilter::INFO } else { LevelFilter::ERROR };
    let filter = Targets::new().with_default(others).with_target("bacnode", own).with_target("bacnode_node", own);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => registry.with(layer.json()).init(),
        // The journal notes the time itself, and takes the level from the line's beginning.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            registry.with(layer.event_format(ForJournal).with_ansi(false)).init();
        }
        LogFormat::Text => registry.with(layer.with_target(false).with_ansi(output::is_terminal())).init(),
    }
}

/// Lines as `sd-daemon(3)` has them: `<6>` and the like, then what there is to say.
struct ForJournal;

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            tracing::Level::ERROR => 3,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 6,
            tracing::Level::DEBUG | tracing::Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
