//! What a module wants from its surroundings.

use wasmtime::{Caller, ExternType, InstancePre, Linker, Module, UnknownImportError, Val};

use super::worker::first_line;

/// Functions that nobody has; each costs a look at all imports.
const LACKING_MAX: usize = 1_000;

/// A function that the surroundings do not have was called.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the program called `{name}` of `{module}`, which nobody has")]
pub(super) struct Lacking {
    module: String,
    name: String,
}

/// The modules that a module imports, beside its surroundings; the same one as often as it imports something of it.
pub(super) fn of_others(module: &Module) -> impl Iterator<Item = &str> {
    module.imports().map(|import| import.module()).filter(|name| !name.starts_with("wasi_"))
}

/// Links a module. Functions that nobody has end the program when it calls them: builds for several surroundings import
/// what they use in one of them only.
///
/// # Errors
/// If it wants something else that is not there, in words.
pub(super) fn link<T: 'static>(linker: &Linker<T>, module: &Module) -> Result<InstancePre<T>, String> {
    let mut own = linker.clone();
    for _ in 0..LACKING_MAX {
        let error = match own.instantiate_pre(module) {
            Ok(instance) => return Ok(instance),
            Err(error) => error,
        };
        let Some(unknown) = error.downcast_ref::<UnknownImportError>() else {
            return Err(format!("the module cannot be linked: {}", first_line(&error)));
        };
        let (from, name) = (unknown.module().to_owned(), unknown.name().to_owned());
        let ExternType::Func(function) = unknown.ty() else {
            return Err(format!("the module imports `{name}` from `{from}`, which nobody has"));
        };
        let lacking = Lacking { module: from.clone(), name: name.clone() };
        let call = move |_: Caller<'_, T>, _: &[Val], _: &mut [Val]| Err(wasmtime::Error::new(lacking.clone()));
        own.func_new(&from, &name, function, call).map_err(|error| first_line(&error))?;
    }
    Err(format!("the module imports more than {LACKING_MAX} functions that nobody has"))
}
