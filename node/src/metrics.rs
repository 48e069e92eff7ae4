//! What a node counts for its operator: `/metrics`, in the text format of Prometheus. `node/README.md` lists it, and a test
//! holds the list against what is counted.

use bacnode_protocol::job::state::JobState;
use bacnode_protocol::record::What;
use bacnode_protocol::wire::market::{Outcome, Usage};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    from: &'static str,
}

/// Everything that is counted. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    jobs_submitted: Counter,
    jobs_ended: Family<State, Counter>,
    awards: Counter,
    awards_lost: Counter,
    runs_ended: Family<Way, Counter>,
    run_seconds: Histogram,
    cpu_seconds: Counter<f64, AtomicU64>,
    input_bytes: Family<Place, Counter>,
    result_bytes: Counter,
    pub(crate) jobs_open: Gauge,
    pub(crate) runs_running: Gauge,
    pub(crate) runs_queued: Gauge,
    pub(crate) nodes_known: Gauge,
    pub(crate) peers_connected: Gauge,
    pub(crate) content_bytes: Gauge,
    pub(crate) content_sent: Counter,
    pub(crate) content_received: Counter,
}

impl Metrics {
    /// Registers all of it.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            jobs_submitted: Counter::default(),
            jobs_ended: Family::default(),
            awards: Counter::default(),
            awards_lost: Counter::default(),
            runs_ended: Family::default(),
            run_seconds: Histogram::new(exponential_buckets(0.01, 4.0, 10)),
            cpu_seconds: Counter::default(),
            input_bytes: Family::default(),
            result_bytes: Counter::default(),
            jobs_open: Gauge::default(),
            runs_running: Gauge::default(),
            runs_queued: Gauge::default(),
            nodes_known: Gauge::default(),
            peers_connected: Gauge::default(),
            content_bytes: Gauge::default(),
            content_sent: Counter::default(),
            content_received: Counter::default(),
        };
        let all = metrics.clone();
        registry.register("jobs_submitted", "Jobs submitted at this node", all.jobs_submitted);
        registry.register("jobs_ended", "Jobs of this node that have ended, by how", all.jobs_ended);
        registry.register("jobs_open", "Jobs of this node that have not ended", all.jobs_open);
        registry.register("awards", "Awards that this node gave for its jobs", all.awards);
        registry.register("awards_lost", "Awards whose holders were given up", all.awards_lost);
        registry.register("runs_ended", "Runs that have ended here, by how", all.runs_ended);
        registry.register("run_seconds", "How long runs took here, inputs included", all.run_seconds);
        registry.register("runs_cpu_seconds", "CPU time of runs that have ended here", all.cpu_seconds);
        registry.register("runs_input_bytes", "Input of runs here, that lay here or had to come", all.input_bytes);
        registry.register("runs_result_bytes", "Results of runs here", all.result_bytes);
        registry.register("runs_running", "Runs that go on here", all.runs_running);
        registry.register("runs_queued", "Runs that wait here", all.runs_queued);
        registry.register("nodes_known", "Nodes that are known, this one included", all.nodes_known);
        registry.register("peers_connected", "Peers that are connected", all.peers_connected);
        registry.register("content_bytes", "Content that is kept here", all.content_bytes);
        registry.register("content_sent_bytes", "Content that was sent to peers", all.content_sent);
        registry.register("content_received_bytes", "Content that came from peers", all.content_received);
        metrics
    }

    /// A line of a job's story.
    pub(crate) fn told(&self, what: &What) {
        match what {
            What::Submitted | What::Version { .. } => _ = self.jobs_submitted.inc(),
            What::Awarded { .. } => _ = self.awards.inc(),
            What::Lost => _ = self.awards_lost.inc(),
            What::Ended { state, .. } => {
                let state = match state {
                    JobState::Completed => "completed",
                    JobState::Stopped => "stopped",
                    JobState::Failed | JobState::Pending | JobState::Queued | JobState::Running => "failed",
                };
                self.jobs_ended.get_or_create(&State { state }).inc();
            }
            _ => {}
        }
    }

    /// The end of a run here.
    pub(crate) fn ran(&self, outcome: &Outcome, usage: &Usage) {
        let outcome = match outcome {
            Outcome::Completed { exit_code: 0 } => "completed",
            Outcome::Completed { .. } => "exit_code",
            Outcome::Failed { .. } => "failed",
            Outcome::NodeFailed { .. } => "node_failed",
            Outcome::Cancelled => "cancelled",
        };
        self.runs_ended.get_or_create(&Way { outcome }).inc();
        self.run_seconds.observe(usage.wall_ms as f64 / 1e3);
        self.cpu_seconds.inc_by(usage.cpu_ms as f64 / 1e3);
        self.input_bytes.get_or_create(&Place { from: "here" }).inc_by(usage.bytes_held);
        self.input_bytes.get_or_create(&Place { from: "elsewhere" }).inc_by(usage.bytes_in);
        self.result_bytes.inc_by(usage.bytes_out);
    }
}
