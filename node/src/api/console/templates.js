// Jobs to start from: the shipped examples whose programs come with this page, and frames for one's own.

const frame = ({ name, type = "batch", count = 1, labels = "", task }) => `Name: ${name}
Type: ${type}
${["batch", "service"].includes(type) ? `Count: ${count}\n` : ""}${labels}Tasks:
  - Name: main
${task}`;

/** `files` are added to the node's content when the template is used; `text` has their CIDs by name. */
export const TEMPLATES = [
  {
    id: "hello",
    name: "Hello",
    engine: "wasm",
    about: "The smallest job: says hello.",
    files: ["hello.wasm"],
    text: (cid) =>
      frame({
        name: "hello",
        task: `    Engine: {Type: wasm, Params: {EntryModule: /hello.wasm, Parameters: [network]}}
    InputSources:
      - {Source: {Type: ipfs, Params: {CID: ${cid["hello.wasm"]}}}, Target: /hello.wasm}
    Resources: {CPU: 100m, Memory: 64Mb}
`,
      }),
  },
  {
    id: "weather",
    name: "Weather",
    engine: "wasm",
    about: "Four years of daily weather of two cities become monthly means: a table.",
    files: ["weather.wasm", "weather.csv"],
    text: (cid) =>
      frame({
        name: "weather",
        task: `    Engine: {Type: wasm, Params: {EntryModule: /weather.wasm, Parameters: [/data/weather.csv, /outputs, "2000"]}}
    InputSources:
      - {Source: {Type: ipfs, Params: {CID: ${cid["weather.wasm"]}}}, Target: /weather.wasm}
      - {Source: {Type: ipfs, Params: {CID: ${cid["weather.csv"]}}}, Target: /data/weather.csv}
    ResultPaths: [{Name: outputs, Path: /outputs}]
    Resources: {CPU: 500m, Memory: 128Mb}
    Deterministic: true
`,
      }),
  },
  {
    id: "penguins",
    name: "Penguins",
    engine: "wasm",
    about: "A small model goes to the data: four runs share the rows.",
    files: ["classify.wasm", "penguins.csv", "model.txt"],
    text: (cid) =>
      frame({
        name: "penguins",
        count: 4,
        task: `    Engine: {Type: wasm, Params: {EntryModule: /classify.wasm, Parameters: [/data/penguins.csv, /data/model.txt, /outputs]}}
    InputSources:
      - {Source: {Type: ipfs, Params: {CID: ${cid["classify.wasm"]}}}, Target: /classify.wasm}
      - {Source: {Type: ipfs, Params: {CID: ${cid["penguins.csv"]}}}, Target: /data/penguins.csv}
      - {Source: {Type: ipfs, Params: {CID: ${cid["model.txt"]}}}, Target: /data/model.txt}
    ResultPaths: [{Name: outputs, Path: /outputs}]
    Resources: {CPU: 200m, Memory: 64Mb}
    Timeouts: {ExecutionTimeout: 60}
`,
      }),
  },
  {
    id: "container",
    name: "A container",
    engine: "docker",
    about: "A command in an image, with a folder for what it leaves.",
    files: [],
    text: () =>
      frame({
        name: "container",
        task: `    Engine:
      Type: docker
      Params:
        Image: debian:12-slim
        Entrypoint: [sh, -c]
        Parameters: ["uname -a > /out/machine"]
    ResultPaths: [{Name: out, Path: /out}]
    Resources: {CPU: 500m, Memory: 128Mb}
`,
      }),
  },
  {
    id: "service",
    name: "A service",
    engine: "docker",
    about: "Kept running; where its node goes down, another runs it.",
    files: [],
    text: () =>
      frame({
        name: "web",
        type: "service",
        task: `    Engine:
      Type: docker
      Params:
        Image: busybox:1
        Parameters: [sh, -c, "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"]
    Network: {Type: bridge, Ports: [{Name: http, Target: 8080}]}
    Resources: {CPU: 50m, Memory: 32Mb}
`,
      }),
  },
  {
    id: "everywhere",
    name: "On every node",
    engine: "docker",
    about: "Once on each node that matches; says which failed, and why.",
    files: [],
    text: () =>
      frame({
        name: "disks",
        type: "ops",
        labels: "Constraints:\n  - {Key: Architecture, Operator: in, Values: [amd64, arm64]}\n",
        task: `    Engine: {Type: docker, Params: {Image: debian:12-slim, Parameters: [df, -h]}}
    Resources: {CPU: 100m, Memory: 64Mb}
`,
      }),
  },
];
