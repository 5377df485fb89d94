// Nodes behind the balancer: somebody lands where her document is not, or notices that a node is restarted, dies or hangs.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { documents, output, ready, restart, startBalancer, startNodes } from './cluster.mjs'
import { assertSameText, eventually, repository, story } from './harness.mjs'

const LONG = process.env.QUIRE_TEST_LONG === '1'

/** People who type while nodes are restarted, and how many of them share a document. */
const PEOPLE = LONG ? 200 : 40
const PER_DOCUMENT = 5

/** Milliseconds between two words of one person. */
const TYPING = 500

/** Milliseconds that a node is away when it is restarted: long enough for the balancer to notice. */
const AWAY = LONG ? 5_000 : 2_500

/** Within so many milliseconds everybody is back whose node went away, and has what she missed. */
const BACK = 5_000

/** Within so many milliseconds the balancer gives a node up that answers nothing any more, and its people are back. */
const GIVEN_UP = 15_000

/** Within so many milliseconds somebody is seen who came to a node that stood still. */
const SEEN = 4_000

/** Close code "service restart": come back soon. */
const RESTARTING = 1012

story('one document is on one node, whoever comes and by whichever road', async (scene) => {
  const nodes = await startNodes(scene, 3)
  const balancer = await startBalancer(scene, nodes)
  const names = Array.from({ length: 12 }, (_, n) => `team/Größe & plan ${n}`)
  for (const name of names) {
    const [alice, bob, carol] = await Promise.all(
      ['Alice', 'Bob', 'Carol'].map((who) => scene.visit(balancer, name, who)))
    alice.types(`this is "${name}"`)
    for (const one of [bob, carol]) await one.reads(`this is "${name}"`)
    await eventually(() => assert.deepEqual(bob.sees(), ['Alice', 'Bob', 'Carol']))
    const exported = await fetch(`${balancer.url}/api/documents/${encodeURIComponent(name)}?format=text`)
    assert.equal(await exported.text(), `this is "${name}"`)

    const stranger = new WebSocket(`${balancer.url.replace('http', 'ws')}/ws/${encodeURIComponent(name)}?from=afar`)
    scene.afterwards(() => stranger.terminate())
    await once(stranger, 'open')
  }

  const spread = await documents(nodes)
  assert.equal(sum(spread), names.length, `documents on the nodes: ${spread}`)
  assert.ok(spread.every((count) => count > 0), `documents on the nodes: ${spread}`)
  const page = await fetch(`${balancer.url}/?document=notes`)
  assert.match(page.headers.get('content-type'), /html/)
})

story(`${PEOPLE} people type on while all nodes are restarted`, async (scene) => {
  const nodes = await startNodes(scene, 3)
  const balancer = await startBalancer(scene, nodes)
  const groups = []
  for (let n = 0; n < PEOPLE / PER_DOCUMENT; n += 1) {
    const visits = Array.from({ length: PER_DOCUMENT }, (_, who) => scene.visit(balancer, `document ${n}`, `${who}`))
    groups.push(await Promise.all(visits))
  }
  const typists = groups.flat().map((person) => new Typist(person))

  for (const node of nodes) {
    await pause(1_000)
    await restart(node, { away: AWAY })
  }
  await pause(1_000)
  const written = await Promise.all(typists.map((typist) => typist.stops()))

  const absences = typists.flatMap((typist) => typist.absences).sort((one, other) => one - other)
  const quantile = (share) => absences[Math.floor(share * (absences.length - 1))]
  console.log(`${sum(written)} words; away ${absences.length} times, for ${quantile(0)} to ${quantile(1)} ms,`
    + ` half of them less than ${quantile(0.5)} ms, 95 % less than ${quantile(0.95)} ms`)
  assert.ok(absences.length >= PEOPLE, 'hardly anybody was on a node that was restarted')
  assert.ok(quantile(1) < BACK, `somebody was away for ${quantile(1)} ms`)
  assert.deepEqual(typists.flatMap((typist) => typist.complaints), [])

  for (const [first, ...others] of groups) {
    for (const other of others) await other.agreesWith(first)
  }
  for (const [n, typist] of typists.entries()) typist.assertEverythingIsThere(written[n])
  await Promise.all(groups.map(async ([someone], n) => {
    // On Redis too, from where another node has it.
    for (const node of nodes) assertSameText(await node.text(`document ${n}`), someone.text.toString())
  }))
}, { patience: LONG ? 300_000 : 120_000 })

story('people go on elsewhere when their node dies, and when it hangs', async (scene) => {
  const nodes = await startNodes(scene, 3)
  const balancer = await startBalancer(scene, nodes)
  const alice = await scene.visit(balancer, 'notes', 'Alice')
  const bob = await scene.visit(balancer, 'notes', 'Bob')
  const whereTheyAre = async (there) => {
    const open = await documents(there)
    assert.equal(sum(open), 1, `documents on the nodes: ${open}`)
    return there[open.indexOf(1)]
  }
  alice.types('before. ')
  await bob.reads('before. ')

  const first = await whereTheyAre(nodes)
  await first.kill()
  alice.types('it died. ')
  await bob.reads('before. it died. ')

  const left = nodes.filter((node) => node !== first)
  const second = await whereTheyAre(left)
  await hangs(second)
  alice.types('it hangs. ')
  await eventually(() => assertSameText(bob.text.toString(), 'before. it died. it hangs. '), { within: GIVEN_UP })
  const [last] = left.filter((node) => node !== second)
  assert.equal(await last.text('notes'), 'before. it died. it hangs. ')

  const gone = []
  for (const one of [alice, bob]) one.awareness.on('change', ({ removed }) => gone.push(...removed))
  process.kill(second.pid, 'SIGCONT')
  await eventually(() => ready(second))
  const carol = await scene.visit(second, 'notes', 'Carol')
  await carol.reads('before. it died. it hangs. ')
  carol.types('it is back.')
  await alice.reads('before. it died. it hangs. it is back.')
  // A client that came back shows others that came back only when they renew their state, after 15 seconds.
  await eventually(() => assert.deepEqual(carol.sees(), ['Alice', 'Bob', 'Carol']), { within: SEEN })
  for (const one of [alice, bob]) {
    await eventually(() => assert.ok(one.sees().includes('Carol'), 'she is not seen'), { within: SEEN })
  }
  // The others take the node for dead, under the name that it had before.
  await pause(SEEN)
  assert.deepEqual(gone, [], 'somebody was seen to leave')
})

story("a container's health is whether the node takes sessions", async (scene) => {
  const [node] = await startNodes(scene, 1)
  const healthcheck = () => output('deploy/healthcheck', [], { QUIRE_LISTEN: `0.0.0.0:${node.port}` })
  assert.equal((await healthcheck()).code, 0)
  await node.stop()
  assert.equal((await healthcheck()).code, 1)
})

test('the files for containers say the same as each other', async (t) => {
  const compose = await readFile(join(repository, 'docker-compose.yml'), 'utf8')
  const balancer = await readFile(join(repository, 'deploy/haproxy.cfg'), 'utf8')
  const nodes = [...balancer.matchAll(/^ +server \S+ "\$\{NODE\d-(\S+):8080\}"$/gm)].map(([, name]) => name)
  assert.equal(nodes.length, 3)
  for (const node of nodes) assert.match(compose, new RegExp(`^  ${node}: `, 'm'))
  const checked = await output('haproxy', ['-c', '-f', 'deploy/haproxy.cfg'])
  assert.equal(checked?.code, 0, checked?.said)

  const readers = [
    ['docker', ['compose', 'config', '--quiet'], /not a docker command|unknown/],
    ['docker-compose', ['config', '--quiet']],
    ['python3', ['-c', 'import yaml; yaml.safe_load(open("docker-compose.yml"))'], /No module named/],
  ]
  for (const [command, args, cannot = /^$/] of readers) {
    const read = await output(command, args)
    if (!read || (read.code !== 0 && cannot.test(read.said))) continue
    assert.equal(read.code, 0, read.said)
    return
  }
  t.diagnostic('docker-compose.yml was not read: there is neither Docker Compose nor a YAML parser here')
})

/** Somebody who types a word every now and then, whatever happens to her line, and notes what does. */
class Typist {
  /** How long she was away, each time: milliseconds until she had what she missed. */
  absences = []
  /** What she would have noticed beside that. */
  complaints = []
  #person
  #typing
  #stopped = false
  #leftAt = null

  constructor(person) {
    this.#person = person
    const { provider } = person
    provider.on('connection-close', (event) => {
      this.#leftAt ??= Date.now()
      if (event?.code !== RESTARTING) this.complaints.push(`closed with ${event?.code} ${event?.reason}`)
    })
    provider.on('sync', (synced) => {
      if (!synced || this.#leftAt === null) return
      this.absences.push(Date.now() - this.#leftAt)
      this.#leftAt = null
    })
    provider.on('connection-error', (event) => this.complaints.push(`error: ${event.message}`))
    provider.on('closed', () => this.complaints.push('gave up'))
    this.#typing = this.#types()
  }

  async #types() {
    await pause(Math.random() * TYPING)
    for (let word = 0; ; word += 1) {
      if (this.#stopped) return word
      this.#person.types(this.#word(word))
      await pause(TYPING * (0.5 + Math.random()))
    }
  }

  #word(number) {
    return `<${this.#person.id}:${number}>`
  }

  /** Resolves to how many words she wrote, when she has the line that she wrote them on. */
  async stops() {
    this.#stopped = true
    const written = await this.#typing
    await this.#person.isSynced()
    return written
  }

  assertEverythingIsThere(written) {
    const text = this.#person.text.toString()
    for (let word = 0; word < written; word += 1) {
      assert.ok(text.includes(this.#word(word)), `word ${word} of ${this.#person.id} is lost`)
    }
  }
}

/** Lets a node stand still. A signal takes its time on a busy machine. */
async function hangs({ pid }) {
  process.kill(pid, 'SIGSTOP')
  await eventually(async () => {
    for (const thread of await readdir(`/proc/${pid}/task`)) {
      assert.match(await readFile(`/proc/${pid}/task/${thread}/stat`, 'utf8'), /\) T /)
    }
  })
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0)
}
