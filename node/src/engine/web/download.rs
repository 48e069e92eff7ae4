//! One file, from its first byte to its last, over as many connections as that takes.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::market::FailureKind;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};

use super::super::RunError;
use super::{Fetcher, cause_of, version_of};
use crate::content::Content;

/// Times that a broken download is taken up again, and the pause before.
const RESUMES_MAX: u32 = 3;
const RESUME_PAUSE: Duration = Duration::from_millis(500);
/// How often it is seen to that there is room.
const ROOM_EVERY: u64 = 64 << 20;

impl Fetcher {
    /// Writes the body into `path`, taking it up again where it broke off if the file is still the same. Gives what the
    /// server calls the version that came.
    pub(super) async fn download(
        &self,
        content: &Content,
        url: &Url,
        mut response: Response,
        path: &Path,
        max: u64,
    ) -> Result<Option<HeaderValue>, RunError> {
        let unwritable = |error: std::io::Error| RunError::Node(format!("cannot write an input: {error}"));
        let mut resumes = 0;
        'anew: loop {
            let (version, length) = (version_of(&response), response.content_length());
            if length.is_some_and(|length| length > max) {
                return Err(too_long(url, max));
            }
            content.make_room(length.unwrap_or(ROOM_EVERY))?;
            let (mut file, mut written) = (std::fs::File::create(path).map_err(unwritable)?, 0u64);
            loop {
                let broken = loop {
                    match response.chunk().await {
                        Ok(Some(bytes)) => {
                            let room = written / ROOM_EVERY;
                            written += bytes.len() as u64;
                            if written > max {
                                return Err(too_long(url, max));
                            }
                            if length.is_none() && written / ROOM_EVERY > room {
                                content.make_room(ROOM_EVERY)?;
                            }
                            file.write_all(&bytes).map_err(unwritable)?;
                        }
                        Ok(None) if length.is_none_or(|length| written == length) => return Ok(version),
                        Ok(None) => break "it ended at another length than it said".to_owned(),
                        Err(error) => break cause_of(&error),
                    }
                };
                resumes += 1;
                let Some(same) = version.clone().filter(|_| resumes <= RESUMES_MAX) else {
                    return Err(RunError::Node(format!("input {url}: {broken}, after {}", format_bytes(written))));
                };
                tokio::time::sleep(RESUME_PAUSE * resumes).await;
                let mut headers = HeaderMap::new();
                if let Ok(range) = HeaderValue::from_str(&format!("bytes={written}-")) {
                    headers.insert(RANGE, range);
                    headers.insert(IF_RANGE, same);
                }
                response = self.ask(url, headers).await?;
                if response.status() == StatusCode::PARTIAL_CONTENT && goes_on_at(&response, written) {
                    continue;
                }
                if response.status() != StatusCode::OK {
                    // A range that is not the one asked for, or none: the whole file, then.
                    response = self.ask(url, HeaderMap::new()).await?;
                }
                if response.status() != StatusCode::OK {
                    return Err(RunError::Node(format!("input {url}: the server says {}", response.status())));
                }
                // Another version, or a server that knows no ranges: from the beginning.
                continue 'anew;
            }
        }
    }
}

fn too_long(url: &Url, max: u64) -> RunError {
    let cause = format!("input {url}: it has more than {}, the limit here", format_bytes(max));
    RunError::task(FailureKind::Program, cause)
}

/// Whether an answer begins with the byte that is wanted next (RFC 9110, section 14.4).
fn goes_on_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start =
        range.and_then(|range| range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok());
    start == Some(offset)
}
