//! Images: what a name stands for, whether it runs here, and fetching it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bacnode_protocol::compute::{Facts, Refusal};
use bacnode_protocol::wire::market::FailureKind;
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;

use super::super::RunError;
use super::plain;

/// How long an answer about an image that lies here is believed, one of a registry's, and a no.
const HELD_FOR: Duration = Duration::from_secs(2);
const NAMED_FOR: Duration = Duration::from_secs(300);
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Answers that are remembered.
const LOOKS_MAX: usize = 1_000;
/// How long a registry may take to say what a name stands for.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may come while an image is fetched.
const PULL_SILENCE: Duration = Duration::from_secs(120);

/// What was found about each name, and until when that is believed.
type Looks = HashMap<String, (Instant, Result<Facts, Refusal>)>;

/// The images of one daemon.
#[derive(Debug)]
pub(super) struct Images {
    docker: Docker,
    /// What the daemon runs: `linux` and `amd64`.
    platform: (String, String),
    looks: Mutex<Looks>,
}

impl Images {
    pub(super) fn new(docker: Docker, os: String, arch: String) -> Self {
        Self { docker, platform: (os, arch), looks: Mutex::default() }
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the name stands for: here if an image of that name lies here, else in its registry.
    pub(super) async fn look_at(&self, image: &str) -> Result<Facts, Refusal> {
        if let Some((until, look)) = self.looks().get(image)
            && *until > Instant::now()
        {
            return look.clone();
        }
        let look = match self.docker.inspect_image(image).await {
            Ok(held) => self.judge_held(image, &held),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => self.ask_registry(image).await,
            Err(error) => Err(Refusal { reason: format!("docker: {}", plain(&error)), later: true }),
        };
        let lasts = match &look {
            Ok(facts) if facts.bytes_held > 0 => HELD_FOR,
            Ok(_) => NAMED_FOR,
            Err(_) => REFUSED_FOR,
        };
        let (mut looks, now) = (self.looks(), Instant::now());
        if looks.len() >= LOOKS_MAX {
            looks.retain(|_, (until, _)| *until > now);
        }
        if looks.len() < LOOKS_MAX {
            looks.insert(image.to_owned(), (now + lasts, look.clone()));
        }
        look
    }

    fn judge_held(&self, image: &str, held: &ImageInspect) -> Result<Facts, Refusal> {
        let named = (held.os.clone().unwrap_or_default(), held.architecture.clone().unwrap_or_default());
        if named != self.platform && !named.1.is_empty() {
            return Err(self.other_platform(image, &format!("{}/{}", named.0, named.1)));
        }
        let digest = held.id.as_deref().and_then(digest_of);
        let size = held.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(1).max(1);
        Ok(Facts { image: digest, bytes_held: size })
    }

    fn other_platform(&self, image: &str, made_for: &str) -> Refusal {
        let (os, arch) = &self.platform;
        Refusal { reason: format!("image `{image}` is made for {made_for}, this is {os}/{arch}"), later: false }
    }

    async fn ask_registry(&self, image: &str) -> Result<Facts, Refusal> {
        let asked = self.docker.inspect_registry_image(image, None);
        let unknown = |cause: &str| Refusal {
            // The daemon tells the whole chain of calls; its end is the cause.
            reason: format!(
                "image `{image}` is not here, and its registry says: {}",
                cause.rsplit(": ").next().unwrap_or(cause)
            ),
            later: false,
        };
        let found = tokio::time::timeout(REGISTRY_TIMEOUT, asked).await.map_err(|_| unknown("it does not answer"))?;
        let found = found.map_err(|error| unknown(&plain(&error)))?;
        let (os, arch) = &self.platform;
        let runs_here = |platform: &bollard::models::OciPlatform| {
            platform.os.as_ref().is_none_or(|name| name == os)
                && platform.architecture.as_ref().is_none_or(|name| name == arch)
        };
        if !found.platforms.is_empty() && !found.platforms.iter().any(runs_here) {
            let all = found
                .platforms
                .iter()
                .map(|p| format!("{}/{}", p.os.as_deref().unwrap_or("?"), p.architecture.as_deref().unwrap_or("?")));
            return Err(self.other_platform(image, &all.collect::<Vec<_>>().join(", ")));
        }
        let digest = found.descriptor.digest.as_deref().and_then(digest_of);
        Ok(Facts { image: digest, bytes_held: 0 })
    }

    /// The name under which the very image of the bid can be run, fetched if it is not here.
    pub(super) async fn fetch(&self, image: &str, digest: Option<[u8; 32]>) -> Result<String, RunError> {
        let Some(digest) = digest else {
            return Err(RunError::Node(format!("image `{image}` has no digest")));
        };
        let digest = format!("sha256:{}", hex::encode(digest));
        let pinned = format!("{}@{digest}", repository(image));
        // One that lay here has its own digest, one from a registry that of its manifest.
        for name in [&digest, &pinned] {
            if self.docker.inspect_image(name).await.is_ok() {
                return Ok(name.clone());
            }
        }
        self.pull(image, &pinned).await?;
        let held = self.docker.inspect_image(&pinned).await;
        let held = held.map_err(|error| RunError::Node(format!("image `{image}`: {}", plain(&error))))?;
        self.judge_held(image, &held).map_err(|refusal| RunError::task(FailureKind::Program, refusal.reason))?;
        Ok(pinned)
    }

    async fn pull(&self, image: &str, pinned: &str) -> Result<(), RunError> {
        let failed = |cause: &str| RunError::Node(format!("cannot fetch image `{image}`: {cause}"));
        let options = CreateImageOptionsBuilder::new().from_image(pinned).build();
        let mut progress = std::pin::pin!(self.docker.create_image(Some(options), None, None));
        let mut told = Instant::now();
        loop {
            let next = tokio::time::timeout(PULL_SILENCE, progress.next()).await;
            match next.map_err(|_| failed("nothing has come for two minutes"))? {
                None => return Ok(()),
                Some(Err(error)) => return Err(failed(&plain(&error))),
                Some(Ok(step)) => {
                    if told.elapsed() > Duration::from_secs(5) {
                        told = Instant::now();
                        tracing::info!(image, layer = step.id, status = step.status, "fetching an image");
                    }
                }
            }
        }
    }
}

/// A name without its tag and its digest.
fn repository(image: &str) -> &str {
    let named = image.split('@').next().unwrap_or(image);
    match named.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => named,
    }
}

fn digest_of(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text.strip_prefix("sha256:")?, &mut digest).ok()?;
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::repository;

    #[test]
    fn a_name_is_told_from_its_tag() {
        for (image, name) in [
            ("alpine", "alpine"),
            ("alpine:3", "alpine"),
            ("host:5000/a/b", "host:5000/a/b"),
            ("host:5000/a/b:c", "host:5000/a/b"),
            ("a/b:c@sha256:00", "a/b"),
        ] {
            assert_eq!(repository(image), name);
        }
    }
}
