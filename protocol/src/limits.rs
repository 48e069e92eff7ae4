//! Every bound of the protocol, with its unit, and what it protects.

use crate::time::Span;
use crate::wire::task::Resources;

/// Bytes of a job spec as a user hands it in. Bacalhau's API takes 10 MB; inline inputs make specs that large.
pub const SPEC_BYTES_MAX: usize = 10 << 20;
/// Bytes of a spec as it is kept, its inline inputs having become content.
pub const STORED_SPEC_BYTES_MAX: usize = 256 << 10;
/// Bytes of the task that an ask or an award carries: inline inputs have become content by then.
pub const TASK_BYTES_MAX: usize = 16 << 10;
/// Bytes of an advert with its signature: 10,000 of them are 5 MiB.
pub const ADVERT_BYTES_MAX: usize = 512;
/// Bytes of one frame on a market stream.
pub const FRAME_BYTES_MAX: usize = 256 << 10;
/// Messages in one frame.
pub const FRAME_MESSAGES_MAX: usize = 64;
/// Bytes of blocks that travel inside a result instead of being fetched.
pub const INLINE_RESULT_BYTES_MAX: usize = 16 << 10;
/// Blocks inside a result.
pub const INLINE_BLOCKS_MAX: usize = 16;
/// Bytes of a reason, a cause or a name that a peer may make us keep and show.
pub const TEXT_BYTES_MAX: usize = 512;
/// Addresses in an advert.
pub const ADDRESSES_MAX: usize = 4;
/// Bytes of one multiaddr in an advert.
pub const ADDRESS_BYTES_MAX: usize = 96;
/// Members that a swarm's founder has put out before their certificates end.
pub const REVOKED_MAX: usize = 256;
/// Bytes of a statement of the founder's.
pub const STATEMENT_BYTES_MAX: usize = 16 << 10;
/// Members of a swarm with a founder.
pub const MEMBERS_MAX: usize = 100_000;
/// Nodes in the view. Beyond it, the ones heard of longest ago go first.
pub const VIEW_NODES_MAX: usize = 10_000;
/// Digest entries or adverts in one view message.
pub const VIEW_ITEMS_MAX: usize = 400;
/// Slots (partitions) of a job.
pub const SLOTS_MAX: u32 = 1_000;
/// Nodes on which one job runs that runs everywhere.
pub const TARGETS_MAX: usize = VIEW_NODES_MAX;
/// Of those, how many are asked at a time.
pub const TARGETS_ASKED_MAX: usize = 64;
/// Ended attempts that are kept of each slot of a job without an end.
pub const ENDED_KEPT_MAX: usize = 3;
/// Entries in one message of a group, and their bytes; a longer entry goes alone.
pub const APPEND_ENTRIES_MAX: usize = 256;
/// Bytes of entries in one message of a group.
pub const APPEND_BYTES_MAX: usize = 96 << 10;
/// Bytes of a spec as it is kept for others; longer ones are kept in short.
pub const GUARDED_SPEC_BYTES_MAX: usize = 128 << 10;
/// Entries that a leader keeps for members that are behind; whoever lacks more asks for everything.
pub const TAIL_MAX: usize = 8_192;
/// Owners whose jobs one node keeps.
pub const GUARDED_OWNERS_MAX: usize = 256;
/// Bytes of one owner's jobs that others keep.
pub const LEDGER_BYTES_MAX: usize = 64 << 20;
/// Bytes of all owners' jobs that one node keeps for others.
pub const GUARDED_BYTES_MAX: usize = 256 << 20;
/// Ended jobs of one owner that others keep.
pub const LEDGER_ENDED_MAX: usize = 1_000;
/// Bytes of a result, or an input, that is held at another node before anybody is told of it, unless the operator says
/// otherwise.
pub const REPLICA_BYTES_MAX: u64 = 64 << 20;
/// The same, where a job's user asks for copies.
pub const REPLICA_ASKED_BYTES_MAX: u64 = 16 << 30;
/// How long somebody who could hold it is waited for; then there is one copy, and the job's story says so.
pub const REPLICA_TIMEOUT: Span = Span::secs(5);
/// Silence after which a leader may be replaced by a member, unless the owner chose another.
pub const OWNERSHIP_LEASE: Span = Span::secs(15);
/// Jobs of one requester that have not ended.
pub const OPEN_JOBS_MAX: usize = 10_000;
/// Inputs of a task.
pub const INPUTS_MAX: usize = 32;
/// Domains that a task may name.
pub const DOMAINS_MAX: usize = 64;
/// Constraints of one task.
pub const CONSTRAINTS_MAX: usize = 16;
/// Ports of one task.
pub const PORTS_MAX: usize = 16;
/// The first port of a machine that a task may be given: those before it are the system's own.
pub const PORT_MIN: u16 = 1024;
/// Modules that one task's module may import.
pub const IMPORTS_MAX: usize = 16;
/// Bytes of an input's URL.
pub const URL_BYTES_MAX: usize = 2048;
/// Asks that wait for the operator's probe or for the look of an image: in all, and of one peer.
pub const CONSIDERED_MAX: usize = 256;
pub const CONSIDERED_PER_PEER_MAX: usize = 32;
/// How long a look at an ask may take; whoever asked has long asked others.
pub const CONSIDER_TIMEOUT: Span = Span::secs(30);
/// Result paths of a task.
pub const OUTPUTS_MAX: usize = 16;
/// Arguments or environment variables of a task.
pub const ARGS_MAX: usize = 256;
/// History entries kept for one job; later ones are dropped and counted.
pub const HISTORY_MAX: u32 = 1_000;
/// Results that one owner may leave unreleased at a compute node.
pub const UNRELEASED_PER_OWNER_MAX: usize = 1_000;
/// Awards and results that a compute node holds in all.
pub const HELD_MAX: usize = 8_192;
/// Bids that stand for one peer at a time.
pub const BIDS_PER_PEER_MAX: usize = 256;
/// Roots that a compute node remembers as held, for its bids.
pub const HOLDINGS_MAX: usize = 65_536;
/// What a run is counted for at least: its worker process takes so much whatever the task says.
pub const RUN_RESOURCES_MIN: Resources = Resources { cpu_milli: 10, memory: 8 << 20, disk: 0, gpu: 0 };
/// The most that a signed message's time may differ from ours.
pub const CLOCK_SKEW_MAX: Span = Span::secs(30);

/// Rest before an endless run that ended is started again; it doubles with each that ends soon, up to [`REST_MAX`].
pub const REST_MIN: Span = Span::millis(500);
/// The longest rest; a run that lasts as long is not one that ends soon.
pub const REST_MAX: Span = Span::secs(60);
/// Executions tried for a cause of the node's before a slot is given up.
pub const ATTEMPTS_MAX: u32 = 3;
/// Between two adverts of a node, at least.
pub const ADVERT_PERIOD_MIN: Span = Span::secs(15);
/// Adverts of the whole network in a second: what a node hears does not grow with it.
pub const ADVERTS_PER_SECOND: u64 = 8;
/// Nodes that an open call may want.
pub const CALL_WANT_MAX: u32 = 64;
/// Nodes that answer an open call for each one wanted, on average.
pub const CALL_ANSWERS_PER_WANTED: usize = 4;
/// Between two open calls of one node.
pub const CALL_PAUSE: Span = Span::millis(500);
/// Between two open calls for one job.
pub const CALL_AGAIN: Span = Span::secs(5);
/// Peers asked for one slot.
pub const ASKED_PER_SLOT: usize = 3;
/// Time in which an asked peer should answer.
pub const ASK_TIMEOUT: Span = Span::millis(1_000);
/// After the first bid for a slot, how long others may still come in.
pub const BID_WINDOW: Span = Span::millis(40);
/// The same while a peer that is known to hold inputs of the job has not answered: to move the data takes longer than to
/// wait for it, and it may have to be connected to first.
pub const HOLDER_WINDOW: Span = Span::millis(900);
/// How long a bid stands.
pub const BID_TTL: Span = Span::secs(10);
/// Silence after which a holder is suspected, at least.
pub const SUSPECT_AFTER_MIN: Span = Span::secs(2);
/// Silence after which a holder is suspected, in round trips.
pub const SUSPECT_AFTER_RTTS: u64 = 8;
/// First pause before an unacknowledged message is sent again; it doubles up to [`RESEND_MAX`].
pub const RESEND_MIN: Span = Span::millis(1_000);
/// Longest pause before an unacknowledged message is sent again.
pub const RESEND_MAX: Span = Span::secs(600);
/// How long a job that some node could run when free waits for a place, unless its spec says otherwise.
pub const QUEUE_TIMEOUT: Span = Span::secs(600);
/// How long a job may look for any node that could ever run it.
pub const NO_FIT_TIMEOUT: Span = Span::millis(1_500);
/// How long a job lasts at most in all when its spec sets no time: a runaway guest must end.
pub const EXECUTION_TIMEOUT: Span = Span::secs(30 * 60);

const _: () = assert!(TASK_BYTES_MAX * 2 < FRAME_BYTES_MAX);
const _: () = assert!(INLINE_RESULT_BYTES_MAX * 2 < FRAME_BYTES_MAX);
const _: () = assert!(SUSPECT_AFTER_MIN.0 > BID_WINDOW.0);
const _: () = assert!(ASK_TIMEOUT.0 > HOLDER_WINDOW.0 && HOLDER_WINDOW.0 > BID_WINDOW.0);
