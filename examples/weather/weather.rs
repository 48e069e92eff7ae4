//! Monthly mean temperatures of each city, with 95 % bootstrap confidence intervals (Efron 1979), as a table and a chart.
//!
//! usage: weather INPUT.csv OUTPUT-FOLDER [RESAMPLES]
//!
//! The resampling is seeded, so equal data gives equal bytes on every machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

/// One day's mean temperature, by city and month.
type Days = BTreeMap<(String, usize), Vec<f64>>;

struct Month {
    city: String,
    month: usize,
    days: usize,
    mean: f64,
    low: f64,
    high: f64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let (Some(input), Some(output)) = (args.get(1), args.get(2)) else {
        eprintln!("usage: weather INPUT.csv OUTPUT-FOLDER [RESAMPLES]");
        return ExitCode::from(2);
    };
    let resamples = args.get(3).and_then(|text| text.parse().ok()).unwrap_or(200);
    match run(input, output, resamples) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weather: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(input: &str, output: &str, resamples: usize) -> Result<(), String> {
    let text = std::fs::read_to_string(input).map_err(|error| format!("cannot read {input}: {error}"))?;
    let days = parse(&text)?;
    let months: Vec<Month> = days.iter().map(|((city, month), days)| estimate(city, *month, days, resamples)).collect();
    let write = |name: &str, text: String| {
        std::fs::write(format!("{output}/{name}"), text).map_err(|error| format!("cannot write {name}: {error}"))
    };
    write("monthly.csv", table(&months))?;
    write("monthly.svg", chart(&months))?;
    println!("{} days, {} months, {resamples} resamples each", days.values().map(Vec::len).sum::<usize>(), months.len());
    for city in cities(&months) {
        let of_city = || months.iter().filter(|month| month.city == city);
        let warmest = of_city().max_by(|a, b| a.mean.total_cmp(&b.mean));
        let coldest = of_city().min_by(|a, b| a.mean.total_cmp(&b.mean));
        if let (Some(warm), Some(cold)) = (warmest, coldest) {
            println!(
                "{city:<10} warmest {} {:.1} C [{:.1}, {:.1}]   coldest {} {:.1} C [{:.1}, {:.1}]",
                MONTHS[warm.month], warm.mean, warm.low, warm.high, MONTHS[cold.month], cold.mean, cold.low, cold.high
            );
        }
    }
    Ok(())
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn parse(text: &str) -> Result<Days, String> {
    let mut days = Days::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let wrong = || format!("line {}: `{line}` is not a day", number + 1);
        let cells: Vec<&str> = line.split(',').collect();
        let [city, date, _, high, low, ..] = cells[..] else { return Err(wrong()) };
        let month: usize = date.get(5..7).and_then(|month| month.parse().ok()).ok_or_else(wrong)?;
        let (high, low): (f64, f64) = (high.parse().map_err(|_| wrong())?, low.parse().map_err(|_| wrong())?);
        days.entry((city.to_owned(), month.clamp(1, 12) - 1)).or_default().push((high + low) / 2.0);
    }
    Ok(days)
}

fn estimate(city: &str, month: usize, days: &[f64], resamples: usize) -> Month {
    let mean = |sum: f64| sum / days.len() as f64;
    let mut chance = 0x9E37_79B9_7F4A_7C15_u64 ^ (month as u64) << 32 ^ days.len() as u64;
    let mut means: Vec<f64> = (0..resamples.max(1))
        .map(|_| mean((0..days.len()).map(|_| days[(next(&mut chance) % days.len() as u64) as usize]).sum()))
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((means.len() - 1) as f64 * share) as usize];
    Month { city: city.into(), month, days: days.len(), mean: mean(days.iter().sum()), low: at(0.025), high: at(0.975) }
}

/// xorshift64* (Vigna 2016).
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
}

fn cities(months: &[Month]) -> Vec<String> {
    let mut cities: Vec<String> = months.iter().map(|month| month.city.clone()).collect();
    cities.dedup();
    cities
}

fn table(months: &[Month]) -> String {
    let mut text = "city,month,days,mean_c,low95_c,high95_c\n".to_owned();
    for m in months {
        let _ = writeln!(text, "{},{},{},{:.3},{:.3},{:.3}", m.city, MONTHS[m.month], m.days, m.mean, m.low, m.high);
    }
    text
}

fn chart(months: &[Month]) -> String {
    let (x, y) = (|month: usize| 60.0 + month as f64 * 50.0, |celsius: f64| 340.0 - (celsius + 5.0) * 9.0);
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 400\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"680\" height=\"400\" fill=\"white\"/>\n<text x=\"60\" y=\"24\" font-size=\"15\">Mean temperature by month, 2012-2015, with 95 % intervals</text>\n",
    );
    for celsius in (-5..=30).step_by(5) {
        let at = y(f64::from(celsius));
        let _ = writeln!(svg, "<path d=\"M50 {at:.1}H630\" stroke=\"#ddd\"/><text x=\"44\" y=\"{:.1}\" text-anchor=\"end\">{celsius}</text>", at + 4.0);
    }
    for (month, name) in MONTHS.iter().enumerate() {
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"362\" text-anchor=\"middle\">{name}</text>", x(month));
    }
    for (city, colour, row) in cities(months).iter().zip(["#c2410c", "#1d4ed8"]).zip(0..).map(|((c, k), r)| (c, k, r)) {
        let of_city: Vec<&Month> = months.iter().filter(|month| month.city == *city).collect();
        let line: Vec<String> = of_city.iter().map(|m| format!("{:.1},{:.1}", x(m.month), y(m.mean))).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", line.join(" "));
        for m in of_city {
            let _ = writeln!(svg, "<path d=\"M{0:.1} {1:.1}V{2:.1}\" stroke=\"{colour}\" stroke-width=\"4\" opacity=\".4\"/>", x(m.month), y(m.low), y(m.high));
        }
        let _ = writeln!(svg, "<text x=\"{}\" y=\"388\" fill=\"{colour}\">{city}</text>", 60 + row * 110);
    }
    svg.push_str("</svg>\n");
    svg
}
