import { type ChildProcess, spawn } from "node:child_process"
import { createHmac, randomUUID } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { Dealer, Subscriber } from "zeromq"

/** What a cell sent: texts by stream, bundles of displays and their updates, and the reply. */
export interface CellResult {
  stdout: string
  stderr: string
  displays: Record<string, unknown>[]
  reply: { status: string; ename?: string; evalue?: string }
}

/** A started kernel, spoken to as Jupyter does. */
export interface Kernel {
  /** Runs a cell; `onDisplay` gets each bundle, also each update, as it comes. */
  run(code: string, onDisplay?: (data: Record<string, unknown>) => void): Promise<CellResult>
  /** The interrupt button. */
  interrupt(): void
  stop(): Promise<void>
}

interface Received {
  type: string
  parent: string
  // biome-ignore lint/suspicious/noExplicitAny: contents differ by message type
  content: any
}

const root = resolve(__dirname, "../..")

/** How the kernel is started: what Node runs, the path of the connection file behind it, and where. */
const args = [join(root, "lib/notebook/kernel.cjs")]
const cwd = tmpdir()

const delimiter = "<IDS|MSG>"

const freePort = () =>
  new Promise<number>((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number }
      server.close(() => done(port))
    })
  })

function decode(frames: readonly Buffer[]): Received {
  const at = frames.findIndex((frame) => frame.toString() === delimiter)
  const [header, parent, , content] = frames.slice(at + 2).map((frame) => JSON.parse(frame.toString()))
  return { type: header.msg_type, parent: parent.msg_id, content }
}

const isDisplay = ({ type }: Received) => /^(update_)?display_data$/.test(type)

/** Starts a kernel, the project's if not said otherwise, and waits until it answers. */
export async function startKernel(env: Record<string, string> = {}): Promise<Kernel> {
  const key = randomUUID()
  const names = ["shell", "iopub", "control", "stdin", "hb"]
  const ports = Object.fromEntries(await Promise.all(names.map(async (name) => [`${name}_port`, await freePort()])))
  const folder = mkdtempSync(join(tmpdir(), "musc-kernel-"))
  const file = join(folder, "connection.json")
  const place = { ip: "127.0.0.1", transport: "tcp", signature_scheme: "hmac-sha256" }
  writeFileSync(file, JSON.stringify({ ...ports, ...place, key }))
  const child: ChildProcess = spawn(process.execPath, [...args, file], {
    cwd,
    env: { ...process.env, ...env },
    stdio: "inherit",
  })
  const exited = new Promise<void>((done) => child.on("exit", () => done()))
  const shell = new Dealer()
  const iopub = new Subscriber({ receiveHighWaterMark: 0 })
  shell.connect(`tcp://127.0.0.1:${ports.shell_port}`)
  iopub.connect(`tcp://127.0.0.1:${ports.iopub_port}`)
  iopub.subscribe("")

  const listeners = new Set<(message: Received, from: "shell" | "iopub") => void>()
  const listen = async (socket: AsyncIterable<Buffer[]>, from: "shell" | "iopub") => {
    for await (const frames of socket) for (const listener of [...listeners]) listener(decode(frames), from)
  }
  void listen(shell, "shell").catch(() => {}) // ends when the socket is closed
  void listen(iopub, "iopub").catch(() => {})

  const send = async (type: string, content: object) => {
    const id = randomUUID()
    const header = { msg_id: id, msg_type: type, session: "test", username: "test", version: "5.3", date: new Date() }
    const parts = [header, {}, {}, content].map((part) => JSON.stringify(part))
    const signature = createHmac("sha256", key).update(parts.join("")).digest("hex")
    await shell.send([delimiter, signature, ...parts])
    return id
  }
  /** Everything that answers a request, until the kernel is idle again and has replied. */
  const ask = (type: string, content: object, onMessage: (message: Received) => void = () => {}) =>
    new Promise<Received[]>((done) => {
      const seen: Received[] = []
      let id = ""
      let [idle, replied] = [false, false]
      const listener = (message: Received, from: "shell" | "iopub") => {
        if (message.parent !== id) return
        seen.push(message)
        onMessage(message)
        if (from === "shell") replied = true
        if (message.type === "status" && message.content.execution_state === "idle") idle = true
        if (!idle || !replied) return
        listeners.delete(listener)
        done(seen)
      }
      listeners.add(listener)
      void send(type, content).then((given) => {
        id = given
      })
    })
  // A subscription takes a moment to arrive: until its messages do, ask again.
  for (;;) {
    const answered = ask("kernel_info_request", {}).then(() => true)
    if (await Promise.race([answered, new Promise((done) => setTimeout(done, 2000, false))])) break
  }
  return {
    async run(code, onDisplay = () => {}) {
      const request = { code, silent: false, store_history: true, allow_stdin: false }
      const seen = await ask("execute_request", request, (message) => {
        if (isDisplay(message)) onDisplay(message.content.data)
      })
      const stream = (name: string) =>
        seen.flatMap(({ type, content }) => (type === "stream" && content.name === name ? content.text : [])).join("")
      const displays = seen.filter(isDisplay).map(({ content }) => content.data)
      const reply = seen.find(({ type }) => type === "execute_reply")!.content
      return { stdout: stream("stdout"), stderr: stream("stderr"), displays, reply }
    },
    interrupt: () => void child.kill("SIGINT"),
    async stop() {
      child.kill("SIGKILL")
      await exited
      shell.close()
      iopub.close()
      rmSync(folder, { recursive: true })
    },
  }
}
