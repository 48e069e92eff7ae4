//! Programs that others wrote and compiled to WASI, each doing a real job over a network: esbuild and Yosys. CPython is
//! among the examples.

use std::path::{Path, PathBuf};

use bacnode_tests::Swarm;
use bacnode_tests::outside::program;

/// Where a job is handed in that another node runs, and a folder for its parts.
fn network() -> (Swarm, PathBuf) {
    let mut swarm = Swarm::new(1);
    swarm.add("asker", &["--no-compute"]);
    swarm.everybody_knows(3);
    let folder = swarm.dir().join("work");
    std::fs::create_dir_all(&folder).expect("a folder");
    (swarm, folder)
}

/// Runs `program` elsewhere with `folder` at `/work`, and gives where its result is.
fn run(swarm: &Swarm, program: &Path, folder: &Path, more: &[&str], args: &[&str]) -> PathBuf {
    let (input, to) = (format!("{}:/work", folder.display()), swarm.dir().join("result"));
    let (program, to_text) = (program.to_string_lossy(), to.to_string_lossy());
    let mut all = vec!["wasm", "run", "--memory", "1Gb", "-i", &input, "--result", "out:/out", "--download", &to_text];
    all.extend(more);
    all.extend([&*program, "--"]);
    all.extend(args);
    swarm.nodes[1].run(&all).ok();
    to
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn esbuild_bundles_typescript() {
    let Some(esbuild) = program("esbuild.wasm") else { return };
    let (swarm, folder) = network();
    std::fs::write(folder.join("a.ts"), "import { x } from './b'; console.log(x as number)").expect("written");
    std::fs::write(folder.join("b.ts"), "export const x: number = 6 * 7").expect("written");
    let args = ["/work/a.ts", "--bundle", "--minify", "--outfile=/out/a.js"];
    let result = run(&swarm, &esbuild, &folder, &[], &args);
    assert!(read(&result.join("out/a.js")).contains("console.log("), "{}", read(&result.join("out/a.js")));
    assert!(!read(&result.join("out/a.js")).contains("import"));
}

#[test]
fn yosys_makes_gates_of_a_counter() {
    let (Some(yosys), Some(share)) = (program("yosys.wasm"), program("yosys-share")) else { return };
    let (swarm, folder) = network();
    let counter = "\
module counter(input clk, input rst, output reg [3:0] q);
  always @(posedge clk) if (rst) q <= 0; else q <= q + 1;
endmodule
";
    std::fs::write(folder.join("counter.v"), counter).expect("written");
    let share = format!("{}:/share", share.display());
    let script = "read_verilog /work/counter.v; synth -top counter; write_json /out/counter.json";
    let result = run(&swarm, &yosys, &folder, &["-i", &share], &["-q", "-p", script]);
    let netlist: serde_json::Value = serde_json::from_str(&read(&result.join("out/counter.json"))).expect("JSON");
    let cells = netlist["modules"]["counter"]["cells"].as_object().expect("cells");
    let flip_flops =
        cells.values().filter(|cell| cell["type"].as_str().is_some_and(|kind| kind.contains("DFF"))).count();
    assert_eq!(flip_flops, 4, "{cells:#?}");
}
