// One worker: tests share the cores with libtensorflow, whose kernels use all of them. MUSC_BACKEND chooses the backend.
/** @type {import("vitest/config").ViteUserConfig} */
module.exports = {
  test: {
    include: ["tests/**/*.test.ts"],
    env: { MUSC_GRAPHS: "strict" }, // layers that cannot be traced are an error
    pool: "forks",
    maxWorkers: 1,
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
}
