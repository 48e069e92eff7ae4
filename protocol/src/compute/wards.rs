//! Who keeps the jobs that are run here, so that whoever leads them after their owner is known when it comes.

use std::collections::BTreeMap;

use super::Output;
use super::state::{State, Timer};
use crate::id::{JobId, NodeId};
use crate::limits::RESEND_MIN;
use crate::outbox::Outbox;
use crate::record::Record;
use crate::time::{Now, Span};
use crate::wire::group::{Certificate, Charter, Group};
use crate::wire::market::{Market, Phase};

/// Owners whose groups are remembered.
const WARDS_MAX: usize = 1_024;

/// The groups that keep the jobs of owners, by the owner's tag.
#[derive(Debug, Clone, Default)]
pub(super) struct Wards(BTreeMap<[u8; 5], Ward>);

#[derive(Debug, Clone)]
struct Ward {
    charter: Charter,
    /// What makes others believe it.
    said: Option<Group>,
    /// Whether the owner itself, or somebody whom it named, said so.
    verified: bool,
}

impl Wards {
    pub(super) fn new(known: Vec<Charter>) -> Self {
        let ward = |charter: Charter| (charter.owner.tag(), Ward { charter, said: None, verified: true });
        Self(known.into_iter().map(ward).collect())
    }
}

impl State {
    /// Whether `from` may ask for, and award, runs of this job: whoever leads the jobs of its owner's group, or its owner,
    /// unless another one leads what is held of it here. (Not all of an owner's jobs are kept by its group.)
    pub(super) fn may_speak(&self, from: &NodeId, job: &JobId) -> bool {
        if from.tag() == job.tag() {
            let mut held = self.held.values().filter(|held| held.record.job == *job);
            return held.all(|held| held.record.owner == *from);
        }
        self.wards.0.get(&job.tag()).is_some_and(|ward| ward.charter.leader == *from)
    }

    pub(super) fn group(&mut self, from: NodeId, message: Group, now: Now, out: &mut Outbox<Output>) {
        match message {
            Group::Kept(charter) if charter.leader == from && charter.is_sound() => self.kept(charter, now, out),
            Group::Leads(certificate) => self.leads(certificate, now, out),
            Group::Ask(certificate, ask) => {
                self.leads(certificate, now, out);
                self.ask(from, *ask, now, out);
            }
            Group::Award(certificate, award) => {
                self.leads(certificate, now, out);
                self.award(from, *award, now, out);
            }
            _ => {}
        }
    }

    /// Two members promised to follow this leader, or its user said that there is nobody else.
    fn leads(&mut self, certificate: Certificate, now: Now, out: &mut Outbox<Output>) {
        let Some(charter) = certificate.charter(&self.signer.network()) else { return };
        let tag = charter.owner.tag();
        let ward = self.wards.0.get(&tag);
        if ward.is_some_and(|ward| ward.charter.epoch >= charter.epoch) {
            return;
        }
        // What is held is given up only for somebody whom its owner named; where nothing is held, nothing can be taken.
        let holds = self.held.values().any(|held| held.record.job.tag() == tag);
        let proven = ward.filter(|ward| ward.verified && holds).map(|ward| {
            let known = certificate.signers().iter().filter(|node| ward.charter.has(node)).count();
            let needed = if charter.change > ward.charter.change { 1 } else { 2 };
            // One alone is believed when whoever led has said nothing for long.
            let alone = certificate.is_forced() && self.is_unheard(&tag, Span::millis(charter.lease_ms.into()), now);
            charter.owner == ward.charter.owner && (known >= needed && !certificate.is_forced() || known > 0 && alone)
        });
        if proven.unwrap_or(true) {
            self.follow(charter, Some(Group::Leads(certificate)), proven.is_some(), now, out);
        }
    }

    /// Whether no word came for so long of what is held for the owner with this tag.
    fn is_unheard(&self, tag: &[u8; 5], lease: Span, now: Now) -> bool {
        let held = self.held.values().filter(|held| held.record.job.tag() == *tag);
        held.map(|held| held.word_from).max().is_none_or(|heard| now.tick.since(heard) > lease.times(2))
    }

    /// The leader says who keeps its jobs with it: the owner itself, or whoever is known to lead.
    fn kept(&mut self, charter: Charter, now: Now, out: &mut Outbox<Output>) {
        let founder = charter.leader == charter.owner;
        let believed = match self.wards.0.get(&charter.owner.tag()) {
            Some(ward) if ward.verified => {
                let same = ward.charter.leader == charter.leader && ward.charter.epoch == charter.epoch;
                // An owner that lost its disk begins anew, later than anything it did before.
                (same && charter.change > ward.charter.change)
                    || (founder && ward.charter.leader == charter.leader && charter.epoch > ward.charter.epoch)
            }
            _ => founder,
        };
        if believed {
            self.follow(charter, None, true, now, out);
        }
    }

    /// From now on this one is the owner of whatever is held for the group's jobs.
    fn follow(&mut self, charter: Charter, said: Option<Group>, verified: bool, now: Now, out: &mut Outbox<Output>) {
        let tag = charter.owner.tag();
        self.forget_wards(out);
        if self.wards.0.len() >= WARDS_MAX && !self.wards.0.contains_key(&tag) {
            return;
        }
        self.wards.0.insert(tag, Ward { charter, said, verified });
        if verified {
            out.now(Output::Persist(Record::Ward(charter)));
        }
        for (execution, held) in &mut self.held {
            let owner = held.record.owner;
            // What another node was given before anybody vouched for this group stays with that one.
            if held.record.job.tag() != tag || owner == charter.leader || !(verified || charter.has(&owner)) {
                continue;
            }
            held.record.owner = charter.leader;
            held.resend = RESEND_MIN;
            out.now(Output::Persist(Record::Held(Box::new(held.record.clone()))));
            out.now(Output::Owner(*execution, charter.leader));
            let ended = held.phase == Phase::Ended;
            let timer = if ended { Timer::Resend(*execution) } else { Timer::Beat(*execution) };
            self.timers.set_earlier(timer, now.tick);
        }
    }

    /// Those for whom nothing is held any more are forgotten when there are many.
    fn forget_wards(&mut self, out: &mut Outbox<Output>) {
        if self.wards.0.len() < WARDS_MAX {
            return;
        }
        let idle: Vec<[u8; 5]> = self.wards.0.keys().copied().collect();
        for tag in idle {
            if !self.held.values().any(|held| held.record.job.tag() == tag)
                && let Some(ward) = self.wards.0.remove(&tag)
            {
                out.now(Output::Persist(Record::DropWard(ward.charter.owner)));
            }
        }
    }

    /// Asks who leads this job: whoever did is not heard.
    pub(super) fn seek(&self, job: &JobId, out: &mut Outbox<Output>) {
        let Some(ward) = self.wards.0.get(&job.tag()) else { return };
        let owner = ward.charter.owner;
        for to in ward.charter.others(&ward.charter.leader).filter(|node| *node != self.signer.node()) {
            out.now(Output::Send { to, message: Market::Group(Box::new(Group::Seek { owner })) });
        }
    }

    /// Tells one that led before, and does not know that it does not any more.
    pub(super) fn correct(&self, from: NodeId, message: &Market, out: &mut Outbox<Output>) {
        let of = |execution| self.held.get(execution).map(|held| held.record.job);
        let job = match message {
            Market::Ask(ask) => Some(ask.job),
            Market::Award(award) => Some(award.job),
            Market::BeatAck { execution, .. }
            | Market::Query { execution }
            | Market::Cancel { execution, .. }
            | Market::ResultAck { execution }
            | Market::Release { execution } => of(execution),
            _ => None,
        };
        let ward = job.and_then(|job| self.wards.0.get(&job.tag()));
        let led = ward.filter(|ward| ward.verified && ward.charter.leader != from && ward.charter.has(&from));
        if let Some(said) = led.and_then(|ward| ward.said.clone()) {
            out.now(Output::Send { to: from, message: Market::Group(Box::new(said)) });
        }
    }
}
