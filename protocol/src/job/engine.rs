//! What a task runs, checked by engine.

use serde_json::Value;

use super::fields::{Fields, Problems};
use super::inputs::{ValidInput, absolute, check_path, covers};
use super::spec::TaskSpec;
use crate::limits::{ARGS_MAX, IMPORTS_MAX};
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::task::{DockerTask, EngineTask, WasmTask, is_image_name};

/// The engine's part of a task; what stands for a wrong one is never used.
pub(super) fn check_engine(
    path: &str,
    task: &mut TaskSpec,
    inputs: &[ValidInput],
    problems: &mut Problems,
) -> EngineTask {
    let path = format!("{path}.Engine");
    let params = Value::Object(task.engine.params.clone());
    match task.engine.kind.as_str() {
        "docker" => docker(&format!("{path}.Params"), &params, task, problems),
        kind => {
            match kind {
                "wasm" => {}
                "" => problems.add(format!("{path}.Type"), "is required: `wasm` or `docker`"),
                other => problems.add(format!("{path}.Type"), format!("`{other}` is not an engine (wasm, docker)")),
            }
            // Of an engine that is none, the parameters say nothing.
            let mut unused = Problems::default();
            let problems = if kind == "wasm" { problems } else { &mut unused };
            wasm(&format!("{path}.Params"), &params, task, inputs, problems)
        }
    }
}

fn wasm(path: &str, params: &Value, task: &TaskSpec, inputs: &[ValidInput], problems: &mut Problems) -> EngineTask {
    let mut fields = Fields::of(path, params, problems);
    let module = fields.text("EntryModule", problems).unwrap_or_default();
    let entrypoint = fields.text("Entrypoint", problems).filter(|e| !e.is_empty()).unwrap_or_else(|| "_start".into());
    let args = fields.texts("Parameters", problems);
    let imports = fields.texts("ImportModules", problems);
    if module.is_empty() {
        problems.add(fields.at("EntryModule"), "is required: the path of an input that is the module");
    } else if !inputs.iter().any(|input| covers(&input.target, &absolute(&module))) && !inputs.is_empty() {
        let targets: Vec<&str> = inputs.iter().map(|input| input.target.as_str()).collect();
        let message = format!("`{module}` is not among the inputs ({})", targets.join(", "));
        problems.add(fields.at("EntryModule"), message);
    } else if task.input_sources.is_empty() {
        let message = format!("`{module}` is not among the inputs: there are none (add it to InputSources)");
        problems.add(fields.at("EntryModule"), message);
    }
    if imports.len() > IMPORTS_MAX {
        let message = format!("has {} entries; at most {IMPORTS_MAX}", imports.len());
        problems.add(fields.at("ImportModules"), message);
    }
    for (i, import) in imports.iter().enumerate() {
        if !inputs.iter().any(|input| covers(&input.target, &absolute(import))) {
            let path = fields.at("ImportModules");
            problems.add(format!("{path}[{i}]"), format!("`{import}` is not among the inputs"));
        }
    }
    check_args(&fields.at("Parameters"), &args, problems);
    fields.finish(problems);
    EngineTask::Wasm(WasmTask {
        module: TextMax::truncated(&absolute(&module)),
        entrypoint: TextMax::truncated(&entrypoint),
        args: texts(&args),
        imports: ListMax::truncated(imports.iter().map(|import| TextMax::truncated(&absolute(import)))),
    })
}

fn docker(path: &str, params: &Value, task: &mut TaskSpec, problems: &mut Problems) -> EngineTask {
    let mut fields = Fields::of(path, params, problems);
    let image = fields.text("Image", problems).unwrap_or_default();
    let entrypoint = fields.texts("Entrypoint", problems);
    let args = fields.texts("Parameters", problems);
    let variables = fields.texts("EnvironmentVariables", problems);
    let workdir = fields.text("WorkingDirectory", problems).unwrap_or_default();
    let user = fields.text("User", problems).unwrap_or_default();
    if image.is_empty() {
        problems.add(fields.at("Image"), "is required: which container image should run?");
    } else if !is_image_name(&image) {
        let shown: String = image.chars().take(80).collect();
        problems
            .add(fields.at("Image"), format!("`{shown}` is not the name of an image (`name:tag`, `name@sha256:…`)"));
    }
    check_args(&fields.at("Entrypoint"), &entrypoint, problems);
    check_args(&fields.at("Parameters"), &args, problems);
    if !workdir.is_empty() {
        check_path(&fields.at("WorkingDirectory"), &workdir, problems);
    }
    if user.len() > 64 || !user.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-:.".contains(&b)) {
        problems.add(fields.at("User"), "must be a user or number, with or without `:group`");
    }
    // Bacalhau has two places for variables; here they become one, the task's own first.
    for (i, variable) in variables.iter().enumerate() {
        match variable.split_once('=') {
            Some((name, value)) => _ = task.env.entry(name.to_owned()).or_insert_with(|| value.to_owned()),
            None => problems.add(format!("{}[{i}]", fields.at("EnvironmentVariables")), "must be `NAME=value`"),
        }
    }
    fields.finish(problems);
    EngineTask::Docker(DockerTask {
        image: TextMax::truncated(&image),
        entrypoint: texts(&entrypoint),
        args: texts(&args),
        workdir: TextMax::truncated(&workdir),
        user: TextMax::truncated(&user),
    })
}

fn texts(values: &[String]) -> ListMax<TextMax<8192>, ARGS_MAX> {
    ListMax::truncated(values.iter().map(|value| TextMax::truncated(value)))
}

fn check_args(path: &str, args: &[String], problems: &mut Problems) {
    if args.len() > ARGS_MAX {
        problems.add(path, format!("has {} entries; at most {ARGS_MAX} are passed", args.len()));
    }
    for (index, arg) in args.iter().enumerate() {
        if arg.len() > 8192 || arg.contains('\0') {
            problems.add(format!("{path}[{index}]"), "must be at most 8192 bytes without NUL");
        }
    }
}
