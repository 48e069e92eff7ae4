//! What the machines want done, done.

use std::collections::BTreeSet;
use std::sync::Arc;

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::record::{JobEvent, What};
use bacnode_protocol::wire::market::Market;
use bacnode_protocol::{compute, requester};

use super::{Effect, Event, Running};
use crate::crash;

impl Running {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Requester(output) => self.perform_requester(output),
            Effect::Compute(output) => self.perform_compute(output),
            Effect::Guardian(output) => self.perform_guardian(output),
            Effect::Quorum(tag, entry, output) => self.wait_for_quorum(tag, entry, output),
        }
    }

    pub(super) fn perform_requester(&mut self, output: requester::Output) {
        match output {
            requester::Output::Persist(record) => self.hands.store.put_record(&mut self.batch, &record),
            requester::Output::Send { to, message } => self.send(to, message),
            requester::Output::Call { engine, resources, want } => {
                self.hands.announcer.call(&self.hands.network, engine, resources, want);
            }
            requester::Output::FindProviders(job, roots) => self.find_providers(job, roots),
            requester::Output::Fetch(fetch) => self.fetch(*fetch),
            requester::Output::Drop(execution) => self.unpin_held(execution),
            requester::Output::Unpin { execution, job, root } => {
                self.held_roots.remove(&execution);
                self.unpin(&root, &format!("{job}/{execution}"));
            }
            requester::Output::Answer(request, answer) => {
                if let Some(waiting) = self.answers.remove(&request) {
                    let _ = waiting.send(answer);
                }
            }
            requester::Output::Tell(job, sequence, event) => self.tell(job, sequence, event),
            requester::Output::Guard(job) => _ = self.guarding.insert(job),
            requester::Output::Replicate(replica) => self.replicate(replica),
        }
    }

    fn perform_compute(&mut self, output: compute::Output) {
        match output {
            compute::Output::Persist(record) => self.hands.store.put_record(&mut self.batch, &record),
            compute::Output::Send { to, message } => self.send(to, message),
            compute::Output::Consider(number, considered) => {
                let (runner, events) = (self.hands.runner.clone(), self.hands.events.clone());
                tokio::spawn(async move {
                    let found = runner.consider(&considered).await;
                    let _ = events.send(Event::Considered(number, found)).await;
                });
            }
            compute::Output::Resume(run) => self.hands.runner.resume(*run),
            compute::Output::Start(run) => {
                self.hands.runner.start(*run);
                crash::point("run-started");
            }
            compute::Output::Extend(execution, until) => self.hands.runner.extend(&execution, until),
            compute::Output::Owner(execution, owner) => self.hands.runner.give(&execution, owner),
            compute::Output::Stop(execution) => self.hands.runner.stop(&execution),
            compute::Output::Unpin(execution) => {
                let Some(root) = self.roots.remove(&execution) else { return };
                for content in [&self.hands.content, self.hands.content.private()] {
                    if let Err(error) = content.unpin(&root, &execution.to_string()) {
                        tracing::warn!(%error, "cannot release a result");
                    }
                }
            }
        }
    }

    pub(super) fn send(&mut self, to: NodeId, message: Market) {
        let (message, also) = self.guardian.dress(&to, message, &self.hands.network.view());
        if let Some(also) = also {
            self.post(to, also);
        }
        self.post(to, message);
    }

    fn post(&mut self, to: NodeId, message: Market) {
        if to == self.hands.network.me {
            self.own.push_back(message);
        } else {
            self.sends.entry(to).or_default().push(message);
        }
    }

    fn find_providers(&self, job: JobId, roots: Vec<Cid>) {
        let (network, events) = (self.hands.network.clone(), self.hands.events.clone());
        tokio::spawn(async move {
            let mut nodes = BTreeSet::new();
            for root in roots {
                nodes.extend(network.providers(root).await);
            }
            let _ = events.send(Event::Providers(job, nodes)).await;
        });
    }

    /// Holds a result here: at once if its blocks came along, else by fetching it.
    fn fetch(&mut self, fetch: requester::Fetch) {
        crash::point("before-fetch");
        let requester::Fetch { execution, job, maker, root, size, blocks } = fetch;
        // Of its own, so that the loser of a race does not take the winner's pin with it.
        let reason = format!("{job}/{execution}");
        self.held_roots.insert(execution, (root, reason.clone()));
        let private = self.hands.content.private();
        if maker == self.hands.network.me && private.holds(&root).unwrap_or(false) {
            let held = private.pin(&root, &reason).map(|_| ()).map_err(|error| error.to_string());
            return self.requester_input(requester::Input::Fetched(execution, held));
        }
        if !blocks.is_empty() {
            match self.hands.content.hold_blocks(&root, &blocks, &reason) {
                Ok(true) => return self.requester_input(requester::Input::Fetched(execution, Ok(()))),
                Ok(false) => tracing::debug!(%root, "a result's blocks are not all of it"),
                Err(error) => {
                    return self.requester_input(requester::Input::Fetched(execution, Err(error.to_string())));
                }
            }
        }
        let (fetcher, events) = (Arc::clone(&self.hands.fetcher), self.hands.events.clone());
        // The blocks around the files: about one part in two thousand, and a little for many small ones.
        let size = size.min(self.hands.result_max);
        let max = size.saturating_add(size / 16).saturating_add(64 << 20);
        tokio::spawn(async move {
            let fetched = fetcher.fetch(root, vec![maker], max, reason.clone()).await;
            let _ = events.send(Event::Fetched(execution, root, reason, fetched.map(|_| ()))).await;
        });
    }

    fn unpin_held(&mut self, execution: ExecutionId) {
        if let Some((root, reason)) = self.held_roots.remove(&execution) {
            self.unpin(&root, &reason);
        }
    }

    fn unpin(&self, root: &Cid, reason: &str) {
        for content in [&self.hands.content, self.hands.content.private()] {
            if let Err(error) = content.unpin(root, reason) {
                tracing::warn!(%error, "cannot drop a result");
            }
        }
    }

    fn tell(&mut self, job: JobId, sequence: u32, event: JobEvent) {
        if let What::Accepted { root } = event.what {
            if !self.hands.content.private().holds(&root).unwrap_or(true) {
                self.hands.network.provide(root);
            }
            if let Some(execution) = event.execution {
                self.held_roots.remove(&execution);
            }
        }
        self.hands.network.totals.told(&event.what);
        self.hands.network.tell(crate::network::Observed::Job(job, sequence, event.clone()));
        let ended = matches!(event.what, What::Ended { .. });
        if let Some(watchers) = self.watchers.get_mut(&job) {
            // A watcher that is too far behind reads the rest from the store.
            watchers.retain(|watcher| watcher.try_send((sequence, event.clone())).is_ok());
        }
        if ended {
            self.watchers.remove(&job);
        }
    }
}
