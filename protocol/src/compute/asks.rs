//! Asks: bid, or decline and say why.

use sha2::{Digest, Sha256};

use super::state::{StandingBid, State, Timer};
use super::{Considered, Facts, Output, Refusal};
use crate::id::{BootId, NodeId};
use crate::limits::{
    BID_TTL, BIDS_PER_PEER_MAX, CONSIDER_TIMEOUT, CONSIDERED_MAX, CONSIDERED_PER_PEER_MAX, HELD_MAX, RUN_RESOURCES_MIN,
    UNRELEASED_PER_OWNER_MAX,
};
use crate::outbox::Outbox;
use crate::time::{Now, Span};
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::codec;
use crate::wire::market::{Ask, Bid, Decline, Market};
use crate::wire::task::{Resources, Source, Task};

/// What of `needs` is more than `total`, a sentence each.
#[must_use]
pub fn lacking(needs: &Resources, total: &Resources) -> Vec<String> {
    let pairs = [
        ("cpu", needs.cpu_milli, total.cpu_milli),
        ("memory", needs.memory, total.memory),
        ("disk", needs.disk, total.disk),
        ("gpu", u64::from(needs.gpu), u64::from(total.gpu)),
    ];
    let lacking = pairs.into_iter().filter(|(_, needs, has)| needs > has);
    lacking.map(|(name, needs, has)| crate::view::shortage(name, needs, has)).collect()
}

/// What identifies the task of a bid when the award brings the whole of it.
pub(super) fn task_digest(task: &Task) -> [u8; 32] {
    Sha256::digest(codec::encode(&task.without_env_values())).into()
}

fn decline(to: NodeId, ask: &Ask, reasons: &[String], later: bool, out: &mut Outbox<Output>) {
    let reasons = ListMax::truncated(reasons.iter().map(|reason| TextMax::truncated(reason)));
    let decline = Decline { ask: ask.ask, reasons, later };
    out.now(Output::Send { to, message: Market::Decline(decline) });
}

impl State {
    pub(super) fn ask(&mut self, from: NodeId, ask: Ask, now: Now, out: &mut Outbox<Output>) {
        if !self.may_speak(&from, &ask.job) {
            // Unless it shows that it may: who leads another's jobs is not known everywhere at once.
            return decline(from, &ask, &["the job belongs to another node".to_owned()], true, out);
        }
        let never = self.never(from, &ask);
        let considers = self.config.policy.considers(&ask.task);
        let reasons = if never.is_empty() {
            [self.not_now(from, considers), self.taken_for_good(from, &ask)].concat()
        } else {
            never.clone()
        };
        if !reasons.is_empty() {
            return decline(from, &ask, &reasons, never.is_empty(), out);
        }
        if !considers {
            return self.offer(from, &ask, Facts::default(), now, out);
        }
        let number = self.next_bid;
        self.next_bid += 1;
        let considered = Considered { owner: from, job: ask.job, task: ask.task.clone() };
        self.considering.insert(number, (from, ask));
        self.timers.set(Timer::Consider(number), now.tick + CONSIDER_TIMEOUT);
        out.now(Output::Consider(number, Box::new(considered)));
    }

    /// An ask was looked at; meanwhile the node may have become busy.
    pub(super) fn considered(
        &mut self,
        number: u64,
        found: Result<Facts, Refusal>,
        now: Now,
        out: &mut Outbox<Output>,
    ) {
        let Some((from, ask)) = self.considering.remove(&number) else { return };
        self.timers.cancel(&Timer::Consider(number));
        let busy = [self.not_now(from, false), self.taken_for_good(from, &ask)].concat();
        match found {
            Err(refusal) => decline(from, &ask, &[refusal.reason], refusal.later, out),
            Ok(_) if !busy.is_empty() => decline(from, &ask, &busy, true, out),
            Ok(facts) => self.offer(from, &ask, facts, now, out),
        }
    }

    fn offer(&mut self, from: NodeId, ask: &Ask, facts: Facts, now: Now, out: &mut Outbox<Output>) {
        let room = self.config.queue_max.saturating_sub(self.queue.len() + self.promised());
        // At most half of what is left for anybody: others ask, too.
        let room = room.min(self.config.per_owner_max).div_ceil(2).max(1);
        let places = ask.want.clamp(1, u32::try_from(room).unwrap_or(u32::MAX));
        let bid = self.next_bid;
        self.next_bid += 1;
        let task_digest = task_digest(&ask.task);
        let standing =
            StandingBid { owner: from, job: ask.job, task_digest, places, image: facts.image, sent: now.tick };
        self.bids.insert(bid, standing);
        self.timers.set(Timer::Bid(bid), now.tick + BID_TTL);
        let message = Market::Bid(Bid {
            ask: ask.ask,
            boot: self.boot,
            bid,
            places,
            ttl_ms: u32::try_from(BID_TTL.as_millis()).unwrap_or(u32::MAX),
            wait_ms: self.wait_ms(&ask.task.resources),
            bytes_held: self.bytes_held(&from, &ask.task).saturating_add(facts.bytes_held),
            image: facts.image,
        });
        out.now(Output::Send { to: from, message });
    }

    fn bytes_held(&self, from: &NodeId, task: &Task) -> u64 {
        // To others, what does not leave this node is not here.
        let trusted = self.config.policy.may_read_private(&self.signer.node(), from);
        let held = task.content_inputs().filter_map(|cid| self.holdings.get(&cid, trusted)).map(|holding| holding.size);
        held.fold(0, u64::saturating_add)
    }

    /// Reasons that will hold at any time.
    fn never(&self, from: NodeId, ask: &Ask) -> Vec<String> {
        let mut reasons = Vec::new();
        let engine = ask.task.engine.engine();
        if self.config.engines.0 == 0 {
            reasons.push("runs no jobs".into());
        } else if !self.config.engines.has(engine) {
            reasons.push(format!("has no {} engine", engine.name()));
        }
        if !ask.task.is_plain() {
            reasons.push("something in the task is not as any spec could say it".into());
        }
        if !self.config.policy.offers(&ask.task.engine, &ask.task.network) {
            reasons.push(format!(
                "gives {} tasks no network of the kind `{}`",
                engine.name(),
                ask.task.network.reach().name()
            ));
        }
        reasons.extend(self.config.policy.broken(&self.signer.node(), &from, &ask.task, &self.holdings));
        if ask.task.resources.cpu_milli == 0 || ask.task.resources.memory == 0 {
            reasons.push("asks for no cpu or no memory".into());
        }
        let needs = ask.task.resources.at_least(&RUN_RESOURCES_MIN);
        reasons.extend(lacking(&needs, &self.config.total));
        reasons.extend(ask.task.constraints.iter().filter_map(|constraint| constraint.failing(&self.config.labels)));
        if ask.task.kind.is_endless() && self.config.policy.refuses_endless {
            reasons.push(format!("takes no {} jobs, which have no end (rule: no-endless)", ask.task.kind.name()));
        }
        let limit = self.config.timeout_max.as_millis();
        if ask.task.timeout_ms > limit {
            reasons.push(format!(
                "runs may take {} s here, this one wants {} s",
                limit / 1000,
                ask.task.timeout_ms / 1000
            ));
        }
        for input in &ask.task.inputs {
            if let Source::Local { path, writable } = &input.source
                && !self.allows_local(path, *writable)
            {
                reasons.push(format!(
                    "`{}` is not on this node's list of local paths",
                    path.chars().take(80).collect::<String>()
                ));
            }
        }
        reasons
    }

    /// Whether the operator lets tasks at `path`.
    #[must_use]
    pub fn allows_local(&self, path: &str, writable: bool) -> bool {
        let within = |prefix: &str| {
            let prefix = prefix.trim_end_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let plain = path.split('/').all(|part| part != "..");
        plain && self.config.local_paths.iter().any(|(prefix, rw)| within(prefix) && (*rw || !writable))
    }

    /// Reasons that hold now.
    fn not_now(&self, from: NodeId, considers: bool) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Err(reason) = &self.accepting {
            reasons.push(reason.clone());
        }
        if self.draining {
            reasons.push("is being drained".into());
        }
        let waiting = self.queue.len() + self.promised();
        if waiting >= self.config.queue_max {
            reasons.push(format!("queue: {waiting} of {} places are taken (rule: max-queue)", self.config.queue_max));
        }
        let own = self.held.values().filter(|held| held.record.owner == from);
        let (mut open, mut unreleased) = (0, 0);
        for held in own {
            *if held.record.result.is_some() { &mut unreleased } else { &mut open } += 1;
        }
        if open >= self.config.per_owner_max {
            reasons.push(format!(
                "{open} of your jobs are here already, {} may be (rule: max-per-peer)",
                self.config.per_owner_max
            ));
        }
        if self.held.len() >= HELD_MAX {
            reasons.push(format!("{HELD_MAX} awards and results are held here already"));
        }
        if unreleased >= UNRELEASED_PER_OWNER_MAX {
            reasons.push(format!("{unreleased} of your results wait here to be released"));
        }
        let considered = self.considering.values().filter(|(owner, _)| *owner == from).count();
        if considers && (considered >= CONSIDERED_PER_PEER_MAX || self.considering.len() >= CONSIDERED_MAX) {
            reasons.push(format!("{considered} of your asks are being looked at"));
        }
        if self.bids.values().filter(|bid| bid.owner == from).count() >= BIDS_PER_PEER_MAX {
            reasons.push(format!("{BIDS_PER_PEER_MAX} bids to you stand already"));
        }
        reasons
    }

    /// What does not fit beside what has no end would wait without end, and hold up all behind it. Its own job's runs may
    /// make room for it.
    fn taken_for_good(&self, from: NodeId, ask: &Ask) -> Vec<String> {
        let others = self.held.values().filter(|held| held.endless && held.record.result.is_none());
        let others = others.filter(|held| (held.record.owner, held.record.job) != (from, ask.job));
        let taken = others.fold(Resources::default(), |sum, held| sum.plus(&held.resources));
        let needs = ask.task.resources.at_least(&RUN_RESOURCES_MIN);
        let lacking = lacking(&needs, &self.config.total.minus(&taken)).into_iter();
        lacking.map(|reason| format!("{reason} beside services and daemons")).collect()
    }

    /// Places in bids that stand.
    fn promised(&self) -> usize {
        self.bids.values().map(|bid| bid.places as usize).sum()
    }

    /// Milliseconds until an award of this size would start: at once if it fits beside what runs and nothing waits.
    fn wait_ms(&self, needs: &Resources) -> u32 {
        let free = self.config.total.minus(&self.used);
        if self.queue.is_empty() && needs.fits(&free) {
            return 0;
        }
        let abreast = (self.config.total.cpu_milli / needs.cpu_milli.max(1)).max(1);
        let ahead = self.queue.len() as u64 + 1;
        u32::try_from(ahead.saturating_mul(self.run_ms) / abreast).unwrap_or(u32::MAX)
    }

    pub(super) fn bid_release(&mut self, from: NodeId, boot: BootId, bid: u64) {
        if boot == self.boot && self.bids.get(&bid).is_some_and(|standing| standing.owner == from) {
            self.bids.remove(&bid);
            self.timers.cancel(&Timer::Bid(bid));
        }
    }

    /// Takes one place of a standing bid: when it was sent and for which image, or why it does not stand.
    pub(super) fn take_bid(
        &mut self,
        from: NodeId,
        award: &crate::wire::market::Award,
    ) -> Result<(crate::time::Tick, Option<[u8; 32]>), &'static str> {
        if award.boot != self.boot {
            return Err("the node was restarted since its bid");
        }
        let Some(standing) = self.bids.get_mut(&award.bid).filter(|bid| bid.owner == from) else {
            return Err("the bid does not stand any more");
        };
        if standing.job != award.job || standing.task_digest != task_digest(&award.task) {
            return Err("the award is for another task than the bid");
        }
        standing.places -= 1;
        let taken = (standing.sent, standing.image);
        if standing.places == 0 {
            self.bids.remove(&award.bid);
            self.timers.cancel(&Timer::Bid(award.bid));
        }
        Ok(taken)
    }

    /// Notes how long a run took.
    pub(super) fn learn_run(&mut self, span: Span) {
        self.run_ms = (self.run_ms * 7 + span.as_millis()) / 8;
    }
}
