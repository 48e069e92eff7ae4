//! Reading a tree of values field by field, remembering where we are, collecting everything that is wrong.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// One thing that is wrong in a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as in `Tasks[0].Engine.Type`.
    pub path: String,
    /// What, in words.
    pub message: String,
}

/// A spec that cannot be used, with all that is wrong in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidSpec {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl InvalidSpec {
    /// A spec with one problem.
    pub fn one(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { problems: vec![Problem { path: path.into(), message: message.into() }] }
    }
}

impl fmt::Display for InvalidSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match problem.path.as_str() {
                "" => f.write_str(&problem.message)?,
                path => write!(f, "{path}: {}", problem.message)?,
            }
        }
        Ok(())
    }
}

/// Collects problems.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, InvalidSpec> {
        if self.0.is_empty() { Ok(value) } else { Err(InvalidSpec { problems: self.0 }) }
    }
}

/// The fields of one object, found in any letter case; what is not taken is unknown.
pub(super) struct Fields<'a> {
    pub(super) path: String,
    values: BTreeMap<String, (&'a str, &'a Value)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of the object `value` at `path`; none (and a problem) if it is no object.
    pub(super) fn of(path: &str, value: &'a Value, problems: &mut Problems) -> Self {
        let mut values = BTreeMap::new();
        match value {
            Value::Null => {}
            Value::Object(map) => {
                for (key, value) in map {
                    if values.insert(key.to_lowercase(), (key.as_str(), value)).is_some() {
                        problems.add(join(path, key), "is given twice, in different letter case");
                    }
                }
            }
            other => problems.add(path, format!("must be a set of fields, not {}", kind(other))),
        }
        Self { path: path.to_owned(), values, known: Vec::new() }
    }

    pub(super) fn at(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Takes a field; null counts as absent.
    pub(super) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.values.remove(&name.to_lowercase()).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &'static str, problems: &mut Problems) -> Option<String> {
        let value = self.take(name)?;
        text_of(&self.at(name), value, problems)
    }

    pub(super) fn integer(&mut self, name: &'static str, problems: &mut Problems) -> Option<i64> {
        let value = self.take(name)?;
        let number = value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64));
        if number.is_none() {
            problems.add(self.at(name), format!("must be a whole number, not {}", kind(value)));
        }
        number
    }

    pub(super) fn flag(&mut self, name: &'static str, problems: &mut Problems) -> Option<bool> {
        let value = self.take(name)?;
        if !value.is_boolean() {
            problems.add(self.at(name), format!("must be true or false, not {}", kind(value)));
        }
        value.as_bool()
    }

    pub(super) fn list(&mut self, name: &'static str, problems: &mut Problems) -> Vec<(String, &'a Value)> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let path = self.at(name);
        let Value::Array(items) = value else {
            problems.add(path, format!("must be a list, not {}", kind(value)));
            return Vec::new();
        };
        items.iter().enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)).collect()
    }

    pub(super) fn texts(&mut self, name: &'static str, problems: &mut Problems) -> Vec<String> {
        let items = self.list(name, problems);
        items.into_iter().filter_map(|(path, item)| text_of(&path, item, problems)).collect()
    }

    pub(super) fn text_map(&mut self, name: &'static str, problems: &mut Problems) -> BTreeMap<String, String> {
        let Some(value) = self.take(name) else { return BTreeMap::new() };
        let path = self.at(name);
        let Value::Object(map) = value else {
            problems.add(path, format!("must be a set of names and texts, not {}", kind(value)));
            return BTreeMap::new();
        };
        map.iter().filter_map(|(key, item)| Some((key.clone(), text_of(&join(&path, key), item, problems)?))).collect()
    }

    /// Names what is left over.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (given, _) in self.values.values() {
            let near = self.known.iter().find(|name| is_near(&name.to_lowercase(), &given.to_lowercase()));
            let message = match near {
                Some(name) => format!("is not a known field (did you mean `{name}`?)"),
                None => format!("is not a known field (known: {})", self.known.join(", ")),
            };
            problems.add(join(&self.path, given), message);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A text; numbers and truth values are taken as written.
fn text_of(path: &str, value: &Value, problems: &mut Problems) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        other => {
            problems.add(path, format!("must be a text, not {}", kind(other)));
            None
        }
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a set of fields",
    }
}

/// Whether two names differ by at most two single-character edits (Levenshtein), and not in everything.
pub(super) fn is_near(left: &str, right: &str) -> bool {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(64).collect(), right.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let cost = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()] <= 2 && left.len().max(right.len()) > 3
}
