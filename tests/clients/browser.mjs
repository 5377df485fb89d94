// A person in front of the demo: a real browser, and what she does and sees in it.

import assert from 'node:assert/strict'
import { chromium } from 'playwright-core'
import { assertSameText, eventually } from './harness.mjs'

/** What a browser logs of itself when a server cannot be reached: the page cannot keep it from doing so. */
const UNREACHABLE = /WebSocket connection to .* failed|net::ERR_CONNECTION_REFUSED|net::ERR_CONNECTION_RESET/

/** Starts the system's Chromium, or the one that CHROMIUM names. */
export function startBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  })
}

/** Somebody opens the demo in a browser profile of her own. Resolves when it says that it is connected. */
export async function visitDemo(browser, server, document, { token, name, color = '#286fd3', ...profile }) {
  const context = await browser.newContext({ colorScheme: 'light', ...profile })
  const visitor = new Visitor(context, await context.newPage())
  visitor.page.setDefaultTimeout(10_000)
  const query = new URLSearchParams(token ? { document, token } : { document, name, color })
  await visitor.page.goto(`${server.url}/?${query}`)
  await visitor.isConnected()
  return visitor
}

/** Two people on one empty page see each other, and what the other writes. */
export async function writeTogether(alice, bob) {
  await eventually(async () => assert.deepEqual(await alice.people(), ['Alice you', 'Bob']))
  await eventually(async () => assert.deepEqual(await bob.people(), ['Alice', 'Bob you']))

  await alice.types('Hello Bob')
  await bob.reads('Hello Bob')
  await bob.presses('Control+End', 'Enter')
  await bob.types('Hello Alice')
  await alice.reads('Hello Bob\nHello Alice')
  await eventually(async () => assert.deepEqual(await alice.carets(), ['Bob']))
  await eventually(async () => assert.deepEqual(await bob.carets(), ['Alice']))

  // Both at the same time, each in a paragraph.
  await Promise.all([alice.types(', how are you?'), bob.types(', I am here.')])
  for (const reader of [alice, bob]) await reader.reads('Hello Bob, how are you?\nHello Alice, I am here.')
}

class Visitor {
  #complaints = []

  constructor(context, page) {
    this.context = context
    this.page = page
    this.editor = page.getByTestId('editor')
    page.on('pageerror', (error) => this.#complaints.push(String(error)))
    page.on('console', (message) => {
      if (message.type() === 'error') this.#complaints.push(message.text())
    })
  }

  isConnected() {
    return eventually(async () => assert.match(await this.status(), /^(Connected|Saving|Saved)/))
  }

  /** What the page says of the connection and of what is saved. */
  status() {
    return this.page.getByTestId('status').innerText()
  }

  isOffline() {
    return eventually(async () => assert.match(await this.status(), /^Offline/))
  }

  /** Types where the caret is, key by key. */
  async types(words) {
    await this.#takesTheKeyboard()
    await this.page.keyboard.type(words)
  }

  async presses(...keys) {
    await this.#takesTheKeyboard()
    for (const key of keys) {
      await this.page.keyboard.press(key)
      // A browser tells the page of a moved selection in its next frame, and no hand is faster.
      await this.page.evaluate(() => new Promise((seen) => requestAnimationFrame(() => setTimeout(seen))))
    }
  }

  async #takesTheKeyboard() {
    if (await this.editor.evaluate((editor) => editor.contains(document.activeElement))) return
    await this.editor.click()
    // The editor puts its own selection back 20 ms after it gets the focus, and no hand is faster. Its timer comes
    // before a longer one that was set later.
    await this.page.evaluate(() => new Promise((settled) => setTimeout(settled, 30)))
  }

  /** Waits until the text is this, its paragraphs on lines of their own. */
  reads(words) {
    return eventually(async () => assertSameText(await this.text(), words))
  }

  /** The text without the carets that stand in it. */
  text() {
    return this.editor.evaluate((editor) => {
      const copy = editor.cloneNode(true)
      for (const caret of copy.querySelectorAll('.collaboration-carets__caret')) caret.remove()
      // The editor sets word joiners around carets.
      return [...copy.children].map((block) => block.textContent.replaceAll('\u2060', '')).join('\n')
    })
  }

  /** The names on the carets of others. */
  carets() {
    return this.page.locator('.collaboration-carets__label').allInnerTexts()
  }

  /** The entries of the list of people. */
  async people() {
    const entries = await this.page.getByTestId('people').locator('li').allInnerTexts()
    return entries.map((entry) => entry.replace(/\s+/g, ' ').trim()).sort()
  }

  /** Waits until the browser has kept on its disk what the page gave it: databases take their turns in order. */
  async hasKeptEverything() {
    await this.page.evaluate(async () => {
      const answer = (request, event) => new Promise((resolve, reject) => {
        request[event] = () => resolve(request.result)
        request.onerror = () => reject(request.error)
      })
      for (const { name } of await indexedDB.databases()) {
        const database = await answer(indexedDB.open(name), 'onsuccess')
        const stores = [...database.objectStoreNames]
        if (stores.length > 0) {
          const turn = database.transaction(stores, 'readonly')
          turn.objectStore(stores[0]).count()
          await answer(turn, 'oncomplete')
        }
        database.close()
      }
    })
  }

  /** Opens the same page again, as the reload button does. */
  async reloads() {
    await this.page.reload()
  }

  /** The page has been kept by the browser, and opens from now on without the server. */
  async pageIsKept() {
    await this.page.evaluate(() => navigator.serviceWorker.ready)
  }

  /** Whether something is wider than the screen. */
  scrollsSideways() {
    return this.page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth)
  }

  /** What the console complained about. A server that is away on purpose is no complaint. */
  complaints({ serverWasAway = false } = {}) {
    return this.#complaints.filter((complaint) => !(serverWasAway && UNREACHABLE.test(complaint)))
  }

  async leaves() {
    await this.context.close()
  }
}
