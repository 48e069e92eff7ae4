//! Data that does not leave its node: who is trusted computes on it, nobody else gets a byte, and what comes of it may wait
//! for the operator's word.

use bacnode_tests::{Node, Ran, Swarm, eventually, example};

const TABLE: &str = "weather/weather.csv";

/// A friend, a stranger and the holder of some data, in this order, and the data's root.
fn swarm(rules: &[&str]) -> (Swarm, String) {
    let mut swarm = Swarm::empty(&[]);
    let friend = swarm.add("friend", &["--no-docker"]).identity.peer_id.clone();
    swarm.add("stranger", &["--no-docker"]);
    swarm.add("holder", &[&["--no-docker", "--data-peer", &friend], rules].concat());
    swarm.everybody_knows(4);
    let folder = swarm.dir().join("data");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::copy(example(TABLE), folder.join("weather.csv")).expect("copied");
    let added = swarm.nodes[2].run(&["content", "add", "--private", &folder.to_string_lossy(), "--output", "json"]);
    let root = added.ok().json()["Cid"].as_str().expect("a CID").to_owned();
    (swarm, root)
}

fn compute(node: &Node, root: &str, options: &[&str]) -> Ran {
    compute_with(node, root, options, "100")
}

fn compute_with(node: &Node, root: &str, options: &[&str], resamples: &str) -> Ran {
    let (module, input) = (example("weather/weather.wasm"), format!("ipfs://{root}:/data"));
    let run = ["wasm", "run", "-i", &input, "--result", "outputs:/outputs"];
    let program = [module.as_str(), "--", "/data/weather.csv", "/outputs", resamples];
    node.run(&[&run, options, &program].concat())
}

/// What a node says it keeps.
fn kept(node: &Node) -> String {
    node.run(&["content", "ls"]).ok().stdout
}

#[test]
fn private_data_is_computed_on_by_those_who_are_trusted_and_had_by_nobody() {
    let (swarm, root) = swarm(&[]);
    let [friend, stranger, holder] = &swarm.nodes[..] else { panic!("three nodes") };
    assert!(kept(holder).contains("user (private)"), "{}", kept(holder));

    // Its own user, and a friend: the job runs where the data is, and only its result comes home.
    let own = compute_with(holder, &root, &[], "150").ok().text().to_owned();
    holder.run(&["content", "get", &own, "-o", &swarm.dir().join("own").to_string_lossy()]).ok();
    compute(holder, &root, &["--count", "2"]).ok();
    let done = compute(friend, &root, &["--name", "ours"]).ok();
    let story = friend.run(&["job", "describe", "ours"]).ok().stdout;
    assert!(story.contains("holder runs it"), "{story}");
    friend.run(&["content", "get", done.text(), "-o", &swarm.dir().join("result").to_string_lossy()]).ok();
    assert!(swarm.dir().join("result/outputs/monthly.csv").exists());

    // Nobody finds it, whole or in part, not even the friend.
    let file =
        holder.run(&["content", "ls", &root, "--output", "json"]).ok().json()[0]["Cid"].as_str().map(str::to_owned);
    let file = file.expect("the table's CID");
    for node in [stranger, friend] {
        for cid in [&root, &file, &own] {
            let got = node.run(&["content", "get", cid, "-o", &swarm.dir().join("stolen").to_string_lossy()]);
            assert_eq!(got.code, 4, "{got:#?}");
            assert_eq!(node.run(&["content", "providers", cid]).code, 4);
        }
    }

    // Nor what a job printed that read it, though any node tells of any job.
    let jobs = holder.run(&["job", "list", "--output", "json"]).ok().json();
    let first = jobs.as_array().and_then(|jobs| jobs.last()?["ID"].as_str()).expect("the first job").to_owned();
    assert!(holder.run(&["job", "logs", &first]).ok().stdout.contains("resamples"));
    for node in [stranger, friend] {
        assert_eq!(node.job(&first).job.state.state_type, "Completed");
        assert_eq!(node.run(&["job", "logs", &first]).ok().stdout, "");
    }

    // A job of a stranger's is told what it would be told if the data were nowhere.
    for cid in [&root, &file] {
        let refused = compute(stranger, cid, &["--timeout", "20"]);
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(refused.stderr.contains("no peer is known to have it"), "{}", refused.stderr);
    }
    assert!(!kept(stranger).contains(&root) && !kept(friend).contains(&root));

    // What is there for anybody to have cannot be called private afterwards.
    holder.run(&["content", "add", &example(TABLE)]).ok();
    let again = holder.run(&["content", "add", "--private", &example(TABLE)]);
    assert_eq!(again.code, 1, "{again:#?}");
    assert!(again.stderr.contains("here already for anybody to have") && again.stderr.contains("hint: "), "{again:#?}");
    holder.run(&["content", "unpin", &root]).ok();
    assert!(!kept(holder).contains(&root));
}

#[test]
fn what_comes_of_private_data_waits_for_the_operator() {
    let (mut swarm, root) = swarm(&["--withhold"]);
    let submit = |swarm: &Swarm| compute(&swarm.nodes[0], &root, &["--no-wait", "--id-only"]).ok().text().to_owned();
    let waiting = |swarm: &Swarm| swarm.nodes[2].run(&["job", "release", "--output", "json"]).ok().json();
    let withheld = |swarm: &Swarm, job: &str| {
        eventually("a result that waits", || {
            let all = waiting(swarm);
            all.as_array()?.iter().find(|one| one["JobID"] == job).cloned()
        })
    };
    let first = submit(&swarm);
    let result = withheld(&swarm, &first)["CID"].as_str().expect("a CID").to_owned();
    let [friend, _, holder] = &swarm.nodes[..] else { panic!("three nodes") };
    let table = holder.run(&["job", "release"]).ok().stdout;
    assert!(table.contains(&first) && table.contains("friend"), "{table}");

    // Its owner learns that it waits, and nothing of what it says; the operator can look at it.
    let story = friend.run(&["job", "describe", &first]).ok().stdout;
    assert!(story.contains("holder keeps the result until its operator lets it out"), "{story}");
    assert_eq!(friend.run(&["job", "logs", &first]).ok().text(), "");
    let stolen = swarm.dir().join("stolen").to_string_lossy().into_owned();
    assert_eq!(friend.run(&["content", "get", &result, "-o", &stolen]).code, 4);
    holder.run(&["content", "get", &result, "-o", &swarm.dir().join("seen").to_string_lossy()]).ok();
    assert!(swarm.dir().join("seen/outputs/monthly.csv").exists());

    // It waits through a crash, and one word lets it out.
    swarm.nodes[2].kill();
    swarm.nodes[2].restart();
    assert_eq!(withheld(&swarm, &first)["CID"], result.as_str());
    swarm.nodes[2].run(&["job", "release", &first]).ok();
    swarm.nodes[0].await_job(&first, "Completed");
    assert_eq!(swarm.nodes[0].result_of(&first), result);
    swarm.nodes[0].run(&["job", "get", &first, "-o", &swarm.dir().join("got").to_string_lossy()]).ok();
    assert!(swarm.dir().join("got/outputs/monthly.csv").exists());

    // Or it stays.
    let second = submit(&swarm);
    withheld(&swarm, &second);
    swarm.nodes[2].run(&["job", "release", &second, "--refuse"]).ok();
    let failed = swarm.nodes[0].await_job(&second, "Failed");
    assert!(failed.job.state.message.contains("keeps the result back"), "{}", failed.job.state.message);
    let nothing = swarm.nodes[2].run(&["job", "release", &second]);
    assert_eq!(nothing.code, 4, "{nothing:#?}");
    assert!(waiting(&swarm).as_array().is_some_and(Vec::is_empty));

    // Nor is there another way out.
    let sent = compute(&swarm.nodes[0], &root, &["-p", "s3://bucket/key,opt=endpoint=http://127.0.0.1:9"]);
    assert_eq!(sent.code, 1, "{sent:#?}");
    assert!(sent.stderr.contains("rule: data-peer"), "{}", sent.stderr);
}
