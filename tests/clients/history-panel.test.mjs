// The demo's history does not show what was written and by whom, does not bring it back, or offers what is not allowed;
// or what somebody takes along is not the text.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { startBrowser, visitDemo } from './browser.mjs'
import { eventually, signedToken, story } from './harness.mjs'

const DOCUMENT = 'team/a page with a past'

/** A small phone held upright. */
const PHONE = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true }

/** What somebody does and sees in the history panel. */
class History {
  constructor({ page }) {
    this.page = page
    this.button = page.getByTestId('history')
    this.panel = page.getByTestId('history-panel')
    this.preview = page.getByTestId('preview')
    this.toast = page.getByTestId('toast')
  }

  async opens() {
    await this.button.click()
    await this.panel.waitFor()
  }

  async saves(name) {
    await this.panel.getByLabel('Name of the version').fill(name)
    await this.panel.getByRole('button', { name: 'Save version' }).click()
    await this.row(name).waitFor()
  }

  /** The entry of a version in the list. */
  row(name) {
    return this.page.getByTestId('versions').getByRole('button', { name })
  }

  /** The titles of all entries, newest first. */
  titles() {
    return this.page.getByTestId('versions').locator('.version-title').allInnerTexts()
  }

  does(action) {
    return this.preview.getByRole('button', { name: action }).click()
  }

  /** Answers what the page asks before it does something. */
  answers(action) {
    return this.page.getByTestId('ask').getByRole('button', { name: action }).click()
  }

  /** What is marked in the version that is shown, and by whom that was done. */
  async marks(kind) {
    const found = await this.preview.locator(kind).evaluateAll((all) => all.map((one) => [one.textContent, one.title]))
    return found.map(([text, title]) => `${text} (${title})`)
  }

  /** The text of the element that has the focus, or its label. */
  focused() {
    return this.page.evaluate(() => {
      const { activeElement } = document
      return activeElement.ariaLabel ?? activeElement.innerText.trim()
    })
  }
}

story('somebody looks at what was written, and brings a version back for everybody', async ({ serve, afterwards }) => {
  const browser = await startBrowser()
  afterwards(() => browser.close())
  const server = await serve()
  const alice = await visitDemo(browser, server, DOCUMENT, { name: 'Alice' })
  const bob = await visitDemo(browser, server, DOCUMENT, { name: 'Bob' })
  const history = new History(alice)

  await alice.types('# A plan\nWe meet on Monday.\nBring cake.')
  await bob.reads('A plan\nWe meet on Monday.\nBring cake.')
  await history.opens()
  await history.panel.getByText('No versions yet').waitFor()
  await history.saves('draft')
  assert.deepEqual(await history.titles(), ['Now', 'draft'])
  assert.match(await history.row('draft').innerText(), /Somebody/)

  // Bob writes a new paragraph and Alice takes the last one away.
  await bob.presses('Control+Home', 'ArrowDown', 'End', 'Enter')
  await bob.types('At the lake.')
  await alice.reads('A plan\nWe meet on Monday.\nAt the lake.\nBring cake.')
  await alice.presses('Control+End', 'Shift+Home', 'Backspace', 'Backspace')
  await alice.types(' Or not.')
  const later = 'A plan\nWe meet on Monday.\nAt the lake. Or not.'
  await bob.reads(later)
  await history.saves('later')

  await history.row('later').click()
  await eventually(async () => assert.deepEqual(await history.marks('ins'), ['At the lake. Or not. (Inserted by Somebody)']))
  assert.deepEqual(await history.marks('del'), ['Bring cake. (Deleted by Somebody)'])
  assert.match(await history.page.getByTestId('preview-summary').innerText(), /1 insertion, 1 deletion/)
  assert.equal(await history.preview.locator('h1').innerText(), 'A plan', 'a version keeps its formatting')
  // The newest version cannot be deleted, for the document builds on it.
  assert.equal(await history.preview.getByRole('button', { name: 'Delete' }).isVisible(), false)

  await bob.types(' Who knows?')
  await history.row('draft').click()
  await eventually(async () => assert.equal((await history.marks('ins')).length, 3))
  assert.match((await history.marks('ins')).join(), /A plan.*We meet on Monday\..*Bring cake\./)
  await history.preview.getByText('Since then').click()
  await eventually(async () => assert.match((await history.marks('ins')).join(), /Who knows\?/))
  assert.match((await history.marks('del')).join(), /Bring cake\./)

  await history.does('Restore this version')
  await history.answers('Cancel')
  await bob.reads('A plan\nWe meet on Monday.\nAt the lake. Who knows? Or not.')
  await history.does('Restore this version')
  await history.answers('Restore')
  for (const one of [alice, bob]) await one.reads('A plan\nWe meet on Monday.\nBring cake.')
  assert.equal(await history.preview.isVisible(), false)
  await history.toast.getByRole('button', { name: 'Undo' }).click()
  for (const one of [alice, bob]) await one.reads('A plan\nWe meet on Monday.\nAt the lake. Who knows? Or not.')

  await history.row('draft').click()
  await history.does('Rename')
  await alice.page.getByTestId('ask').getByRole('textbox').fill('first thoughts')
  await history.answers('Save')
  await eventually(async () => assert.equal((await history.titles()).at(-1), 'first thoughts'))
  await history.does('Delete')
  await history.answers('Delete')
  await eventually(async () => assert.equal((await history.titles()).at(-1), 'later'))
  assert.deepEqual([...alice.complaints(), ...bob.complaints()], [])
})

story('the history says by name and colour who wrote, and offers only what is allowed', async (scene) => {
  const browser = await startBrowser()
  scene.afterwards(() => browser.close())
  const secret = randomBytes(48).toString('base64')
  const server = await scene.serve({ variables: { QUIRE_SECRET: secret } })
  const visit = (sub, name, color, level) => {
    const claims = { sub, name, color, documents: [{ name: 'team/*', level }] }
    return visitDemo(browser, server, DOCUMENT, { token: signedToken(secret, claims) })
  }
  const alice = await visit('u-1', 'Alice', '#c84240', 'write')
  await alice.types('We meet on Monday.')
  const writing = new History(alice)
  await writing.opens()
  await writing.saves('draft')
  const bob = await visit('u-2', 'Bob', '#286fd3', 'write')
  await bob.presses('Control+End')
  await bob.types(' Not me.')
  await alice.reads('We meet on Monday. Not me.')
  await writing.saves('an answer')
  await writing.row('draft').click()
  assert.equal(await writing.preview.getByRole('button', { name: 'Restore this version' }).isVisible(), true)
  assert.equal(await writing.preview.getByRole('button', { name: 'Delete' }).isVisible(), false, 'that is for administrators')

  const rita = await visit('u-3', 'Rita', '#02833b', 'read')
  const reading = new History(rita)
  await reading.opens()
  await eventually(async () => assert.deepEqual(await reading.titles(), ['Now', 'an answer', 'draft']))
  const authors = reading.page.getByTestId('versions').locator('.author')
  const names = async () => (await authors.allInnerTexts()).map((name) => name.trim())
  assert.deepEqual(await names(), ['Bob', 'Alice'])
  const colours = await authors.locator('.avatar').evaluateAll((all) => all.map((one) => one.style.getPropertyValue('--person')))
  assert.deepEqual(colours, ['#286fd3', '#c84240'])
  await reading.row('an answer').click()
  await eventually(async () => assert.deepEqual(await reading.marks('ins'), [' Not me. (Inserted by Bob)']))
  for (const action of ['Restore this version', 'Rename', 'Delete']) {
    assert.equal(await reading.preview.getByRole('button', { name: action }).isVisible(), false, action)
  }
  assert.equal(await reading.panel.getByRole('button', { name: 'Save version' }).isVisible(), false)

  // Of who is away the server knows the id alone.
  await bob.leaves()
  await eventually(async () => assert.deepEqual(await names(), ['u-2', 'Alice']))
  for (const one of [alice, bob, rita]) assert.deepEqual(one.complaints(), [])
})

story('the history can be walked by keyboard, and fits on a phone', async ({ serve, afterwards }) => {
  const browser = await startBrowser()
  afterwards(() => browser.close())
  const server = await serve()
  const alice = await visitDemo(browser, server, DOCUMENT, { name: 'Alice', ...PHONE })
  await alice.types('We meet on Monday.')
  const history = new History(alice)
  await history.opens()
  assert.equal(await history.focused(), 'History')
  await history.saves(`draft ${'long'.repeat(12)}`)
  assert.equal(await alice.scrollsSideways(), false, 'the panel')

  await history.row('draft').focus()
  await alice.page.keyboard.press('Enter')
  await eventually(async () => assert.match(await history.focused(), /^draft/))
  assert.equal(await history.panel.isVisible(), false, 'it makes room for the version')
  await eventually(async () => assert.equal((await history.marks('ins')).length, 1))
  assert.equal(await alice.scrollsSideways(), false, 'the version')

  await alice.page.keyboard.press('Escape')
  assert.match(await history.focused(), /^draft/, 'the focus is back in the list')
  assert.equal(await history.panel.isVisible(), true)
  await alice.page.keyboard.press('Escape')
  assert.equal(await history.focused(), 'History')
  assert.equal(await history.panel.isVisible(), false)
  assert.equal(await history.button.getAttribute('aria-expanded'), 'false')
  assert.deepEqual(alice.complaints(), [])
})

story('what somebody takes along is the text, in a file with its name', async ({ serve, afterwards }) => {
  const browser = await startBrowser()
  afterwards(() => browser.close())
  const server = await serve()
  const alice = await visitDemo(browser, server, DOCUMENT, { name: 'Alice' })
  await alice.types('# A plan\nWe eat Käse and **bread**.')
  await eventually(async () => assert.equal(await alice.status(), 'Saved'))

  const takes = async (format) => {
    await alice.page.getByTestId('export').locator('summary').click()
    const download = alice.page.waitForEvent('download')
    await alice.page.getByTestId('export').getByRole('link', { name: format }).click()
    const file = await download
    return [file.suggestedFilename(), await readFile(await file.path(), 'utf8')]
  }
  assert.deepEqual(await takes('Markdown'), ['team-a page with a past.md', '# A plan\n\nWe eat Käse and **bread**.\n'])
  assert.deepEqual(await takes('Plain text'), ['team-a page with a past.txt', 'A plan\nWe eat Käse and bread.'])
  const [name, page] = await takes('Web page')
  assert.equal(name, 'team-a page with a past.html')
  assert.match(page, /<meta charset="utf-8">\s*<title>team\/a page with a past<\/title>/)
  assert.match(page, /<h1>A plan<\/h1><p>We eat Käse and <strong>bread<\/strong>\.<\/p>/)
  assert.deepEqual(alice.complaints(), [])
})
