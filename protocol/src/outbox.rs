//! The seam: what a machine wants done, in order, and what each thing must wait for.

/// When an output may be performed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At once, even though the records of this step are not on disk yet.
    Now,
    /// Only when every record appended up to here is on disk: somebody will rely on it.
    AfterSync,
    /// Only when it is on the disk of another member of the group, too, that keeps the jobs with this owner's tag.
    AfterQuorum([u8; 5]),
}

impl When {
    /// After the sync if somebody will rely on it, else now.
    #[must_use]
    pub const fn after_sync_if(relied_on: bool) -> Self {
        if relied_on { Self::AfterSync } else { Self::Now }
    }
}

/// One output with its condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queued<O> {
    /// When it may be performed.
    pub when: When,
    /// What is to be done.
    pub output: O,
}

/// Collects what a machine wants done in one step. The driver performs `Now` outputs in this order, and `AfterSync`
/// outputs in this order once the log is synced past this step.
#[derive(Clone, Debug)]
pub struct Outbox<O> {
    queued: Vec<Queued<O>>,
}

impl<O> Default for Outbox<O> {
    fn default() -> Self {
        Self { queued: Vec::new() }
    }
}

impl<O> Outbox<O> {
    /// Asks for `output` at once.
    pub fn now(&mut self, output: impl Into<O>) {
        self.push(When::Now, output);
    }

    /// Asks for `output` after the log is on disk.
    pub fn after_sync(&mut self, output: impl Into<O>) {
        self.push(When::AfterSync, output);
    }

    /// Asks for `output` at the time that `when` says.
    pub fn push(&mut self, when: When, output: impl Into<O>) {
        self.queued.push(Queued { when, output: output.into() });
    }

    /// Takes everything, leaving the box empty.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Queued<O>> {
        self.queued.drain(..)
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }
}
