// Writes ../y-sweet with Y-Sweet's own server, 0.9.1 (`cargo install y-sweet --version 0.9.1 --locked`), and the
// y-websocket client, whose protocol it speaks. A name with a slash comes in through its address, which does not check
// names.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import { documents, expect, write } from './documents.mjs'

const folder = resolve(dirname(fileURLToPath(import.meta.url)), '../y-sweet')
const PORT = 14323

await rm(folder, { recursive: true, force: true })
const options = ['serve', resolve(folder, 'store'), '--port', PORT, '--checkpoint-freq-seconds', '1']
const server = spawn(process.env.Y_SWEET ?? 'y-sweet', options, { stdio: 'inherit' })
await pause(2_000)

function connect(name, doc) {
  const id = encodeURIComponent(name)
  const options = { WebSocketPolyfill: WebSocket, disableBc: true }
  const provider = new WebsocketProvider(`ws://127.0.0.1:${PORT}/d/${id}/ws`, id, doc, options)
  return new Promise((joined) => provider.once('synced', () => joined(() => provider.destroy())))
}

// Y-Sweet itself cannot read a Y.XmlHook.
const some = documents.filter(({ refused }) => refused !== 'XmlHook')
const docs = {}
await Promise.all(some.map(async (document) => (docs[document.name] = await write(document, connect))))
await pause(3_000)
server.kill('SIGTERM')
await once(server, 'exit')
await expect(resolve(folder, 'expected.json'), docs)
process.exit()
