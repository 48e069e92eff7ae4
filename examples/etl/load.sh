#!/bin/sh
# Loads the table that the job made into PostgreSQL: an hour that is there already is replaced. Where the database is, the
# usual variables say (PGHOST, PGDATABASE, PGUSER …).
set -eu

table=${1:?usage: load.sh HOURS.csv}
exec psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 <<SQL
BEGIN;
CREATE TABLE IF NOT EXISTS hours (hour timestamp PRIMARY KEY, requests bigint, bytes bigint, errors bigint);
CREATE TEMP TABLE coming (LIKE hours) ON COMMIT DROP;
\copy coming FROM '$table' WITH (FORMAT csv, HEADER)
INSERT INTO hours SELECT * FROM coming
    ON CONFLICT (hour) DO UPDATE SET requests = excluded.requests, bytes = excluded.bytes, errors = excluded.errors;
COMMIT;
SQL
