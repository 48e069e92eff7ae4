//! What is to happen, in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use bacnode_protocol::compute::Ended;
use bacnode_protocol::guardian::Replica;
use bacnode_protocol::id::{ExecutionId, JobId};
use bacnode_protocol::requester;
use bacnode_protocol::wire::advert::{Advert, SignedAdvert};
use bacnode_protocol::wire::market::{Market, Phase};

use crate::plan::Micros;

/// What is to happen.
#[derive(Debug)]
pub(super) enum Event {
    Deliver { from: usize, to: usize, message: Rc<Market> },
    Alive { from: usize, to: usize },
    SayAlive { host: usize },
    Synced { host: usize, life: u64, step: u64 },
    Wake { host: usize },
    Phase { host: usize, life: u64, execution: ExecutionId, phase: Phase },
    Ends { host: usize, life: u64, serial: u64, execution: ExecutionId, ended: Box<Ended> },
    Expire { host: usize, serial: u64, execution: ExecutionId },
    Fetched { host: usize, life: u64, fetch: Box<requester::Fetch>, tries: u32 },
    Hold { host: usize, life: u64, replica: Box<Replica>, holders: Vec<usize>, tries: u32 },
    Providers { host: usize, life: u64, job: JobId },
    Considered { host: usize, life: u64, number: u64, refused: bool },
    Announce { host: usize },
    Heard { host: usize, advert: Rc<(Advert, SignedAdvert)> },
    Exchange { host: usize },
    LinkUp { a: usize, b: usize },
    LinkDown { a: usize, b: usize },
    Submit { job: usize },
    Update { job: usize },
    Stop { job: usize },
    Fault { index: usize },
    Over { index: usize },
    Back { host: usize },
    Thaw { host: usize },
    FlapDown { host: usize, left: u32, each: Micros },
    FlapUp { host: usize, left: u32, each: Micros },
    Mischief { host: usize },
    Calm,
    Look,
}

impl Event {
    /// Whose turn it is: a node that sleeps, or whose disk is full, takes it later.
    pub(super) fn host(&self) -> Option<usize> {
        match self {
            Self::Deliver { to, .. } | Self::Alive { to, .. } => Some(*to),
            Self::SayAlive { host }
            | Self::Synced { host, .. }
            | Self::Wake { host }
            | Self::Phase { host, .. }
            | Self::Ends { host, .. }
            | Self::Fetched { host, .. }
            | Self::Hold { host, .. }
            | Self::Providers { host, .. }
            | Self::Considered { host, .. }
            | Self::Announce { host }
            | Self::Heard { host, .. }
            | Self::Exchange { host }
            | Self::Mischief { host } => Some(*host),
            Self::LinkUp { a, .. } | Self::LinkDown { a, .. } => Some(*a),
            _ => None,
        }
    }
}

/// All that is to come; what falls together comes in the order in which it was planned.
#[derive(Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
}

impl Events {
    pub(super) fn push(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse(Scheduled { at, sequence: self.sequence, event }));
    }

    /// What comes next, and when.
    pub(super) fn pop(&mut self) -> Option<(Micros, Event)> {
        self.heap.pop().map(|Reverse(next)| (next.at, next.event))
    }
}

struct Scheduled {
    at: Micros,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}
