//! The part of bacnode that decides.
//!
//! This crate holds the types, the wire format and the three pure state machines of the network: the
//! [`requester`], which takes a job from its user, has peers bid for it and brings the result home, the
//! [`compute`] machine, which bids, runs what it was awarded and reports, and the [`guardian`] machine, which
//! keeps the jobs of others and leads on when their node is gone. None of them opens a socket, reads
//! a clock or touches a file: inputs come in with the time as an argument, effects go out through an
//! [`outbox::Outbox`]. The same code therefore runs under `bacnode serve` and under a simulator.
//!
//! | module | noun |
//! |---|---|
//! | [`id`], [`time`], [`limits`] | who, when, how much |
//! | [`job`] | the job as its user writes it, validation, states, causes |
//! | [`content`] | CIDs, UnixFS and dag-pb blocks |
//! | [`wire`] | what peers say to each other, byte by byte |
//! | [`api`] | what the daemon says to its own user |
//! | [`membership`] | who is let into a swarm with a founder |
//! | [`view`] | the bounded picture of the other peers, and how they are ranked |
//! | [`outbox`], [`timers`] | the seam between a machine and the world |
//! | [`requester`], [`compute`], [`guardian`] | the machines |
//!
//! Purity is kept by the build: the crate compiles for `wasm32-unknown-unknown`, and `clippy.toml` bans clocks,
//! files, threads and maps with a random order.

pub mod api;
pub mod compute;
pub mod content;
#[allow(
    clippy::large_types_passed_by_value,
    clippy::trivially_copy_pass_by_ref,
    reason = "a certificate is 600 bytes, and few are passed; an owner's tag is a key, and keys are borrowed"
)]
pub mod guardian;
pub mod id;
pub mod job;
pub mod limits;
pub mod membership;
pub mod outbox;
pub mod record;
pub mod requester;
pub mod time;
pub mod timers;
pub mod view;
pub mod wire;
