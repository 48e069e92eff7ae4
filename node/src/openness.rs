//! When a node takes jobs: at some hours only, or only while its machine has little else to do.

use std::fmt;
use std::str::FromStr;

use chrono::{Local, NaiveTime};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// A part of each day, by this machine's clock: `20:00-07:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    to: u16,
}

impl Hours {
    fn contain(self, minute: u16) -> bool {
        if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// Not a part of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a part of a day")]
pub struct InvalidHours;

impl FromStr for Hours {
    type Err = InvalidHours;

    fn from_str(text: &str) -> Result<Self, InvalidHours> {
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
            let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
            (hour <= 24 && minute < 60).then(|| hour * 60 + minute).filter(|at| *at <= DAY)
        };
        let (from, to) = text.split_once('-').ok_or(InvalidHours)?;
        let (from, to) = (minute(from).ok_or(InvalidHours)?, minute(to).ok_or(InvalidHours)?);
        if from == to { Err(InvalidHours) } else { Ok(Self { from, to }) }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

/// When jobs are taken; always, unless something is set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Openness {
    /// At these hours; at any where there are none.
    pub hours: Vec<Hours>,
    /// While fewer processes than this, beside the jobs' own, want a processor.
    pub load_max: Option<f64>,
}

impl Openness {
    /// Whether jobs are taken now, when jobs had `cpu_milli` thousandths of a core in the last minute.
    ///
    /// # Errors
    /// If they are not, with the reason.
    pub fn look(&self, cpu_milli: f64) -> Result<(), String> {
        self.at(minute_of(Local::now().time()), load(), cpu_milli)
    }

    fn at(&self, minute: u16, load: Option<f64>, cpu_milli: f64) -> Result<(), String> {
        if !self.hours.is_empty() && !self.hours.iter().any(|hours| hours.contain(minute)) {
            let hours: Vec<String> = self.hours.iter().map(ToString::to_string).collect();
            return Err(format!("takes jobs from {} only (rule: hours)", hours.join(" and ")));
        }
        let own = load.map(|load| (load - cpu_milli / 1_000.0).max(0.0));
        match (self.load_max, own) {
            (Some(max), Some(own)) if own >= max => {
                Err(format!("is busy with other work: a load of {own:.1}, {max} is its limit (rule: max-load)"))
            }
            _ => Ok(()),
        }
    }
}

fn minute_of(time: NaiveTime) -> u16 {
    use chrono::Timelike as _;
    u16::try_from(time.hour() * 60 + time.minute()).unwrap_or(0)
}

/// Processes that wanted a processor in the last minute, on average, where the system says.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_pass_midnight() {
        let night: Hours = "20:30-7".parse().expect("hours");
        assert_eq!(night.to_string(), "20:30-07:00");
        for (minute, inside) in [(20 * 60 + 29, false), (20 * 60 + 30, true), (0, true), (419, true), (420, false)] {
            assert_eq!(night.contain(minute), inside, "{minute}");
        }
        for text in ["", "7", "2000-7", "25-26", "7:60-8", "7-7", "a-b", "24:30-3"] {
            assert_eq!(text.parse::<Hours>(), Err(InvalidHours), "{text}");
        }
    }

    #[test]
    fn a_busy_machine_and_the_wrong_hour_are_told_apart() {
        let openness = Openness { hours: vec!["8-18".parse().expect("hours")], load_max: Some(1.5) };
        assert_eq!(openness.at(10 * 60, Some(1.4), 0.0), Ok(()));
        assert!(openness.at(7 * 60, Some(0.0), 0.0).is_err_and(|reason| reason.contains("rule: hours")));
        assert!(openness.at(10 * 60, Some(3.0), 1_000.0).is_err_and(|reason| reason.contains("rule: max-load")));
        assert_eq!(openness.at(10 * 60, Some(3.0), 2_000.0), Ok(()), "the jobs themselves are no reason");
        assert_eq!(openness.at(10 * 60, None, 0.0), Ok(()));
    }
}
