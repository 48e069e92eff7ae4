//! What `top` shows. It fits into 80 columns and 24 lines, and takes what more there is.

use std::collections::{HashMap, VecDeque};

use bacnode_protocol::api::{Job, NodeState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

use super::Tables;
use crate::output;

/// Events that are kept.
const EVENTS_MAX: usize = 200;
/// Lines for what happens, and columns of a bar.
const EVENTS_HEIGHT: u16 = 7;
const BAR: usize = 8;

/// Which table the keys move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Nodes,
    Jobs,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Screen {
    address: String,
    tables: Tables,
    rtts: HashMap<String, f64>,
    events: VecDeque<String>,
    pane: Pane,
    /// Rows that are scrolled past, in each table.
    nodes_at: usize,
    jobs_at: usize,
    problem: Option<String>,
}

impl Screen {
    pub(super) fn new(address: String) -> Self {
        let (tables, rtts, events) = (Tables::default(), HashMap::new(), VecDeque::new());
        Self { address, tables, rtts, events, pane: Pane::Jobs, nodes_at: 0, jobs_at: 0, problem: None }
    }

    /// Takes what the node answered: it is there.
    pub(super) fn take(&mut self, tables: Tables) {
        let rtts = tables.peers.peers.iter().filter_map(|peer| Some((peer.peer_id.clone(), peer.rtt_ms?)));
        self.rtts = rtts.collect();
        self.problem = None;
        self.tables = tables;
        self.scroll(0);
    }

    /// The node does not answer; what it said last stays.
    pub(super) fn gone(&mut self, why: String) {
        self.problem = Some(why);
    }

    pub(super) fn happened(&mut self, line: String) {
        self.events.push_back(line);
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    pub(super) fn turn(&mut self) {
        self.pane = if self.pane == Pane::Jobs { Pane::Nodes } else { Pane::Jobs };
    }

    pub(super) fn show(&mut self, pane: Pane) {
        self.pane = pane;
    }

    pub(super) fn scroll(&mut self, rows: isize) {
        let (at, len) = match self.pane {
            Pane::Nodes => (&mut self.nodes_at, self.tables.nodes.nodes.len()),
            Pane::Jobs => (&mut self.jobs_at, self.tables.jobs.items.len()),
        };
        *at = at.saturating_add_signed(rows).min(len.saturating_sub(1));
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let warnings = u16::try_from(self.tables.peers.warnings.len().min(2)).unwrap_or(0);
        let [head, warned, nodes, jobs, events] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(warnings),
            Constraint::Fill(2),
            Constraint::Fill(3),
            Constraint::Length(EVENTS_HEIGHT),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(), head);
        let lines = self.tables.peers.warnings.iter().map(|warning| Line::from(plain(warning)).red());
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), warned);
        self.nodes(frame, nodes);
        self.jobs(frame, jobs);
        self.events(frame, events);
    }

    fn head(&self) -> Line<'static> {
        if let Some(problem) = &self.problem {
            return Line::from(format!("{}; it is asked again …", plain(problem))).red();
        }
        let own = &self.tables.own;
        let name = if own.name.is_empty() { self.address.clone() } else { plain(&own.name) };
        let (nodes, peers) = (self.tables.nodes.nodes.len(), self.tables.peers.peers.len());
        Line::from(vec![
            Span::from(name).bold(),
            Span::from(format!("  {nodes} nodes, {peers} connected")),
            Span::from("   tab, arrows, q to end").dim(),
        ])
    }

    fn block(&self, title: &str, pane: Option<Pane>) -> Block<'static> {
        let chosen = pane == Some(self.pane);
        let style = if chosen { Style::new().fg(Color::Cyan) } else { Style::new().dim() };
        Block::new().borders(Borders::TOP).border_style(style).title(format!(" {title} "))
    }

    fn nodes(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut nodes: Vec<&NodeState> = self.tables.nodes.nodes.iter().collect();
        // Whoever has most to do is looked for.
        nodes.sort_by(|left, right| (right.info.load, &left.info.name).cmp(&(left.info.load, &right.info.name)));
        let row = |node: &&NodeState| {
            let (info, compute) = (&node.info, &node.info.compute);
            let rtt = self.rtts.get(&info.node_id).map(|rtt| format!("{rtt:.1} ms")).unwrap_or_default();
            let engines = compute.execution_engines.join(" ");
            let cells = [
                if info.name.is_empty() { info.node_id.chars().skip(8).take(8).collect() } else { plain(&info.name) },
                format!("{} {:>4} %", bar(info.load), info.load),
                compute.running_executions.to_string(),
                compute.enqueued_executions.to_string(),
                if engines.is_empty() { "no jobs".into() } else { plain(&engines) },
                rtt,
                format!("{} s", info.last_seen_s),
            ];
            let row = Row::new(cells);
            if node.connection == "CONNECTED" { row } else { row.dim() }
        };
        let rows: Vec<Row<'_>> = nodes.iter().skip(self.nodes_at).map(row).collect();
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(15),
            Constraint::Length(4),
            Constraint::Length(5),
            Constraint::Length(12),
            Constraint::Length(9),
            Constraint::Length(6),
        ];
        let headings = ["node", "load", "runs", "waits", "engines", "away", "heard"];
        let table = Table::new(rows, widths).header(Row::new(headings).add_modifier(Modifier::DIM));
        frame.render_widget(table.block(self.block("nodes", Some(Pane::Nodes))), area);
    }

    fn jobs(&self, frame: &mut Frame<'_>, area: Rect) {
        let row = |job: &Job| {
            let state = &job.state.state_type;
            let colour = match state.as_str() {
                "Completed" => Color::Green,
                "Failed" => Color::Red,
                "Running" => Color::Cyan,
                _ => Color::Reset,
            };
            let why = job.state.message.lines().next().unwrap_or_default();
            Row::new([
                Span::from(plain(&job.name)),
                Span::from(plain(&job.kind)),
                Span::from(plain(state)).fg(colour),
                Span::from(output::ago(job.create_time)),
                Span::from(plain(why)).dim(),
            ])
        };
        let rows: Vec<Row<'_>> = self.tables.jobs.items.iter().skip(self.jobs_at).map(row).collect();
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(8),
            Constraint::Length(10),
            Constraint::Length(12),
            Constraint::Fill(3),
        ];
        let headings = ["job", "type", "state", "submitted", "why"];
        let table = Table::new(rows, widths).header(Row::new(headings).add_modifier(Modifier::DIM));
        frame.render_widget(table.block(self.block("jobs", Some(Pane::Jobs))), area);
    }

    fn events(&self, frame: &mut Frame<'_>, area: Rect) {
        let room = usize::from(area.height.saturating_sub(1));
        let lines = self.events.iter().rev().take(room).rev().map(|line| Line::from(plain(line)));
        let events = Paragraph::new(lines.collect::<Vec<_>>()).block(self.block("what happens", None));
        frame.render_widget(events, area);
    }
}

/// What a peer says must not command a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Eight columns for a hundred percent.
fn bar(percent: u16) -> String {
    let full = (usize::from(percent) * BAR).div_ceil(100).min(BAR);
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use bacnode_protocol::api::{ListNodes, NodeInfo, Page, Peer, Peers};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn tables() -> Tables {
        let node = |name: &str, load: u16, connected: bool| {
            let mut node = NodeState {
                connection: if connected { "CONNECTED" } else { "DISCONNECTED" }.into(),
                ..NodeState::default()
            };
            node.info = NodeInfo { name: name.into(), node_id: format!("12D3KooW{name}"), load, ..NodeInfo::default() };
            node.info.compute.execution_engines = vec!["wasm".into()];
            node.info.compute.running_executions = (load / 50).into();
            node
        };
        let job = |name: &str, state: &str, why: &str| {
            let mut job = Job { name: name.into(), kind: "batch".into(), ..Job::default() };
            (job.state.state_type, job.state.message) = (state.into(), why.into());
            // Whenever this is run, that is now.
            job.create_time = u64::MAX;
            job
        };
        let peer = Peer { peer_id: "12D3KooWbob".into(), rtt_ms: Some(12.34), ..Peer::default() };
        Tables {
            own: NodeInfo { name: "ann".into(), ..NodeInfo::default() },
            nodes: ListNodes {
                nodes: vec![node("ann", 0, true), node("bob", 130, true), node("eve\u{1b}[31m", 50, false)],
                ..ListNodes::default()
            },
            peers: Peers {
                peers: vec![peer],
                warnings: vec!["the clock here is 4 min ahead of 7 peers".into()],
                ..Peers::default()
            },
            jobs: Page::whole(vec![
                job("weather", "Completed", ""),
                job("grid", "Failed", "memory: needs 64 GiB, has 19 GiB"),
            ]),
        }
    }

    fn shown(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| screen.draw(frame)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(width));
        lines
            .map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned() + "\n")
            .collect()
    }

    #[test]
    fn it_fits_into_eighty_columns() {
        let mut screen = Screen::new("127.0.0.1:1234".into());
        screen.take(tables());
        screen.happened("12:00:00  j-abc-def  bob wins: 0 ms".into());
        let text = shown(&screen, 80, 24);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn whatever_the_size_it_does_not_panic_and_a_node_that_is_gone_is_said_so() {
        let mut screen = Screen::new("127.0.0.1:1234".into());
        screen.take(tables());
        screen.gone("127.0.0.1:1234 is gone".into());
        for (width, height) in [(1, 1), (10, 3), (40, 10), (300, 100)] {
            let text = shown(&screen, width, height);
            assert_eq!(text.lines().count(), usize::from(height));
        }
        assert!(shown(&screen, 80, 24).starts_with("127.0.0.1:1234 is gone; it is asked again"));
        for rows in [1, 100, -3, -1000] {
            screen.scroll(rows);
            screen.turn();
        }
        screen.take(Tables::default());
        let _ = shown(&screen, 80, 24);
    }
}
