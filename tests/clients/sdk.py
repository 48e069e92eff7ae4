"""Bacalhau's own Python client, as it is on PyPI, against a node: everything that it can do.

BACALHAU_API_HOST and BACALHAU_API_PORT say which node, the arguments a spec of a job and of one that does not end.
"""

import json
import sys
import time

from bacalhau_apiclient.models.api_put_job_request import ApiPutJobRequest
from bacalhau_sdk.jobs import Jobs

jobs = Jobs()


def submit(path):
    with open(path) as spec:
        answer = jobs.put(ApiPutJobRequest(job=json.load(spec)))
    assert answer.job_id.startswith("j-"), answer
    assert answer.evaluation_id, answer
    return answer.job_id


def state(job):
    return jobs.get(job).job.state.state_type


def wait(job, wanted):
    for _ in range(300):
        if state(job) == wanted:
            return
        time.sleep(0.1)
    raise AssertionError(f"{job} is {state(job)}, not {wanted}")


job = submit(sys.argv[1])
wait(job, "Completed")

described = jobs.get(job, include="executions,history", limit=10)
assert described.job.id == job
assert described.job.type == "batch" and described.job.count == 2
assert described.job.tasks[0].engine.type == "wasm"
assert len(described.executions.items) == 2
assert described.history.items[0].event.message == "submitted"

executions = jobs.executions(job, limit=1)
assert len(executions.items) == 1 and executions.next_token
rest = jobs.executions(job, limit=5, next_token=executions.next_token)
assert len(rest.items) == 1 and not rest.next_token
both = {execution.id for execution in executions.items + rest.items}
assert len(both) == 2, both
assert executions.items[0].compute_state.state_type == 9
assert "hello" in executions.items[0].run_output.stdout.lower()

history = jobs.history(job)
assert history.items and all(item.type == "ExecutionLevel" for item in history.items)
one = jobs.history(job, execution_id=executions.items[0].id)
assert 0 < len(one.items) < len(history.items)
assert jobs.history(job, node_id=executions.items[0].node_id).items

results = jobs.results(job)
assert [result.type for result in results.items] == ["ipfs", "ipfs"]
assert all(result.params["CID"].startswith("baf") for result in results.items)

again = submit(sys.argv[1])
assert again != job, "each submission is a run of its own"
wait(again, "Completed")
listed = jobs.list(limit=1, reverse=True)
assert [item.id for item in listed.items] == [again] and listed.next_token
older = jobs.list(limit=5, reverse=True, next_token=listed.next_token)
assert job in [item.id for item in older.items]

service = submit(sys.argv[2])
wait(service, "Running")
stopped = jobs.stop(service, reason="enough of it")
assert stopped.evaluation_id
wait(service, "Stopped")
assert jobs.get(service).job.state.message == "enough of it"
print("the client is content")
