//! A module that another one imports: it counts how often it was asked. The tests run it.

use std::sync::atomic::{AtomicU32, Ordering};

static ASKED: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
pub extern "C" fn twice(number: u32) -> u32 {
    ASKED.fetch_add(1, Ordering::Relaxed);
    number * 2
}

#[unsafe(no_mangle)]
pub extern "C" fn asked() -> u32 {
    ASKED.load(Ordering::Relaxed)
}
