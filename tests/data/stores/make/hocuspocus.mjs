// Writes ../hocuspocus with Hocuspocus' own server and provider, 4.7.0 (needs Node 22).

import { Server } from '@hocuspocus/server'
import { SQLite } from '@hocuspocus/extension-sqlite'
import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider'
import { mkdir, rm } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'
import { documents, expect, write } from './documents.mjs'

const folder = resolve(dirname(fileURLToPath(import.meta.url)), '../hocuspocus')
const PORT = 14322

await rm(folder, { recursive: true, force: true })
await mkdir(folder)
const database = resolve(folder, 'store.sqlite')
const server = new Server({ address: '127.0.0.1', port: PORT, quiet: true, extensions: [new SQLite({ database })] })
await server.listen()

function connect(name, document) {
  const websocketProvider = new HocuspocusProviderWebsocket({
    url: `ws://127.0.0.1:${PORT}`,
    WebSocketPolyfill: WebSocket,
  })
  const provider = new HocuspocusProvider({ websocketProvider, name, document })
  provider.attach()
  return new Promise((joined) =>
    provider.on('synced', () =>
      joined(() => {
        provider.destroy()
        websocketProvider.destroy()
      }),
    ),
  )
}

const docs = {}
await Promise.all(documents.map(async (document) => (docs[document.name] = await write(document, connect))))
await server.destroy()
await expect(resolve(folder, 'expected.json'), docs)
process.exit()
