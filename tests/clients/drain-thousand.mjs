// A node is stopped while a thousand people type on it: they all come back in the same second, an edit is lost, or the node
// does not end in time, or not with the code that says what became of the edits. Takes minutes: `./dev campaign` runs it.

import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { HocuspocusProviderWebsocket } from 'hocuspocus-4'
import { WebSocket } from 'ws'
import { startRedis } from './cluster.mjs'
import { HocuspocusClient } from './families.mjs'
import { eventually, freePort, story } from './harness.mjs'

const PEOPLE = 1_000
const DOCUMENTS = 50

/** So many people open their documents at the same time. */
const AT_ONCE = 50

/** Milliseconds between two words of one person. */
const TYPING = 5_000

/** Seconds in which the node sends everybody away, and those that it may take after that. */
const DRAIN = 15
const SAVED = 9

/** The node sends a hundred away in each second; not many more may come back in one. */
const MAX_PER_SECOND = 150

/** Milliseconds in which everybody is back on a node that is there again: Hocuspocus' client waits for up to 30 seconds. */
const BACK = 90_000

const patience = { patience: 400_000 }

story('a thousand people come back to another node one after the other, and nothing is lost', async (scene) => {
  const { url } = await startRedis(scene)
  const start = () => scene.serve({ flags: ['--redis', url, '--drain', `${DRAIN}`] })
  const [first, second] = [await start(), await start()]
  const crowd = await Crowd.comesTo(scene, first)

  // As with a balancer that knows at once that the first node takes nobody any more.
  crowd.goesTo(second)
  const { code, began } = await stops(first)
  assert.equal(code, 0)
  await crowd.isBack(BACK)
  const perSecond = crowd.arrivalsPerSecond(began)
  console.log(`  came back in each second: ${perSecond.join(' ')}`)
  const came = crowd.arrivals.filter((at) => at >= began).length
  assert.ok(came >= PEOPLE && came < PEOPLE * 1.02, `${PEOPLE} people came ${came} times`)
  assert.ok(Math.max(...perSecond) <= MAX_PER_SECOND, 'too many of them in one second')

  await crowd.stopsTyping()
  await crowd.finds(second)
  // Where nobody has the documents, they come from Redis.
  await crowd.finds(await start())
}, patience)

story('a thousand people bring what a node could not save because its Redis was away', async (scene) => {
  const redis = await startRedis(scene)
  const flags = ['--redis', redis.url, '--drain', `${DRAIN}`]
  const node = await scene.serve({ port: await freePort(), flags })
  const crowd = await Crowd.comesTo(scene, node)
  await redis.kill()
  // Long enough for a word in each document.
  await pause(TYPING)
  const { code } = await stops(node)
  assert.equal(code, 1)
  assert.match(node.log, new RegExp(`edits of ${DOCUMENTS} documents could not be saved`))
  const unsaved = node.log.split('\n').filter((line) => line.includes('not everything could be saved'))
  assert.deepEqual(named(unsaved), named(crowd.documents))

  await redis.start()
  await node.start()
  await crowd.isBack(BACK)
  await crowd.stopsTyping()
  await crowd.finds(node)
}, patience)

story('a thousand people come back to a node without a Redis that was started again', async (scene) => {
  const node = await scene.serve({ port: await freePort(), flags: ['--drain', `${DRAIN}`] })
  const crowd = await Crowd.comesTo(scene, node)
  const { code } = await stops(node)
  assert.equal(code, 0)
  await node.start()
  await crowd.isBack(BACK)
  await crowd.stopsTyping()
  await crowd.finds(node)
}, patience)

/** Stops a node as an operator does; answers its exit code, and when it was told. */
async function stops(node) {
  const began = Date.now()
  const { code } = await node.stop()
  const took = (Date.now() - began) / 1_000
  console.log(`  the node ended with ${code} after ${took.toFixed(1)} s`)
  assert.ok(took < DRAIN + SAVED + 1, `it took ${took} s`)
  return { code, began }
}

/** The documents of which these lines speak, in order. */
function named(lines) {
  return lines.map((line) => /document-\d+-of-\d+/.exec(line)?.[0]).sort()
}

/** A thousand people who type a word every now and then, half of them with y-websocket, half with Hocuspocus. */
class Crowd {
  documents = Array.from({ length: DOCUMENTS }, (_, n) => `document-${n}-of-${DOCUMENTS}`)
  /** When each connection was made. */
  arrivals = []
  #people = []
  #typing = []
  #stopped = false
  #node

  static async comesTo(scene, node) {
    const crowd = new Crowd()
    crowd.goesTo(node)
    const socket = crowd.#socket()
    for (let from = 0; from < PEOPLE; from += AT_ONCE) {
      const some = Array.from({ length: AT_ONCE }, (_, n) => {
        const document = crowd.documents[(from + n) % DOCUMENTS]
        const invite = ((from + n) / DOCUMENTS) & 1 ? withHocuspocus : withYWebsocket
        return { document, client: invite(scene, node, document, `${from + n}`, socket) }
      })
      for (const { client } of some) await client.isSynced()
      crowd.#people.push(...some)
    }
    crowd.#typing = crowd.#people.map((person) => crowd.#types(person))
    await pause(TYPING)
    return crowd
  }

  /** From the next connection on. */
  goesTo(node) {
    this.#node = node
  }

  /** A socket that goes where the crowd goes, and notes when. */
  #socket() {
    const crowd = this
    return class extends WebSocket {
      constructor(url, ...more) {
        const there = new URL(url)
        there.port = crowd.#node.port
        super(there, ...more)
        this.once('open', () => crowd.arrivals.push(Date.now()))
      }
    }
  }

  async #types(person) {
    person.words = []
    await pause(Math.random() * TYPING)
    while (!this.#stopped) {
      const word = `<${person.client.doc.clientID}:${person.words.length}>`
      person.words.push(word)
      person.client.types(word)
      await pause(TYPING * (0.5 + Math.random()))
    }
  }

  async stopsTyping() {
    this.#stopped = true
    await Promise.all(this.#typing)
  }

  async isBack(within) {
    for (const { client, document } of this.#people) {
      await eventually(() => assert.ok(client.synced ?? client.provider.synced, `somebody is not back in ${document}`), { within })
    }
  }

  /** In how many came in each second from this time on. */
  arrivalsPerSecond(began) {
    const seconds = this.arrivals.filter((at) => at >= began).map((at) => Math.floor((at - began) / 1_000))
    return Array.from({ length: Math.max(...seconds) + 1 }, (_, n) => seconds.filter((second) => second === n).length)
  }

  /** Every word that anybody typed is in the documents of this node, and everybody has the same in front of her. */
  async finds(node) {
    let count = 0
    for (const document of this.documents) {
      const there = this.#people.filter((person) => person.document === document)
      const words = there.flatMap((person) => person.words)
      await eventually(async () => {
        const text = await node.text(document)
        const found = new Set(text.match(/<\d+:\d+>/g))
        assert.deepEqual(words.filter((word) => !found.has(word)), [], `words are lost in ${document}`)
        for (const { client } of there) assert.equal(client.text.toString(), text, `somebody sees another ${document}`)
      })
      count += words.length
    }
    console.log(`  ${count} words are there`)
  }
}

function withYWebsocket(scene, node, document, who, socket) {
  return scene.invite(node, document, who, { socket })
}

function withHocuspocus(scene, node, document, who, WebSocketPolyfill) {
  const url = `${node.url.replace('http', 'ws')}/hocuspocus`
  const socket = new HocuspocusProviderWebsocket({ url, WebSocketPolyfill })
  const client = scene.accompany(new HocuspocusClient(node, document, who, { version: 4, socket }))
  scene.afterwards(() => socket.destroy())
  return client
}
