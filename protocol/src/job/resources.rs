//! Amounts as people write them.

/// Thousandths of a core: `500m`, `0.5`, `2`. `None` if it is none of these.
#[must_use]
pub fn parse_cpu(text: &str) -> Option<u64> {
    let text = text.trim();
    let milli = match text.strip_suffix('m') {
        Some(number) => number.parse::<f64>().ok()?,
        None => text.parse::<f64>().ok()? * 1_000.0,
    };
    (milli.is_finite() && (0.0..=1e9).contains(&milli)).then_some(milli.round() as u64)
}

/// Bytes: `512Mb` (powers of ten), `512MiB`, `512Mi` (powers of two), `1024`.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes.is_finite() && bytes < 9e18).then_some(bytes.round() as u64)
}

/// `1.5 GiB`, `512 MiB`, `17 B`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 || (amount - amount.round()).abs() < 0.05 {
        format!("{:.0} {}", amount, UNITS[unit])
    } else {
        format!("{amount:.1} {}", UNITS[unit])
    }
}

/// `0.5`, `2` cores.
#[must_use]
pub fn format_cpu(milli: u64) -> String {
    format!("{}", milli as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(parse_cpu("500m"), Some(500));
        assert_eq!(parse_cpu("1.5"), Some(1500));
        assert_eq!(parse_cpu("-1"), None);
        assert_eq!(parse_cpu("NaN"), None);
        assert_eq!(parse_bytes("512Mb"), Some(512_000_000));
        assert_eq!(parse_bytes("1Gi"), Some(1 << 30));
        assert_eq!(parse_bytes("7 parsecs"), None);
        assert_eq!(format_bytes(64 << 30), "64 GiB");
        assert_eq!(format_bytes(1500), "1.5 KiB");
        assert_eq!(format_bytes(12), "12 B");
    }
}
