//! demo
use crate::error::Result;
pub(super) async fn run(_args: &crate::args::Demo) -> Result<()> { Ok(()) }
