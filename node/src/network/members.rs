//! A swarm with a founder: the first words on each connection, before anything else is spoken over it.
//!
//! They are said right after Noise has proven who is at the other end, below the multiplexer. Whoever is not let in has
//! therefore neither identify, gossip nor DHT to speak to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bacnode_protocol::id::NodeId;
use bacnode_protocol::membership::{Membership, RevokeError};
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::envelope;
use bacnode_protocol::wire::member::{
    Answer, Certificate, Forged, Hello, Refusal, Revocations, Signed, Verdict, Voucher,
};
use bacnode_protocol::wire::signed::Signer;
use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite, FutureExt as _};
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::{PeerId, noise};

use super::{Network, Topic, view};
use crate::clock;
use crate::config::{Config, Founded};
use crate::store::{Store, StoreError};

/// Why a connection does not come to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdmissionError {
    #[error(transparent)]
    Noise(#[from] noise::Error),
    #[error("the other end says nothing of a founder (is the swarm guarded, `--founder`, at one end only?)")]
    Silent(std::io::Error),
    #[error("it is not let in: {0}")]
    Turned(Refusal),
    #[error("this node is not let in: {0}")]
    Refused(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The part that this node takes in a swarm with a founder. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Members {
    membership: Arc<Mutex<Membership>>,
    store: Store,
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
            Some(Founded::By { founder, voucher }) => {
                Membership::member(signer.network(), signer.node(), *founder, voucher.clone())
            }
        };
        membership.recall(store.members()?, clock::unix());
        Ok(Some(Self { membership: Arc::new(Mutex::new(membership)), store: store.clone() }))
    }

    fn lock(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        peer: PeerId,
        stream: &mut S,
    ) -> Result<(), AdmissionError> {
        let node = NodeId::from_peer_id(&peer).ok_or(AdmissionError::Turned(Refusal::Forged))?;
        let hello = self.lock().hello();
        view::write(stream, &hello).await.map_err(AdmissionError::Silent)?;
        let theirs: Hello = view::read(stream).await.map_err(AdmissionError::Silent)?;
        let (answer, kept) = self.lock().judge(node, &theirs, clock::unix());
        // Whoever is let in once only must not be let in twice over a crash.
        self.store.keep_members(&kept)?;
        view::write(stream, &answer).await.map_err(AdmissionError::Silent)?;
        let theirs: Answer = view::read(stream).await.map_err(AdmissionError::Silent)?;
        let answered = self.lock().answered(theirs, clock::unix());
        if let Ok(kept) = &answered {
            self.store.keep_members(kept)?;
        }
        let admitted = match (answer.verdict, answered) {
            (Verdict::Refused(refusal), _) => Err(AdmissionError::Turned(refusal)),
            (_, Err(refusal)) => Err(AdmissionError::Refused(refusal)),
            (_, Ok(_)) => Ok(()),
        };
        if admitted.is_err() {
            self.lock().left(&node);
        }
        admitted
    }

    /// Takes a list of those put out from gossip; whether it is news.
    ///
    /// # Errors
    /// If it is not the founder's word, or the disk fails.
    pub(super) fn hear(&self, network: &Network, signed: Signed) -> Result<bool, Forged> {
        let list = {
            let membership = self.lock();
            signed.open::<Revocations>(&network.view().network(), &membership.founded_by())?
        };
        let Some(kept) = self.lock().hear(signed) else { return Ok(false) };
        if let Err(error) = self.store.keep_members(&[kept]) {
            tracing::warn!(%error, "cannot remember who was put out");
        }
        let mut view = network.view();
        list.nodes.iter().for_each(|(node, _)| view.forget(node));
        Ok(true)
    }

    /// Whether the founder has put `node` out.
    pub(super) fn is_revoked(&self, node: &NodeId) -> bool {
        self.lock().is_revoked(node)
    }

    /// Those who are connected and are members no longer.
    pub(super) fn lapsed(&self) -> Vec<NodeId> {
        self.lock().lapsed(clock::unix())
    }

    pub(super) fn left(&self, node: &NodeId) {
        self.lock().left(node);
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

    /// Whom the founder has let in, and whether it has put them out again.
    pub(crate) fn list(&self) -> Vec<(Certificate, bool)> {
        self.lock().members().map(|(certificate, out)| (*certificate, out)).collect()
    }
}

impl Network {
    /// Puts a member out, and tells everybody.
    ///
    /// # Errors
    /// If this is not the founder, or that no member.
    pub(crate) async fn revoke(&self, members: &Members, node: NodeId) -> Result<Result<(), RevokeError>, StoreError> {
        let (kept, signed) = match members.lock().revoke(node, clock::unix()) {
            Ok(revoked) => revoked,
            Err(error) => return Ok(Err(error)),
        };
        members.store.keep_members(&kept)?;
        self.view().forget(&node);
        self.publish(Topic::Members, envelope::seal(&signed)).await;
        Ok(Ok(()))
    }

    /// What peers are told to do, in a swarm with a founder.
    pub(crate) fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// Whether this node has nothing to do with that one: the founder, or this node's own operator, has put it out.
    pub(super) fn is_put_out(&self, node: &NodeId) -> bool {
        self.blocks.contains(node) || self.members.as_ref().is_some_and(|members| members.is_revoked(node))
    }
}

/// The members that are connected and should not be.
pub(super) fn lapsed(network: &Network) -> BTreeSet<PeerId> {
    let lapsed = network.members.iter().flat_map(Members::lapsed);
    lapsed.filter_map(|node| node.peer_id()).collect()
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
