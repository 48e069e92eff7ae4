//! `wasm run` and `docker run`: jobs without a file.

use std::collections::BTreeMap;
use std::path::Path;

use bacnode_protocol::content::Cid;
use bacnode_protocol::job::{
    Constraint, InputSource, JobSpec, Network, PortSpec, ResourcesSpec, ResultPath, Selector, SpecConfig, TaskSpec,
    Timeouts, ValidJob,
};
use serde_json::{Map, Value, json};

use super::{content, submit};
use crate::args::{DockerRun, TaskArgs, WasmRun};
use crate::client::Client;
use crate::error::{Failure, Result};
use crate::settings::pair;

pub(super) async fn run_module(client: &Client, args: WasmRun) -> Result<()> {
    let module_name = Path::new(&args.module).file_name().and_then(|name| name.to_str()).unwrap_or("main.wasm");
    let target = format!("/{}", if module_name.ends_with(".wasm") { module_name } else { "main.wasm" });
    let mut modules = vec![input(client, &args.module, &target).await?];
    let mut imports = Vec::with_capacity(args.import.len());
    for file in &args.import {
        let name = Path::new(file).file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Failure::usage(format!("-I {file}: this is no file")))?;
        modules.push(input(client, file, &format!("/{name}")).await?);
        imports.push(format!("/{name}"));
    }
    let params = json!({
        "EntryModule": target,
        "Entrypoint": args.entrypoint,
        "Parameters": args.args,
        "ImportModules": imports,
    });
    let mut spec = job(client, "wasm", &params, &args.task).await?;
    spec.tasks[0].input_sources.splice(0..0, modules);
    if !args.domain.is_empty() {
        spec.tasks[0].network = Network { kind: "http".into(), domains: args.domain, ports: Vec::new() };
    }
    spec.tasks[0].deterministic = args.deterministic;
    ValidJob::new(spec.clone())?;
    submit::submit(client, spec, false, args.waiting).await
}

pub(super) async fn run_container(client: &Client, args: DockerRun) -> Result<()> {
    let params = json!({
        "Image": args.image,
        "Entrypoint": args.entrypoint.iter().collect::<Vec<_>>(),
        "Parameters": args.args,
        "WorkingDirectory": args.workdir.unwrap_or_default(),
        "User": args.user.unwrap_or_default(),
    });
    let mut spec = job(client, "docker", &params, &args.task).await?;
    let ports = args.port.iter().map(|text| port(text)).collect::<Result<_>>()?;
    spec.tasks[0].network = Network { kind: args.network, domains: args.domain, ports };
    spec.tasks[0].resources.gpu = args.gpu.unwrap_or_default();
    ValidJob::new(spec.clone())?;
    submit::submit(client, spec, false, args.waiting).await
}

/// `NAME=PORT`, or `NAME=HOST:PORT`.
fn port(text: &str) -> Result<PortSpec> {
    let shape = "NAME=PORT, or NAME=HOST:PORT";
    let named = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, ports) = named.ok_or_else(|| Failure::usage(format!("--port {text}: expected {shape}")))?;
    let (host, target) = ports.split_once(':').unwrap_or(("0", ports));
    let number = |port: &str| {
        let wrong = || Failure::usage(format!("--port {text}: `{port}` is not a port")).hint(shape);
        port.parse::<u16>().map(i64::from).map_err(|_| wrong())
    };
    Ok(PortSpec { name: name.to_owned(), fixed: number(host)?, target: number(target)?, host_network: String::new() })
}

async fn job(client: &Client, engine: &str, params: &Value, args: &TaskArgs) -> Result<JobSpec> {
    let mut inputs = Vec::with_capacity(args.input.len());
    for text in &args.input {
        let (source, path) = text
            .rsplit_once(':')
            .filter(|(source, path)| !source.is_empty() && path.starts_with('/') && !path.starts_with("//"))
            .ok_or_else(|| Failure::usage(format!("-i {text}: expected SOURCE:PATH, the path being absolute")))?;
        inputs.push(input(client, source, path).await?);
    }
    let results = args.result.iter().map(|text| {
        let (name, path) =
            text.split_once(':').ok_or_else(|| Failure::usage(format!("--result {text}: expected NAME:PATH")))?;
        Ok(ResultPath { name: name.into(), path: path.into() })
    });
    let task = TaskSpec {
        name: "main".into(),
        engine: SpecConfig { kind: engine.into(), params: params.as_object().cloned().unwrap_or_default() },
        env: args.env.iter().map(|text| pair("-e", text)).collect::<Result<BTreeMap<_, _>>>()?,
        input_sources: inputs,
        publisher: publisher(&args.publisher)?,
        result_paths: results.collect::<Result<_>>()?,
        resources: ResourcesSpec {
            cpu: args.cpu.clone().unwrap_or_default(),
            memory: args.memory.clone().unwrap_or_default(),
            disk: args.disk.clone().unwrap_or_default(),
            ..ResourcesSpec::default()
        },
        timeouts: Timeouts {
            execution_timeout: args.timeout.unwrap_or(0),
            queue_timeout: args.queue_timeout.unwrap_or(0),
            total_timeout: 0,
        },
        exclusive: args.exclusive,
        durability: args.durability.clone(),
        replicas: args.replicas,
        ..TaskSpec::default()
    };
    Ok(JobSpec {
        name: args.name.clone().unwrap_or_default(),
        namespace: args.namespace.clone(),
        kind: args.kind.to_lowercase(),
        priority: args.priority,
        count: args.count,
        constraints: constraints(&args.constraints)?,
        labels: args.labels.iter().map(|text| pair("--label", text)).collect::<Result<_>>()?,
        tasks: vec![task],
        ..JobSpec::default()
    })
}

/// What nodes' labels must say.
fn constraints(texts: &[String]) -> Result<Vec<Constraint>> {
    let mut constraints = Vec::new();
    for text in texts {
        let selector: Selector = text.parse().map_err(|error| Failure::usage(format!("--constraints: {error}")))?;
        constraints.extend(selector.constraints().iter().map(Constraint::from));
    }
    Ok(constraints)
}

/// Where a result goes.
fn publisher(text: &str) -> Result<SpecConfig> {
    let config = |kind: &str, params: Value| SpecConfig {
        kind: kind.into(),
        params: params.as_object().cloned().unwrap_or_default(),
    };
    match text {
        "ipfs" | "content" => Ok(SpecConfig::default()),
        "local" => Ok(config("local", json!({}))),
        text if text.starts_with("s3://") => Ok(config("s3", place(text)?)),
        other => Err(Failure::usage(format!("-p {other}: not a publisher")).hint("ipfs, local, or s3://BUCKET/KEY")),
    }
}

/// `s3://bucket/key,opt=region=…`, in Bacalhau's way.
fn place(text: &str) -> Result<Value> {
    let mut parts = text.trim_start_matches("s3://").split(",opt=");
    let place = parts.next().unwrap_or_default();
    let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
    let mut params = Map::from_iter([("Bucket".to_owned(), bucket.into()), ("Key".to_owned(), key.into())]);
    for option in parts {
        let (name, value) = pair("opt", option)?;
        params.insert(name, value.into());
    }
    Ok(Value::Object(params))
}

/// Something here becomes content; something elsewhere is named.
async fn input(client: &Client, source: &str, target: &str) -> Result<InputSource> {
    let (kind, params) = if let Some(path) = source.strip_prefix("local://") {
        ("local", json!({ "SourcePath": path }))
    } else if source.starts_with("s3://") {
        ("s3", place(source)?)
    } else if source.starts_with("http://") || source.starts_with("https://") {
        ("urldownload", json!({ "URL": source }))
    } else if source.parse::<Cid>().is_ok() {
        ("ipfs", json!({ "CID": source.trim_start_matches("ipfs://") }))
    } else {
        let path = source.strip_prefix("file://").unwrap_or(source);
        ("ipfs", json!({ "CID": content::add(client, Path::new(path), false).await?.cid }))
    };
    let params: Map<String, Value> = params.as_object().cloned().unwrap_or_default();
    Ok(InputSource { source: SpecConfig { kind: kind.into(), params }, target: target.into(), alias: String::new() })
}
