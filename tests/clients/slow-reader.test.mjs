// One reader who has stopped reading makes the server keep everything for her, or loses it.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { WebSocket } from 'ws'
import { messageYjsSyncStep2, messageYjsUpdate, readSyncMessage, writeSyncStep1 } from 'y-protocols/sync'
import * as Y from 'yjs'
import { assertSameText, eventually, story } from './harness.mjs'

const KB = 1 << 10
const MB = 1 << 20

/** What one edit inserts. */
const PASTE = 64 * KB

/** What is in the document at the end. */
const DOCUMENT = 16 * MB

/** What is written and deleted again on the way: it is in no diff, only in the updates that she misses. */
const DELETED = 112 * MB

/**
 * What may be on its way to a reader who does not read. Linux keeps up to 4 MB in the sender's socket (tcp_wmem) and,
 * as the window of a silent reader hardly grows, less than 1 MB in hers. The rest is the server's own outbox for one
 * session, which has to be a few MB at most to be called bounded.
 */
const ON_THE_WAY = 8 * MB

/** The allocator gives back at once what is freed, so that the process has what it needs and no more. */
const FRUGAL = { MIMALLOC_PURGE_DELAY: '0' }

/** The author writes in seconds what nobody writes in an hour. */
const UNLIMITED = ['--max-bytes', '0']

const SYNC = 0

story('who stops reading gets one diff for what she missed', async ({ serve, visit, afterwards }) => {
  // Twice, because a snapshot that is being checked at one moment or another is a second copy of the document.
  const alone = async () => growth(await serve({ flags: UNLIMITED, variables: FRUGAL }), visit)
  const growthWithout = Math.max(await alone(), await alone())

  const server = await serve({ flags: UNLIMITED, variables: FRUGAL })
  const sleeper = await Sleeper.joins(server, 'notes')
  afterwards(() => sleeper.leaves())
  let author
  const growthWith = await growth(server, visit, (someone) => (author = someone))

  // A server that kept what she missed would have grown by all of it. Half is far more than an outbox, and more than
  // what an allocator happens to hold at one moment or another.
  const missed = DOCUMENT + DELETED - ON_THE_WAY
  const more = growthWith - growthWithout
  assert.ok(more < missed / 2, `it took ${megabytes(more)} more memory to write beside a sleeper`)

  sleeper.wakes()
  await eventually(() => assertSameText(sleeper.text(), author.text.toString()), { within: 60_000 })
  assert.equal(sleeper.closed, null, 'she was sent away')
  // A small diff may be on its way already, from before her socket was full. Then one brings all the rest.
  assert.ok(sleeper.largestDiff > DOCUMENT / 2, `the largest diff has ${megabytes(sleeper.largestDiff)}`)
  const most = ON_THE_WAY + DOCUMENT + MB
  assert.ok(sleeper.received < most, `she got ${megabytes(sleeper.received)} after ${megabytes(most)} would have done`)

  author.types('and now?')
  await eventually(() => assert.match(sleeper.text(), /and now\?$/))
}, { patience: 180_000 })

/** By how many bytes the server's memory grows while somebody writes the document and somebody else follows. */
async function growth(server, visit, meet = () => {}) {
  const author = await visit(server, 'notes')
  const reader = await visit(server, 'notes')
  meet(author)
  const before = await residentMemory(server)
  for (let written = 0; written < DOCUMENT + DELETED; written += PASTE) {
    // At the front: at the end it would grow one ever longer run, which costs the author's client its length each time.
    author.text.insert(0, String.fromCharCode(97 + ((written / PASTE) % 26)).repeat(PASTE))
    // Of eight pastes, seven are deleted again.
    if (written % (8 * PASTE) === 7 * PASTE) author.deletes(PASTE, 7 * PASTE)
    // In step with the reader, so that what waits on the server's way in is not taken for what it keeps on the way out.
    if (written % MB === 0) await eventually(() => clockOf(author, reader) === clockOf(author, author))
  }
  await author.agreesWith(reader)
  assert.equal(author.text.length, DOCUMENT)
  return (await settledMemory(server)) - before
}

/** How much of the author's writing somebody has. */
function clockOf(author, { doc }) {
  return Y.getState(doc.store, author.id)
}

/** The server's memory when saving, which comes later than telling, is over: when it has not moved for a while. */
async function settledMemory(server) {
  const samples = []
  do {
    await pause(100)
    samples.push(await residentMemory(server))
  } while (samples.length < 5 || Math.abs(samples.at(-1) - samples.at(-5)) > MB)
  return samples.at(-1)
}

async function residentMemory({ pid }) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)[1]) * KB
}

/** A client that joins, gets what there is, and stops reading its socket until it `wakes`. */
class Sleeper {
  static async joins(server, document) {
    const sleeper = new Sleeper()
    sleeper.socket = new WebSocket(`${server.url.replace('http', 'ws')}/ws/${document}`)
    sleeper.socket.on('message', (frame) => sleeper.#receive(new Uint8Array(frame)))
    sleeper.socket.on('close', (code) => (sleeper.closed = code))
    await once(sleeper.socket, 'open')
    const greeting = encoding.createEncoder()
    encoding.writeVarUint(greeting, SYNC)
    writeSyncStep1(greeting, sleeper.doc)
    sleeper.socket.send(encoding.toUint8Array(greeting))
    await eventually(() => assert.ok(sleeper.largestDiff > 0, 'she was not brought up to date'))

    sleeper.socket._socket.pause()
    sleeper.largestDiff = 0
    sleeper.received = 0
    return sleeper
  }

  doc = new Y.Doc()
  closed = null
  /** Bytes of the largest sync step 2 since it fell asleep. */
  largestDiff = 0
  /** Bytes of updates and diffs since then. */
  received = 0

  wakes() {
    this.socket._socket.resume()
  }

  text() {
    return this.doc.getText('text').toString()
  }

  leaves() {
    this.socket.terminate()
    this.doc.destroy()
  }

  #receive(frame) {
    const message = decoding.createDecoder(frame)
    if (decoding.readVarUint(message) !== SYNC) return
    const reply = encoding.createEncoder()
    encoding.writeVarUint(reply, SYNC)
    const kind = readSyncMessage(message, reply, this.doc, 'server')
    if (kind === messageYjsSyncStep2) this.largestDiff = Math.max(this.largestDiff, frame.length)
    if (kind === messageYjsSyncStep2 || kind === messageYjsUpdate) this.received += frame.length
    if (encoding.length(reply) > 1) this.socket.send(encoding.toUint8Array(reply))
  }
}

function megabytes(bytes) {
  return `${(bytes / MB).toFixed(1)} MB`
}
