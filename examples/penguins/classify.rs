//! Tells the species of penguins from their measures, with a small network that was trained elsewhere (`train.py`).
//!
//! usage: classify PENGUINS.csv MODEL.txt OUTPUT-FOLDER
//!
//! Each run takes the rows whose number, divided by the count of runs, leaves its index, and writes one line for each.

use std::fmt::Write as _;
use std::process::ExitCode;

const SPECIES: [&str; 3] = ["Adelie", "Chinstrap", "Gentoo"];

/// Lines of weights; the last weight of a unit is its bias.
struct Model {
    mean: Vec<f64>,
    spread: Vec<f64>,
    hidden: Vec<Vec<f64>>,
    classes: Vec<Vec<f64>>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, rows, model, output] = &args[..] else {
        eprintln!("usage: classify PENGUINS.csv MODEL.txt OUTPUT-FOLDER");
        return ExitCode::from(2);
    };
    match run(rows, model, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("classify: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(rows: &str, model: &str, output: &str) -> Result<(), String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    let (rows, model) = (read(rows)?, Model::parse(&read(model)?)?);
    let number = |name: &str, without| {
        std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or(without)
    };
    let (index, count) = (number("BACNODE_PARTITION_INDEX", 0), number("BACNODE_PARTITION_COUNT", 1).max(1));
    let (mut table, mut told, mut right) = (String::from("row,species,share\n"), 0, 0);
    for (row, line) in rows.lines().skip(1).enumerate().filter(|(row, _)| row % count == index) {
        let wrong = || format!("row {row}: `{line}` is not a penguin");
        let cells: Vec<&str> = line.split(',').collect();
        let measures = cells.get(2..6).ok_or_else(wrong)?.iter().map(|cell| cell.parse::<f64>());
        let measures: Vec<f64> = measures.collect::<Result<_, _>>().map_err(|_| wrong())?;
        let shares = model.shares(&measures);
        let (best, share) = shares.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).ok_or_else(wrong)?;
        let _ = writeln!(table, "{row},{},{share:.4}", SPECIES[best]);
        told += 1;
        right += usize::from(cells[0] == SPECIES[best]);
    }
    std::fs::write(format!("{output}/species.csv"), table).map_err(|error| format!("cannot write: {error}"))?;
    println!("{right} of {told} are what people said they are");
    Ok(())
}

impl Model {
    fn parse(text: &str) -> Result<Self, String> {
        let lines = |name: &str| -> Result<Vec<Vec<f64>>, String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let line = |line: &str| line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>();
            lines.map(|text| line(text).map_err(|error| format!("the model's `{name}`: {error}"))).collect()
        };
        let one = |name: &str| lines(name)?.into_iter().next().ok_or(format!("the model has no `{name}`"));
        let model = Self { mean: one("mean")?, spread: one("spread")?, hidden: lines("hidden")?, classes: lines("classes")? };
        if model.classes.len() == SPECIES.len() { Ok(model) } else { Err("the model is for other classes".into()) }
    }

    /// The probability of each species.
    fn shares(&self, measures: &[f64]) -> Vec<f64> {
        let inputs: Vec<f64> =
            measures.iter().zip(&self.mean).zip(&self.spread).map(|((x, mean), spread)| (x - mean) / spread).collect();
        let unit = |weights: &[f64], inputs: &[f64]| -> f64 {
            weights.iter().zip(inputs.iter().chain([&1.0])).map(|(weight, input)| weight * input).sum()
        };
        let hidden: Vec<f64> = self.hidden.iter().map(|weights| unit(weights, &inputs).tanh()).collect();
        let scores: Vec<f64> = self.classes.iter().map(|weights| unit(weights, &hidden)).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - top).exp()).sum();
        scores.iter().map(|score| (score - top).exp() / sum).collect()
    }
}
