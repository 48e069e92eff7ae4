//! A job's attempts against time, a line each: `node-2  ··░░▓▓▓▓▓▓✓`. The console draws the same (`timeline.js`).
//!
//! The market takes milliseconds and the run minutes: up to the first award time is not drawn, the story tells it.

use bacnode_protocol::api::HistoryItem;

/// Columns of the drawing, and attempts that are drawn.
const WIDTH: u64 = 48;
const LINES_MAX: usize = 16;
/// Columns for a node's name.
const NAME: usize = 14;

/// What an attempt does from an event on.
fn phase(topic: &str) -> Option<char> {
    Some(match topic {
        "Awarded" | "Waiting" => '·',
        "Preparing" => '░',
        "Running" | "Open" | "Heard" => '▓',
        "Publishing" | "Withheld" | "Result" => '▒',
        "Suspected" => '?',
        _ => return None,
    })
}

/// How an attempt ends with an event.
fn end(topic: &str) -> Option<char> {
    Some(match topic {
        "Accepted" => '✓',
        "Refused" | "Lost" | "GivenUp" => '✗',
        "Cancelled" => '■',
        _ => return None,
    })
}

/// One attempt.
struct Lane<'a> {
    node: &'a str,
    /// From when on it does what.
    phases: Vec<(u64, char)>,
    end: Option<(u64, char)>,
}

/// The lines of the drawing; none if nothing was awarded. `now` is where what goes on is drawn to; times are in milliseconds.
pub(super) fn draw(history: &[HistoryItem], millis: impl Fn(&str) -> u64, now: u64) -> Vec<String> {
    let mut lanes: Vec<(&str, Lane<'_>)> = Vec::new();
    for item in history.iter().filter(|item| !item.execution_id.is_empty()) {
        let at = millis(&item.time);
        if item.event.topic == "Awarded" {
            let node = item.event.details.get("NodeName").map_or("", String::as_str);
            lanes.push((&item.execution_id, Lane { node, phases: Vec::new(), end: None }));
        }
        let lane = lanes.iter_mut().rev().find(|(execution, _)| *execution == item.execution_id);
        let Some((_, lane)) = lane.filter(|(_, lane)| lane.end.is_none()) else { continue };
        lane.phases.extend(phase(&item.event.topic).map(|phase| (at, phase)));
        lane.end = end(&item.event.topic).map(|end| (at, end));
    }
    let Some(start) = lanes.iter().filter_map(|(_, lane)| lane.phases.first()).map(|(at, _)| *at).min() else {
        return Vec::new();
    };
    let over = lanes.iter().map(|(_, lane)| lane.end.map_or(now, |(at, _)| at)).max().unwrap_or(now).max(start + 1);
    let column = |at: u64| (at.saturating_sub(start) * WIDTH / (over - start)).min(WIDTH - 1) as usize;
    let left_out = lanes.len().saturating_sub(LINES_MAX);
    let mut lines: Vec<String> = lanes.iter().take(LINES_MAX).map(|(_, lane)| lane.draw(&column, now)).collect();
    if left_out > 0 {
        lines.push(format!("{:NAME$}  and {left_out} more", ""));
    }
    lines.push(format!("{:NAME$}  · waits  ░ fetches inputs  ▓ runs  ▒ stores the result  ? silent", ""));
    lines
}

impl Lane<'_> {
    fn draw(&self, column: &impl Fn(u64) -> usize, now: u64) -> String {
        let mut cells = [' '; WIDTH as usize];
        let last = column(self.end.map_or(now, |(at, _)| at));
        for (index, (at, phase)) in self.phases.iter().enumerate() {
            let until = self.phases.get(index + 1).map_or(last, |(next, _)| column(*next));
            cells[column(*at)..=until.max(column(*at))].fill(*phase);
        }
        if let Some((_, end)) = self.end {
            cells[last] = end;
        }
        let name: String = self.node.chars().filter(|c| !c.is_control()).take(NAME).collect();
        format!("{name:<NAME$}  {}", cells.iter().collect::<String>().trim_end())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bacnode_protocol::api::HistoryItem;

    use super::draw;

    fn line(at: u64, execution: &str, topic: &str, node: &str) -> HistoryItem {
        let mut item = HistoryItem { execution_id: execution.into(), time: at.to_string(), ..HistoryItem::default() };
        item.event.topic = topic.into();
        item.event.details = BTreeMap::from([("NodeName".to_owned(), node.to_owned())]);
        item
    }

    #[test]
    fn a_lost_attempt_and_the_one_that_took_its_place() {
        let history = [
            line(0, "", "Submitted", ""),
            line(100, "e-1", "Awarded", "node-1"),
            line(200, "e-1", "Running", "node-1"),
            line(700, "e-1", "Suspected", "node-1"),
            line(800, "e-2", "Awarded", "node-2"),
            line(820, "e-2", "Preparing", "node-2"),
            line(900, "e-2", "Running", "node-2"),
            line(1_000, "e-1", "Lost", "node-1"),
            line(1_250, "e-2", "Result", "node-2"),
            line(1_300, "e-2", "Accepted", "node-2"),
        ];
        let lines = draw(&history, |time| time.parse().expect("a number"), 1_300);
        assert_eq!(lines[0], "node-1          ····▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓????????????✗");
        assert_eq!(lines[1], "node-2                                      ░░░░▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒✓");
        assert!(lines[2].contains("▓ runs") && lines.len() == 3, "{lines:?}");
    }

    #[test]
    fn what_goes_on_is_drawn_to_now_and_what_was_not_awarded_not_at_all() {
        let history = [line(0, "e-1", "Awarded", "a"), line(10, "e-1", "Running", "a")];
        assert!(draw(&history, |time| time.parse().expect("a number"), 100)[0].ends_with("▓▓▓"));
        assert!(draw(&[line(0, "", "Submitted", "")], |_| 0, 100).is_empty());
    }
}
