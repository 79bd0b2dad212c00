#!/usr/bin/env node
// In a checkout the TypeScript beside this file runs through tsx; an installed package carries only the compiled dist.
const { existsSync } = require("node:fs")
const { join } = require("node:path")

if (existsSync(join(__dirname, "main.ts"))) {
  require("tsx/cjs")
  require("./main.ts").main()
} else {
  require("../../dist/cli/main.js").main()
}
