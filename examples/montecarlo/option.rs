//! The price of a European call option by simulation (Boyle 1977), in as many runs as there are machines.
//!
//! usage: option simulate PATHS OUTPUT-FOLDER
//!        option combine FOLDER-OF-RESULTS
//!
//! Each run draws its own numbers, seeded by its index, and leaves the sum and the sum of squares of what it saw. `combine`
//! adds them up, and compares with the closed formula (Black and Scholes 1973).

use std::path::Path;
use std::process::ExitCode;

/// Today's price of the share, and the one at which it may be bought.
const PRICE: f64 = 100.0;
const STRIKE: f64 = 105.0;
/// Interest and volatility a year, and how many years.
const RATE: f64 = 0.02;
const VOLATILITY: f64 = 0.25;
const YEARS: f64 = 1.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let done = match args[..] {
        ["simulate", paths, output] => match paths.parse() {
            Ok(paths) => simulate(paths, output),
            Err(error) => Err(format!("`{paths}` is not a number of paths: {error}")),
        },
        ["combine", folder] => combine(Path::new(folder)),
        _ => {
            eprintln!("usage: option simulate PATHS OUTPUT-FOLDER | option combine FOLDER-OF-RESULTS");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("option: {error}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(paths: u64, output: &str) -> Result<(), String> {
    let index = std::env::var("BACNODE_PARTITION_INDEX").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut chance = Chance::new(index);
    let (drift, spread) = ((RATE - VOLATILITY * VOLATILITY / 2.0) * YEARS, VOLATILITY * YEARS.sqrt());
    let (mut sum, mut squares) = (0.0, 0.0);
    for _ in 0..paths {
        let end = PRICE * (drift + spread * chance.normal()).exp();
        let worth = (end - STRIKE).max(0.0) * (-RATE * YEARS).exp();
        sum += worth;
        squares += worth * worth;
    }
    let line = format!("{paths} {sum} {squares}\n");
    std::fs::write(format!("{output}/sums.txt"), &line).map_err(|error| format!("cannot write: {error}"))?;
    println!("{:.4} after {paths} paths", sum / paths as f64);
    Ok(())
}

fn combine(folder: &Path) -> Result<(), String> {
    let mut lines = Vec::new();
    collect(folder, &mut lines)?;
    let (mut paths, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for line in &lines {
        let numbers: Vec<f64> = line.split(' ').filter_map(|number| number.trim().parse().ok()).collect();
        let [n, s, q] = numbers[..] else { return Err(format!("`{line}` are no sums")) };
        (paths, sum, squares) = (paths + n, sum + s, squares + q);
    }
    if paths < 2.0 {
        return Err("there is nothing to combine".into());
    }
    let mean = sum / paths;
    let error = ((squares / paths - mean * mean) / (paths - 1.0)).sqrt();
    println!("{mean:.4} +- {:.4} (95 %) of {} runs, {paths} paths", 1.96 * error, lines.len());
    println!("{:.4} by the closed formula", formula());
    Ok(())
}

/// Every `sums.txt` below `folder`.
fn collect(folder: &Path, lines: &mut Vec<String>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(&path, lines)?;
        } else if path.file_name().is_some_and(|name| name == "sums.txt") {
            lines.push(std::fs::read_to_string(&path).map_err(failed)?);
        }
    }
    Ok(())
}

fn formula() -> f64 {
    let spread = VOLATILITY * YEARS.sqrt();
    let d1 = ((PRICE / STRIKE).ln() + (RATE + VOLATILITY * VOLATILITY / 2.0) * YEARS) / spread;
    PRICE * normal_share(d1) - STRIKE * (-RATE * YEARS).exp() * normal_share(d1 - spread)
}

/// The normal distribution function, by the series of Abramowitz and Stegun 26.2.10.
fn normal_share(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x * f64::from(2 * n - 1) / (2.0 * f64::from(n) * f64::from(2 * n + 1));
        sum += term;
    }
    0.5 + sum / (2.0 * std::f64::consts::PI).sqrt()
}

/// SplitMix64 (Steele, Lea and Flood 2014), and normal numbers from it (Box and Muller 1958).
struct Chance(u64);

impl Chance {
    fn new(index: u64) -> Self {
        // Far apart for each run: the generator walks by steps of an odd number.
        Self(index.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(1))
    }

    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.share(), self.share());
        (-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos()
    }
}
