//! A trace as a sequence diagram: a column for each node, time downwards.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::trace::Line;

const COLUMN: usize = 170;
const ROW: usize = 18;
const TOP: usize = 40;
const LEFT: usize = 90;

/// The lines as an SVG picture.
#[must_use]
pub fn svg(lines: &[&Line]) -> String {
    let mut columns: BTreeMap<usize, usize> = BTreeMap::new();
    for node in lines.iter().flat_map(|line| [Some(line.from), line.to]).flatten() {
        let next = columns.len();
        columns.entry(node).or_insert(next);
    }
    let (width, height) = (LEFT + columns.len().max(1) * COLUMN, TOP + lines.len() * ROW + 30);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"10\"><style>@media (prefers-color-scheme: dark) {{ svg {{ background: #111 }} text {{ fill: #ddd }} }}\
         </style><defs><marker id=\"to\" viewBox=\"0 0 6 6\" refX=\"6\" refY=\"3\" markerWidth=\"6\" markerHeight=\"6\" \
         orient=\"auto\"><path d=\"M0 0 6 3 0 6z\" fill=\"#36c\"/></marker></defs>\n"
    );
    let x = |node: &usize| LEFT + columns.get(node).copied().unwrap_or(0) * COLUMN + COLUMN / 2;
    for node in columns.keys() {
        let x = x(node);
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"20\" text-anchor=\"middle\" font-weight=\"bold\">n{node}</text>\
             <line x1=\"{x}\" y1=\"28\" x2=\"{x}\" y2=\"{height}\" stroke=\"#bbb\" stroke-dasharray=\"2 3\"/>"
        );
    }
    for (row, line) in lines.iter().enumerate() {
        let y = TOP + row * ROW;
        let _ = writeln!(out, "<text x=\"4\" y=\"{}\" fill=\"#888\">{:.6}</text>", y + 3, line.at as f64 / 1e6);
        let from = x(&line.from);
        let text = escape(&line.text.chars().take(60).collect::<String>());
        if let Some(to) = line.to.map(|to| x(&to)).filter(|to| *to != from) {
            let (middle, above) = (usize::midpoint(from, to), y - 3);
            let _ = writeln!(
                out,
                "<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" stroke=\"#36c\" marker-end=\"url(#to)\"/>\
                 <text x=\"{middle}\" y=\"{above}\" text-anchor=\"middle\">{text}</text>"
            );
        } else {
            let bad = ["bad luck", "is killed", "loses"].iter().any(|start| line.text.starts_with(start));
            let (colour, beside, below) = (if bad { "#c33" } else { "#393" }, from + 6, y + 3);
            let _ = writeln!(
                out,
                "<circle cx=\"{from}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/><text x=\"{beside}\" y=\"{below}\">{text}</text>"
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
