//! The bare wasmtime library: compiles a WASI command and runs it, in this fresh process. The benchmark's measure for what
//! the network adds.
//!
//! usage: bare_wasmtime MODULE.wasm

use wasmtime::{Config, Engine, Linker, Module, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};

fn main() -> wasmtime::Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| wasmtime::Error::msg("usage: bare_wasmtime MODULE.wasm"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let _entered = runtime.enter();
    let engine = Engine::new(&Config::new())?;
    let mut linker: Linker<WasiP1Ctx> = Linker::new(&engine);
    p1::add_to_linker_sync(&mut linker, |wasi| wasi)?;
    let module = Module::new(&engine, std::fs::read(path)?)?;
    let mut store = Store::new(&engine, WasiCtxBuilder::new().build_p1());
    let instance = linker.instantiate(&mut store, &module)?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    match start.call(&mut store, ()) {
        Err(error) if error.is::<I32Exit>() => Ok(()),
        other => other,
    }
}
