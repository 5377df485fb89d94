// Quire as its users meet it: a real server process, and people with the published Yjs client in their hands.
// What is expected of either stands in the test files, never here.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

/** The top of the repository. */
export const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..')

/** The server and its commands. */
export const binary = process.env.QUIRE_BIN ?? resolve(repository, process.env.CARGO_TARGET_DIR ?? 'target', 'debug/quire')

/** Milliseconds in which something must come true that usually takes a few: the machine may be busy. */
const PATIENCE = 20_000

/** Lines of the server's log that are shown under a failed test. */
const LOG_TAIL = 60

// Every client listens for the end of the process, and there may be many in one story.
process.setMaxListeners(0)

/**
 * One test. Its body gets a scene: `serve` starts servers, `visit` and `invite` bring people to a document, and
 * whatever was started is gone when the story ends, however it ends.
 */
export function story(title, tell, { patience = 60_000 } = {}) {
  test(title, { timeout: patience }, async (t) => {
    const scene = new Scene()
    let told = false
    // A story that runs out of time never settles: the signal is how we hear of it.
    t.signal.addEventListener('abort', () => told || scene.printLogs(title), { once: true })
    t.after(() => scene.clear())
    try {
      await tell(scene)
      scene.assertHealthy()
    } catch (error) {
      scene.printLogs(title)
      throw error
    } finally {
      told = true
    }
  })
}

/** What one story has going on. Scripts that are no test use one directly. */
export class Scene {
  #servers = []
  #people = []
  #folders = []
  #afterwards = []

  /** Starts a server on an empty folder. */
  serve = async ({ port = 0, flags = [], variables = {} } = {}) => {
    const folder = await mkdtemp(join(tmpdir(), 'quire-clients-'))
    this.#folders.push(folder)
    const server = new Server(folder, flags, variables)
    this.#servers.push(server)
    await server.start(port)
    return server
  }

  /** Somebody opens a document. Resolves when she has it in front of her. */
  visit = async (server, document, who, options) => {
    const person = this.invite(server, document, who, options)
    await person.isSynced()
    return person
  }

  /** Somebody is about to open a document: does not wait for her. */
  invite = (server, document, who, options) => {
    const person = new Person(server, document, who, options)
    this.#people.push(person)
    return person
  }

  /** Somebody with another client, who leaves when the story ends: before the servers do. */
  accompany = (person) => {
    this.#people.push(person)
    return person
  }

  /** Something else to put away when the story ends. */
  afterwards = (tidy) => this.#afterwards.push(tidy)

  assertHealthy() {
    for (const server of this.#servers) assert.doesNotMatch(server.log, /panicked at/, 'the server panicked')
  }

  printLogs(title) {
    for (const server of this.#servers) {
      const tail = server.log.trimEnd().split('\n').slice(-LOG_TAIL).join('\n  | ')
      console.error(`  the server's log in "${title}":\n  | ${tail}`)
    }
  }

  async clear() {
    for (const person of this.#people) person.leaves()
    for (const server of this.#servers) await server.kill()
    for (const tidy of this.#afterwards) await tidy()
    for (const folder of this.#folders) await rm(folder, { recursive: true, force: true })
  }
}

/** One server process. It may be stopped or killed, and started again on the same folder and port. */
class Server {
  #process = null
  #exited = null
  #folder
  #flags
  #variables

  constructor(folder, flags, variables) {
    this.#folder = folder
    this.#flags = flags
    this.#variables = variables
    this.log = ''
  }

  /** Resolves when the server says in its log that it listens. */
  async start(port = this.port) {
    const args = ['serve', '--listen', `127.0.0.1:${port}`, '--data', this.#folder, ...this.#flags]
    const child = spawn(binary, args, { env: { ...environment(), ...this.#variables }, stdio: ['ignore', 'ignore', 'pipe'] })
    this.#process = child
    const killWithUs = () => child.kill('SIGKILL')
    process.once('exit', killWithUs)

    this.port = await new Promise((resolve, reject) => {
      const before = this.log.length
      child.stderr.setEncoding('utf8').on('data', (text) => {
        this.log += text
        const listens = /http:\/\/127\.0\.0\.1:(\d+)/.exec(this.log.slice(before))
        if (listens) resolve(Number(listens[1]))
      })
      this.#exited = new Promise((ended) => {
        child.once('error', (error) => ended(reject(error)))
        child.once('exit', (code, signal) => {
          process.off('exit', killWithUs)
          reject(new Error(`the server ended before it listened, with ${signal ?? code}`))
          ended({ code, signal })
        })
      })
    })
    this.url = `http://127.0.0.1:${this.port}`
  }

  get pid() {
    return this.#process.pid
  }

  /** Asks it to stop, as an operator would. Resolves to how it ended. */
  async stop() {
    this.#process.kill('SIGTERM')
    return this.#exited
  }

  /** Stops it as a power cut would. */
  async kill() {
    this.#process.kill('SIGKILL')
    return this.#exited
  }

  /** What the API answers for a document in one of its formats. */
  export(document, format) {
    const url = `${this.url}/api/documents/${encodeURIComponent(document)}?format=${format}`
    // One connection each: a kept one would not survive a server that is started again.
    return fetch(url, { headers: { connection: 'close' } })
  }

  /** The document's text, as the API gives it away. */
  async text(document) {
    const response = await this.export(document, 'text')
    assert.equal(response.status, 200, `GET ${response.url}`)
    return response.text()
  }
}

/** A token as an application would make it for one of its users, here by the command. */
export function token(secret, user, document, level, { ttl = 60 } = {}) {
  const asked = ['--user', user, '--document', document, '--level', level, '--ttl', ttl]
  return execFileSync(binary, ['token', ...asked], { env: { ...environment(), QUIRE_SECRET: secret } }).toString().trim()
}

/** A token with these claims, as an application makes it that has the server's secret. */
export function signedToken(secret, claims) {
  const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const exp = Math.floor(Date.now() / 1_000) + 600
  const signed = `${encoded({ alg: 'HS256', typ: 'JWT' })}.${encoded({ iss: 'quire', exp, ...claims })}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}

/** Settings of whoever runs the tests must not reach the server under test. */
function environment() {
  const ours = Object.entries(process.env).filter(([name]) => !name.startsWith('QUIRE_'))
  return { ...Object.fromEntries(ours), NO_COLOR: '1' }
}

/** A person with one document open: a `Y.Doc` behind the published WebSocket provider. */
class Person {
  constructor(server, document, who, { params = {}, socket = WebSocket, online = true } = {}) {
    this.doc = new Y.Doc()
    this.text = this.doc.getText('text')
    const path = document.split('/').map(encodeURIComponent).join('/')
    this.provider = new WebsocketProvider(`${server.url.replace('http', 'ws')}/ws`, path, this.doc, {
      WebSocketPolyfill: socket,
      disableBc: true,
      connect: online,
      params,
    })
    this.awareness = this.provider.awareness
    if (who) this.awareness.setLocalStateField('user', { name: who })
  }

  get id() {
    return this.doc.clientID
  }

  /** Writes at the end of the text. */
  types(words) {
    this.text.insert(this.text.length, words)
  }

  /** Takes some of the text away again. */
  deletes(from, length) {
    this.text.delete(from, length)
  }

  /** Waits until the whole text is this. */
  reads(words) {
    return eventually(() => assertSameText(this.text.toString(), words))
  }

  /** Waits until both have the same in front of them, and all of it. */
  agreesWith(other) {
    return eventually(() => {
      assert.deepEqual(sortedStateVector(this.doc), sortedStateVector(other.doc))
      assertSameText(this.text.toString(), other.text.toString())
    })
  }

  /** The names of everybody she sees in the document, herself included. */
  sees() {
    return [...this.awareness.getStates().values()].flatMap(({ user }) => user?.name ?? []).sort()
  }

  isSynced() {
    return eventually(() => assert.ok(this.provider.synced, 'never synced'))
  }

  /** Goes away as the client does it: it says goodbye. */
  disconnects() {
    this.provider.disconnect()
  }

  connects() {
    this.provider.connect()
  }

  /** The line breaks, without a word to anybody; the client comes back by itself. */
  losesTheLine() {
    this.provider.ws.terminate()
  }

  /** The line breaks and stays broken until she `connects`. */
  vanishes() {
    this.provider.shouldConnect = false
    this.provider.ws?.terminate()
  }

  /** Closes the document for good. */
  leaves() {
    this.provider.destroy()
    this.doc.destroy()
  }
}

/** Equality of texts that may be long: shows the place where they part, not the whole of both. */
export function assertSameText(actual, expected) {
  if (actual === expected) return
  let at = 0
  while (actual[at] === expected[at]) at += 1
  const around = (text) => JSON.stringify(text.slice(Math.max(0, at - 20), at + 40))
  const lengths = `${actual.length} and ${expected.length} long`
  assert.fail(`the texts (${lengths}) part at ${at}: is ${around(actual)}, should be ${around(expected)}`)
}

/** Everything a document holds by state vector: client ids and their clocks, in order. */
export function sortedStateVector(doc) {
  return [...Y.decodeStateVector(Y.encodeStateVector(doc))].sort(([one], [other]) => one - other)
}

/** Waits until `check` neither throws nor returns false; when it never does, fails with its last complaint. */
export async function eventually(check, { within = PATIENCE } = {}) {
  const deadline = Date.now() + within
  for (let interval = 2; ; interval = Math.min(interval * 1.5, 50)) {
    try {
      if ((await check()) === false) throw new assert.AssertionError({ message: `not true: ${check}` })
      return
    } catch (complaint) {
      if (Date.now() > deadline) throw complaint
    }
    await pause(interval)
  }
}

/**
 * A port for a server that must come back where it was. It lies below those that the system hands out by itself, so
 * that nobody takes it while the server is down.
 */
export async function freePort() {
  for (;;) {
    const port = 15_000 + Math.floor(Math.random() * 15_000)
    const listener = createServer().listen(port, '127.0.0.1')
    const free = await once(listener, 'listening').then(() => true, () => false)
    if (!free) continue
    listener.close()
    await once(listener, 'close')
    return port
  }
}

/** Numbers between 0 and 1 that a seed repeats (mulberry32). */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
