//! Results that wait for the operator's word, since they were made of data that does not leave this node.

use super::Output;
use super::state::{State, Timer};
use crate::content::Cid;
use crate::id::{ExecutionId, JobId, NodeId};
use crate::limits::RESEND_MIN;
use crate::outbox::Outbox;
use crate::record::Record;
use crate::time::{Now, UnixMillis};
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::codec;
use crate::wire::market::{FailureKind, Head, Outcome, Phase, RESULT_BODY_BYTES_MAX, ResultBody, SignedResult, Usage};

/// A result that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Whose result.
    pub execution: ExecutionId,
    /// Its job.
    pub job: JobId,
    /// Its slot.
    pub slot: u32,
    /// Who wants it.
    pub owner: NodeId,
    /// Since when.
    pub since: UnixMillis,
    /// The result folder.
    pub root: Option<Cid>,
    /// Bytes of files in it.
    pub size: u64,
}

impl State {
    /// Every result that waits.
    pub fn withheld(&self) -> impl Iterator<Item = Withheld> {
        let waiting = self.held.values().filter(|held| held.record.withheld);
        waiting.filter_map(|held| {
            let body: ResultBody = codec::decode(&held.record.result.as_ref()?.body, RESULT_BODY_BYTES_MAX).ok()?;
            Some(Withheld {
                execution: body.execution,
                job: body.job,
                slot: body.slot,
                owner: held.record.owner,
                since: body.ended,
                root: body.root,
                size: body.size,
            })
        })
    }

    /// The operator's word on a result that waits; from now on it is one like any other.
    pub(super) fn let_out(&mut self, execution: ExecutionId, granted: bool, now: Now, out: &mut Outbox<Output>) {
        let Some(held) = self.held.get(&execution).filter(|held| held.record.withheld) else { return };
        let Some(result) = held.record.result.clone() else { return };
        let Some(result) = (if granted { Some(result) } else { self.kept_back(&result) }) else {
            // Cannot happen: it is our own. What cannot be read is not sent.
            return self.forget(execution, out);
        };
        let Some(held) = self.held.get_mut(&execution) else { return };
        held.record.result = Some(result);
        held.record.withheld = false;
        held.phase = Phase::Ended;
        held.resend = RESEND_MIN;
        out.now(Output::Persist(Record::Held(Box::new(held.record.clone()))));
        if !granted {
            out.now(Output::Unpin(execution));
        }
        self.timers.cancel(&Timer::Beat(execution));
        self.arm_lease(execution);
        self.resend(execution, now, out);
    }

    /// A result of which nothing is told but that it is kept back.
    fn kept_back(&self, result: &SignedResult) -> Option<SignedResult> {
        let body: ResultBody = codec::decode(&result.body, RESULT_BODY_BYTES_MAX).ok()?;
        let cause = TextMax::truncated("the operator of the node keeps the result back");
        let (body, signature) = self.sign(ResultBody {
            outcome: Outcome::Failed { kind: FailureKind::Withheld, cause },
            root: None,
            size: 0,
            // Its numbers are of the program's choosing, too.
            usage: Usage::default(),
            stdout: Head::default(),
            stderr: Head::default(),
            ..body
        });
        Some(SignedResult { execution: result.execution, body, signature, blocks: ListMax::default() })
    }
}
