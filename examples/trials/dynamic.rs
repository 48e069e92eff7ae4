//! A program that imports another module, by the name of its file. The tests run it.

#[link(wasm_import_module = "library.wasm")]
unsafe extern "C" {
    safe fn twice(number: u32) -> u32;
    safe fn asked() -> u32;
}

fn main() {
    println!("{} {} {}", twice(4), twice(21), asked());
}
