//! `top`: who is there, what runs, what happens, in a terminal; also over a slow line.

mod screen;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use bacnode_protocol::api::{HistoryItem, Job, ListNodes, NodeInfo, Page, Peers};
use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use futures::StreamExt as _;
use ratatui::crossterm;
use reqwest::Method;
use tokio::sync::mpsc;

use self::screen::{Pane, Screen};
use crate::client::Client;
use crate::error::{Exit, Failure, Result};

/// How often the tables are asked for; what happens comes by itself.
const REFRESH: Duration = Duration::from_secs(2);
/// Nodes and jobs that are shown.
const ROWS_MAX: usize = 500;
/// Before a node that is gone is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of an event that is still coming.
const EVENT_MAX: usize = 1 << 20;

/// What the screen is told.
enum News {
    Tables(Box<Tables>),
    Happened(String),
    Gone(String),
    Key(KeyCode),
    Resized,
    End,
}

/// Everything that is asked for at once.
#[derive(Debug, Default)]
struct Tables {
    own: NodeInfo,
    nodes: ListNodes,
    peers: Peers,
    jobs: Page<Job>,
}

pub(super) async fn run(client: &Client) -> Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("`top` needs a terminal")
            .hint("`node list`, `job list` and `/api/v1/network/events` are for programs"));
    }
    // Whoever cannot be reached at all is told before the screen is taken.
    let first = ask(client).await?;
    let mut screen = Screen::new(client.shown());
    screen.take(first);
    let (news, mut heard) = mpsc::channel(256);
    let (tables, happened) =
        (tokio::spawn(refresh(client.clone(), news.clone())), tokio::spawn(follow(client.clone(), news.clone())));
    std::thread::spawn(move || keys(&news));
    let mut terminal = ratatui::init();
    let shown = async {
        loop {
            terminal.draw(|frame| screen.draw(frame)).map_err(|error| Failure::failed(error.to_string()))?;
            let Some(first) = heard.recv().await else { return Ok(()) };
            // Whatever else is there already is drawn along.
            let mut next = Some(first);
            while let Some(news) = next {
                match news {
                    News::Tables(tables) => screen.take(*tables),
                    News::Happened(line) => screen.happened(line),
                    News::Gone(why) => screen.gone(why),
                    News::Key(KeyCode::Char('q') | KeyCode::Esc) | News::End => return Ok(()),
                    News::Key(KeyCode::Tab) => screen.turn(),
                    News::Key(KeyCode::Down | KeyCode::Char('j')) => screen.scroll(1),
                    News::Key(KeyCode::Up | KeyCode::Char('k')) => screen.scroll(-1),
                    News::Key(KeyCode::PageDown | KeyCode::Char(' ')) => screen.scroll(10),
                    News::Key(KeyCode::PageUp) => screen.scroll(-10),
                    News::Key(KeyCode::Char('n')) => screen.show(Pane::Nodes),
                    News::Key(KeyCode::Char('t')) => screen.show(Pane::Jobs),
                    News::Key(_) | News::Resized => {}
                }
                next = heard.try_recv().ok();
            }
        }
    };
    let ended: Result<()> = shown.await;
    ratatui::restore();
    tables.abort();
    happened.abort();
    ended
}

async fn ask(client: &Client) -> Result<Tables> {
    let nodes = format!("orchestrator/nodes?limit={ROWS_MAX}");
    let jobs = format!("orchestrator/jobs?namespace=*&reverse=true&limit={ROWS_MAX}");
    Ok(Tables {
        own: client.get("agent/node").await?,
        nodes: client.get(&nodes).await?,
        peers: client.get("network/peers").await?,
        jobs: client.get(&jobs).await?,
    })
}

/// Asks for the tables again and again.
async fn refresh(client: Client, news: mpsc::Sender<News>) {
    loop {
        tokio::time::sleep(REFRESH).await;
        let told = match ask(&client).await {
            Ok(tables) => News::Tables(Box::new(tables)),
            Err(failure) if failure.exit == Exit::Unreachable => News::Gone(format!("{} is gone", client.shown())),
            Err(failure) => News::Gone(failure.to_string().lines().next().unwrap_or_default().to_owned()),
        };
        if news.send(told).await.is_err() {
            return;
        }
    }
}

/// Hears what happens, as server-sent events; from the start again when the node is back.
async fn follow(client: Client, news: mpsc::Sender<News>) {
    loop {
        if let Ok(response) = client.send(client.request(Method::GET, "network/events")).await {
            let (mut body, mut buffer) = (response.bytes_stream(), Vec::new());
            while let Some(Ok(bytes)) = body.next().await {
                buffer.extend_from_slice(&bytes);
                while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                    let event: Vec<u8> = buffer.drain(..end + 2).collect();
                    if let Some(line) = sentence(&String::from_utf8_lossy(&event))
                        && news.send(News::Happened(line)).await.is_err()
                    {
                        return;
                    }
                }
                if buffer.len() > EVENT_MAX {
                    break;
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
        if news.is_closed() {
            return;
        }
    }
}

/// What an event says, in one line.
fn sentence(event: &str) -> Option<String> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let (kind, data) = (field("event:")?, field("data:")?);
    Some(match kind {
        "job" => {
            let item: HistoryItem = serde_json::from_str(data).ok()?;
            let job: String = item.job_id.chars().take(17).collect();
            let time = item.time.get(11..19).unwrap_or_default();
            format!("{time}  {job}  {}", item.event.message.lines().next().unwrap_or_default())
        }
        "joined" | "left" => {
            let node: BTreeMap<String, String> = serde_json::from_str(data).ok()?;
            let name = node.get("Name").filter(|name| !name.is_empty()).or_else(|| node.get("PeerId"))?;
            format!("          {name} {}", if kind == "joined" { "joins" } else { "leaves" })
        }
        _ => return None,
    })
}

/// Hears the keyboard, which only a thread can wait for.
fn keys(news: &mpsc::Sender<News>) {
    while let Ok(event) = crossterm::event::read() {
        let told = match event {
            Event::Key(key) if key.kind == KeyEventKind::Release => continue,
            Event::Key(key) if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) => {
                News::End
            }
            Event::Key(key) => News::Key(key.code),
            Event::Resize(..) => News::Resized,
            _ => continue,
        };
        if news.blocking_send(told).is_err() {
            return;
        }
    }
    let _ = news.blocking_send(News::End);
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn events_are_one_line_each() {
        let event = "event: joined\ndata: {\"PeerId\":\"12D3\",\"Name\":\"carol\"}\n\n";
        assert_eq!(sentence(event).expect("a line").trim(), "carol joins");
        assert_eq!(sentence(": keep-alive\n\n"), None);
        assert_eq!(sentence("event: job\ndata: nonsense\n\n"), None);
    }
}
