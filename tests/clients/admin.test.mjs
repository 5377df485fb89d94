// The overview page shows what is not so, does what nobody has confirmed, shows it to anybody, or is harmed by what
// others have written.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { startBrowser } from './browser.mjs'
import { startRedis } from './cluster.mjs'
import { eventually, signedToken, story } from './harness.mjs'

const HOSTILE = '<img src=x onerror=alert(1)>'

/** A small phone held upright. */
const PHONE = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true }

/** Somebody who looks after the server, in front of the page. */
class Operator {
  /** What the console complained about, and what asked for attention. */
  complaints = []

  constructor(page, server) {
    this.page = page
    this.server = server
    page.setDefaultTimeout(15_000)
    page.on('pageerror', (error) => this.complaints.push(String(error)))
    page.on('dialog', (dialog) => {
      this.complaints.push(`a dialog: ${dialog.message()}`)
      dialog.dismiss()
    })
    page.on('console', (message) => {
      // A browser says by itself that the server has refused something.
      if (message.type() === 'error' && !/status of (401|403|404)/.test(message.text())) this.complaints.push(message.text())
    })
  }

  async comes(rest = '') {
    await this.page.goto(`${this.server.url}/admin${rest}`)
  }

  async signsIn(token) {
    await this.page.getByLabel('Token').fill(token)
    await this.page.getByRole('button', { name: 'Sign in' }).click()
  }

  does(action) {
    return this.page.locator('main:visible').getByRole('button', { name: action, exact: true }).click()
  }

  /** Answers what the page asks before it does something. */
  answers(action) {
    return this.page.getByRole('dialog').getByRole('button', { name: action, exact: true }).click()
  }

  hears(words) {
    return this.page.locator('#toast').getByText(words).waitFor()
  }

  /** What a chart says now, and the heights of its line. */
  async chart(label) {
    const figure = this.page.locator('figure', { hasText: label })
    const points = (await figure.locator('polyline').getAttribute('points')) ?? ''
    return { now: await figure.locator('strong').innerText(), heights: points.split(' ').map((point) => Number(point.split(',')[1])) }
  }

  /** The cells of a document's row among those that are open. */
  row(name) {
    const row = this.page.locator('#open tr').filter({ has: this.page.getByRole('link', { name, exact: true }) })
    return row.locator('td').allInnerTexts()
  }

  scrollsSideways() {
    return this.page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)
  }
}

async function lookAfter(scene, server, profile = {}) {
  const browser = await startBrowser()
  scene.afterwards(() => browser.close())
  const context = await browser.newContext({ colorScheme: 'light', ...profile })
  return new Operator(await context.newPage(), server)
}

story('nobody sees anything without the right token, and who has it sees all that happens', async (scene) => {
  const secret = randomBytes(48).toString('base64')
  const server = await scene.serve({ variables: { QUIRE_SECRET: secret } })
  const tokenFor = (sub, name, level) => signedToken(secret, { sub, documents: [{ name, level }] })
  const alice = await scene.visit(server, 'team/plan', 'Alice', { params: { token: tokenFor('alice', 'team/*', 'write') } })
  const bob = await scene.visit(server, 'team/plan', 'Bob', { params: { token: tokenFor('bob', 'team/*', 'write') } })

  const operator = await lookAfter(scene, server)
  const { page } = operator
  await operator.comes()
  await page.getByText('This server asks for a token.').waitFor()
  await operator.signsIn('nonsense')
  await page.getByText(/the token is not accepted/).waitFor()
  await operator.signsIn(tokenFor('alice', 'team/*', 'admin'))
  await page.getByText(/"alice" allows/).waitFor()
  assert.equal(await page.locator('main:visible').count(), 0)
  assert.equal(await page.getByText('team/plan').count(), 0)
  await operator.signsIn(tokenFor('operator', '*', 'admin'))

  // Both type, and the charts move.
  await page.getByRole('heading', { name: 'This node' }).waitFor()
  const typing = setInterval(() => [alice, bob].forEach((person) => person.types('x')), 50)
  scene.afterwards(() => clearInterval(typing))
  await eventually(async () => {
    const { now, heights } = await operator.chart('Edits a second')
    assert.ok(Number(now) > 5, `${now} edits a second`)
    assert.ok(heights.length >= 3 && heights.some((height) => height < 5), `the line is at ${heights}`)
  })
  assert.match((await operator.chart('Received a second')).now, /^[1-9].* (B|kB)$/)
  assert.equal((await operator.chart('Sessions')).now, '2')
  const [, size, sessions, perMinute] = await operator.row('team/plan')
  assert.deepEqual([/\d+ (B|kB)/.test(size), sessions, Number(perMinute) > 5], [true, '2', true])
  clearInterval(typing)
  await eventually(async () => assert.equal((await operator.chart('Edits a second')).now, '0'))

  // Of one document: who is here, and how that ends.
  await page.locator('#open').getByRole('link', { name: 'team/plan' }).click()
  await page.getByText('alice: 1 session').waitFor()
  await page.getByText('bob: 1 session').waitFor()
  await page.getByText(/says: Alice/).waitFor()
  const closed = new Promise((resolve) => bob.provider.once('connection-close', ({ code }) => resolve(code)))
  await page.getByRole('button', { name: 'End the sessions of bob' }).click()
  await operator.answers('Cancel')
  assert.equal(bob.provider.wsconnected, true, 'nobody has confirmed it')
  bob.provider.shouldConnect = false
  await page.getByRole('button', { name: 'End the sessions of bob' }).click()
  await operator.answers('End')
  assert.equal(await closed, 4403)
  await page.getByText('bob: 1 session').waitFor({ state: 'detached' })
  assert.equal(alice.provider.wsconnected, true)

  // A token that was thrown away is gone.
  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByText('This server asks for a token.').waitFor()
  assert.equal(await page.getByText('alice').count(), 0)
  assert.deepEqual(operator.complaints, [])
})

story('a document is kept, brought back, taken along, deleted and purged, each when it is confirmed', async (scene) => {
  const server = await scene.serve()
  const alice = await scene.visit(server, HOSTILE, HOSTILE)
  alice.types('hello')
  await eventually(async () => assert.equal(await server.text(HOSTILE), 'hello'))
  const operator = await lookAfter(scene, server)
  const { page } = operator
  await operator.comes()
  await page.locator('#open').getByRole('link', { name: HOSTILE, exact: true }).click()
  await page.getByRole('heading', { name: HOSTILE, exact: true }).waitFor()
  await page.getByText(`says: ${HOSTILE}`).waitFor()

  await operator.does('Keep a version')
  await page.getByLabel('Its name, if it is to have one').fill(HOSTILE)
  await page.keyboard.press('Enter')
  const version = page.locator('#versions li').first()
  await version.getByText(HOSTILE).waitFor()
  alice.types(', world')
  await eventually(async () => assert.equal(await server.text(HOSTILE), 'hello, world'))
  await version.getByRole('button', { name: 'Rename' }).click()
  await page.getByLabel('Name', { exact: true }).fill('a greeting')
  await operator.answers('Save')
  await version.getByText('a greeting').waitFor()
  await version.getByRole('button', { name: 'Restore' }).click()
  await operator.answers('Restore')
  await alice.reads('hello')
  const greeting = page.locator('#versions li', { hasText: 'a greeting' })
  await eventually(async () => assert.equal(await page.locator('#versions li').count(), 2))
  await greeting.getByRole('button', { name: 'Delete' }).click()
  await operator.answers('Delete')
  await greeting.waitFor({ state: 'detached' })

  const download = page.waitForEvent('download')
  await operator.does('Text')
  const file = await download
  assert.match(file.suggestedFilename(), /^-img src=x onerror=alert\(1\)-\.txt$/)
  assert.equal(await readFile(await file.path(), 'utf8'), 'hello')

  const status = async () => (await server.export(HOSTILE, 'text')).status
  await operator.does('Delete')
  await operator.answers('Cancel')
  assert.equal(await status(), 200)
  await operator.does('Delete')
  await operator.answers('Delete')
  await operator.hears('The document is deleted.')
  assert.equal(await status(), 404)
  await eventually(() => assert.equal(alice.provider.wsconnected, false))
  await page.getByText(/there is no document/).waitFor()
  await operator.does('Take it back')
  await page.getByText('Text inserted').waitFor()
  assert.equal(await server.text(HOSTILE), 'hello')

  // What nobody can take back is asked for twice.
  await operator.does('Purge')
  const purge = page.getByRole('dialog').getByRole('button', { name: 'Purge' })
  assert.equal(await purge.isDisabled(), true)
  await page.getByLabel('Type its name').fill('something else')
  assert.equal(await purge.isDisabled(), true)
  await page.getByLabel('Type its name').fill(HOSTILE)
  await purge.click()
  await operator.hears('The document is purged.')
  assert.equal(await status(), 404)
  await operator.does('Take it back')
  await operator.hears(/no deleted document/)
  assert.equal(await page.locator('img').count(), 0)
  assert.deepEqual(operator.complaints, [])
})

story('the page shows the other nodes, and what went wrong, also while the store is away', async (scene) => {
  const redis = await startRedis(scene)
  const flags = ['--redis', redis.url]
  const [server] = [await scene.serve({ flags }), await scene.serve({ flags })]
  const alice = await scene.visit(server, 'letter', 'Alice')
  alice.types('hello')
  const listed = async () => (await fetch(`${server.url}/api/documents`)).json()
  await eventually(async () => assert.equal((await listed()).documents[0]?.name, 'letter'))
  await redis.kill()
  const operator = await lookAfter(scene, server)
  const { page } = operator
  alice.types(', is anybody there?')
  await operator.comes()
  await page.getByText(/The store is away: /).waitFor()
  await page.getByText(/They cannot be listed: /).waitFor()
  await page.locator('#errors').getByText(/edits could not be saved/).waitFor()
  await eventually(async () => assert.equal((await operator.row('letter'))[6], 'no, with trouble'))
  await redis.start()
  await eventually(async () => assert.equal((await operator.row('letter'))[6], 'yes, with trouble'))
  await page.getByText(/The store is away: /).waitFor({ state: 'detached' })
  await page.locator('#all').getByRole('link', { name: 'letter' }).waitFor()
  // Whose lease ran out meanwhile goes on under another number, and the old one is forgotten after a while.
  const nodes = page.getByRole('heading', { name: /^Node [0-9a-f]{16}$/ })
  await eventually(async () => assert.equal(await nodes.count(), 2), { within: 40_000 })
  await page.getByText(/has not answered this page/).waitFor()
  await page.locator('#errors').getByRole('link', { name: 'letter' }).click()
  // A Redis that was killed may have lost a second besides, which is told in its place.
  await page.getByText(/^Last error, .*: (edits could not be saved|the store has lost)/).waitFor()
  assert.deepEqual(operator.complaints.filter((complaint) => !/status of 503/.test(complaint)), [])
}, { patience: 120_000 })

story('the page finds documents that nobody has open, by keyboard and on a phone', async (scene) => {
  const server = await scene.serve()
  const names = ['notes/one', 'notes/two', `other/${'long'.repeat(40)}`]
  for (const name of names) {
    const made = await fetch(`${server.url}/api/documents/${encodeURIComponent(name)}`, { method: 'PUT' })
    assert.equal(made.status, 201)
  }
  const operator = await lookAfter(scene, server, { ...PHONE, colorScheme: 'dark' })
  const { page } = operator
  await operator.comes()
  const listed = () => page.locator('#all a').allInnerTexts()
  await eventually(async () => assert.deepEqual(await listed(), names))
  assert.equal(await operator.scrollsSideways(), false)
  await page.getByLabel('Names that begin with').fill('notes/')
  await page.keyboard.press('Enter')
  await eventually(async () => assert.deepEqual(await listed(), names.slice(0, 2)))
  await page.locator('#all').getByRole('link', { name: 'notes/two' }).focus()
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: 'notes/two' }).waitFor()
  await eventually(async () => assert.equal(await page.evaluate(() => document.activeElement.id), 'name'))
  await page.goBack()
  await page.getByLabel('A name, also a deleted one').fill(names[2])
  await page.keyboard.press('Enter')
  await page.getByRole('heading', { name: names[2] }).waitFor()
  assert.equal(await operator.scrollsSideways(), false)

  // A server that is away is said to be, and the page goes on when it is back.
  await server.kill()
  await page.getByText('The server cannot be reached').waitFor()
  await server.start()
  await page.getByText('The server cannot be reached').waitFor({ state: 'detached' })
  assert.deepEqual(operator.complaints.filter((complaint) => !/ERR_CONNECTION|ERR_EMPTY_RESPONSE/.test(complaint)), [])
})
