//! Images: what a name stands for, whether it runs here, and fetching it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bacnode_protocol::compute::{Facts, Refusal, Web};
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::market::FailureKind;
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;

use super::super::RunError;
use super::super::web::check_server;
use super::plain;

/// How long an answer about an image that lies here is believed, one of a registry's, and a no.
const HELD_FOR: Duration = Duration::from_secs(2);
const NAMED_FOR: Duration = Duration::from_secs(300);
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Answers that are remembered.
const LOOKS_MAX: usize = 1_000;
/// How long a registry may take to say what a name stands for.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes and layers of an image that is fetched, packed.
const PULL_BYTES_MAX: u64 = 16 << 30;
const LAYERS_MAX: usize = 1_000;
/// Volumes of an image that it gets.
const VOLUMES_MAX: usize = 16;
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
    web: Web,
    looks: Mutex<Looks>,
}

impl Images {
    pub(super) fn new(docker: Docker, os: String, arch: String, web: Web) -> Self {
        Self { docker, platform: (os, arch), web, looks: Mutex::default() }
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
        // The daemon would connect to whatever a peer names.
        let server = match (self.web, registry(image)) {
            (Web::None, _) => Err("this node fetches nothing from the web (rule: web)".to_owned()),
            (_, None) => Ok(()),
            (web, Some(host)) => check_server(host, web).await,
        };
        if let Err(cause) = server {
            return Err(Refusal { reason: format!("image `{image}` is not here: {cause}"), later: false });
        }
        let asked = self.docker.inspect_registry_image(image, None);
        let unknown = |cause: &str| {
            // What exactly went wrong on the way is the operator's affair.
            tracing::info!(image, cause, "an image is not to be had");
            Refusal { reason: format!("image `{image}` is not here, and its registry does not have it"), later: false }
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
    pub(super) async fn fetch(&self, image: &str, digest: Option<[u8; 32]>) -> Result<Image, RunError> {
        let Some(digest) = digest else {
            return Err(RunError::Node(format!("image `{image}` has no digest")));
        };
        let digest = format!("sha256:{}", hex::encode(digest));
        let pinned = format!("{}@{digest}", repository(image));
        // One that lay here has its own digest, one from a registry that of its manifest.
        for name in [&digest, &pinned] {
            if let Ok(held) = self.docker.inspect_image(name).await {
                return Ok(Image::new(name, &held));
            }
        }
        self.pull(image, &pinned).await?;
        let held = self.docker.inspect_image(&pinned).await;
        let held = held.map_err(|error| RunError::Node(format!("image `{image}`: {}", plain(&error))))?;
        self.judge_held(image, &held).map_err(|refusal| RunError::task(FailureKind::Program, refusal.reason))?;
        Ok(Image::new(&pinned, &held))
    }

    async fn pull(&self, image: &str, pinned: &str) -> Result<(), RunError> {
        let failed = |cause: &str| RunError::Node(format!("cannot fetch image `{image}`: {cause}"));
        let options = CreateImageOptionsBuilder::new().from_image(pinned).build();
        let mut progress = std::pin::pin!(self.docker.create_image(Some(options), None, None));
        let (mut told, mut layers) = (Instant::now(), HashMap::new());
        loop {
            let next = tokio::time::timeout(PULL_SILENCE, progress.next()).await;
            match next.map_err(|_| failed("nothing has come for two minutes"))? {
                None => return Ok(()),
                Some(Err(error)) => return Err(failed(&plain(&error))),
                Some(Ok(step)) => {
                    if let (Some(layer), Some(progress)) = (&step.id, &step.progress_detail) {
                        layers.insert(layer.clone(), progress.total.and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
                    }
                    if layers.values().sum::<u64>() > PULL_BYTES_MAX || layers.len() > LAYERS_MAX {
                        let limit = format_bytes(PULL_BYTES_MAX);
                        return Err(RunError::task(
                            FailureKind::Program,
                            format!("image `{image}` has more than {limit}"),
                        ));
                    }
                    if told.elapsed() > Duration::from_secs(5) {
                        told = Instant::now();
                        tracing::info!(image, layer = step.id, status = step.status, "fetching an image");
                    }
                }
            }
        }
    }
}

/// An image that can be run.
#[derive(Debug)]
pub(super) struct Image {
    /// Names it, and no other.
    pub(super) name: String,
    /// Folders for which it wants disk of its own.
    pub(super) volumes: Vec<String>,
}

impl Image {
    fn new(name: &str, held: &ImageInspect) -> Self {
        let volumes = held.config.as_ref().and_then(|config| config.volumes.clone()).unwrap_or_default();
        Self { name: name.to_owned(), volumes: volumes.into_iter().take(VOLUMES_MAX).collect() }
    }
}

/// The registry that a name names, as the daemon understands it; the usual one if it names none.
fn registry(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
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
    use super::{registry, repository};

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
        assert_eq!(registry("alpine"), None);
        assert_eq!(registry("library/alpine:3"), None);
        assert_eq!(registry("localhost/a"), Some("localhost"));
        assert_eq!(registry("10.0.0.1:5000/a/b:c"), Some("10.0.0.1:5000"));
    }
}
