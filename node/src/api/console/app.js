// The console of a node. Plain modules, as they are read here; see "The console" in node/README.md for its rules.

import { live } from "./live.js";
import { start as startRouter } from "./router.js";
import { start as startShell } from "./shell.js";
import content from "./content.js";
import folder from "./folder.js";
import job from "./job.js";
import jobs from "./jobs.js";
import network from "./network.js";
import node from "./node.js";
import nodes from "./nodes.js";
import own from "./self.js";
import submit from "./submit.js";

live.start();
await startShell();
startRouter([
  [/^\/network$/, network],
  [/^\/jobs$/, jobs],
  [/^\/jobs\/new$/, submit],
  [/^\/jobs\/([^/]+)$/, job],
  [/^\/nodes$/, nodes],
  [/^\/nodes\/([^/]+)$/, node],
  [/^\/content$/, content],
  [/^\/content\/([^/]+)$/, folder],
  [/^\/self$/, own],
]);
