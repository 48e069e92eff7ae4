//! A swarm with a founder: the first words on each connection, before anything else is spoken over it.
//!
//! They are said right after Noise has proven who is at the other end, below the multiplexer. Whoever is not let in has
//! therefore neither identify, gossip nor DHT to speak to.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bacnode_protocol::id::{NetworkId, NodeId};
use bacnode_protocol::membership::{Kept, Membership, RevokeError};
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::codec::DecodeError;
use bacnode_protocol::wire::member::{
    Answer, Certificate, Forged, Hello, Refusal, Revocations, Signed, Verdict, Voucher,
};
use bacnode_protocol::wire::signed::Signer;
use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite, FutureExt as _};
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::{PeerId, noise};

use super::{Network, view};
use crate::clock;
use crate::config::{Config, Founded};
use crate::store::{Store, StoreError};

/// Why a connection does not come to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdmissionError {
    #[error(transparent)]
    Noise(#[from] noise::Error),
    #[error("the other end says nothing of a founder (is the swarm guarded, `--founder`, at one end only?)")]
    Silent,
    #[error("what the other end says of members is not understood: {0}")]
    Foreign(std::io::Error),
    #[error("it is not let in: {0}")]
    Turned(Refusal),
    #[error("this node is not let in: {0}")]
    Refused(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AdmissionError {
    /// Another protocol begins otherwise; a later version of this one is told from that.
    fn silent(error: std::io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<DecodeError>());
        match cause {
            Some(DecodeError::Foreign) | None => Self::Silent,
            Some(_) => Self::Foreign(error),
        }
    }
}

/// The part that this node takes in a swarm with a founder. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Members {
    membership: Arc<Mutex<Membership>>,
    /// Held from a decision until it is on disk, so that the disk has them in their order. Always taken before the other.
    deciding: Arc<tokio::sync::Mutex<()>>,
    /// The list of those put out that everybody has been told of.
    told: Arc<AtomicU64>,
    store: Store,
    data_dir: PathBuf,
}

impl Members {
    /// Takes up the part that these settings name; none in a swarm without a founder.
    ///
    /// # Errors
    /// If the disk fails.
    pub(super) fn of(config: &Config, signer: Signer, store: &Store) -> Result<Option<Self>, StoreError> {
        let mut membership = match &config.founded {
            None => return Ok(None),
            Some(Founded::Here) => Membership::founder(signer),
            // A network file names the founder to all, the founder itself included.
            Some(Founded::By { founder, .. }) if *founder == signer.node() => Membership::founder(signer),
            Some(Founded::By { founder, voucher }) => {
                Membership::member(signer.network(), signer.node(), *founder, voucher.clone())
            }
        };
        membership.recall(store.members(clock::unix())?, clock::unix());
        Ok(Some(Self {
            membership: Arc::new(Mutex::new(membership)),
            deciding: Arc::default(),
            told: Arc::default(),
            store: store.clone(),
            data_dir: config.data_dir.clone(),
        }))
    }

    /// Nothing else is locked while this is.
    fn lock(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was decided, which must be on disk before anybody relies on it.
    async fn keep(&self, kept: Vec<Kept>) -> Result<(), StoreError> {
        if kept.is_empty() {
            return Ok(());
        }
        let certified = kept.iter().any(|kept| matches!(kept, Kept::Certificate(_)));
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || store.keep_members(&kept)).await;
        written.map_err(|_| StoreError::Damaged("membership"))??;
        if certified {
            // It has done what it was for, and others could use it.
            crate::identity::remove_voucher(&self.data_dir);
        }
        Ok(())
    }

    async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        peer: PeerId,
        stream: &mut S,
    ) -> Result<(), AdmissionError> {
        let node = NodeId::from_peer_id(&peer).ok_or(AdmissionError::Turned(Refusal::Forged))?;
        let hello = self.lock().hello(&node);
        view::write(stream, &hello).await.map_err(AdmissionError::silent)?;
        let theirs: Hello = view::read(stream).await.map_err(AdmissionError::silent)?;
        let answer = {
            let _deciding = self.deciding.lock().await;
            let (answer, kept) = self.lock().judge(node, &theirs, clock::unix());
            // Whoever is let in once only must not be let in twice over a crash.
            self.keep(kept).await?;
            answer
        };
        view::write(stream, &answer).await.map_err(AdmissionError::silent)?;
        let theirs: Answer = view::read(stream).await.map_err(AdmissionError::silent)?;
        let _deciding = self.deciding.lock().await;
        let answered = self.lock().answered(theirs, clock::unix());
        match (answer.verdict, answered) {
            (Verdict::Refused(refusal), _) => Err(AdmissionError::Turned(refusal)),
            (_, Err(refusal)) => Err(AdmissionError::Refused(refusal)),
            (_, Ok(kept)) => Ok(self.keep(kept).await?),
        }
    }

    /// Takes a list of those put out from gossip; whether it is news.
    ///
    /// # Errors
    /// If it is not the founder's word.
    pub(super) async fn hear(&self, network: &NetworkId, signed: Signed) -> Result<bool, Forged> {
        let founder = self.founder();
        signed.open::<Revocations>(network, &founder)?;
        let _deciding = self.deciding.lock().await;
        let Some(kept) = self.lock().hear(signed) else { return Ok(false) };
        if let Err(error) = self.keep(vec![kept]).await {
            tracing::warn!(%error, "cannot remember who was put out");
        }
        Ok(true)
    }

    /// A list of those put out that not everybody has been told of, from wherever it came, and its number.
    pub(super) fn news(&self) -> Option<(u64, Signed, BTreeSet<NodeId>)> {
        let newest = self.lock().newest()?;
        (newest.0 > self.told.load(Ordering::Relaxed)).then_some(newest)
    }

    /// Everybody who is here has been told of that list.
    pub(super) fn told(&self, sequence: u64) {
        self.told.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Whether the founder has put `node` out.
    pub(super) fn is_revoked(&self, node: &NodeId) -> bool {
        self.lock().is_revoked(node)
    }

    /// Of these, who are connected, those who may not stay so.
    pub(super) fn strangers(&self, connected: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
        let (now, mut membership) = (clock::unix(), self.lock());
        let strangers = connected.filter(|node| !membership.is_member(node, now)).collect();
        membership.expire(now);
        strangers
    }

    /// Who founded the swarm.
    pub(crate) fn founder(&self) -> NodeId {
        self.lock().founded_by()
    }

    /// Whether that is this node.
    pub(crate) fn is_founder(&self) -> bool {
        self.lock().is_founder()
    }

    /// When this node's own membership ends, if it has one that does.
    pub(crate) fn ends(&self) -> Option<UnixMillis> {
        self.lock().ends()
    }

    /// Makes a voucher for an invite.
    ///
    /// # Errors
    /// If this is not the founder.
    pub(crate) fn invite(&self, voucher: &Voucher) -> Result<Signed, RevokeError> {
        self.lock().invite(voucher)
    }

    /// Puts a member out; everybody is told soon.
    ///
    /// # Errors
    /// If the disk fails; within that, if this is not the founder, or that no member.
    pub(crate) async fn revoke(&self, node: NodeId) -> Result<Result<(), RevokeError>, StoreError> {
        let _deciding = self.deciding.lock().await;
        let revoked = self.lock().revoke(node, clock::unix());
        match revoked {
            Ok(kept) => Ok(Ok(self.keep(kept).await?)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Whom the founder has let in, and whether it has put them out again.
    pub(crate) fn list(&self) -> Vec<(Certificate, bool)> {
        self.lock().members()
    }
}

impl Network {
    /// What there is to members, in a swarm with a founder.
    pub(crate) fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// Whether this node has nothing to do with that one: the founder, or this node's own operator, has put it out.
    pub(super) fn is_put_out(&self, node: &NodeId) -> bool {
        self.blocks.contains(node) || self.members.as_ref().is_some_and(|members| members.is_revoked(node))
    }
}

/// Noise, and in a swarm with a founder what is said before anything else.
#[derive(Clone)]
pub(super) struct Admission {
    pub(super) noise: noise::Config,
    pub(super) members: Option<Members>,
}

impl UpgradeInfo for Admission {
    type Info = <noise::Config as UpgradeInfo>::Info;
    type InfoIter = <noise::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.noise.protocol_info()
    }
}

impl Admission {
    async fn admit<C: AsyncRead + AsyncWrite + Unpin>(
        members: Option<Members>,
        (peer, mut stream): (PeerId, noise::Output<C>),
    ) -> Result<(PeerId, noise::Output<C>), AdmissionError> {
        if let Some(members) = members {
            let admitted = members.admit(peer, &mut stream).await;
            if let Err(error) = &admitted {
                tracing::debug!(%peer, %error, "no connection");
            }
            admitted?;
        }
        Ok((peer, stream))
    }
}

impl<C> InboundConnectionUpgrade<C> for Admission
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, noise::Output<C>);
    type Error = AdmissionError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        async move { Self::admit(self.members, self.noise.upgrade_inbound(socket, info).await?).await }.boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Admission
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, noise::Output<C>);
    type Error = AdmissionError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        async move { Self::admit(self.members, self.noise.upgrade_outbound(socket, info).await?).await }.boxed()
    }
}
