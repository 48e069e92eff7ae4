//! Label selectors, in the syntax of Kubernetes: `a=b`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`, `a`, `!a`, joined
//! by commas; a thing is selected when all of them hold.

use std::collections::BTreeMap;

/// A list of requirements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    /// The values it may have; none if it is enough that it is there.
    values: Option<Vec<String>>,
    wanted: bool,
}

/// Not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a label selector, like `team=data,tier!=test` or `zone in (a, b)`")]
pub struct NotASelector(String);

impl Selector {
    /// Whether something with these labels is selected.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let holds = match (&requirement.values, value) {
                (None, value) => value.is_some(),
                (Some(values), Some(value)) => values.contains(value),
                (Some(_), None) => false,
            };
            holds == requirement.wanted
        })
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
        parts.map(|part| Requirement::read(part).ok_or_else(wrong)).collect::<Result<_, _>>().map(Self)
    }
}

impl Requirement {
    fn read(text: &str) -> Option<Self> {
        let one = |key: &str, value: &str, wanted| {
            let (key, value) = (name(key)?, value.trim());
            let plain = !value.contains(|c: char| c.is_whitespace() || "=!()".contains(c));
            plain.then(|| Self { key, values: Some(vec![value.to_owned()]), wanted })
        };
        if let Some((key, values)) = text.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
            let (key, wanted) = match key.trim_end().rsplit_once(char::is_whitespace)? {
                (key, "in") => (key, true),
                (key, "notin") => (key, false),
                _ => return None,
            };
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            return Some(Self { key: name(key)?, values: Some(values), wanted });
        }
        if let Some((key, value)) = text.split_once("!=") {
            return one(key, value, false);
        }
        if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return one(key, value, true);
        }
        let (key, wanted) = text.strip_prefix('!').map_or((text, true), |key| (key, false));
        Some(Self { key: name(key)?, values: None, wanted })
    }
}

fn name(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "=!(),".contains(c));
    plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str) -> bool {
        let labels = [("team", "data"), ("zone", "a"), ("empty", "")];
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
        ] {
            assert!(!selects(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for wrong in ["=a", "a b", "a within (b)", "a in b", "a=b=c", "a=b c", "(", "!"] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong}");
        }
    }
}
