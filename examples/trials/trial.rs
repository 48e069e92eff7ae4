//! A program that misbehaves as its first argument says. The tests run it.

use std::io::{Read as _, Write as _};

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn path_symlink(target: *const u8, target_len: usize, folder: u32, name: *const u8, name_len: usize) -> u16;
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |index: usize| args.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    match args.get(1).map(String::as_str) {
        Some("exit") => std::process::exit(number(2) as i32),
        Some("trap") => {
            println!("about to trap");
            core::arch::wasm32::unreachable()
        }
        Some("loop") => loop {
            std::hint::black_box(0);
        },
        Some("sleep") => {
            println!("sleeping");
            std::thread::sleep(std::time::Duration::from_millis(number(2)));
            println!("awake");
        }
        Some("eat") => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            loop {
                eaten.push(vec![1; 1 << 20]);
                std::hint::black_box(&eaten);
            }
        }
        Some("print") => {
            let line = [b'x'; 1023];
            let mut out = std::io::stdout();
            for _ in 0..number(2) / 1024 {
                out.write_all(&line).and_then(|()| out.write_all(b"\n")).expect("stdout takes it");
            }
        }
        Some("write") => {
            // Bytes that do not repeat, so that they are not stored once for all.
            let mut file = std::io::BufWriter::new(std::fs::File::create("/outputs/large.bin").expect("a file"));
            let mut state = 88_172_645_463_325_252_u64;
            for _ in 0..number(2) / 8 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                file.write_all(&state.to_le_bytes()).expect("the file takes it");
            }
        }
        Some("link") => {
            let (target, name) = ("stdout", "link");
            // In every folder that the program was given; the library has no stable name for this call.
            let made = (3..16).filter(|&folder| unsafe {
                path_symlink(target.as_ptr(), target.len(), folder, name.as_ptr(), name.len()) == 0
            });
            println!("{} links", made.count());
        }
        Some("cat") => {
            for path in &args[2..] {
                let mut bytes = Vec::new();
                std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).expect("an input");
                std::io::stdout().write_all(&bytes).expect("stdout takes it");
            }
        }
        Some("list") => list(std::path::Path::new(&args[2])),
        Some("count") => {
            // Busy for a known amount of work, then says what came of it.
            let mut sum = 0u64;
            for i in 0..number(2) {
                sum = std::hint::black_box(sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i));
            }
            println!("{sum:x}");
        }
        Some("escape") => match std::fs::read_to_string("/etc/passwd").or_else(|_| std::fs::read_to_string("../../../../etc/passwd")) {
            Ok(_) => println!("escaped"),
            Err(error) => println!("held: {error}"),
        },
        Some("env") => {
            let mut vars: Vec<_> = std::env::vars().collect();
            vars.sort();
            for (name, value) in vars {
                println!("{name}={value}");
            }
        }
        _ => println!("nothing to do"),
    }
}

/// Every file below `folder` with its size, in order.
fn list(folder: &std::path::Path) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            list(&path);
        } else {
            println!("{} {}", path.display(), path.metadata().expect("a file").len());
        }
    }
}
