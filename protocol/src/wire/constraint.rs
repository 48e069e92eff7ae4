//! Conditions on a node's labels, and the sketch of its labels that a node's advert carries.
//!
//! The node decides: it alone knows its labels in full, and declines an ask whose constraints do not hold. The sketch
//! keeps those from being asked that surely do not match, so that the one node among hundreds with a label is found at
//! once and nobody's labels have to be copied around.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::bounded::{ListMax, TextMax};
use super::codec::{Decode, Encode};

/// Values of one constraint.
pub const CONSTRAINT_VALUES_MAX: usize = 32;

/// What a label must be. The operators are those of Kubernetes, as Bacalhau takes them. Append only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values; also where there is no such label.
    NotIn,
    /// There, whatever it says.
    Exists,
    /// Not there.
    Absent,
    /// A whole number above the value.
    Greater,
    /// A whole number below the value.
    Less,
}

/// A condition on one label.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Constraint {
    /// The label.
    pub key: TextMax<64>,
    /// What it must be.
    pub operator: Operator,
    /// Compared with.
    pub values: ListMax<TextMax<256>, CONSTRAINT_VALUES_MAX>,
}

impl Constraint {
    /// Whether it holds of these labels.
    #[must_use]
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&*self.key);
        let among = || value.is_some_and(|value| self.values.iter().any(|wanted| **wanted == **value));
        let number = || Some((value?.parse::<i64>().ok()?, self.values.first()?.parse::<i64>().ok()?));
        match self.operator {
            Operator::In => among(),
            Operator::NotIn => !among(),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::Greater => number().is_some_and(|(has, than)| has > than),
            Operator::Less => number().is_some_and(|(has, than)| has < than),
        }
    }

    /// Whether it surely does not hold of a node with this sketch.
    #[must_use]
    pub fn is_excluded_by(&self, sketch: &LabelSketch) -> bool {
        match self.operator {
            Operator::In => !self.values.iter().any(|value| sketch.may_have(&self.key, Some(value))),
            Operator::Exists | Operator::Greater | Operator::Less => !sketch.may_have(&self.key, None),
            // That something is not there, a sketch cannot show.
            Operator::NotIn | Operator::Absent => false,
        }
    }

    /// Why it does not hold of these labels, if it does not.
    #[must_use]
    pub fn failing(&self, labels: &BTreeMap<String, String>) -> Option<String> {
        if self.holds(labels) {
            return None;
        }
        Some(match labels.get(&*self.key) {
            Some(value) => format!("label {}: needs `{self}`, is `{value}`", &*self.key),
            None => format!("label {}: needs `{self}`, is not there", &*self.key),
        })
    }
}

/// As it is written in a selector.
impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&*self.key, self.values.iter().map(|value| &**value).collect::<Vec<_>>());
        match (self.operator, values.as_slice()) {
            (Operator::In, [value]) => write!(f, "{key}={value}"),
            (Operator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (Operator::In, _) => write!(f, "{key} in ({})", values.join(",")),
            (Operator::NotIn, _) => write!(f, "{key} notin ({})", values.join(",")),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::Absent, _) => write!(f, "!{key}"),
            (Operator::Greater, _) => write!(f, "{key}>{}", values.join(",")),
            (Operator::Less, _) => write!(f, "{key}<{}", values.join(",")),
        }
    }
}

/// Bytes of a sketch.
const SKETCH_BYTES: usize = 32;
/// Bits that one entry sets.
const SKETCH_HASHES: usize = 4;

/// A Bloom filter (Bloom 1970) of a node's labels: of each key, and of each key with its value. With a dozen labels one
/// look-up in a hundred says "maybe" of what is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct LabelSketch([u8; SKETCH_BYTES]);

impl LabelSketch {
    /// The sketch of these labels.
    pub fn of<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut sketch = Self::default();
        for (key, value) in labels {
            for bit in bits(key, None).into_iter().chain(bits(key, Some(value))) {
                sketch.0[bit / 8] |= 1 << (bit % 8);
            }
        }
        sketch
    }

    /// Whether there may be such a label, with this value if one is given; if not, there surely is none.
    #[must_use]
    pub fn may_have(&self, key: &str, value: Option<&str>) -> bool {
        bits(key, value).into_iter().all(|bit| self.0[bit / 8] >> (bit % 8) & 1 == 1)
    }
}

fn bits(key: &str, value: Option<&str>) -> [usize; SKETCH_HASHES] {
    let mut hash = Sha256::new();
    hash.update(b"bacnode/label/1\0");
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    if let Some(value) = value {
        hash.update([1]);
        hash.update(value);
    }
    let digest = hash.finalize();
    std::array::from_fn(|i| usize::from(u16::from_be_bytes([digest[2 * i], digest[2 * i + 1]])) % (SKETCH_BYTES * 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(operator: Operator, key: &str, values: &[&str]) -> Constraint {
        let values = ListMax::truncated(values.iter().map(|value| TextMax::truncated(value)));
        Constraint { key: TextMax::truncated(key), operator, values }
    }

    #[test]
    fn every_operator_says_what_it_means() {
        let labels = [("zone", "eu"), ("disk", "ssd"), ("cores", "16"), ("empty", "")];
        let labels: BTreeMap<String, String> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let sketch = LabelSketch::of(labels.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        for (operator, key, values, expected, text) in [
            (Operator::In, "zone", &["eu"][..], true, "zone=eu"),
            (Operator::In, "zone", &["us", "eu"], true, "zone in (us,eu)"),
            (Operator::In, "zone", &["us"], false, "zone=us"),
            (Operator::In, "none", &["us"], false, "none=us"),
            (Operator::NotIn, "zone", &["us"], true, "zone!=us"),
            (Operator::NotIn, "zone", &["us", "eu"], false, "zone notin (us,eu)"),
            (Operator::NotIn, "none", &["us"], true, "none!=us"),
            (Operator::Exists, "empty", &[], true, "empty"),
            (Operator::Exists, "none", &[], false, "none"),
            (Operator::Absent, "none", &[], true, "!none"),
            (Operator::Absent, "zone", &[], false, "!zone"),
            (Operator::Greater, "cores", &["8"], true, "cores>8"),
            (Operator::Greater, "cores", &["16"], false, "cores>16"),
            (Operator::Greater, "zone", &["1"], false, "zone>1"),
            (Operator::Less, "cores", &["17"], true, "cores<17"),
            (Operator::Less, "none", &["17"], false, "none<17"),
        ] {
            let constraint = constraint(operator, key, values);
            assert_eq!(constraint.holds(&labels), expected, "{text}");
            assert_eq!(constraint.failing(&labels).is_none(), expected, "{text}");
            assert_eq!(constraint.to_string(), text);
            assert!(!(expected && constraint.is_excluded_by(&sketch)), "{text}: a sketch forgets nothing");
        }
        assert!(constraint(Operator::In, "zone", &["us"]).is_excluded_by(&sketch));
        assert!(constraint(Operator::Exists, "gpu", &[]).is_excluded_by(&sketch));
    }

    #[test]
    fn a_sketch_of_a_dozen_labels_is_rarely_wrong() {
        let labels: Vec<(String, String)> = (0..12).map(|n| (format!("label-{n}"), format!("value-{n}"))).collect();
        let sketch = LabelSketch::of(labels.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        let wrong = (0..10_000).filter(|n| sketch.may_have("label-1", Some(&format!("other-{n}")))).count();
        assert!(wrong < 300, "{wrong} of 10000");
    }
}
