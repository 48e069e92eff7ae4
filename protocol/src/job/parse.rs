//! From text to [`JobSpec`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{Fields, InvalidSpec, Problems};
use super::spec::{
    Constraint, InputSource, JobSpec, LeaseSpec, Network, PortSpec, ResourcesSpec, ResultPath, SpecConfig, TaskSpec,
    Timeouts,
};
use crate::limits::SPEC_BYTES_MAX;

/// Fields of ours that clients which drop unknown fields may put into `Meta`, under this prefix.
const META_PREFIX: &str = "bacnode/";

/// Reads YAML or JSON.
///
/// # Errors
/// If the text is too long, or neither.
pub fn read_document(text: &str) -> Result<Value, InvalidSpec> {
    if text.len() > SPEC_BYTES_MAX {
        let message = format!("the spec has {} bytes; at most {SPEC_BYTES_MAX} are read", text.len());
        return Err(InvalidSpec::one("", message));
    }
    // Every JSON document is YAML too, but a JSON reader says better what is wrong with one.
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| InvalidSpec::one("", format!("not valid JSON: {error}")));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unreadable");
        InvalidSpec::one("", format!("not valid YAML: {}", line.trim_start_matches("error: ").trim()))
    })
}

/// Fills `{{.name}}` in a spec from `values`.
///
/// # Errors
/// If a name has no value.
pub fn render(text: &str, values: &BTreeMap<String, String>) -> Result<String, InvalidSpec> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        rendered.push_str(&rest[..start]);
        let Some(end) = rest[start..].find("}}") else {
            return Err(InvalidSpec::one("", "`{{` without `}}`"));
        };
        let inner = rest[start + 2..start + end].trim();
        let name = inner.strip_prefix('.').unwrap_or(inner).trim();
        let Some(value) = values.get(name) else {
            return Err(InvalidSpec::one("", format!("the template needs a value for `{name}` (-V {name}=…)")));
        };
        rendered.push_str(value);
        rest = &rest[start + end + 2..];
    }
    rendered.push_str(rest);
    Ok(rendered)
}

/// Reads a job from a document. A document of the form `{Job: …}` is unwrapped.
///
/// # Errors
/// With the path of every field that is unknown, missing or of the wrong type.
pub fn parse(document: &Value) -> Result<JobSpec, InvalidSpec> {
    match document {
        Value::Null => return Err(InvalidSpec::one("", "the spec is empty")),
        Value::Object(_) => {}
        other => {
            let kind = super::fields::kind(other);
            return Err(InvalidSpec::one("", format!("a job spec is a set of fields, not {kind}")));
        }
    }
    let mut problems = Problems::default();
    let spec = job(document, &mut problems);
    problems.into_result(spec)
}

fn job(document: &Value, problems: &mut Problems) -> JobSpec {
    let mut fields = Fields::of("", document, problems);
    if let Some(inner) = fields.take("Job") {
        return job(inner, problems);
    }
    // What a server fills in is read past, so that a job it showed can be submitted again.
    let filled_in = ["ID", "State", "Version", "Revision", "CreateTime", "ModifyTime"];
    let given = filled_in.into_iter().filter(|name| fields.take(name).is_some());
    let mut warnings: Vec<String> =
        given.map(|name| format!("{name} is set by the node; what the spec says is read past")).collect();
    let mut tasks = each(fields.list("Tasks", problems), problems, task);
    if tasks.len() > 1 {
        warnings.push(format!("a job has one task; the {} after the first are left out", tasks.len() - 1));
        tasks.truncate(1);
    }
    let mut meta = fields.text_map("Meta", problems);
    let reserved: Vec<String> = meta.keys().filter(|key| key.starts_with("bacalhau.org/")).cloned().collect();
    for key in reserved {
        warnings.push(format!("Meta.{key} is set by the node; what the spec says is read past"));
        meta.remove(&key);
    }
    let spec = JobSpec {
        name: fields.text("Name", problems).unwrap_or_default(),
        namespace: fields.text("Namespace", problems).filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into()),
        kind: fields.text("Type", problems).unwrap_or_default().to_lowercase(),
        priority: fields.integer("Priority", problems).unwrap_or(0),
        count: fields.integer("Count", problems).unwrap_or(1),
        constraints: each(fields.list("Constraints", problems), problems, constraint),
        meta,
        labels: fields.text_map("Labels", problems),
        tasks,
        warnings,
    };
    fields.finish(problems);
    spec
}

fn each<T>(
    items: Vec<(String, &Value)>,
    problems: &mut Problems,
    read: impl Fn(&str, &Value, &mut Problems) -> T,
) -> Vec<T> {
    items.into_iter().map(|(path, item)| read(&path, item, problems)).collect()
}

fn constraint(path: &str, value: &Value, problems: &mut Problems) -> Constraint {
    let mut fields = Fields::of(path, value, problems);
    let constraint = Constraint {
        key: fields.text("Key", problems).unwrap_or_default(),
        operator: fields.text("Operator", problems).unwrap_or_default(),
        values: fields.texts("Values", problems),
    };
    fields.finish(problems);
    constraint
}

fn task(path: &str, value: &Value, problems: &mut Problems) -> TaskSpec {
    let mut fields = Fields::of(path, value, problems);
    let mut task = TaskSpec {
        name: fields.text("Name", problems).unwrap_or_default(),
        engine: config(&mut fields, "Engine", problems),
        publisher: config(&mut fields, "Publisher", problems),
        env: fields.text_map("Env", problems),
        meta: fields.text_map("Meta", problems),
        input_sources: each(fields.list("InputSources", problems), problems, input_source),
        result_paths: each(fields.list("ResultPaths", problems), problems, result_path),
        resources: fields
            .take("Resources")
            .map(|v| resources(&fields.at("Resources"), v, problems))
            .unwrap_or_default(),
        network: fields.take("Network").map(|v| network(&fields.at("Network"), v, problems)).unwrap_or_default(),
        timeouts: fields.take("Timeouts").map(|v| timeouts(&fields.at("Timeouts"), v, problems)).unwrap_or_default(),
        exclusive: fields.flag("Exclusive", problems).unwrap_or(false),
        deterministic: fields.flag("Deterministic", problems).unwrap_or(false),
        lease: fields.take("Lease").map(|v| lease(&fields.at("Lease"), v, problems)),
        orphan_ttl: fields.integer("OrphanTTL", problems),
        durability: fields.text("Durability", problems).filter(|text| !text.is_empty()),
        replicas: fields.integer("Replicas", problems),
    };
    fields.finish(problems);
    meta_fields(path, &mut task, problems);
    legacy_entry_module(path, &mut task, problems);
    task
}

fn config(fields: &mut Fields<'_>, name: &'static str, problems: &mut Problems) -> SpecConfig {
    let Some(value) = fields.take(name) else { return SpecConfig::default() };
    spec_config(&fields.at(name), value, problems)
}

fn spec_config(path: &str, value: &Value, problems: &mut Problems) -> SpecConfig {
    let mut fields = Fields::of(path, value, problems);
    let kind = fields.text("Type", problems).unwrap_or_default().to_lowercase();
    let params = match fields.take("Params") {
        None => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(other) => {
            problems.add(fields.at("Params"), format!("must be a set of fields, not {}", super::fields::kind(other)));
            Map::new()
        }
    };
    fields.finish(problems);
    SpecConfig { kind, params }
}

fn input_source(path: &str, value: &Value, problems: &mut Problems) -> InputSource {
    let mut fields = Fields::of(path, value, problems);
    let input = InputSource {
        source: config(&mut fields, "Source", problems),
        target: fields.text("Target", problems).unwrap_or_default(),
        alias: fields.text("Alias", problems).unwrap_or_default(),
    };
    fields.finish(problems);
    input
}

fn result_path(path: &str, value: &Value, problems: &mut Problems) -> ResultPath {
    let mut fields = Fields::of(path, value, problems);
    let result = ResultPath {
        name: fields.text("Name", problems).unwrap_or_default(),
        path: fields.text("Path", problems).unwrap_or_default(),
    };
    fields.finish(problems);
    result
}

fn resources(path: &str, value: &Value, problems: &mut Problems) -> ResourcesSpec {
    let mut fields = Fields::of(path, value, problems);
    let resources = ResourcesSpec {
        cpu: fields.text("CPU", problems).unwrap_or_default(),
        memory: fields.text("Memory", problems).unwrap_or_default(),
        disk: fields.text("Disk", problems).unwrap_or_default(),
        gpu: fields.text("GPU", problems).unwrap_or_default(),
    };
    fields.finish(problems);
    resources
}

fn network(path: &str, value: &Value, problems: &mut Problems) -> Network {
    let mut fields = Fields::of(path, value, problems);
    let kind = fields.text("Type", problems).unwrap_or_default();
    let domains = fields.texts("Domains", problems);
    let ports = fields.list("Ports", problems);
    let ports = ports.into_iter().map(|(path, value)| port(&path, value, problems)).collect();
    let network = Network { kind, domains, ports };
    fields.finish(problems);
    network
}

fn port(path: &str, value: &Value, problems: &mut Problems) -> PortSpec {
    let mut fields = Fields::of(path, value, problems);
    let port = PortSpec {
        name: fields.text("Name", problems).unwrap_or_default(),
        fixed: fields.integer("Static", problems).unwrap_or(0),
        target: fields.integer("Target", problems).unwrap_or(0),
        host_network: fields.text("HostNetwork", problems).unwrap_or_default(),
    };
    fields.finish(problems);
    port
}

fn timeouts(path: &str, value: &Value, problems: &mut Problems) -> Timeouts {
    let mut fields = Fields::of(path, value, problems);
    let timeouts = Timeouts {
        execution_timeout: fields.integer("ExecutionTimeout", problems).unwrap_or(0),
        queue_timeout: fields.integer("QueueTimeout", problems).unwrap_or(0),
        total_timeout: fields.integer("TotalTimeout", problems).unwrap_or(0),
    };
    fields.finish(problems);
    timeouts
}

fn lease(path: &str, value: &Value, problems: &mut Problems) -> LeaseSpec {
    let mut fields = Fields::of(path, value, problems);
    let lease = LeaseSpec {
        heartbeat: fields.integer("Heartbeat", problems).unwrap_or(10),
        length: fields.integer("Length", problems).unwrap_or(60),
        grace: fields.integer("Grace", problems).unwrap_or(15),
    };
    fields.finish(problems);
    lease
}

/// Takes `bacnode/<field>` out of a task's `Meta`.
fn meta_fields(path: &str, task: &mut TaskSpec, problems: &mut Problems) {
    let ours: Vec<String> = task.meta.keys().filter(|key| key.starts_with(META_PREFIX)).cloned().collect();
    for key in ours {
        let value = task.meta.remove(&key).unwrap_or_default();
        let known = match &key[META_PREFIX.len()..] {
            "Exclusive" => value.parse().map(|flag| task.exclusive = flag).is_ok(),
            "Deterministic" => value.parse().map(|flag| task.deterministic = flag).is_ok(),
            "Durability" => {
                task.durability = Some(value.clone());
                true
            }
            "Replicas" => value.parse().map(|count| task.replicas = Some(count)).is_ok(),
            "OrphanTTL" => value.parse().map(|seconds| task.orphan_ttl = Some(seconds)).is_ok(),
            _ => false,
        };
        if !known {
            problems.add(format!("{path}.Meta.{key}"), format!("`{value}` is not understood"));
        }
    }
}

/// Bacalhau's older form puts an input source where the module's path belongs.
fn legacy_entry_module(path: &str, task: &mut TaskSpec, problems: &mut Problems) {
    let Some(key) = task.engine.params.keys().find(|key| key.eq_ignore_ascii_case("EntryModule")).cloned() else {
        return;
    };
    if !task.engine.params[&key].is_object() {
        return;
    }
    let value = task.engine.params.remove(&key).unwrap_or_default();
    let mut input = input_source(&format!("{path}.Engine.Params.EntryModule"), &value, problems);
    if input.target.is_empty() {
        input.target = "/entry.wasm".into();
    }
    task.engine.params.insert("EntryModule".into(), Value::String(input.target.clone()));
    task.input_sources.push(input);
}
