/**
 * The notebooks in JupyterLab, as a reader meets them. Needs an active Jupyter (jupyterlab, nbconvert) and Chromium:
 *
 *     npm run notebooks:check -- [folder for screenshots] [parts, such as 00,untrusted,site]
 *
 * Runs 00, 04 and 05 by "Run all", hovers over figures, interrupts 05 while it trains and lets it go on, opens saved
 * notebooks untrusted, and opens the HTML pages without network, also with scripts taken away.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { basename, join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import { type Browser, chromium, type Page } from "playwright-core"
import { findNotebook, notebookFiles, notebookSite, readNotebook } from "../../lib/notebook/batch"
import { kernelName, kernelSpec } from "../../lib/notebook/install"

const shots = resolve(process.argv[2] ?? "runs/screenshots")
const only = process.argv[3]?.split(",")
const work = mkdtempSync(join(tmpdir(), "musc-lab-"))
const wait = (ms: number) => new Promise((done) => setTimeout(done, ms))
let failed = 0

function check(what: string, held: boolean, got: unknown = ""): void {
  console.log(`${held ? "ok    " : "FAILED"} ${what} ${got}`)
  if (!held) failed++
}

/** Waits for something. The limit is long, since a busy machine may be slow and nothing else depends on it. */
async function until<T>(what: string, look: () => Promise<T | false | undefined>, seconds = 3600): Promise<T> {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await wait(300)) {
    const found = await look()
    if (found) return found
  }
  throw new Error(`${what}: not within ${seconds} s`)
}

/** One part of the check, if it is wanted. Its failure is told, and the parts after it go on. */
async function part(name: string, what: () => Promise<void>): Promise<void> {
  if (only && !only.includes(name)) return
  await what().catch((error: Error) => check(name, false, error.message))
}

const freePort = () =>
  new Promise<number>((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number }
      server.close(() => done(port))
    })
  })

/** JupyterLab over the folder `work`, with this project's kernel and no settings of the user. */
async function startLab(): Promise<{ url: string; lab: ChildProcess }> {
  const kernel = join(work, ".data", "kernels", kernelName)
  mkdirSync(kernel, { recursive: true })
  writeFileSync(join(kernel, "kernel.json"), JSON.stringify(kernelSpec()))
  const port = await freePort()
  const options = [
    ...["lab", "--no-browser", "--allow-root", "--expose-app-in-browser", `--ServerApp.port=${port}`],
    ...["--IdentityProvider.token=", "--ServerApp.password=", `--ServerApp.root_dir=${work}`],
  ]
  const own = { JUPYTER_DATA_DIR: join(work, ".data"), JUPYTER_CONFIG_DIR: join(work, ".config") }
  const env = { ...process.env, ...own, JUPYTER_PATH: join(work, ".data"), MUSC_NOTEBOOK: "live" }
  const lab = spawn("jupyter", options, { env, stdio: "ignore" })
  const url = `http://127.0.0.1:${port}`
  await until("JupyterLab", () =>
    fetch(`${url}/api/status`).then(
      (answer) => answer.ok,
      () => false,
    ),
  ).catch((error: Error) => {
    lab.kill("SIGTERM")
    throw error
  })
  return { url, lab }
}

/** The parts of JupyterLab's application that are used. */
interface Lab {
  commands: { execute(name: string): Promise<unknown> }
  shell: {
    currentWidget: {
      context: {
        save(): Promise<void>
        sessionContext: { session?: { kernel?: { status: string; interrupt(): Promise<void> } } }
      }
      content: { activeCellIndex: number }
    }
  }
}
declare const window: { jupyterapp: Lab }

async function open(browser: Browser, url: string, name: string): Promise<Page> {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } })
  page.on("dialog", (dialog) => void dialog.accept())
  await page.goto(`${url}/lab/tree/${name}?reset`, { timeout: 3_600_000 })
  await page.waitForSelector(".jp-Notebook .jp-Cell", { timeout: 3_600_000 })
  await until(`kernel of ${name}`, () =>
    page.evaluate(() => !!window.jupyterapp?.shell.currentWidget?.context?.sessionContext.session?.kernel),
  )
  await page.evaluate(() => void window.jupyterapp.commands.execute("application:toggle-left-area"))
  const news = page.getByRole("button", { name: "No", exact: true })
  await news.click({ timeout: 5000 }).catch(() => {}) // asked by some versions only
  return page
}

const command = (page: Page, name: string) => page.evaluate((one) => void window.jupyterapp.commands.execute(one), name)
const status = (page: Page) =>
  page.evaluate(() => window.jupyterapp.shell.currentWidget.context.sessionContext.session?.kernel?.status)
const texts = (page: Page, selector: string) => page.locator(selector).allTextContents()

/** Waits for the end: the kernel idle for a while. */
async function finished(page: Page): Promise<void> {
  let calm = 0
  await until("all cells", async () => {
    calm =
      (await status(page)) === "idle" && !(await page.locator(".jp-InputPrompt", { hasText: "[*]" }).count())
        ? calm + 1
        : 0
    return calm > 8
  })
}

/** Screenshots of a whole notebook, from top to bottom. */
async function shoot(page: Page, name: string): Promise<void> {
  mkdirSync(shots, { recursive: true })
  const panel = page.locator(".jp-WindowedPanel-outer").first()
  const height = await panel.evaluate((one) => one.scrollHeight)
  for (let top = 0, i = 0; top < height && i < 14; top += 850, i++) {
    await panel.evaluate((one, at) => one.scrollTo(0, at), top)
    await wait(400)
    await page.screenshot({ path: join(shots, `${name}-${String(i).padStart(2, "0")}.png`) })
  }
}

/** Figures answer: pointing somewhere in each one brings a label. */
async function checkFigures(page: Page, name: string, least: number): Promise<void> {
  const plots = page.locator(".js-plotly-plot")
  const n = await plots.count()
  check(`${name}: figures drawn by plotly`, n >= least, n)
  let answered = 0
  for (let i = 0; i < n; i++) {
    const plot = plots.nth(i)
    await plot.scrollIntoViewIfNeeded()
    for (const mark of await plot
      .locator(".bars .point path, .scatterlayer path.js-line, .scatterlayer .point")
      .all()) {
      const box = await mark.boundingBox()
      if (!box) continue
      await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2, { steps: 3 })
      await wait(150)
      if (await plot.locator(".hoverlayer .hovertext").count()) {
        answered++
        break
      }
    }
  }
  check(`${name}: figures that answer to the pointer`, answered === n, `${answered} of ${n}`)
}

async function runAll(browser: Browser, url: string, number: string, figures: number): Promise<Page> {
  const name = basename(findNotebook(number))
  const book = readNotebook(findNotebook(number))
  const cells = book.cells.map((cell) => (cell.outputs ? { ...cell, outputs: [] } : cell))
  writeFileSync(join(work, name), JSON.stringify({ ...book, cells }))
  const page = await open(browser, url, name)
  await command(page, "notebook:run-all-cells")
  if (number === "05") await interruptAndGoOn(page)
  await finished(page)
  const errors = await texts(page, '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')
  check(`${number}: no errors`, errors.length === 0, errors.join("\n").slice(0, 500))
  const [line, done, total] =
    /pairs: (\d+) of (\d+) rows.*/.exec((await texts(page, ".jp-OutputArea-output")).join("\n")) ?? []
  check(`${number}: progress of the pairs, to its end`, done !== undefined && done === total, line?.slice(0, 80))
  await checkFigures(page, number, figures)
  return page
}

/** Interrupts 05 in the middle of its training and runs the rest. */
async function interruptAndGoOn(page: Page): Promise<void> {
  const stepOf = async () =>
    Number(/musc: step (\d+) of/.exec((await texts(page, ".jp-OutputArea-output")).join("\n"))?.[1] ?? 0)
  await until("training", async () => (await stepOf()) >= 3)
  await page.locator(".jp-Cell", { hasText: "await musc.run()" }).first().scrollIntoViewIfNeeded()
  await page.screenshot({ path: join(shots, "05-training.png") })
  await page.evaluate(() => window.jupyterapp.shell.currentWidget.context.sessionContext.session?.kernel?.interrupt())
  await finished(page)
  const said = (await texts(page, ".jp-OutputArea-output")).join("\n")
  const stopped = /StoppedError: stopped after musc: step (\d+) of (\d+)/.exec(said)
  check(
    "05: interrupt stops the training with its state",
    stopped !== null && Number(stopped[1]) < Number(stopped[2]),
    stopped?.[0],
  )
  await page.screenshot({ path: join(shots, "05-interrupted.png") })
  const book = readNotebook(findNotebook("05"))
  const at = book.cells.findIndex(({ source }) => [source].flat().join("").includes("await musc.run()"))
  await page.evaluate((i) => {
    window.jupyterapp.shell.currentWidget.content.activeCellIndex = i
  }, at)
  await command(page, "notebook:run-all-below")
  await wait(1000)
  await finished(page)
  const after = (await texts(page, ".jp-OutputArea-output")).join("\n")
  const [, step, steps] = /musc: step (\d+) of (\d+)/.exec(after) ?? []
  check("05: goes on to the end", step !== undefined && step === steps, `${step} of ${steps}`)
}

/** Every picture of a page is there, and as large as a picture is. */
const pictures = (page: Page) =>
  page.evaluate(() =>
    [
      ...(globalThis as unknown as { document: { images: Iterable<{ naturalWidth: number; src: string }> } }).document
        .images,
    ]
      .filter(({ src }) => src.startsWith("data:image/png") || src.startsWith("blob:"))
      .map(({ naturalWidth }) => naturalWidth),
  )
const figuresOf = (file: string) =>
  readNotebook(file).cells.flatMap(({ outputs = [] }) =>
    outputs.filter(({ data }) => data?.["application/vnd.plotly.v1+json"]),
  ).length

async function checkUntrusted(browser: Browser, url: string, file: string, name: string): Promise<void> {
  // A copy that nobody has signed, with a script in it that must not run.
  const book = readNotebook(file)
  const hostile = { "text/html": "<script>window.hostile = true</script><b id='hostile'>shown</b>", "text/plain": "" }
  const cell = { id: "hostile", cell_type: "code", metadata: {}, execution_count: null, source: "" }
  const cells = [...book.cells, { ...cell, outputs: [{ output_type: "display_data", data: hostile, metadata: {} }] }]
  writeFileSync(join(work, name), JSON.stringify({ ...book, cells }))
  const page = await open(browser, url, name)
  const panel = page.locator(".jp-WindowedPanel-outer").first()
  const seen = new Set<number>()
  const height = await panel.evaluate((one) => one.scrollHeight)
  let most = 0
  for (let top = 0; top <= height + 3000; top += 600) {
    await panel.evaluate((one, at) => one.scrollTo(0, at), top)
    await wait(250)
    most = Math.max(most, (await pictures(page)).filter((width) => width > 300).length)
  }
  for (const width of await pictures(page)) seen.add(width)
  check(
    `untrusted ${name}: pictures`,
    most === figuresOf(file) && ![...seen].includes(0),
    `${most} of ${figuresOf(file)}`,
  )
  check(`untrusted ${name}: no script ran`, !(await page.evaluate(() => "hostile" in window)))
  await shoot(page, `untrusted-${name.slice(0, 2)}`)
  await page.close()
}

async function checkSite(browser: Browser): Promise<void> {
  const site = join(work, "site")
  await notebookSite(site)
  const context = await browser.newContext({ offline: true, viewport: { width: 1100, height: 1000 } })
  for (const file of notebookFiles()) {
    const name = basename(file, ".ipynb")
    const html = join(site, `${name}.html`)
    // As viewers that sanitise do: no scripts, no frames, no styles of elements or of the page.
    const bare = join(site, `${name}-bare.html`)
    const text = readFileSync(html, "utf8")
      .replace(/<(script|iframe|style)\b[\s\S]*?<\/\1>/gi, "")
      .replace(/ style="[^"]*"/g, "")
    writeFileSync(bare, text)
    for (const [kind, path] of [
      ["offline", html],
      ["sanitised", bare],
    ] as const) {
      const page = await context.newPage()
      const asked: string[] = []
      page.on("request", (request) => void (/^https?:/.test(request.url()) && asked.push(request.url())))
      await page.goto(pathToFileURL(path).href)
      await wait(500)
      const widths = await pictures(page)
      const all = figuresOf(file)
      check(`${kind} ${name}: pictures`, widths.length >= all && !widths.includes(0), `${widths.length} of ${all}`)
      check(`${kind} ${name}: nothing from the network`, asked.length === 0, asked.join(" ").slice(0, 300))
      await page.screenshot({ path: join(shots, `${kind}-${name.slice(0, 2)}.png`), fullPage: true })
      await page.close()
    }
  }
  await context.close()
}

/** "Run all" of a notebook, its figures, and the notebook as saved, untrusted. */
async function checkLive(browser: Browser, url: string, number: string, figures: number): Promise<void> {
  const page = await runAll(browser, url, number, figures)
  if (number === "04") {
    const title = await page.locator("span[title*='KL(']").first().getAttribute("title")
    check(
      "04: tokens tell weight and signals",
      /weight: kl .*log p: clean/s.test(title ?? ""),
      JSON.stringify(title).slice(0, 120),
    )
  }
  await shoot(page, number)
  await page.evaluate(() => window.jupyterapp.shell.currentWidget.context.save())
  const name = basename(findNotebook(number))
  await page.close()
  copyFileSync(join(work, name), join(work, `saved-${name}`))
  await checkUntrusted(browser, url, join(work, `saved-${name}`), `${number}-live.ipynb`)
}

async function main(): Promise<void> {
  mkdirSync(shots, { recursive: true })
  const { url, lab } = await startLab()
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  })
  try {
    for (const [number, figures] of [
      ["00", 1],
      ["04", 2],
      ["05", 3],
    ] as const)
      await part(number, () => checkLive(browser, url, number, figures))
    for (const file of notebookFiles())
      await part("untrusted", () => checkUntrusted(browser, url, file, basename(file)))
    await part("site", () => checkSite(browser))
  } finally {
    await browser.close()
    lab.kill("SIGTERM")
    await wait(1500)
    rmSync(work, { recursive: true, force: true })
  }
  console.log(failed ? `${failed} checks failed` : "all checks held", `(screenshots: ${shots})`)
  process.exitCode = failed ? 1 : 0
}

void main()
