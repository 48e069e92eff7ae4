//! Dishonest nodes: everything that a peer can say, whether or not it is true. They cannot be somebody else, because
//! connections are authenticated.

use std::rc::Rc;

use bacnode_protocol::id::{BootId, ExecutionId, FencingToken};
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::group::{Ack, At, Group, Signed, Vote};
use bacnode_protocol::wire::market::{Award, Lease, Market, Phase, RESULT_BODY_BYTES_MAX, ResultBody, SignedResult};
use bacnode_protocol::wire::signed::{Domain, SignatureBytes};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

use super::{Event, World};
use crate::plan::{Evil, SECOND};

/// Messages that a dishonest node remembers.
const MEMORY_MAX: usize = 64;

/// A message in a few words.
pub(super) fn describe(message: &Market) -> String {
    let short = |execution: &ExecutionId| execution.short();
    match message {
        Market::Ask(ask) => format!("Ask for {} of {}", ask.want, ask.job),
        Market::Bid(bid) => format!("Bid {} ({} places, {} ms)", bid.bid, bid.places, bid.wait_ms),
        Market::Decline(decline) => {
            let reasons: Vec<_> = decline.reasons.iter().map(ToString::to_string).collect();
            format!("Decline ({})", reasons.join("; "))
        }
        Market::BidRelease { bid, .. } => format!("BidRelease {bid}"),
        Market::Award(award) => format!("Award {} slot {} of {}", short(&award.execution), award.slot, award.job),
        Market::AwardAck { execution } => format!("AwardAck {}", short(execution)),
        Market::AwardRefuse { execution, reason } => format!("AwardRefuse {} ({})", short(execution), &**reason),
        Market::Started { execution, .. } => format!("Started {}", short(execution)),
        Market::Beat { execution, beat, phase } => format!("Beat {beat} {} {phase:?}", short(execution)),
        Market::BeatAck { execution, beat } => format!("BeatAck {beat} {}", short(execution)),
        Market::Query { execution } => format!("Query {}", short(execution)),
        Market::Result(result) => format!("Result {}", short(&result.execution)),
        Market::ResultAck { execution } => format!("ResultAck {}", short(execution)),
        Market::Verdict { execution, accepted } => format!("Verdict {} {accepted}", short(execution)),
        Market::Cancel { execution, reason } => format!("Cancel {} ({})", short(execution), &**reason),
        Market::CancelAck { execution } => format!("CancelAck {}", short(execution)),
        Market::Release { execution } => format!("Release {}", short(execution)),
        Market::Group(group) => of_group(group),
    }
}

fn of_group(group: &Group) -> String {
    match group {
        Group::Append(a) => format!("Append {} after {:?} in epoch {}", a.entries.len(), a.prev, a.charter.epoch),
        Group::Ack { ack, .. } => format!("Ack of {:?}", ack.body.at),
        Group::Behind { at, .. } => format!("Behind at {at:?}"),
        Group::Pull { at, part, .. } => format!("Pull part {part} of {at:?}"),
        Group::Part { at, part, of, .. } => format!("Part {part} of {of} of {at:?}"),
        Group::Canvass { charter, at, motive } => {
            format!("Canvass for epoch {} with {at:?}: {motive:?}", charter.epoch)
        }
        Group::Vote(vote) => format!("Vote for epoch {} with {:?}", vote.body.charter.epoch, vote.body.at),
        Group::Stands { charter, promised, .. } => {
            format!("Stands epoch {} change {}, promised {promised}", charter.epoch, charter.change)
        }
        Group::Seek { .. } => "Seek".into(),
        Group::Leads(certificate) => format!("Leads epoch {}", certificate.votes[0].body.charter.epoch),
        Group::Kept(charter) => format!("Kept epoch {} change {}", charter.epoch, charter.change),
        Group::HandOver { epoch, .. } => format!("HandOver of epoch {epoch}"),
        Group::Back { .. } => "Back".into(),
        Group::Hold { job, root, .. } => format!("Hold {root} of {job}"),
        Group::Held { root, held, .. } => format!("Held {root} {held}"),
        Group::Stop { job, .. } => format!("Stop {job}"),
        Group::Unwilling { .. } => "Unwilling".into(),
        Group::Proof(_) => "Proof".into(),
        Group::Ask(_, ask) => format!("Ask for {} of {}, for its group", ask.want, ask.job),
        Group::Award(_, award) => format!("Award {} of {}, for its group", award.execution.short(), award.job),
    }
}

impl World<'_> {
    pub(super) fn remember(&mut self, index: usize, message: &Rc<Market>) {
        let memory = &mut self.hosts[index].memory;
        if memory.len() < MEMORY_MAX {
            memory.push(Market::clone(message));
        } else {
            let place = self.rng.random_range(0..MEMORY_MAX);
            memory[place] = Market::clone(message);
        }
    }

    /// What a dishonest node says instead of what its machine wants to say.
    pub(super) fn twist(&mut self, index: usize, message: Market) -> Option<Market> {
        self.remember(index, &Rc::new(message.clone()));
        match (self.hosts[index].plan.evil, message) {
            (Some(Evil::Withhold), Market::Result(_)) => None,
            (Some(Evil::Equivocate), Market::Result(result)) => Some(Market::Result(self.other_result(index, result))),
            (Some(Evil::Forge), Market::Result(result)) if self.rng.random_bool(0.3) => {
                let signature = SignatureBytes(self.rng.random::<[u8; 32]>().repeat(2).try_into().unwrap_or([0; 64]));
                Some(Market::Result(SignedResult { signature, ..result }))
            }
            (Some(Evil::Replay), Market::Result(result)) if self.rng.random_bool(0.3) => {
                Some(Market::Result(self.earlier_result(index, result)))
            }
            (Some(Evil::Waver), Market::Group(group)) if self.rng.random_bool(0.5) => {
                Some(Market::Group(Box::new(self.other_word(index, *group))))
            }
            (_, message) => Some(message),
        }
    }

    /// A result that it gave before, as if it were of this execution.
    fn earlier_result(&mut self, index: usize, result: SignedResult) -> SignedResult {
        let maker = self.hosts[index].id;
        let earlier = self.hosts[index].memory.iter().find_map(|message| match message {
            Market::Result(earlier) => {
                let body: ResultBody = codec::decode(&earlier.body, RESULT_BODY_BYTES_MAX).ok()?;
                (body.maker == maker && earlier.execution != result.execution).then(|| earlier.clone())
            }
            _ => None,
        });
        earlier.map_or(result.clone(), |earlier| SignedResult { execution: result.execution, ..earlier })
    }

    /// The same result about other bytes, or another slot, well signed, every second time.
    fn other_result(&mut self, index: usize, result: SignedResult) -> SignedResult {
        let body: Option<ResultBody> = codec::decode(&result.body, RESULT_BODY_BYTES_MAX).ok();
        let Some(mut body) = body.filter(|_| self.rng.random_bool(0.5)) else { return result };
        if self.rng.random_bool(0.3) {
            body.slot += 1;
        } else {
            body.root = Some(World::cid(&ExecutionId([self.rng.random(); 20])));
        }
        let Ok(bytes) = BytesMax::new(codec::encode(&body)) else { return result };
        let signature = self.hosts[index].signer.sign(Domain::Result, &bytes);
        SignedResult { body: bytes, signature, blocks: ListMax::default(), ..result }
    }

    /// A vote as if it held nothing, an acknowledgement of more than it holds.
    fn other_word(&mut self, index: usize, group: Group) -> Group {
        let signer = &self.hosts[index].signer;
        match group {
            Group::Vote(vote) => Group::Vote(Signed::new(signer, Vote { at: At::default(), ..vote.body })),
            Group::Ack { ack, stamp } => {
                let at = At { index: ack.body.at.index + self.rng.random_range(1..20), ..ack.body.at };
                Group::Ack { ack: Signed::new(signer, Ack { at, ..ack.body }), stamp }
            }
            other => other,
        }
    }

    /// A promise to follow somebody who once asked for it, whatever was promised since; and word that what somebody sent is
    /// held, though it may not be.
    fn waver(&mut self, index: usize, known: Market) {
        let Market::Group(group) = known else { return };
        let signer = &self.hosts[index].signer;
        let (to, word) = match *group {
            Group::Canvass { charter, at, .. } => {
                (charter.leader, Group::Vote(Signed::new(signer, Vote { charter, at })))
            }
            Group::Append(append) => {
                let index = append.prev.index + append.entries.len() as u64;
                let at = At { epoch: append.charter.epoch, index };
                let ack = Ack { owner: append.charter.owner, at, change: append.charter.change };
                (append.charter.leader, Group::Ack { ack: Signed::new(signer, ack), stamp: append.stamp })
            }
            _ => return,
        };
        if let Some(&to) = self.by_id.get(&to).filter(|to| **to != index) {
            self.post(index, to, Market::Group(Box::new(word)));
        }
    }

    /// Says something to somebody.
    pub(super) fn mischief(&mut self, index: usize) {
        if self.calm {
            return;
        }
        let pause = self.rng.random_range(SECOND / 20..SECOND);
        self.push(pause, Event::Mischief { host: index });
        let others = self.hosts.len();
        let to = self.rng.random_range(0..others);
        if !self.hosts[index].up || to == index {
            return;
        }
        let Some(known) = self.hosts[index].memory.choose(&mut self.rng).cloned() else { return };
        match self.hosts[index].plan.evil {
            Some(Evil::Replay) => self.post(index, to, known),
            Some(Evil::Forge) => self.forge_something(index, to, known),
            Some(Evil::Waver) => self.waver(index, known),
            _ => {}
        }
    }

    /// A lie about an execution that some honest node has to do with, told where it would do harm.
    fn forge_something(&mut self, index: usize, to: usize, known: Market) {
        let some = self.books.some_execution(self.rng.random());
        let execution = some.map_or_else(|| ExecutionId([self.rng.random(); 20]), |(execution, _)| execution);
        let message = self.forge(index, execution, known);
        let holder = some.and_then(|(_, holder)| self.by_id.get(&holder).copied());
        let to = holder.filter(|holder| *holder != index && message.is_from_owner()).unwrap_or(to);
        self.post(index, to, message);
    }

    fn forge(&mut self, index: usize, execution: ExecutionId, known: Market) -> Market {
        match self.rng.random_range(0..12) {
            0 => Market::AwardAck { execution },
            1 => Market::AwardRefuse { execution, reason: TextMax::truncated("forged") },
            2 => Market::Started { execution, ports: ListMax::default() },
            3 => {
                let phase =
                    *[Phase::Unknown, Phase::Running, Phase::Ended].choose(&mut self.rng).unwrap_or(&Phase::Unknown);
                Market::Beat { execution, beat: self.rng.random(), phase }
            }
            4 => {
                let last = self.books.some_beat(&execution).unwrap_or_default();
                Market::BeatAck { execution, beat: last.saturating_add(self.rng.random_range(0..4)) }
            }
            5 => Market::Query { execution },
            6 => Market::ResultAck { execution },
            7 => Market::Verdict { execution, accepted: true },
            8 => Market::Cancel { execution, reason: TextMax::truncated("forged") },
            9 => Market::Release { execution },
            10 => match known {
                Market::Result(result) => Market::Result(SignedResult { execution, ..result }),
                Market::Award(award) => Market::Award(self.forge_award(index, award)),
                other => other,
            },
            _ => Market::CancelAck { execution },
        }
    }

    fn forge_award(&mut self, index: usize, award: Award) -> Award {
        let token = FencingToken { epoch: self.rng.random_range(0..4), counter: self.rng.random_range(0..100) };
        let lease = Lease { orphan_ms: u32::MAX, length_ms: u32::MAX, ..award.lease };
        let bid = self.rng.random_range(0..50);
        let boot = BootId(self.hosts[index].disk.epoch);
        Award { token, lease, bid, boot, ..award }
    }
}
