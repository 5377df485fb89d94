// Writes ../y-websocket with y-websocket's own server and client: y-websocket 1.5.4, y-leveldb 0.1.2, leveldown 5.6.0.
// The server is killed twice, so that some is in tables, and the rest in the log.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import { documents, expect, write } from './documents.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const folder = resolve(here, '../y-websocket')
const PORT = 14321

async function serve() {
  const server = spawn('node', [resolve(here, 'node_modules/y-websocket/bin/server.js')], {
    env: { ...process.env, HOST: '127.0.0.1', PORT, YPERSISTENCE: resolve(folder, 'store') },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(server.stdout, 'data')
  await pause(500)
  return server
}

function connect(name, doc) {
  const options = { WebSocketPolyfill: WebSocket, disableBc: true }
  const provider = new WebsocketProvider(`ws://127.0.0.1:${PORT}`, encodeURI(name), doc, options)
  return new Promise((joined) => provider.once('synced', () => joined(() => provider.destroy())))
}

await rm(folder, { recursive: true, force: true })
await mkdir(folder)
const docs = {}
const half = documents.length / 2
for (const some of [documents.slice(0, half), documents.slice(half)]) {
  const server = await serve()
  await Promise.all(some.map(async (document) => (docs[document.name] = await write(document, connect))))
  server.kill('SIGKILL')
  await once(server, 'exit')
}
// LevelDB's notes for people.
await Promise.all(['LOG', 'LOG.old'].map((file) => rm(resolve(folder, 'store', file))))
await expect(resolve(folder, 'expected.json'), docs)
process.exit()
