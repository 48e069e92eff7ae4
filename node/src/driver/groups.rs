//! Groups that keep jobs: what goes to them, what waits for them, and what the guardian machine wants done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bacnode_protocol::guardian::{self, Replica, Status, Taken};
use bacnode_protocol::id::{JobId, NodeId};
use bacnode_protocol::limits::REPLICA_ASKED_BYTES_MAX;
use bacnode_protocol::record::{JobRecord, Record};
use bacnode_protocol::requester;
use tokio::sync::{mpsc, oneshot};

use super::{Effect, Event, Running};
use crate::content::kept_for;
use crate::crash;

/// Users who may wait for ends to be settled.
const SETTLING_MAX: usize = 1_024;
/// How long a node that leaves waits for others to take over what it leads.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

/// How a group stands, for the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupView {
    pub(crate) status: Status,
    /// Whether this node decides on its jobs.
    pub(crate) leads: bool,
}

/// The groups that this node is in, by the tag in their jobs' ids. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups(Arc<Mutex<BTreeMap<[u8; 5], GroupView>>>);

impl Groups {
    /// The group that keeps this job, if this node is in it.
    pub(crate) fn of(&self, job: &JobId) -> Option<GroupView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job.tag()).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<GroupView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Running {
    pub(super) fn guardian_input(&mut self, input: guardian::Input) {
        let view = self.hands.network.view();
        self.guardian.handle(input, crate::clock::now(), &view, &mut self.guardian_out);
        drop(view);
        self.sort_outputs();
    }

    /// Whether somebody else decides on this job, or it is not known yet who does.
    pub(super) fn is_led_elsewhere(&self, job: &JobId) -> bool {
        self.guardian.keeps(job) && !self.guardian.leads(&job.tag())
    }

    /// Hands the turn's records to the groups, and has what binds wait for them.
    pub(super) fn hand_to_groups(&mut self) {
        let records = std::mem::take(&mut self.to_groups);
        if !records.is_empty() {
            self.guardian_input(guardian::Input::Append(records));
            let guardian = &self.guardian;
            self.guarding.retain(|job| !guardian.keeps(job));
        }
        for (tag, output) in std::mem::take(&mut self.quorum_effects) {
            match (self.guardian.charter(&tag), self.guardian.position(&tag)) {
                // There are too few others, by now: this disk must do.
                (None, _) => self.synced_effects.push(Effect::Requester(output)),
                (_, Some((entry, _))) => self.synced_effects.push(Effect::Quorum(tag, entry, output)),
                // Others decide.
                (Some(_), None) => {}
            }
        }
    }

    pub(super) fn wait_for_quorum(&mut self, tag: [u8; 5], entry: u64, output: requester::Output) {
        match self.guardian.position(&tag) {
            Some((_, committed)) => {
                self.quorum.entry(tag).or_default().push_back((entry, output));
                self.committed(tag, committed);
            }
            None => _ = self.quorum.remove(&tag),
        }
    }

    /// Answers when what is decided of this job by now is on two disks, if a group keeps it; or when that is nothing more to
    /// this node.
    pub(super) fn settle(&mut self, job: JobId, answer: oneshot::Sender<()>) {
        match self.guardian.position(&job.tag()).filter(|_| self.guardian.keeps(&job)) {
            Some((index, committed)) if index > committed => {
                self.settling.retain(|(.., answer)| !answer.is_closed());
                if self.settling.len() < SETTLING_MAX {
                    self.settling.push((job.tag(), index, answer));
                }
            }
            _ => _ = answer.send(()),
        }
    }

    fn committed(&mut self, tag: [u8; 5], committed: u64) {
        for (of, index, answer) in std::mem::take(&mut self.settling) {
            if of == tag && index <= committed || self.guardian.position(&of).is_none() {
                let _ = answer.send(());
            } else {
                self.settling.push((of, index, answer));
            }
        }
        loop {
            let waiting = self.quorum.get_mut(&tag);
            let ready = waiting.and_then(|queue| queue.pop_front_if(|(entry, _)| *entry <= committed));
            let Some((_, output)) = ready else { return };
            crash::point("before-release");
            self.perform_requester(output);
        }
    }

    pub(super) fn perform_guardian(&mut self, output: guardian::Output) {
        match output {
            guardian::Output::Persist(record) => self.hands.store.put_record(&mut self.batch, &record),
            guardian::Output::Send { to, message } => self.send(to, message),
            guardian::Output::Committed(tag, entry) => self.committed(tag, entry),
            guardian::Output::Lead(taken) => self.take_over(*taken),
            guardian::Output::Follow(tag) => {
                self.quorum.remove(&tag);
                self.settling.retain(|(of, ..)| *of != tag);
                self.requester_input(requester::Input::Abandon(tag));
            }
            guardian::Output::Unled(tag, executions) => {
                self.requester_input(requester::Input::Unled(tag, executions));
            }
            guardian::Output::Sure(tag, sure) => self.requester_input(requester::Input::Sure(tag, sure)),
            guardian::Output::Hold { replica, holders } => self.hold(*replica, holders),
            guardian::Output::LetGo(job) => self.let_go(job),
            guardian::Output::Replicated { job, root, others } => {
                self.requester_input(requester::Input::Replicated { job, root, others });
            }
            guardian::Output::Stop(job, reason) => {
                self.requester_input(requester::Input::Stop { request: 0, job, reason });
            }
            guardian::Output::Accuse(liar, proof) => {
                tracing::warn!(peer = liar.short(), ?proof, "a guardian contradicts itself; it is blocked");
                let network = self.hands.network.clone();
                tokio::spawn(async move { network.block_liar(liar).await });
            }
        }
    }

    /// This node decides from now: its machine goes on from what the group keeps, and its users can read it here.
    fn take_over(&mut self, mut taken: Taken) {
        let me = self.hands.network.me;
        if taken.from != me {
            let name = self.hands.network.view().label(&taken.from);
            tracing::info!(from = name, jobs = taken.open.jobs.len(), "leads another node's jobs from now");
        }
        let mut everything = std::mem::take(&mut taken.everything);
        if taken.owner == me {
            // Guardians never saw the values of environments; this node did.
            let known = |job: &JobRecord| {
                let (known, _) = self.hands.store.job(&job.id).ok()??;
                (known.task.version == job.task.version).then_some(known)
            };
            for job in taken.open.jobs.iter_mut().map(|(job, _)| job) {
                if let Some(known) = known(job) {
                    *job = known;
                }
            }
            for record in &mut everything {
                if let Record::Job(job) = record
                    && let Some(known) = known(job)
                {
                    **job = known;
                }
            }
        }
        for record in &everything {
            self.hands.store.put_record(&mut self.batch, record);
        }
        self.hands.network.provide_owner_tag(taken.owner.tag());
        self.requester_input(requester::Input::Adopt(Box::new(taken)));
    }

    /// Has another node hold this, too, unless it may not leave this one.
    pub(super) fn replicate(&mut self, replica: Box<Replica>) {
        if self.hands.content.private().holds(&replica.root).unwrap_or(true) {
            let (job, root) = (replica.job, replica.root);
            return self.requester_input(requester::Input::Replicated { job, root, others: 0 });
        }
        self.guardian_input(guardian::Input::Replicate(replica));
    }

    /// Holds something for another owner's job: at once if its blocks came along, else by fetching it.
    fn hold(&self, replica: Replica, holders: Vec<NodeId>) {
        let Replica { job, root, size, blocks, .. } = replica;
        let reason = kept_for(&job);
        let (fetcher, events, content) =
            (Arc::clone(&self.hands.fetcher), self.hands.events.clone(), self.hands.content.clone());
        let max = size.min(REPLICA_ASKED_BYTES_MAX);
        // What its folders add.
        let max = max.saturating_add(max / 64).saturating_add(1 << 20);
        tokio::spawn(async move {
            let (of, why) = (content.clone(), reason.clone());
            let inline = tokio::task::spawn_blocking(move || {
                let room = of.has_room_for_others(size).unwrap_or(false);
                (room, room && !blocks.is_empty() && of.hold_blocks(&root, &blocks, &why).unwrap_or(false))
            });
            let (room, inline) = inline.await.unwrap_or_default();
            let held = inline || room && fetcher.fetch(root, holders, max, reason).await.is_ok();
            let _ = events.send(Event::Held(job, root, held)).await;
        });
    }

    fn let_go(&self, job: JobId) {
        let (content, reason) = (self.hands.content.clone(), kept_for(&job));
        tokio::task::spawn_blocking(move || {
            if let Err(error) = content.unpin_all(&reason) {
                tracing::warn!(%error, "cannot let go of what was kept for another owner");
            }
        });
    }

    /// What the API shows of the groups.
    pub(super) fn show_groups(&self) {
        let shown: BTreeMap<[u8; 5], GroupView> = self
            .guardian
            .status()
            .map(|status| {
                let tag = status.charter.owner.tag();
                (tag, GroupView { leads: self.guardian.leads(&tag), status })
            })
            .collect();
        let mut known = self.hands.groups.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (tag, group) in &shown {
            if known.get(tag).is_none_or(|known| known.status.charter != group.status.charter) {
                self.hands.network.provide_owner_tag(*tag);
            }
        }
        *known = shown;
    }

    /// Gives what this node leads to others, who lead on at once, and waits a moment for them.
    pub(super) async fn hand_over(&mut self, events: &mut mpsc::Receiver<Event>) {
        let deadline = tokio::time::Instant::now() + HAND_OVER_MAX;
        if !self.guardian.status().any(|status| status.works && status.open > 0) {
            return;
        }
        let me = self.hands.network.me;
        // Until another leads, as far as is known here.
        let leads =
            |running: &Self| running.guardian.status().any(|group| group.charter.leader == me && group.open > 0);
        self.guardian_input(guardian::Input::Leave);
        self.end_turn().await;
        let mut synced = self.hands.store.log().synced();
        while leads(self) {
            tokio::select! {
                changed = synced.changed() => if changed.is_err() { return } else { self.release(*synced.borrow_and_update()) },
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => return,
                },
                () = tokio::time::sleep_until(deadline) => return,
            }
            self.end_turn().await;
        }
    }
}
