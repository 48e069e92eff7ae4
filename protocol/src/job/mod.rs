//! The job as its user writes it.
//!
//! [`parse()`] turns YAML or JSON into a [`JobSpec`], the shape of Bacalhau's jobs with field names in any letter case;
//! [`ValidJob::new`] turns a spec into one that can run, or says what is wrong, with the path of each wrong field.

mod constraints;
mod engine;
mod fields;
mod inputs;
mod parse;
mod ports;
mod resources;
mod s3;
mod selector;
mod spec;
pub mod state;
mod valid;

pub use self::fields::{InvalidSpec, Problem};
pub use self::inputs::{ValidInput, ValidSource};
pub use self::parse::{parse, read_document, render};
pub use self::resources::{format_bytes, format_cpu, parse_bytes, parse_cpu};
pub use self::selector::{NotASelector, Selector};
pub use self::spec::{
    Constraint, InputSource, JobSpec, LeaseSpec, Network, PortSpec, ResourcesSpec, ResultPath, SpecConfig, TaskSpec,
    Timeouts,
};
pub(crate) use self::valid::replicas_in;
pub use self::valid::{Durability, ValidJob};
