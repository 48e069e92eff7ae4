//! `config show` and `config set`

use std::path::PathBuf;

use clap::ArgMatches;

use crate::args::{Format, Serve};
use crate::error::Result;
use crate::output;
use crate::settings::{self, Settings};

pub(super) fn show(args: &Serve, matches: &ArgMatches, format: Format) -> Result<()> {
    let settings = Settings::resolve(args, matches)?;
    let rows: Vec<Vec<String>> = settings
        .shown
        .iter()
        .map(|setting| vec![setting.name.clone(), setting.value.clone(), setting.origin.clone()])
        .collect();
    output::rows(format, &settings.shown, &["setting", "value", "origin"], &rows)
}

pub(super) fn set(dir: Option<PathBuf>, name: &str, values: &[String]) -> Result<()> {
    let path = settings::set(&settings::data_dir(dir.as_ref())?, name, values)?;
    output::note(&format!("{} {name} in {}", output::green("set"), path.display()));
    Ok(())
}
