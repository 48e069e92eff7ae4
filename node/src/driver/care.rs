//! What a node sees to every second: that peers hear from it, that there is room, and whether it is time for jobs.

use std::collections::BTreeSet;

use bacnode_protocol::compute;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::time::{Span, UnixMillis};
use libp2p::Multiaddr;
use tokio::sync::oneshot;

use super::{ALIVE, Running};
use crate::clock;
use crate::content::ContentError;

/// Between two sweeps of the content, and when room is short.
const SWEEP_EVERY: Span = Span::secs(600);
const SWEEP_SOON: Span = Span::secs(30);
/// Free disk below which no more jobs are taken.
const FREE_DISK_MIN: u64 = 256 << 20;

impl Running {
    /// Remembers where a node says it is: a restart may come before anybody but the bootstrap peer was called.
    pub(super) fn hear_of(&self, node: &NodeId) {
        let view = self.hands.network.view();
        let mut addresses = view.get(node).into_iter().flat_map(|peer| peer.advert.addresses.iter());
        let address = addresses.find_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
        drop(view);
        if let Some(address) = address
            && let Err(error) = self.hands.store.hear_of_peer(node, &address)
        {
            tracing::warn!(%error, "cannot remember a peer");
        }
    }

    /// Peers with which something is open hear from us every second; everybody hears when the disk is full.
    pub(super) fn say_alive(&mut self) {
        let mut peers: BTreeSet<NodeId> =
            self.requester.holders().chain(self.compute.owners()).chain(self.guardian.peers()).collect();
        peers.remove(&self.hands.network.me);
        for peer in &peers {
            self.hands.links.send(*peer, Vec::new());
        }
        self.hands.network.busy.set_at_work(peers);
        self.count();
        self.answers.retain(|_, answer| !answer.is_closed());
        self.watchers.retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.is_closed());
            !watchers.is_empty()
        });
        let used = self.compute.used().cpu_milli as f64;
        self.cpu_mean += (used - self.cpu_mean) * (1.0 - (-ALIVE.as_secs_f64() / 60.0).exp());
        let free = crate::config::free_disk(&self.hands.content.tmp());
        let room = free.is_none_or(|free| free > FREE_DISK_MIN) && !self.hands.content.is_nearly_full();
        self.sweep(room);
        let accepting =
            if room { self.hands.openness.look(self.cpu_mean) } else { Err("its disk is almost full".to_owned()) };
        if accepting != self.accepting {
            match &accepting {
                Ok(()) => tracing::info!("jobs are taken again"),
                Err(reason) if self.accepting.is_ok() => tracing::warn!(reason, "no jobs are taken"),
                Err(_) => {}
            }
            self.accepting.clone_from(&accepting);
            self.compute_input(compute::Input::Accepting(accepting));
        }
    }

    /// What there is of everything now, for `/metrics`.
    fn count(&self) {
        let (totals, load) = (&self.hands.network.totals, self.compute.load());
        totals.jobs_open.set(gauge(self.requester.jobs().count()));
        totals.runs_running.set(load.running.into());
        totals.runs_queued.set(load.queued.into());
        let (known, connected) = {
            let view = self.hands.network.view();
            (view.len(), view.connected_count())
        };
        totals.nodes_known.set(gauge(known));
        totals.peers_connected.set(gauge(connected));
        totals.content_bytes.set(gauge(self.hands.content.used_in_all()));
    }

    /// Sweeps content away that nobody keeps: every so often, and sooner when room is short.
    fn sweep(&mut self, room: bool) {
        let pause = if room { SWEEP_EVERY } else { SWEEP_SOON };
        if clock::tick().since(self.swept) >= pause {
            self.sweep_now(None);
        }
    }

    pub(super) fn sweep_now(&mut self, answer: Option<oneshot::Sender<Result<u64, ContentError>>>) {
        self.swept = clock::tick();
        let content = self.hands.content.clone();
        let open = self.requester.jobs().chain(self.guardian.open()).map(|job| job.to_string()).collect();
        let (keep, store) = (self.hands.keep_results, self.hands.store.clone());
        let (most, age) = self.hands.keep_jobs;
        tokio::task::spawn_blocking(move || {
            let before = UnixMillis(clock::unix().0.saturating_sub(age.as_millis() as u64));
            match store.retire(most, before) {
                Ok(held) => held.iter().for_each(|(root, reason)| {
                    for content in [&content, content.private()] {
                        if let Err(error) = content.unpin(root, reason) {
                            tracing::warn!(%error, "cannot let go of an old result");
                        }
                    }
                }),
                Err(error) => tracing::warn!(%error, "cannot forget old jobs"),
            }
            let swept = content
                .collect(&open, keep)
                // What can be had again goes first.
                .and_then(|freed| Ok(freed + content.private().collect(&open, keep)?));
            match &swept {
                Ok(freed) => tracing::debug!(freed, "content swept"),
                Err(error) => tracing::warn!(%error, "cannot sweep the content"),
            }
            if let Some(answer) = answer {
                let _ = answer.send(swept);
            }
        });
    }
}

/// What there is, as a gauge has it.
fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
