//! Label selectors, in the syntax of Kubernetes: `a=b`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`, `a`, `!a`, `a>1`,
//! `a<1`, joined by commas; a thing is selected when all of them hold.

use std::collections::BTreeMap;

use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::constraint::{Constraint, Operator};

/// A list of conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Constraint>);

/// Not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a label selector, like `team=data,tier!=test` or `zone in (a, b)`")]
pub struct NotASelector(String);

impl Selector {
    /// Whether something with these labels is selected.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|constraint| constraint.holds(labels))
    }

    /// Its conditions.
    #[must_use]
    pub fn constraints(&self) -> &[Constraint] {
        &self.0
    }
}

impl std::str::FromStr for Selector {
    type Err = NotASelector;

    fn from_str(text: &str) -> Result<Self, NotASelector> {
        let wrong = || NotASelector(text.chars().take(80).collect());
        let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
        for (index, character) in text.char_indices() {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&text[start..index]);
                    start = index + 1;
                }
                _ => {}
            }
        }
        parts.push(&text[start..]);
        let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| read(part).ok_or_else(wrong)).collect::<Result<_, _>>().map(Self)
    }
}

fn read(text: &str) -> Option<Constraint> {
    if let Some((key, values)) = text.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        let (key, operator) = match key.trim_end().rsplit_once(char::is_whitespace)? {
            (key, "in") => (key, Operator::In),
            (key, "notin") => (key, Operator::NotIn),
            _ => return None,
        };
        return constraint(key, operator, values.split(','));
    }
    let pairs = [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::Greater),
        ("<", Operator::Less),
    ];
    if let Some((key, operator, value)) = pairs.iter().find_map(|(sign, operator)| {
        let (key, value) = text.split_once(sign)?;
        Some((key, *operator, value))
    }) {
        let number = !matches!(operator, Operator::Greater | Operator::Less) || value.trim().parse::<i64>().is_ok();
        return number.then(|| constraint(key, operator, [value]))?;
    }
    let (key, operator) = text.strip_prefix('!').map_or((text, Operator::Exists), |key| (key, Operator::Absent));
    constraint(key, operator, [])
}

fn constraint<'a>(key: &str, operator: Operator, values: impl IntoIterator<Item = &'a str>) -> Option<Constraint> {
    let plain = |text: &str| !text.contains(|c: char| c.is_whitespace() || "=!(),<>".contains(c));
    let value = |value: &'a str| {
        let value = value.trim();
        if plain(value) { TextMax::new(value).ok() } else { None }
    };
    let key = key.trim();
    let values = values.into_iter().map(value).collect::<Option<Vec<_>>>()?;
    let constraint = Constraint { key: TextMax::new(key).ok()?, operator, values: ListMax::new(values).ok()? };
    (!key.is_empty() && plain(key)).then_some(constraint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str) -> bool {
        let labels = [("team", "data"), ("zone", "a"), ("empty", ""), ("cores", "8")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        selector.parse::<Selector>().expect("a selector").selects(&labels)
    }

    #[test]
    fn every_form_selects_what_it_says() {
        for yes in [
            "",
            "team=data",
            "team == data",
            "team!=web",
            "none!=x",
            "zone in (a, b)",
            "zone notin (c)",
            "team,zone",
            "!none",
            "empty=",
            "cores > 4",
            "cores<9,cores>7",
        ] {
            assert!(selects(yes), "{yes}");
        }
        for no in [
            "team=web",
            "team!=data",
            "zone in (b,c)",
            "zone notin (a)",
            "none",
            "!team",
            "team=data,zone=b",
            "none in (a)",
            "cores>8",
            "team<1",
        ] {
            assert!(!selects(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for wrong in ["=a", "a b", "a within (b)", "a in b", "a=b=c", "a=b c", "(", "!", "a>b", "a<"] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong}");
        }
    }
}
