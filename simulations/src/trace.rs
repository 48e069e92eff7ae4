//! What happened: always as one number, which is the same for the same seed; on demand as lines for people.

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Line {
    /// Microseconds since the beginning.
    pub at: u64,
    /// At which node, or from which.
    pub from: usize,
    /// To which node, for a message.
    pub to: Option<usize>,
    /// In words.
    pub text: String,
}

/// A trace.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<Line>>,
}

/// Lines that are kept at most; a storm is not read to its end.
const LINES_MAX: usize = 200_000;

impl Trace {
    /// A trace that keeps its lines, or only their number.
    #[must_use]
    pub fn new(lines: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: lines.then(Vec::new) }
    }

    /// Notes what happened: `kind` and `detail` count for the hash, `text` is for people.
    pub(crate) fn note(
        &mut self,
        at: u64,
        (from, to): (usize, Option<usize>),
        kind: &str,
        detail: &[u8],
        text: impl FnOnce() -> String,
    ) {
        self.mix(&at.to_le_bytes());
        self.mix(&(from as u32).to_le_bytes());
        self.mix(&to.map_or(u32::MAX, |to| to as u32).to_le_bytes());
        self.mix(kind.as_bytes());
        self.mix(detail);
        if let Some(lines) = &mut self.lines
            && lines.len() < LINES_MAX
        {
            lines.push(Line { at, from, to, text: text() });
        }
    }

    /// FNV-1a, 64 bits: not against an adversary, only for equality.
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The number.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        self.lines.as_deref().unwrap_or_default()
    }
}
