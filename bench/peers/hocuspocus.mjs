// Hocuspocus with SQLite, and over Redis where a third argument names its port: node hocuspocus.mjs PORT FOLDER [REDIS]

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from '@hocuspocus/extension-redis'
import { SQLite } from '@hocuspocus/extension-sqlite'
import { Server } from '@hocuspocus/server'

const [port, folder, redis] = process.argv.slice(2)
mkdirSync(folder, { recursive: true })
const extensions = [new SQLite({ database: join(folder, 'db.sqlite') })]
if (redis) extensions.push(new Redis({ host: '127.0.0.1', port: Number(redis) }))
const server = new Server({ address: '127.0.0.1', port: Number(port), quiet: true, extensions })
await server.listen()
