//! Planted mutants: wrong decisions that the simulator must notice, or it would not notice real ones either.

use std::path::Path;

use serde::Deserialize;

/// A wrong decision.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// In words.
    pub name: String,
    /// Where, from the workspace's root.
    pub file: String,
    /// What stands there, exactly once.
    pub from: String,
    /// An expression or statements instead of it.
    pub to: Option<String>,
    /// Or the text that takes its place, in which `MUTANT` is whether to be wrong.
    pub code: Option<String>,
    /// The number of the invariant that must fail, like `S5`.
    pub kills: String,
}

#[derive(Deserialize)]
struct File {
    mutant: Vec<Mutant>,
}

/// All planted mutants.
///
/// # Errors
/// If the list is not one, in words.
pub fn all() -> Result<Vec<Mutant>, String> {
    let file: File = toml::from_str(include_str!("../mutants.toml")).map_err(|error| error.to_string())?;
    Ok(file.mutant)
}

impl Mutant {
    /// The source with this mutant in it, as number `index`.
    ///
    /// # Errors
    /// If what it changes does not stand there exactly once.
    pub fn plant(&self, source: &str, index: usize) -> Result<String, String> {
        if source.matches(&self.from).count() != 1 {
            return Err(format!("`{}`: what it changes does not stand exactly once in {}", self.name, self.file));
        }
        let test = format!("crate::mutant({index})");
        let changed = match (&self.to, &self.code) {
            (_, Some(code)) => code.replace("MUTANT", &test),
            // Statements stand for themselves, an expression in brackets.
            (Some(to), None) if self.from.ends_with(';') => format!("if {test} {{ {to} }} else {{ {} }}", self.from),
            (Some(to), None) => format!("(if {test} {{ {to} }} else {{ {} }})", self.from),
            (None, None) => return Err(format!("`{}` changes nothing", self.name)),
        };
        Ok(source.replacen(&self.from, &changed, 1))
    }
}

/// What the planted sources call: which mutant is at work, and something that no seed decides.
pub const SWITCH: &str = r#"
/// Whether this mutant is the one at work.
pub(crate) fn mutant(index: usize) -> bool {
    static AT_WORK: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    *AT_WORK.get_or_init(|| std::env::var("BACNODE_MUTANT").ok()?.parse().ok()) == Some(index)
}

/// Rises with every call.
pub(crate) fn outside() -> u64 {
    static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
"#;

/// Plants all mutants in the sources below `root`.
///
/// # Errors
/// If one does not fit, or a file cannot be read or written.
pub fn plant_all(root: &Path) -> Result<(), String> {
    for (index, mutant) in all()?.iter().enumerate() {
        let path = root.join(&mutant.file);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let source = std::fs::read_to_string(&path).map_err(failed)?;
        std::fs::write(&path, mutant.plant(&source, index)?).map_err(failed)?;
    }
    let lib = root.join("protocol/src/lib.rs");
    let source = std::fs::read_to_string(&lib).map_err(|error| error.to_string())?;
    std::fs::write(lib, format!("{source}{SWITCH}")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Invariant;

    #[test]
    fn every_mutant_fits_the_sources() {
        let root = Path::new("..");
        let mutants = all().expect("a list");
        assert!(mutants.len() >= 25, "{}", mutants.len());
        for (index, mutant) in mutants.iter().enumerate() {
            let source = std::fs::read_to_string(root.join(&mutant.file)).expect("a file");
            mutant.plant(&source, index).expect("it fits");
        }
    }

    #[test]
    fn every_invariant_has_a_mutant() {
        let mutants = all().expect("a list");
        for invariant in Invariant::ALL {
            assert!(mutants.iter().any(|mutant| mutant.kills == invariant.number()), "{}", invariant.name());
        }
    }
}
