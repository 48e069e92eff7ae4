//! Boils web server logs down: a line per path with its requests, errors, bytes, and half and nearly all of its times.
//!
//!   boil FOLDER OUT
//!
//! A line of a log is `time method path status bytes milliseconds`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};

/// Milliseconds that are told apart; longer ones are counted together.
const MILLIS: usize = 2_000;

struct Path {
    requests: u64,
    errors: u64,
    bytes: u64,
    millis: Vec<u32>,
}

impl Path {
    fn new() -> Self {
        Self { requests: 0, errors: 0, bytes: 0, millis: vec![0; MILLIS + 1] }
    }

    /// The time within which this part of all requests was answered.
    fn within(&self, part: f64) -> usize {
        let wanted = (self.requests as f64 * part).ceil() as u64;
        let mut seen = 0;
        self.millis.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        }).unwrap_or(MILLIS)
    }
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, out] = args.as_slice() else {
        eprintln!("usage: boil FOLDER OUT");
        std::process::exit(2);
    };
    let (mut paths, mut read, mut bad) = (BTreeMap::<String, Path>::new(), 0u64, 0u64);
    let mut files: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(|file| file.file_name());
    for file in &files {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(file.path())?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            read += line.len() as u64;
            if !count(&mut paths, &line) {
                bad += 1;
            }
            line.clear();
        }
    }
    let mut out = File::create(format!("{out}/paths.csv"))?;
    writeln!(out, "path,requests,errors,bytes,half_ms,most_ms")?;
    for (name, path) in &paths {
        let (half, most) = (path.within(0.5), path.within(0.99));
        writeln!(out, "{name},{},{},{},{half},{most}", path.requests, path.errors, path.bytes)?;
    }
    println!("{} files, {read} bytes, {} paths", files.len(), paths.len());
    if bad > 0 {
        eprintln!("{bad} lines were no requests");
    }
    Ok(())
}

/// Counts a line; whether it is one.
fn count(paths: &mut BTreeMap<String, Path>, line: &str) -> bool {
    let mut words = line.split_ascii_whitespace().skip(2);
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
    let Some(name) = words.next() else { return false };
    let (Some(status), Some(bytes), Some(millis)) = (number(words.next()), number(words.next()), number(words.next())) else {
        return false;
    };
    if !paths.contains_key(name) {
        paths.insert(name.to_owned(), Path::new());
    }
    let Some(path) = paths.get_mut(name) else { return false };
    path.requests += 1;
    path.errors += u64::from(status >= 500);
    path.bytes += bytes;
    path.millis[(millis as usize).min(MILLIS)] += 1;
    true
}
