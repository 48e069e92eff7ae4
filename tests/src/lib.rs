//! bacnode as its users meet it: real processes, each with a data folder and ports of its own.
//!
//! A [`Swarm`] starts a bootstrap peer and nodes, runs the command line against them and takes everything down with it. A
//! node's process ends when the test's does, because its stdin does.

pub mod docker;
pub mod hosts;
pub mod outside;
pub mod s3;
mod swarm;
pub mod wire;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bacnode_protocol::api::{GetJobResponse, NodeIdentity};
use serde_json::Value;

pub use self::swarm::{Swarm, known};

/// How long anything may take that should be quick.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A program of this workspace: named by the environment, or beside the test's own folder.
///
/// # Panics
/// If it is not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("BACNODE_BIN_DIR").map(PathBuf::from);
    // A test lies in `deps`, one folder below; the benchmark lies beside them.
    let own = std::env::current_exe().expect("this program has a path");
    let folder =
        folder.or_else(|| own.ancestors().skip(1).find(|dir| dir.join("bacnode").exists()).map(Path::to_owned));
    let path = folder.unwrap_or_default().join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --all-features`", path.display());
    path
}

/// A file that comes with the product.
///
/// # Panics
/// If there is no current folder.
#[must_use]
pub fn example(path: &str) -> String {
    // Tests run in their package's folder, the benchmark in the workspace's.
    let folder = if Path::new("examples").is_dir() { "examples" } else { "../examples" };
    let path = std::path::absolute(Path::new(folder).join(path)).expect("there is a current folder");
    path.to_string_lossy().into_owned()
}

/// Waits until `ready` gives something.
///
/// # Panics
/// If it does not in time.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    eventually_ok(what, || ready().ok_or(""))
}

/// Waits until `ready` succeeds.
///
/// # Panics
/// If it does not in time, with the last error.
pub fn eventually_ok<T, E: std::fmt::Display>(what: &str, mut ready: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ready() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "{what} does not happen\n{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a command printed, and its exit code.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// What it said on stdout.
    pub stdout: String,
    /// What it said on stderr.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// The run, which must have gone well.
    ///
    /// # Panics
    /// If it did not.
    #[expect(clippy::return_self_not_must_use, reason = "that it went well may be all one wants to know")]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// Its stdout as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Its stdout without the line end.
    #[must_use]
    pub fn text(&self) -> &str {
        self.stdout.trim_end()
    }
}

/// Runs the command line without any node.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn bacnode(args: &[&str]) -> Ran {
    clean(Command::new(program("bacnode")).args(args)).output().expect("bacnode runs").into()
}

fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BACNODE_") && name != "BACNODE_BIN_DIR") {
        command.env_remove(name);
    }
    command.stdin(Stdio::null())
}

/// One node's process.
#[derive(Debug)]
pub struct Node {
    /// Its label.
    pub name: String,
    /// Who and where it is.
    pub identity: NodeIdentity,
    child: Option<Child>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: PathBuf,
    program: PathBuf,
    /// The machine that it runs on, if that is not this one.
    host: Option<String>,
}

impl Node {
    fn start(&mut self) {
        if let Err(status) = self.try_start() {
            panic!("{} ended with {status}: {}", self.name, self.log());
        }
    }

    /// Starts it, or says how it ended before it was up.
    fn try_start(&mut self) -> Result<(), std::process::ExitStatus> {
        let ready = self.dir.join(format!("{}.json", self.name));
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.log_path()).expect("a log");
        let mut command = self.command(&self.program);
        clean(&mut command).args(&self.args).arg("--ready-file").arg(&ready).arg("--until-eof");
        command.envs(self.env.iter().cloned()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("a node starts");
        let what = format!("the start of {}", self.name);
        self.identity = eventually(&what, || {
            if let Some(status) = child.try_wait().expect("a child") {
                return Some(Err(status));
            }
            serde_json::from_slice(&std::fs::read(&ready).ok()?).ok().map(Ok)
        })?;
        self.child = Some(child);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Whether its process was started, and not killed since.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Its process.
    ///
    /// # Panics
    /// If it is not up.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a node that is up").id()
    }

    /// kill -9.
    ///
    /// # Panics
    /// If it is not up.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a node that is up");
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
    }

    /// SIGTERM, and how long it took to end.
    ///
    /// # Panics
    /// If it is not up, or does not end well.
    pub fn terminate(&mut self) -> Duration {
        let mut child = self.child.take().expect("a node that is up");
        let started = Instant::now();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is told to end");
        let status = child.wait().expect("it ends");
        assert!(status.success(), "{status}: {}", self.log());
        started.elapsed()
    }

    /// Starts it again with something more in its environment, for this life only. Whether it came up.
    pub fn restart_with(&mut self, name: &str, value: &str) -> bool {
        self.env.push((name.to_owned(), value.to_owned()));
        let up = self.try_start().is_ok();
        self.env.pop();
        up
    }

    /// Waits for it to end by itself, at most so long; whether it did.
    ///
    /// # Panics
    /// If it is not up.
    pub fn ended_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let child = self.child.as_mut().expect("a node that is up");
        while Instant::now() < deadline {
            if child.try_wait().expect("a child").is_some() {
                self.child = None;
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// A program on the machine of this node.
    fn command(&self, program: &Path) -> Command {
        let Some(host) = &self.host else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host]).arg(program);
        command
    }

    /// Starts it again without one of its flags and what follows that.
    pub fn restart_without(&mut self, flag: &str) {
        if let Some(at) = self.args.iter().position(|arg| arg == flag) {
            self.args.drain(at..at + 2);
        }
        self.start();
    }

    /// Starts it again, in the same data folder.
    pub fn restart(&mut self) {
        self.start();
    }

    /// Runs the command line against this node.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command(&program("bacnode"));
        clean(&mut command).args(args).env("BACNODE_API", &self.identity.api);
        command.output().expect("bacnode runs").into()
    }

    /// Starts the command line against this node, and does not wait for it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(&program("bacnode"));
        clean(&mut command).args(args).env("BACNODE_API", &self.identity.api);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bacnode runs")
    }

    /// A job as the API shows it, with its attempts.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn job(&self, id: &str) -> GetJobResponse {
        let described = self.run(&["job", "describe", id, "--output", "json"]).ok();
        serde_json::from_str(&described.stdout).expect("a job")
    }

    /// Waits for a job to end, in this state.
    ///
    /// # Panics
    /// If it does not, or ends otherwise.
    pub fn await_job(&self, id: &str, state: &str) -> GetJobResponse {
        let job =
            eventually(&format!("the end of {id}"), || Some(self.job(id)).filter(|answer| answer.job.is_terminal()));
        assert_eq!(job.job.state.state_type, state, "{:#?}", self.run(&["job", "describe", id]));
        job
    }

    /// The CID of a job's only result.
    ///
    /// # Panics
    /// If there is none, or several.
    #[must_use]
    pub fn result_of(&self, id: &str) -> String {
        let job = self.job(id);
        let executions = job.executions.expect("executions").items;
        let done: Vec<_> = executions.iter().filter(|execution| execution.compute_state.state_type == 9).collect();
        assert_eq!(done.len(), 1, "{:#?}", self.run(&["job", "describe", id]));
        done[0].published_result.params["CID"].as_str().expect("a CID").to_owned()
    }

    /// The node that runs a job now.
    #[must_use]
    pub fn runner_of(&self, id: &str) -> String {
        eventually("a run", || {
            let executions = self.job(id).executions?.items;
            executions.iter().find(|execution| execution.compute_state.state_type == 6).map(|e| e.node_id.clone())
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            // What the node said is half of what one needs to know.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("--- {}\n{}\n", self.name, self.log()).as_bytes(),
            );
        }
    }
}

/// The address of a web server that answers everything with one word.
///
/// # Panics
/// If it cannot listen.
#[must_use]
pub fn web_server() -> std::net::SocketAddr {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().expect("a stream")).lines().map_while(Result::ok);
            let _ = lines.take_while(|line| !line.is_empty()).count();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n");
        }
    });
    address
}
