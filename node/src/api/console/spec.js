// The spec of a job that the API shows: what its user wrote, without what the node added and what says nothing.

export function specOf(job) {
  const { ID, State, Version, Revision, CreateTime, ModifyTime, ...spec } = structuredClone(job);
  if (spec.Name === ID) delete spec.Name;
  if (spec.Priority === 0) delete spec.Priority;
  for (const { Timeouts = {} } of spec.Tasks ?? []) {
    for (const [name, seconds] of Object.entries(Timeouts)) if (seconds === 0) delete Timeouts[name];
  }
  return spec;
}
