//! Inputs of a spec, checked.

use serde_json::Value;

use super::fields::{Fields, Problems};
use super::s3::objects;
use super::spec::{InputSource, TaskSpec};
use crate::content::Cid;
use crate::limits::{INPUTS_MAX, URL_BYTES_MAX};
use crate::wire::s3::Objects;

/// Sources, by the names that people use.
const KINDS: &str = "ipfs, inline, local, urlDownload, s3";

/// Where an input comes from, before inline data has become content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidSource {
    /// Content of the network.
    Content(Cid),
    /// Data in the spec itself.
    Inline(Vec<u8>),
    /// A folder in the spec itself: a tar archive, packed with gzip or not.
    InlineFolder(Vec<u8>),
    /// A path on the compute node.
    Local {
        /// Absolute.
        path: String,
        /// Whether the task may write to it.
        writable: bool,
    },
    /// A file of the web; it keeps its name, in the folder that the target names.
    Url {
        /// `http` or `https`.
        url: String,
        /// What its bytes must hash to.
        sha256: Option<[u8; 32]>,
    },
    /// Objects of a store, in the folder that the target names.
    S3(Objects),
}

/// An input whose fields are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidInput {
    /// Where from.
    pub source: ValidSource,
    /// Absolute path in the task.
    pub target: String,
}

/// `wasm.main` and `/wasm.main` are the same place: a task's paths start at its root.
pub(super) fn absolute(path: &str) -> String {
    if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Whether `path` is `target` or lies in it.
pub(super) fn covers(target: &str, path: &str) -> bool {
    let target = target.trim_end_matches('/');
    path.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn check_inputs(path: &str, task: &TaskSpec, problems: &mut Problems) -> Vec<ValidInput> {
    if task.input_sources.len() > INPUTS_MAX {
        let message = format!("has {} entries; at most {INPUTS_MAX} are read", task.input_sources.len());
        problems.add(format!("{path}.InputSources"), message);
    }
    let inputs = task.input_sources.iter().enumerate();
    inputs.filter_map(|(i, input)| check_input(&format!("{path}.InputSources[{i}]"), input, problems)).collect()
}

fn check_input(path: &str, input: &InputSource, problems: &mut Problems) -> Option<ValidInput> {
    if input.target.is_empty() {
        problems.add(format!("{path}.Target"), "is required: the path at which the task sees the input");
    }
    let target = absolute(&input.target);
    check_path(&format!("{path}.Target"), &target, problems);
    let params = Value::Object(input.source.params.clone());
    let mut fields = Fields::of(&format!("{path}.Source.Params"), &params, problems);
    let source = match input.source.kind.as_str() {
        "ipfs" | "content" => {
            let text = required(&mut fields, "CID", problems)?;
            match text.parse() {
                Ok(cid) => ValidSource::Content(cid),
                Err(error) => {
                    problems.add(fields.at("CID"), format!("`{}`: {error}", text.chars().take(80).collect::<String>()));
                    return None;
                }
            }
        }
        "inline" => {
            let url = required(&mut fields, "URL", problems)?;
            match data_url(&url) {
                Ok(bytes) if is_packed(&url) => ValidSource::InlineFolder(bytes),
                Ok(bytes) => ValidSource::Inline(bytes),
                Err(message) => {
                    problems.add(fields.at("URL"), message);
                    return None;
                }
            }
        }
        "local" | "localdirectory" => {
            let path = required(&mut fields, "SourcePath", problems)?;
            let writable = fields.flag("ReadWrite", problems).unwrap_or(false);
            fields.take("CreateAs");
            if !path.starts_with('/') {
                problems.add(fields.at("SourcePath"), format!("`{path}` must be an absolute path on the compute node"));
            }
            ValidSource::Local { path, writable }
        }
        "urldownload" | "url" => url(&mut fields, problems)?,
        "" => {
            problems.add(format!("{path}.Source.Type"), format!("is required ({KINDS})"));
            return None;
        }
        "s3" => ValidSource::S3(objects(&mut fields, problems)?),
        other => {
            problems.add(format!("{path}.Source.Type"), format!("`{other}` is not a source ({KINDS})"));
            return None;
        }
    };
    fields.finish(problems);
    Some(ValidInput { source, target })
}

fn url(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<ValidSource> {
    let url = required(fields, "URL", problems)?;
    let sha256 = fields.text("ChecksumSHA256", problems).filter(|text| !text.is_empty());
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let plain = url.bytes().all(|b| b.is_ascii_graphic()) && url.len() <= URL_BYTES_MAX;
    if !plain || rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        let shown: String = url.chars().take(80).collect();
        problems
            .add(fields.at("URL"), format!("`{shown}` must be an http or https URL of at most {URL_BYTES_MAX} bytes"));
    } else if rest.is_some_and(|rest| rest.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@'))) {
        problems.add(fields.at("URL"), "must not carry a user or a password: every peer that is asked would see them");
    }
    let digest = sha256.as_ref().and_then(|text| sha256_of(text));
    if sha256.is_some() && digest.is_none() {
        problems.add(fields.at("ChecksumSHA256"), "must be 64 hexadecimal digits");
    }
    Some(ValidSource::Url { url, sha256: digest })
}

pub(super) fn sha256_of(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text.trim_start_matches("sha256:"), &mut digest).ok()?;
    Some(digest)
}

pub(super) fn required(fields: &mut Fields<'_>, name: &'static str, problems: &mut Problems) -> Option<String> {
    let text = fields.text(name, problems).filter(|text| !text.is_empty());
    if text.is_none() {
        problems.add(fields.at(name), "is required");
    }
    text
}

/// Whether a `data:` URL says that its data is a packed folder.
fn is_packed(url: &str) -> bool {
    ["application/gzip", "application/x-gzip", "application/x-tar"]
        .iter()
        .any(|kind| url.strip_prefix("data:").is_some_and(|rest| rest.starts_with(kind)))
}

/// The bytes of an RFC 2397 `data:` URL.
fn data_url(url: &str) -> Result<Vec<u8>, String> {
    let rest = url.strip_prefix("data:").ok_or("must be a data: URL (RFC 2397)")?;
    let (head, body) = rest.split_once(',').ok_or("a data: URL has a comma before its data")?;
    if head.ends_with(";base64") { unbase64(body).ok_or("is not base64".into()) } else { Ok(percent_decode(body)) }
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut buffer, mut bits) = (0u32, 0);
    for character in text.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b'=') {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        if let Some(byte) = code {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    bytes
}

pub(super) fn check_path(path: &str, value: &str, problems: &mut Problems) {
    let plain = value.split('/').all(|part| part != ".." && part != "." && part.len() <= 255);
    if !value.starts_with('/') || !plain || value.len() > 1024 || value.contains('\0') {
        problems.add(path, format!("`{value}` must be an absolute path without `..`, at most 1024 bytes long"));
    }
}
