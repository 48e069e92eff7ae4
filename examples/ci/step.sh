#!/bin/sh
# A step of a CI pipeline: runs a folder's tests as a job on the network, and fails when they do. The log goes where the step's
# own does, the files that the job leaves in `report/` come back.
#
#   examples/ci/step.sh FOLDER IMAGE COMMAND…        # for example: step.sh . rust:1 cargo test
#
# Which node: BACNODE_API (127.0.0.1:1234 if it is not set). How long: BACNODE_CI_TIMEOUT seconds (1800).
set -eu

if [ $# -lt 3 ]; then
    echo "usage: $0 FOLDER IMAGE COMMAND…" >&2
    exit 2
fi
folder=$1
image=$2
shift 2
seconds=${BACNODE_CI_TIMEOUT:-1800}
command=$*

# The folder is read-only in the container: the tests get a copy. What the command ends with is what this step ends with:
# `docker run` fails when the program does.
exec bacnode docker run --name ci --timeout "$seconds" --wait-timeout "$((seconds + 300))" --follow \
    -i "$folder:/source" --result report:/report --disk 1Gb --download "${BACNODE_CI_REPORT:-report}" \
    "$image" -- sh -c "cp -r /source /report/.work && cd /report/.work && { $command; code=\$?; cd / && rm -rf /report/.work; exit \$code; }"
