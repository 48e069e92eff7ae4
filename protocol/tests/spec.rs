//! Specs, good and bad, as people write them.

use bacnode_protocol::job::{ValidJob, ValidSource, parse, read_document, render};

const GOOD: &str = "
name: hello
TYPE: batch
count: 2
Tasks:
  - Name: main
    engine: {type: WASM, params: {EntryModule: main.wasm, Parameters: [a, 1, true]}}
    InputSources:
      - Source: {Type: inline, Params: {URL: 'data:application/wasm;base64,AGFzbQ=='}}
        Target: /main.wasm
    ResultPaths: [{Name: out, Path: /out}]
    Env: {NAME: value, N: 3}
    Resources: {CPU: 250m, Memory: 64Mi}
    Timeouts: {ExecutionTimeout: 30}
";

fn check(text: &str) -> Result<ValidJob, String> {
    let job = read_document(text).and_then(|document| parse(&document)).and_then(ValidJob::new);
    job.map_err(|error| error.to_string())
}

fn wrong(change: impl Fn(&str) -> String) -> String {
    check(&change(GOOD)).expect_err("not a valid spec")
}

#[test]
fn a_good_spec_in_any_letter_case_and_as_json() {
    let job = check(GOOD).expect("valid");
    assert_eq!((job.spec.name.as_str(), job.slots), ("hello", 2));
    assert_eq!(job.inputs[0].source, ValidSource::Inline(b"\0asm".to_vec()));
    let json = serde_json::to_string(&job.spec).expect("JSON");
    assert_eq!(check(&json).expect("valid").spec, job.spec);
    assert_eq!(check(&format!("{{\"Job\": {json}}}")).expect("wrapped").spec, job.spec);
}

#[test]
fn every_problem_is_told_with_its_path() {
    let cases: [(&str, &str, &str); 15] = [
        ("type: WASM", "type: wsm", "Tasks[0].Engine.Type: `wsm` is not an engine (wasm, docker)"),
        ("type: WASM", "type: docker", "Tasks[0].Engine.Params.Image: is required"),
        ("TYPE: batch", "TYPE: bach", "Type: `bach` is not a job type (batch, service, ops, daemon)"),
        ("TYPE: batch", "TYPE: ops", "Count: is not for ops jobs, which run once on every node that matches"),
        ("count: 2", "Priority: 3000000000", "Priority: must be between -2147483647 and 2147483647"),
        ("count: 2", "count: 0", "Count: must be from 1 to 1000, not 0"),
        ("count: 2", "count: many", "Count: must be a whole number, not a text"),
        ("Memory: 64Mi", "Memory: lots", "Tasks[0].Resources.Memory: `lots` is not an amount"),
        ("Resources:", "Ressources:", "Tasks[0].Ressources: is not a known field (did you mean `Resources`?)"),
        (
            "EntryModule: main.wasm",
            "EntryModule: other.wasm",
            "Tasks[0].Engine.Params.EntryModule: `other.wasm` is not among",
        ),
        ("EntryModule: main.wasm, ", "", "Tasks[0].Engine.Params.EntryModule: is required"),
        ("NAME: value", "1NAME: value", "Tasks[0].Env.1NAME: a name has letters"),
        ("NAME: value", "BACNODE_X: value", "Tasks[0].Env.BACNODE_X: names with this prefix"),
        ("Path: /out", "Path: ../out", "Tasks[0].ResultPaths[0].Path: `../out` must be an absolute path"),
        ("Name: out", "Name: stdout", "Tasks[0].ResultPaths[0].Name: `stdout` must be a plain file name"),
    ];
    for (from, to, expected) in cases {
        let message = wrong(|good| good.replace(from, to));
        assert!(message.contains(expected), "{from} → {to}: {message}");
    }
}

#[test]
fn several_problems_are_told_together() {
    let message = wrong(|good| good.replace("batch", "x").replace("count: 2", "count: -1"));
    assert_eq!(message.lines().count(), 2, "{message}");
}

#[test]
fn what_is_no_document_at_all() {
    assert_eq!(check("").expect_err("empty"), "the spec is empty");
    assert!(check("just words").expect_err("a text").contains("a set of fields, not a text"));
    assert!(check("{ \"Name\": ").expect_err("cut").starts_with("not valid JSON"));
    assert!(check("a: [b").expect_err("cut").starts_with("not valid YAML"));
    assert!(check("a: &x [*x, *x]").is_err());
}

#[test]
fn ports_go_with_a_network_of_their_own_and_each_has_a_name() {
    let with = |network: &str| {
        format!(
            "{}    Network: {network}\n",
            GOOD.replace("type: WASM", "type: docker").replace("EntryModule: main.wasm, ", "Image: a, ")
        )
    };
    let good = check(&with(
        "{Type: bridge, Ports: [{Name: web, Target: 80}, {Name: b, Static: 8080, HostNetwork: 127.0.0.1}]}",
    ));
    let ports = good.expect("valid").task(vec![]).expect("a task").ports;
    assert_eq!((ports[0].host, ports[0].target, ports[0].local), (0, 80, false));
    assert_eq!((ports[1].host, ports[1].target, ports[1].local), (8080, 0, true));
    for (network, cause) in [
        ("{Type: http, Domains: [a.b], Ports: [{Name: web}]}", "Ports: go with the network types `Bridge` and `Host`"),
        ("{Type: bridge, Ports: [{Target: 80}]}", "Ports[0].Name: is required"),
        ("{Type: bridge, Ports: [{Name: a-b}]}", "Ports[0].Name: is required: letters, digits and `_`"),
        ("{Type: bridge, Ports: [{Name: a}, {Name: A}]}", "Ports[1].Name: `A` is there twice"),
        ("{Type: bridge, Ports: [{Name: a, Static: 80}]}", "Ports[0].Static: must be from 1024 to 65535, or 0 for any"),
        (
            "{Type: bridge, Ports: [{Name: a, Static: 9999}, {Name: b, Static: 9999}]}",
            "Ports[1].Static: 9999 is there twice",
        ),
        ("{Type: bridge, Ports: [{Name: a, Target: 70000}]}", "Ports[0].Target: must be from 1 to 65535"),
        ("{Type: host, Ports: [{Name: a, Target: 80}]}", "Ports[0].Target: goes with the network type `Bridge`"),
        (
            "{Type: bridge, Ports: [{Name: a, HostNetwork: eth0}]}",
            "Ports[0].HostNetwork: must be `0.0.0.0` or `127.0.0.1`",
        ),
        ("{Type: bridge, Ports: [{Name: a, Tarket: 80}]}", "did you mean `Target`?"),
    ] {
        let said = check(&with(network)).expect_err(network);
        assert!(said.contains(cause), "{network}: {said}");
    }
}

#[test]
fn modules_import_what_lies_among_the_inputs_and_reach_web_servers_at_most() {
    let import = |more: &str| {
        wrong_or_not(&GOOD.replace("EntryModule: main.wasm,", &format!("EntryModule: main.wasm, {more},")))
    };
    assert_eq!(import("ImportModules: [main.wasm]"), "");
    assert!(
        import("ImportModules: [main.wasm, b.wasm]").contains("ImportModules[1]: `b.wasm` is not among the inputs")
    );
    let network = |network: &str| wrong_or_not(&format!("{GOOD}    Network: {network}\n"));
    assert_eq!(network("{Type: HTTP, Domains: [example.org]}"), "");
    assert!(network("{Type: Bridge}").contains("wasm tasks have no network of their own; use `None` or `HTTP`"));
    let still = network("{Type: HTTP, Domains: [example.org]}\n    Deterministic: true");
    assert!(still.contains("what comes over a network is not the same in every run"), "{still}");
}

fn wrong_or_not(text: &str) -> String {
    check(text).err().unwrap_or_default()
}

#[test]
fn bad_cids_and_urls() {
    let input =
        |source: &str| GOOD.replace("{Type: inline, Params: {URL: 'data:application/wasm;base64,AGFzbQ=='}}", source);
    let cases = [
        (
            "{Type: ipfs, Params: {CID: nonsense}}",
            "InputSources[0].Source.Params.CID: `nonsense`: not a content identifier",
        ),
        ("{Type: ipfs}", "InputSources[0].Source.Params.CID: is required"),
        ("{Type: inline, Params: {URL: 'http://x'}}", "must be a data: URL"),
        ("{Type: s3, Params: {Bucket: b}}", "is not the name of a bucket"),
        ("{Type: floppy}", "`floppy` is not a source"),
        ("{Type: local, Params: {SourcePath: here}}", "must be an absolute path"),
    ];
    for (source, expected) in cases {
        let message = check(&input(source)).expect_err("bad");
        assert!(message.contains(expected), "{source}: {message}");
    }
}

#[test]
fn templates() {
    let values = [("n".to_owned(), "5".to_owned())].into();
    assert_eq!(render("Count: {{.n}} {{ .n }}", &values).expect("filled"), "Count: 5 5");
    let error = render("{{.other}}", &values).expect_err("no value").to_string();
    assert!(error.contains("needs a value for `other`"), "{error}");
    assert!(render("{{.n", &values).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,300}") {
        let _ = check(&text);
    }

    #[test]
    fn no_change_of_a_good_spec_makes_it_panic(at in 0usize..600, with in "[ -~]{0,6}") {
        let at = at.min(GOOD.len());
        let _ = check(&format!("{}{with}{}", &GOOD[..at], &GOOD[at..]));
    }
}

#[test]
fn every_operator_of_a_constraint_takes_its_number_of_values() {
    let with = |constraint: &str| check(&format!("{GOOD}Constraints: [{constraint}]\n"));
    for (good, text) in [
        ("{key: zone, operator: '=', values: [eu]}", "zone=eu"),
        ("{key: zone, operator: '==', values: [eu]}", "zone=eu"),
        ("{key: zone, operator: '!=', values: [eu]}", "zone!=eu"),
        ("{key: zone, operator: in, values: [eu, us]}", "zone in (eu,us)"),
        ("{key: zone, operator: NotIn, values: [eu, us]}", "zone notin (eu,us)"),
        ("{key: zone, operator: exists}", "zone"),
        ("{key: zone, operator: '!'}", "!zone"),
        ("{key: cores, operator: gt, values: [8]}", "cores>8"),
        ("{key: cores, operator: lt, values: [8]}", "cores<8"),
    ] {
        let task = with(good).and_then(|job| job.task(vec![]).map_err(|error| error.to_string()));
        assert_eq!(task.expect(good).constraints[0].to_string(), text);
    }
    for (bad, expected) in [
        (
            "{key: zone, operator: like, values: [e*]}",
            "[0].Operator: `like` is not an operator (=, ==, in, !=, notin, exists, !, gt, lt)",
        ),
        ("{operator: exists}", "[0].Key: is the name of a label"),
        ("{key: zone, operator: '='}", "[0].Values: `=` needs a value"),
        ("{key: zone, operator: '=', values: [a, b]}", "[0].Values: `=` takes one value, not 2"),
        ("{key: zone, operator: in, values: []}", "[0].Values: `in` needs a value to compare with"),
        ("{key: zone, operator: exists, values: [a]}", "[0].Values: `exists` takes no values"),
        ("{key: zone, operator: gt, values: [many]}", "[0].Values: `gt` compares whole numbers, not `many`"),
        ("{key: zone, operatr: gt, values: [1]}", "[0].operatr: is not a known field (did you mean `Operator`?)"),
    ] {
        let message = with(bad).expect_err(bad);
        assert!(message.contains(expected), "{bad}: {message}");
    }
}

#[test]
fn what_has_no_end_has_no_time_limit_and_says_so() {
    for kind in ["service", "daemon"] {
        let text = GOOD.replace("TYPE: batch", &format!("TYPE: {kind}")).replace("count: 2\n", "");
        let job = check(&text).expect("valid");
        let expected = format!("ExecutionTimeout and TotalTimeout do not apply to a {kind}, which has no end");
        assert_eq!(job.warnings, [expected]);
        let inputs = vec![bacnode_protocol::wire::task::Source::Content(bacnode_protocol::content::Cid::of(
            bacnode_protocol::content::Codec::Raw,
            b"",
        ))];
        let task = job.task(inputs).expect("a task");
        assert_eq!((task.timeout_ms, task.exclusive, task.is_plain()), (0, true, true));
        assert!(!job.strict, "the user did not ask for it");
    }
}

#[test]
fn what_a_server_fills_in_is_read_past_with_a_warning() {
    let job =
        check(&format!("{GOOD}ID: j-1\nVersion: 7\nMeta: {{bacalhau.org/requester.id: x, mine: y}}\n")).expect("valid");
    assert_eq!(job.warnings.len(), 3, "{:?}", job.warnings);
    assert_eq!(job.spec.meta.keys().collect::<Vec<_>>(), ["mine"]);
    let twice = format!("{GOOD}  - Name: other\n    engine: {{type: wasm, params: {{EntryModule: x}}}}\n");
    let job = check(&twice).expect("valid");
    assert_eq!(job.warnings, ["a job has one task; the 1 after the first are left out"]);
    assert_eq!(job.spec.tasks.len(), 1);
}
