// The guides in docs/, followed from the top by somebody who types every command into one shell: what is said to be
// printed is printed, and every line that the log may call for help with is explained.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, delimiter, dirname, join } from 'node:path'
import { test } from 'node:test'
import { output } from './cluster.mjs'
import { binary, freePort, repository, story } from './harness.mjs'

const GUIDES = ['one-node', 'many-nodes', 'upgrading', 'backing-up', 'sizing', 'security']

/** Ports that the guides name. Here they may be in use, so that others take their places. */
const PORTS = ['8080', '8081', '8082', '8083', '6379']

/** Milliseconds in which a guide must come to its end. */
const PATIENCE = 90_000

for (const guide of GUIDES) {
  test(`who follows docs/${guide}.md gets what it says`, { timeout: 2 * PATIENCE }, async (t) => {
    const places = new Map(await Promise.all(PORTS.map(async (port) => [port, `${await freePort()}`])))
    const text = await readFile(join(repository, 'docs', `${guide}.md`), 'utf8')
    const blocks = [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block]) =>
      block.replace(new RegExp(`\\b(${PORTS.join('|')})\\b`, 'g'), (port) => places.get(port)))
    assert.ok(blocks.length > 0, 'there is nothing to do in it')

    const folder = await mkdtemp(join(tmpdir(), 'quire-guide-'))
    t.after(() => rm(folder, { recursive: true, force: true }))
    const shell = await follow(t, folder, blocks, `127.0.0.1:${places.get('8080')}`)
    for (const [n, block] of blocks.entries()) {
      const { begun, ended, printed, said } = await shell.outcome(n)
      const told = `in\n${block}\nwhich printed\n${printed}\nand said\n${said}`
      assert.ok(begun && ended, `a command failed, or took too long, ${told}`)
      let at = 0
      for (const [, expected] of block.matchAll(/# prints (.+)$/gm)) {
        const found = printed.indexOf(expected, at)
        assert.ok(found >= 0, `"${expected}" was not printed, or too early, ${told}`)
        at = found + expected.length
      }
    }
    assert.equal(await shell.left(), '', 'the next guide begins where this one has ended: it runs, or is set, still')
  })
}

for (const place of ['/etc/quire/secret', '/var/lib/quire/secret']) {
  story(`the backup of every night finds the secret in ${place}`, async (scene) => {
    const folder = await mkdtemp(join(tmpdir(), 'quire-guide-'))
    scene.afterwards(() => rm(folder, { recursive: true, force: true }))
    const secret = join(folder, 'secret')
    await writeFile(secret, 'known to nobody but these tests, and long enough', { mode: 0o400 })
    const server = await scene.serve({ flags: ['--auth', '--secret-file', secret] })

    const [, script] = /<<'SCRIPT'\n(.*?)^SCRIPT$/ms.exec(await read('docs/backing-up.md'))
    assert.ok(script.includes(place), 'it does not look there')
    // What this machine has in the other place must not be found.
    const here = script.replaceAll(/(\/etc|\/var\/lib)\/quire\/secret/g, (at) => at === place ? secret : join(folder, 'none'))
    await writeFile(join(folder, 'script'), here.replace('http://127.0.0.1:8080', server.url))
    const path = [dirname(binary), process.env.PATH].join(delimiter)
    // Like cron, which hands on nothing else.
    const ended = await output('env', ['-i', `PATH=${path}`, 'sh', join(folder, 'script'), join(folder, 'backups')])
    assert.equal(ended.code, 0, ended.said)
    const [file, ...others] = await readdir(join(folder, 'backups'))
    assert.match(file, /\.tar\.zst$/)
    assert.deepEqual(others, [])
  })
}

test('the guides lead to places that are there', async () => {
  const pages = ['README.md', 'SECURITY.md', 'CHANGELOG.md', 'CONTRIBUTING.md']
  for (const name of await readdir(join(repository, 'docs'))) if (name.endsWith('.md')) pages.push(join('docs', name))
  for (const page of pages) {
    for (const [, path, anchor] of (await read(page)).matchAll(/\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)/g)) {
      const target = path === '' ? page : join(dirname(page), path)
      assert.ok(existsSync(join(repository, target)), `${page} leads to ${target}`)
      if (anchor && target.endsWith('.md')) {
        assert.ok(anchors(await read(target)).includes(anchor), `${page} leads to ${target}#${anchor}`)
      }
    }
  }
})

test('every warning and error of the log is explained, and nothing else is', async () => {
  const page = await read('docs/log-lines.md')
  const explained = [...page.matchAll(/^\| `(.+?)` \| (WARN|ERROR) \|/gm)].map(([, line, level]) => `${level} ${line}`)
  const sources = await Promise.all((await rust('src')).map(read))
  const said = sources.flatMap(lines)
  assert.ok(said.length > 20, 'the source was not understood')
  assert.deepEqual(explained.sort(), [...new Set(said)].sort())

  const whole = sources.map(joined).join('\n')
  const [, ends] = page.split('## Why it does not start')
  const reasons = [...ends.matchAll(/^\| `(.+?)` \|/gm)].map(([, reason]) => reason)
  assert.ok(reasons.length > 5)
  for (const reason of reasons) assert.ok(whole.includes(reason), `the source never says "${reason}"`)
})

/** Types blocks into one shell that stops at the first command that fails. */
async function follow(t, folder, blocks, listen) {
  const file = (what, n) => join(folder, '.blocks', `${what}${n}`)
  await mkdir(join(folder, '.blocks'))
  await symlink(join(repository, 'deploy'), join(folder, 'deploy'))
  await Promise.all(blocks.map((block, n) => writeFile(file('block', n), `${block}\ntouch ${file('ended', n)}\n`)))
  // Sourced, so that what a block sets and starts is there for the next one.
  const script = blocks.map((_, n) => `. ${file('block', n)} > ${file('printed', n)} 2> ${file('said', n)}`)
  // What a guide has set is no concern of the next one, and what it has started is in its way.
  script.push(`{ jobs -pr; compgen -e QUIRE_ | grep -vx QUIRE_LISTEN || true; } > ${file('left', '')}`)
  const path = [dirname(binary), process.env.PATH, '/usr/sbin'].join(delimiter)
  const ours = Object.entries(process.env).filter(([name]) => !name.startsWith('QUIRE_'))
  const shell = spawn('bash', ['-eu', '-c', script.join('\n')], {
    cwd: folder,
    env: { ...Object.fromEntries(ours), PATH: path, HOME: folder, NO_COLOR: '1', QUIRE_LISTEN: listen },
    stdio: 'ignore',
    // A group of its own: what it has started goes with it.
    detached: true,
  })
  const putAway = () => {
    try {
      process.kill(-shell.pid, 'SIGKILL')
    } catch (error) {
      if (error.code !== 'ESRCH') throw error
    }
  }
  process.once('exit', putAway)
  t.after(() => {
    process.off('exit', putAway)
    putAway()
  })
  // So that it is told which command does not come to its end.
  const timer = setTimeout(putAway, PATIENCE)
  await once(shell, 'exit')
  clearTimeout(timer)
  const content = (what, n) => readFile(file(what, n), 'utf8').catch(() => '')
  return {
    outcome: async (n) => ({
      begun: existsSync(file('printed', n)),
      ended: existsSync(file('ended', n)),
      printed: await content('printed', n),
      said: await content('said', n),
    }),
    left: () => readFile(file('left', ''), 'utf8'),
  }
}

function read(path) {
  return readFile(join(repository, path), 'utf8')
}

/** The anchors of a page's headings, as GitHub makes them. */
function anchors(page) {
  const headings = [...page.replaceAll(/^```.*?^```$/gms, '').matchAll(/^#+ (.+)$/gm)]
  return headings.map(([, text]) => text.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'))
}

async function rust(folder) {
  const names = await readdir(join(repository, folder), { recursive: true })
  return names.filter((name) => basename(name).endsWith('.rs')).map((name) => join(folder, name))
}

/** A source with its strings on one line each. */
function joined(source) {
  return source.replaceAll(/\\\n\s*/g, '')
}

/** What a source may log at WARN or ERROR: the last string of each call, unless it is made of an error alone. */
function lines(source) {
  return [...joined(source).matchAll(/\b(warn|error)!\(/g)].flatMap(({ 0: call, 1: level, index }) => {
    const strings = []
    const parts = /"((?:[^"\\]|\\.)*)"|[()]/gy
    const text = joined(source)
    let at = index + call.length
    for (let depth = 1; depth > 0; at += 1) {
      parts.lastIndex = at
      const [part, string] = parts.exec(text) ?? [text[at]]
      if (string !== undefined) strings.push(string)
      if (part === '(') depth += 1
      if (part === ')') depth -= 1
      at += part.length - 1
    }
    const message = strings.at(-1)
    return message === '{error:#}' ? [] : [`${level.toUpperCase()} ${message}`]
  })
}
