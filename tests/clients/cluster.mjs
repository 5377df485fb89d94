// Many nodes of one server, as `docker compose up` starts them: Redis, nodes and the balancer, each from the file that
// a container has too. Here they are processes, and their addresses come from the environment and the command line.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { eventually, freePort, repository } from './harness.mjs'

/** Where Debian has the balancer, which is not on everybody's path. */
const PATH = [process.env.PATH, '/usr/sbin'].join(delimiter)

/** Milliseconds after which the balancer has noticed that a node is there again. */
const NOTICED = 10_000

/** Starts a Redis. It may be killed, and started again with what it had written. */
export async function startRedis({ afterwards }) {
  const folder = await mkdtemp(join(tmpdir(), 'quire-redis-'))
  const port = await freePort()
  const settings = ['--bind', '127.0.0.1', '--port', port, '--dir', folder]
  let redis
  const start = async () => {
    redis = run('redis-server', [join(repository, 'deploy/redis.conf'), ...settings.map(String)])
    await redis.listens(port)
  }
  const kill = () => redis?.kill()
  afterwards(kill)
  afterwards(() => rm(folder, { recursive: true, force: true }))
  await start()
  return { url: `redis://127.0.0.1:${port}`, start, kill }
}

/** Lets a Redis answer nobody for so many milliseconds. */
export async function pauseRedis({ url }, milliseconds) {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.write(`CLIENT PAUSE ${milliseconds} ALL\r\n`)
  await once(socket, 'data')
  socket.destroy()
}

/** Starts so many nodes on one Redis. Each comes back where it was. */
export async function startNodes(scene, count) {
  const { url: redis } = await startRedis(scene)
  const start = async () => scene.serve({ port: await freePort(), flags: ['--redis', redis] })
  return Promise.all(Array.from({ length: count }, start))
}

/** Starts a balancer before three nodes, and answers where people find it. */
export async function startBalancer({ afterwards }, nodes) {
  const port = await freePort()
  const addresses = nodes.map((node, n) => [`NODE${n + 1}`, `127.0.0.1:${node.port}`])
  const variables = { BALANCER_LISTEN: `127.0.0.1:${port}`, ...Object.fromEntries(addresses) }
  const haproxy = run('haproxy', ['-db', '-f', join(repository, 'deploy/haproxy.cfg')], variables)
  // Before the nodes, which have sessions through it.
  afterwards(haproxy.kill)
  await haproxy.listens(port)
  return { url: `http://127.0.0.1:${port}` }
}

/** How many documents each node has in memory. */
export function documents(nodes) {
  return Promise.all(nodes.map(async (node) => (await ready(node)).documents))
}

/** Stops a node as an operator does, and starts it again after some milliseconds. Resolves when it takes sessions. */
export async function restart(node, { away }) {
  assert.deepEqual(await node.stop(), { code: 0, signal: null })
  await pause(away)
  await node.start()
  await eventually(() => ready(node), { within: NOTICED })
}

/** What a node, or the one to which the balancer comes, says about itself; it must take sessions. */
export async function ready({ url }) {
  const response = await fetch(`${url}/readyz`, { headers: { connection: 'close' } })
  const body = await response.json()
  assert.equal(response.status, 200, `GET ${url}/readyz: ${JSON.stringify(body)}`)
  return body
}

/** Runs a program to its end, and answers what it said; undefined where there is no such program. */
export async function output(command, args, variables = {}) {
  const child = spawn(command, args, { cwd: repository, env: { ...process.env, PATH, ...variables } })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { said += text })
  const code = await once(child, 'close').then(([code]) => code, () => undefined)
  return code === undefined ? undefined : { code, said }
}

/** A program that runs until the story ends. */
function run(command, args, variables = {}) {
  const child = spawn(command, args, { env: { ...process.env, PATH, ...variables }, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { said += text })
  const ended = new Promise((resolve) => child.once('error', resolve).once('close', resolve))
  const killWithUs = () => child.kill('SIGKILL')
  process.once('exit', killWithUs)
  return {
    kill() {
      process.off('exit', killWithUs)
      child.kill('SIGKILL')
      return ended
    },
    async listens(port) {
      await eventually(async () => {
        assert.equal(child.exitCode, null, `${command} ended:\n${said}`)
        const socket = connect(port, '127.0.0.1')
        await once(socket, 'connect')
        socket.destroy()
      }).catch((error) => assert.fail(`${command} does not listen (${error.message}):\n${said}`))
    },
  }
}
