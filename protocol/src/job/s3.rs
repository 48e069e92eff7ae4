//! What a spec says of S3-compatible stores, checked. The fields are Bacalhau's.

use serde_json::Value;

use super::fields::{Fields, Problems};
use super::inputs::{required, sha256_of};
use super::spec::TaskSpec;
use crate::limits::URL_BYTES_MAX;
use crate::wire::bounded::TextMax;
use crate::wire::s3::{Encoding, Objects, Partition, Place, Publisher, pattern};

/// The parameters of an input of type `s3`.
pub(super) fn objects(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<Objects> {
    let place = place(fields, problems)?;
    let filter = fields.text("Filter", problems).unwrap_or_default();
    let version = fields.text("VersionID", problems).unwrap_or_default();
    let checksum = fields.text("ChecksumSHA256", problems).filter(|text| !text.is_empty());
    check_pattern(&fields.at("Filter"), &filter, problems);
    let sha256 = checksum.as_ref().and_then(|text| sha256_of(text));
    if checksum.is_some() && sha256.is_none() {
        problems.add(fields.at("ChecksumSHA256"), "must be 64 hexadecimal digits");
    }
    if place.prefix().is_some() && (checksum.is_some() || !version.is_empty()) {
        problems.add(fields.at("Key"), "names several objects: a version or a checksum goes with one");
    }
    let at = fields.at("Partition");
    let partition = fields.take("Partition").map(|value| partition(&at, value, problems)).unwrap_or_default();
    let (filter, version) = (TextMax::truncated(&filter), TextMax::truncated(&version));
    Some(Objects { place, filter, version, sha256, partition })
}

fn place(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<Place> {
    let before = problems.count();
    let bucket = required(fields, "Bucket", problems);
    let key = fields.text("Key", problems).unwrap_or_default();
    let region = fields.text("Region", problems).unwrap_or_default();
    let endpoint = fields.text("Endpoint", problems).unwrap_or_default();
    let bucket = bucket?;
    let plain = |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
    if !(3..=63).contains(&bucket.len()) || !plain(&bucket, b".-_") {
        let shown: String = bucket.chars().take(80).collect();
        problems.add(
            fields.at("Bucket"),
            format!("`{shown}` is not the name of a bucket (3 to 63 letters, digits, - and .)"),
        );
    }
    if key.len() > 1024
        || key.starts_with('/')
        || key.contains(|c: char| c.is_control())
        || key.split('/').any(|p| p == "..")
    {
        problems.add(fields.at("Key"), "must be a key of at most 1024 bytes, without a `/` before it and without `..`");
    }
    if key.trim_end_matches('*').contains('*') {
        problems.add(fields.at("Key"), "may have a `*` at its end only; `Filter` takes a regular expression");
    }
    if region.len() > 64 || !plain(&region, b"-") {
        problems.add(fields.at("Region"), "is not the name of a region (like `eu-west-1`)");
    }
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let host =
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['@', '?', '#', ' ']));
    if !endpoint.is_empty() && (!host || endpoint.len() > URL_BYTES_MAX) {
        problems.add(fields.at("Endpoint"), "must be the http or https URL of a store");
    }
    let place = Place {
        bucket: TextMax::truncated(&bucket),
        key: TextMax::truncated(&key),
        region: TextMax::truncated(&region),
        endpoint: TextMax::truncated(endpoint.trim_end_matches('/')),
    };
    if problems.count() == before && !place.is_plain() {
        problems.add(&fields.path, "names a place with characters that do not belong there");
    }
    Some(place)
}

fn partition(path: &str, value: &Value, problems: &mut Problems) -> Partition {
    let mut fields = Fields::of(path, value, problems);
    let kind = fields.text("Type", problems).unwrap_or_default().to_lowercase();
    let text = fields.text("Pattern", problems).unwrap_or_default();
    let start = fields.integer("StartIndex", problems).unwrap_or_default();
    let end = fields.integer("EndIndex", problems).unwrap_or_default();
    let layout = fields.text("DateFormat", problems).unwrap_or_default();
    let (at_type, at_pattern, at_end) = (fields.at("Type"), fields.at("Pattern"), fields.at("EndIndex"));
    let at_layout = fields.at("DateFormat");
    fields.finish(problems);
    match kind.as_str() {
        "" | "none" => Partition::None,
        "object" => Partition::Object,
        "regex" => {
            if text.is_empty() {
                problems.add(&at_pattern, "is required with `regex`");
            }
            check_pattern(&at_pattern, &text, problems);
            Partition::Regex(TextMax::truncated(&text))
        }
        "substring" => {
            if start < 0 || end <= start || end > 1024 {
                problems.add(at_end, "must be more than StartIndex, from 1 to 1024");
            }
            Partition::Substring(u32::try_from(start).unwrap_or(0), u32::try_from(end).unwrap_or(0))
        }
        "date" => {
            if layout.is_empty() || layout.len() > 64 {
                problems.add(at_layout, "is required with `date`: a layout like `2006-01-02`");
            }
            Partition::Date(TextMax::truncated(&layout))
        }
        other => {
            problems.add(
                at_type,
                format!("`{other}` is not a way to deal out objects (none, object, regex, substring, date)"),
            );
            Partition::None
        }
    }
}

fn check_pattern(path: &str, text: &str, problems: &mut Problems) {
    if text.len() > 512 {
        problems.add(path, "must be at most 512 bytes long");
    } else if let Err(cause) = pattern(text) {
        problems.add(path, format!("is not a regular expression: {cause}"));
    }
}

/// Where the task's result goes.
pub(super) fn check_publisher(path: &str, task: &TaskSpec, problems: &mut Problems) -> Publisher {
    let path = format!("{path}.Publisher");
    let kind = task.publisher.kind.to_lowercase();
    match kind.as_str() {
        "" | "ipfs" | "content" | "noop" => Publisher::Content,
        "local" => Publisher::Local,
        "s3" => {
            let params = Value::Object(task.publisher.params.clone());
            let mut fields = Fields::of(&format!("{path}.Params"), &params, problems);
            let encoding = match fields.text("Encoding", problems).unwrap_or_default().to_lowercase().as_str() {
                "" | "gzip" => Encoding::Gzip,
                "plain" => Encoding::Plain,
                other => {
                    problems.add(fields.at("Encoding"), format!("`{other}` is not an encoding (gzip, plain)"));
                    Encoding::Gzip
                }
            };
            let place = place(&mut fields, problems);
            let whole =
                |key: &str| !key.ends_with('*') && key.trim_end_matches('/').split('/').all(|part| !part.is_empty());
            if place.as_ref().is_some_and(|place| !whole(&place.key)) {
                let message = "must be the key of the result, like `results/{jobID}/{executionID}`";
                problems.add(fields.at("Key"), message);
            }
            fields.finish(problems);
            place.map_or(Publisher::Content, |place| Publisher::S3(place, encoding))
        }
        other => {
            let why = if other == "s3managed" { "needs an orchestrator's keys" } else { "is not a publisher" };
            problems.add(format!("{path}.Type"), format!("`{other}` {why} (ipfs, local, s3)"));
            Publisher::Content
        }
    }
}
