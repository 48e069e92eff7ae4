//! The invariants, one by one, looked at after every step. `simulations/README.md` says what each means.
//!
//! The checker sees what honest nodes do and say, not what the machines think: it keeps its own books.

mod books;

use std::fmt;

pub(crate) use self::books::{Books, ORPHAN_MAX, QUEUE_MAX, TIMEOUT_MAX};

/// An invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one trusted attempt a slot; attempts rise.
    S1SlotUniqueness,
    /// No two nodes run one exclusive slot at one time.
    S2LeaseExclusion,
    /// Nothing starts without an award that answers a standing bid of this life.
    S3NoStartWithoutAward,
    /// A holder stops when its owner's word has run out.
    S4SelfStop,
    /// One accepted result a slot, ever.
    S5SingleAcceptance,
    /// An accepted result is the awarded peer's, about this award.
    S6ResultBinding,
    /// What is accepted is held in full.
    S7Content,
    /// An end is told once, and is the end.
    S9TerminalIsFinal,
    /// After a stop nothing new is awarded.
    S10CancelWins,
    /// What runs fits, and what has ended is given back.
    S11Capacity,
    /// The same message twice changes nothing the second time.
    S12ReplayImmunity,
    /// What binds is on the disk before it is said.
    S13PersistBeforeSend,
    /// After a restart a node is what it was.
    S14RecoveryEquality,
    /// Who is proved to have lied, did.
    S15OnlyLiarsAreAccused,
    /// Everything has a bound.
    S16Bounds,
    /// One seed, one trace.
    S17Determinism,
    /// A result is kept until its owner lets go.
    S18KeptUntilReleased,
    /// Nothing runs beyond what the operator and the award allow.
    S19Policy,
    /// When faults stop, every job ends.
    L1JobsEnd,
    /// When faults stop, everything that was taken is given back.
    L2PlacesComeBack,
    /// When faults stop, no result waits for its owner.
    L3ResultsAreDelivered,
    /// When faults stop, all know all.
    L4ViewsConverge,
    /// Honest jobs get done among dishonest nodes.
    L5WorkGetsDone,
    /// When faults stop, what is to be kept running runs, where it is to run, in its newest version.
    L6KeptRunning,
}

impl Invariant {
    /// Every one of them.
    pub const ALL: [Self; 24] = [
        Self::S1SlotUniqueness,
        Self::S2LeaseExclusion,
        Self::S3NoStartWithoutAward,
        Self::S4SelfStop,
        Self::S5SingleAcceptance,
        Self::S6ResultBinding,
        Self::S7Content,
        Self::S9TerminalIsFinal,
        Self::S10CancelWins,
        Self::S11Capacity,
        Self::S12ReplayImmunity,
        Self::S13PersistBeforeSend,
        Self::S14RecoveryEquality,
        Self::S15OnlyLiarsAreAccused,
        Self::S16Bounds,
        Self::S17Determinism,
        Self::S18KeptUntilReleased,
        Self::S19Policy,
        Self::L1JobsEnd,
        Self::L2PlacesComeBack,
        Self::L3ResultsAreDelivered,
        Self::L4ViewsConverge,
        Self::L5WorkGetsDone,
        Self::L6KeptRunning,
    ];

    /// Its number, like `S5`.
    #[must_use]
    pub fn number(self) -> String {
        self.name().split(' ').next().unwrap_or_default().to_uppercase()
    }

    /// Its name, as in the README.
    #[must_use]
    pub fn name(self) -> String {
        let text = format!("{self:?}");
        let digits = text.chars().skip(1).take_while(char::is_ascii_digit).count() + 1;
        let (number, words) = text.split_at(digits);
        let mut name = number.to_owned();
        for letter in words.chars() {
            if letter.is_uppercase() {
                name.push(' ');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Microseconds since the beginning.
    pub at: u64,
    /// How.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.6} s: {}", self.invariant.name(), self.at as f64 / 1e6, self.text)
    }
}
