//! `wasm run`: a job without a file.

use std::collections::BTreeMap;
use std::path::Path;

use bacnode_protocol::content::Cid;
use bacnode_protocol::job::{
    InputSource, JobSpec, ResourcesSpec, ResultPath, SpecConfig, TaskSpec, Timeouts, ValidJob,
};
use serde_json::{Map, Value, json};

use super::{content, submit};
use crate::args::WasmRun;
use crate::client::Client;
use crate::error::{Failure, Result};
use crate::settings::pair;

pub(super) async fn run(client: &Client, args: WasmRun) -> Result<()> {
    let module_name = Path::new(&args.module).file_name().and_then(|name| name.to_str()).unwrap_or("main.wasm");
    let target = format!("/{}", if module_name.ends_with(".wasm") { module_name } else { "main.wasm" });
    let mut inputs = vec![input(client, &args.module, &target).await?];
    for text in &args.input {
        let (source, path) = text
            .rsplit_once(':')
            .filter(|(source, path)| !source.is_empty() && path.starts_with('/'))
            .ok_or_else(|| Failure::usage(format!("-i {text}: expected SOURCE:PATH, the path being absolute")))?;
        inputs.push(input(client, source, path).await?);
    }
    let results = args.result.iter().map(|text| {
        let (name, path) =
            text.split_once(':').ok_or_else(|| Failure::usage(format!("--result {text}: expected NAME:PATH")))?;
        Ok(ResultPath { name: name.into(), path: path.into() })
    });
    let engine = json!({ "EntryModule": target, "Entrypoint": args.entrypoint, "Parameters": args.args });
    let task = TaskSpec {
        name: "main".into(),
        engine: SpecConfig { kind: "wasm".into(), params: engine.as_object().cloned().unwrap_or_default() },
        env: args.env.iter().map(|text| pair("-e", text)).collect::<Result<BTreeMap<_, _>>>()?,
        input_sources: inputs,
        result_paths: results.collect::<Result<_>>()?,
        resources: ResourcesSpec {
            cpu: args.cpu.clone().unwrap_or_default(),
            memory: args.memory.clone().unwrap_or_default(),
            ..ResourcesSpec::default()
        },
        timeouts: Timeouts { execution_timeout: args.timeout.unwrap_or(0), ..Timeouts::default() },
        deterministic: args.deterministic,
        ..TaskSpec::default()
    };
    let spec = JobSpec {
        name: args.name.clone().unwrap_or_default(),
        namespace: "default".into(),
        kind: "batch".into(),
        count: args.count,
        tasks: vec![task],
        ..JobSpec::default()
    };
    ValidJob::new(spec.clone())?;
    submit::submit(client, spec, args.waiting).await
}

/// Something here becomes content; something elsewhere is named.
async fn input(client: &Client, source: &str, target: &str) -> Result<InputSource> {
    let (kind, params) = if let Some(path) = source.strip_prefix("local://") {
        ("local", json!({ "SourcePath": path }))
    } else if source.parse::<Cid>().is_ok() {
        ("ipfs", json!({ "CID": source.trim_start_matches("ipfs://") }))
    } else {
        let path = source.strip_prefix("file://").unwrap_or(source);
        ("ipfs", json!({ "CID": content::add(client, Path::new(path)).await?.cid }))
    };
    let params: Map<String, Value> = params.as_object().cloned().unwrap_or_default();
    Ok(InputSource { source: SpecConfig { kind: kind.into(), params }, target: target.into(), alias: String::new() })
}
