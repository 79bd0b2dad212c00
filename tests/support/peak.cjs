// Loaded into each process of a test (--require): at its end it adds a line to PEAKS with its highest memory in MiB.
const { appendFileSync } = require("node:fs")
process.on("exit", () => {
  const name = process.argv[1] ?? ""
  appendFileSync(process.env.PEAKS, `${JSON.stringify({ name, peak: process.resourceUsage().maxRSS / 1024 })}\n`)
})
