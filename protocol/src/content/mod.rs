//! Content identifiers and the blocks behind them.
//!
//! Files and folders are UnixFS DAGs by the profile `unixfs-v1-2025` (IPIP-499): CIDv1, sha2-256, raw leaves of 1 MiB,
//! 1,024 links a node, folders above 256 KiB of block as HAMTs with a fanout of 256. The same folder therefore has the
//! same CID here, in Kubo and in Helia.

mod cid;
pub mod dag_pb;
pub mod hamt;
pub mod unixfs;

pub use self::cid::{Cid, Codec, ParseCidError};
