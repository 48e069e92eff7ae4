//! Programs that others wrote, each doing its part of a real job: esbuild and Yosys, compiled to WASI, and nginx as a server
//! of inputs. CPython and PostgreSQL are among the examples.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use bacnode_tests::outside::program;
use bacnode_tests::{Swarm, eventually, example};

/// Where a job is handed in that another node runs, and a folder for its parts.
fn network() -> (Swarm, PathBuf) {
    let mut swarm = Swarm::new(1);
    swarm.add("asker", &["--no-compute"]);
    swarm.everybody_knows(3);
    let folder = swarm.dir().join("work");
    std::fs::create_dir_all(&folder).expect("a folder");
    (swarm, folder)
}

/// Runs `program` elsewhere with `folder` at `/source`, and gives where its result is.
fn run(swarm: &Swarm, program: &Path, folder: &Path, more: &[&str], args: &[&str]) -> PathBuf {
    let (input, to) = (format!("{}:/source", folder.display()), swarm.dir().join("result"));
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
    let args = ["/source/a.ts", "--bundle", "--minify", "--outfile=/out/a.js"];
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
    let script = "read_verilog /source/counter.v; synth -top counter; write_json /out/counter.json";
    let result = run(&swarm, &yosys, &folder, &["-i", &share], &["-q", "-p", script]);
    let netlist: serde_json::Value = serde_json::from_str(&read(&result.join("out/counter.json"))).expect("JSON");
    let cells = netlist["modules"]["counter"]["cells"].as_object().expect("cells");
    let flip_flops =
        cells.values().filter(|cell| cell["type"].as_str().is_some_and(|kind| kind.contains("DFF"))).count();
    assert_eq!(flip_flops, 4, "{cells:#?}");
}

/// An nginx with a folder of its own.
struct Nginx {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Nginx {
    /// None, loudly, where there is no nginx.
    #[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
    fn start(folder: PathBuf) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].map(PathBuf::from);
        let Some(program) = program.into_iter().find(|path| path.exists()) else {
            eprintln!("NOT RUN: there is no nginx; `make test` installs it where it can");
            return None;
        };
        std::fs::create_dir_all(folder.join("www")).expect("a folder");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let mut this = Self { program, folder, port, child: None };
        let dir = this.folder.display();
        let paths =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {dir}/{kind};"));
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let settings = format!(
            "{user} daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log; events {{}}
             http {{ access_log {dir}/access.log; {}
             server {{ listen 127.0.0.1:{port}; root {dir}/www; location /slow/ {{ limit_rate 8m; }} }} }}",
            paths.join(" ")
        );
        std::fs::write(this.folder.join("nginx.conf"), settings).expect("written");
        this.go();
        Some(this)
    }

    fn go(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(&self.folder).arg("-c").arg(self.folder.join("nginx.conf"));
        command.arg("-e").arg(self.folder.join("error.log"));
        self.child = Some(command.spawn().expect("nginx starts"));
        eventually("nginx", || std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Ends it at once, whoever is being served.
    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = child.wait();
    }

    /// The answers so far, by status, to requests for this file.
    fn answers(&self, file: &str) -> Vec<String> {
        let log = read(&self.folder.join("access.log"));
        let of_file = log.lines().filter(|line| line.contains(&format!("GET /{file}")));
        of_file.filter_map(|line| Some(line.split("\" ").nth(1)?.split(' ').next()?.to_owned())).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn nginx_goes_down_and_serves_the_rest_of_an_input_when_it_is_back() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("node", &["--web", "any", "--no-docker"]);
    let Some(mut nginx) = Nginx::start(swarm.dir().join("nginx")) else { return };
    let bytes: Vec<u8> = (0..4_000_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::create_dir_all(nginx.folder.join("www/slow")).expect("a folder");
    std::fs::write(nginx.folder.join("www/slow/data.bin"), &bytes).expect("written");
    let input = format!("http://127.0.0.1:{}/slow/data.bin:/inputs", nginx.port);
    let hello = example("hello/hello.wasm");
    let submit = ["wasm", "run", "-i", &input, "--no-wait", "--id-only", &hello];
    let first = swarm.nodes[0].run(&submit).ok().text().to_owned();
    // It takes two seconds; this is in the middle.
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    nginx.stop();
    std::thread::sleep(std::time::Duration::from_millis(300));
    nginx.go();
    swarm.nodes[0].await_job(&first, "Completed");
    // It does not log the answer that it did not finish.
    assert_eq!(nginx.answers("slow/data.bin"), ["206"]);
    let again = swarm.nodes[0].run(&submit).ok().text().to_owned();
    swarm.nodes[0].await_job(&again, "Completed");
    assert_eq!(nginx.answers("slow/data.bin"), ["206", "304"]);
}
