// Two workers: most tests keep one core busy, and those of the native backend's kernels gain little from a second one.
// MUSC_BACKEND chooses the backend.
/** @type {import("vitest/config").ViteUserConfig} */
module.exports = {
  test: {
    include: ["tests/**/*.test.ts"],
    env: { MUSC_GRAPHS: "strict" }, // layers that cannot be traced are an error
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
}
