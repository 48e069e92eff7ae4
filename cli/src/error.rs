//! What the user is told when something does not work: a lower-case sentence, its cause, a hint; and an exit code that
//! scripts can rely on.

use std::fmt;
use std::process::ExitCode;

use bacnode_protocol::api::ErrorBody;

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The job failed, or its program's exit code was not 0; or something else went wrong.
    Failed = 1,
    /// Wrong usage, settings or spec.
    Usage = 2,
    /// The node cannot be reached.
    Unreachable = 3,
    /// No such job, node or content.
    NotFound = 4,
    /// `--wait-timeout` passed.
    Timeout = 5,
    /// Interrupted.
    Interrupted = 130,
}

/// An error for people.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    hint: String,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: String::new() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The failure that the daemon reports.
    pub(crate) fn from_api(body: ErrorBody) -> Self {
        let exit = match body.status {
            404 => Exit::NotFound,
            // Who one is, too, was said in the usage.
            400 | 401 | 403 => Exit::Usage,
            _ => Exit::Failed,
        };
        let message = if body.code == "InvalidSpec" { invalid_spec(&body.message) } else { body.message };
        Self { exit, message, hint: body.hint }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

/// A spec's problems under one sentence.
pub(crate) fn invalid_spec(problems: &str) -> String {
    if problems.lines().count() == 1 {
        return format!("the job spec is not valid: {problems}");
    }
    let lines: Vec<String> = problems.lines().map(|line| format!("  {line}")).collect();
    format!("the job spec is not valid:\n{}", lines.join("\n"))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", crate::output::plain(&self.message))?;
        if !self.hint.is_empty() {
            write!(f, "\nhint: {}", crate::output::plain(&self.hint))?;
        }
        Ok(())
    }
}

impl From<bacnode_protocol::job::InvalidSpec> for Failure {
    fn from(error: bacnode_protocol::job::InvalidSpec) -> Self {
        Self::usage(invalid_spec(&error.to_string()))
    }
}
