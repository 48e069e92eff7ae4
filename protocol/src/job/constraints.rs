//! What a node's labels must say.

use super::fields::Problems;
use super::spec::{self, JobSpec};
use crate::limits::CONSTRAINTS_MAX;
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::constraint::{Constraint, Operator};

/// The operators, as they are written.
const OPERATORS: [(&str, Operator); 9] = [
    ("=", Operator::In),
    ("==", Operator::In),
    ("in", Operator::In),
    ("!=", Operator::NotIn),
    ("notin", Operator::NotIn),
    ("exists", Operator::Exists),
    ("!", Operator::Absent),
    ("gt", Operator::Greater),
    ("lt", Operator::Less),
];

pub(super) fn check_constraints(spec: &JobSpec, problems: &mut Problems) -> ListMax<Constraint, CONSTRAINTS_MAX> {
    if spec.constraints.len() > CONSTRAINTS_MAX {
        let message = format!("has {} entries; at most {CONSTRAINTS_MAX}", spec.constraints.len());
        problems.add("Constraints", message);
    }
    let constraints = spec.constraints.iter().enumerate();
    ListMax::truncated(constraints.filter_map(|(index, constraint)| check(index, constraint, problems)))
}

fn check(index: usize, constraint: &spec::Constraint, problems: &mut Problems) -> Option<Constraint> {
    let path = format!("Constraints[{index}]");
    let wanted = constraint.operator.to_lowercase();
    let Some((_, operator)) = OPERATORS.iter().find(|(name, _)| *name == wanted) else {
        let known = OPERATORS.map(|(name, _)| name).join(", ");
        problems.add(format!("{path}.Operator"), format!("`{}` is not an operator ({known})", constraint.operator));
        return None;
    };
    let before = problems.count();
    let key = TextMax::new(constraint.key.trim());
    if constraint.key.trim().is_empty() || key.is_err() {
        problems.add(format!("{path}.Key"), "is the name of a label, of 1 to 64 bytes");
    }
    let values = constraint.values.iter().map(|value| TextMax::new(value.clone()).ok()).collect::<Option<Vec<_>>>();
    let values = values.and_then(|values| ListMax::new(values).ok());
    let (count, single) = (constraint.values.len(), !matches!(wanted.as_str(), "in" | "notin"));
    let counted = match operator {
        Operator::Exists | Operator::Absent if count > 0 => Some(format!("`{wanted}` takes no values")),
        Operator::In | Operator::NotIn if count == 0 => Some(format!("`{wanted}` needs a value to compare with")),
        Operator::Greater | Operator::Less | Operator::In | Operator::NotIn if single && count != 1 => {
            Some(format!("`{wanted}` takes one value, not {count}"))
        }
        Operator::Greater | Operator::Less if constraint.values.iter().any(|value| value.parse::<i64>().is_err()) => {
            Some(format!("`{wanted}` compares whole numbers, not `{}`", constraint.values.join(", ")))
        }
        _ => None,
    };
    if let Some(message) = counted.or_else(|| values.is_none().then(|| "are at most 32 of 256 bytes".to_owned())) {
        problems.add(format!("{path}.Values"), message);
    }
    let constraint = Constraint { key: key.ok()?, operator: *operator, values: values? };
    (problems.count() == before).then_some(constraint)
}

/// As a spec says it.
impl From<&Constraint> for spec::Constraint {
    fn from(constraint: &Constraint) -> Self {
        let values: Vec<String> = constraint.values.iter().map(ToString::to_string).collect();
        let operator = match (constraint.operator, values.len()) {
            (Operator::In, 1) => "=",
            (Operator::In, _) => "in",
            (Operator::NotIn, 1) => "!=",
            (Operator::NotIn, _) => "notin",
            (Operator::Exists, _) => "exists",
            (Operator::Absent, _) => "!",
            (Operator::Greater, _) => "gt",
            (Operator::Less, _) => "lt",
        };
        Self { key: constraint.key.to_string(), operator: operator.into(), values }
    }
}
