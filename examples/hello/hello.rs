//! Says hello, and which partition of its job it is.

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "world".into());
    let variable = |name| std::env::var(name).unwrap_or_default();
    println!("Hello, {name}! This is partition {} of {}.", variable("BACNODE_PARTITION_INDEX"), variable("BACNODE_PARTITION_COUNT"));
}
