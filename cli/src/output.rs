//! Everything that is printed. stdout is data; all else goes to stderr.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::args::Format;
use crate::error::{Failure, Result};

/// Writes a line of data.
pub(crate) fn line(text: &str) {
    // Whoever reads may have had enough.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes a line for people.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes data as it is.
pub(crate) fn raw(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Whether people watch.
pub(crate) fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether nobody's terminal shows what is written.
pub(crate) fn both_are_files() -> bool {
    !std::io::stdout().is_terminal() && !is_terminal()
}

fn coloured() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn paint(code: &str, text: &str) -> String {
    if coloured() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub(crate) fn bold(text: &str) -> String {
    paint("1", text)
}

pub(crate) fn dim(text: &str) -> String {
    paint("2", text)
}

pub(crate) fn green(text: &str) -> String {
    paint("32", text)
}

pub(crate) fn red(text: &str) -> String {
    paint("31", text)
}

/// Text from elsewhere without what could command a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n' || *c == '\t').collect()
}

/// Rows under headings, as lines.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    table.lines().map(|row| row.trim_end().strip_prefix(' ').unwrap_or(row.trim_end()).to_owned()).collect()
}

/// Prints rows under headings, or the whole value in another format.
pub(crate) fn rows<T: Serialize>(format: Format, value: &T, headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    match format {
        Format::Table => {
            for row in table(headings, rows) {
                line(&row);
            }
            Ok(())
        }
        Format::Csv => {
            let quote = |cell: &String| {
                if cell.contains([',', '"', '\n']) {
                    format!("\"{}\"", cell.replace('"', "\"\""))
                } else {
                    cell.clone()
                }
            };
            line(
                &headings.iter().map(|heading| heading.to_lowercase().replace(' ', "_")).collect::<Vec<_>>().join(","),
            );
            for row in rows {
                line(&row.iter().map(quote).collect::<Vec<_>>().join(","));
            }
            Ok(())
        }
        Format::Json | Format::Yaml => structured(format, value),
    }
}

/// Prints a value as JSON or YAML.
pub(crate) fn structured<T: Serialize>(format: Format, value: &T) -> Result<()> {
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(&value).map_err(|error| Failure::failed(error.to_string()))?,
        _ => serde_json::to_string_pretty(&value).unwrap_or_default(),
    };
    line(text.trim_end());
    Ok(())
}

/// `350 ms`, `2.4 s`, `3 min 20 s`.
pub(crate) fn duration(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{:.1} s", millis as f64 / 1_000.0),
        _ => format!("{} min {} s", millis / 60_000, millis / 1_000 % 60),
    }
}

/// `5 s ago`, `3 h ago`.
pub(crate) fn ago(nanos: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = (now.as_secs()).saturating_sub(nanos / 1_000_000_000);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
