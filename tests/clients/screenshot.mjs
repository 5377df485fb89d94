// Takes the pictures in the README: three people in one document, two of them seen by the third; and its history.

import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { startBrowser, visitDemo } from './browser.mjs'
import { Scene, eventually, repository, signedToken } from './harness.mjs'

const docs = join(repository, 'docs')
const page = 'garden/spring plan'
const secret = 'only for the picture of a garden behind the library'

const scene = new Scene()
try {
  const browser = await startBrowser()
  scene.afterwards(() => browser.close())
  // The history tells by the token who wrote.
  const server = await scene.serve({ variables: { QUIRE_SECRET: secret } })
  const visit = (name, color, profile) => {
    const claims = { sub: name.toLowerCase(), name, color, documents: [{ name: page, level: 'write' }] }
    return visitDemo(browser, server, page, { token: signedToken(secret, claims), ...profile })
  }
  const ada = await visit('Ada', '#b95303', { viewport: { width: 1280, height: 800 }, deviceScaleFactor: 1 })
  const ben = await visit('Ben', '#037b9b')
  const cleo = await visit('Cleo', '#7b5dcf')

  // Typed as one would: `# ` begins a heading and `- ` a list.
  await ada.types('# A garden behind the library\n')
  await ada.types('Everyone who borrows a book may borrow a **bed of earth** too: one season, one neighbour, ')
  await ada.types('whatever grows.\n')
  await ada.types('## Before April\n')
  await ada.types('- Ask the school for its rain barrels\n')
  await ada.types('Draw the paths, wide enough for wheelchairs\n')
  await ada.types('Swap seeds at the reading on Thursday')
  const written = await ada.text()
  await ben.reads(written)
  await cleo.reads(written)
  const keep = async (name) => {
    await eventually(async () => assert.equal(await ada.status(), 'Saved'))
    await ada.page.getByLabel('Name of the version').fill(name)
    await ada.page.getByRole('button', { name: 'Save version' }).click()
    await ada.page.getByTestId('versions').getByText(name).waitFor()
    await ada.page.getByRole('button', { name: 'Close this message' }).click()
  }
  await ada.page.getByTestId('history').click()
  await keep('First draft')
  await ada.page.getByTestId('history').click()

  // Ben is in the middle of a sentence, and Cleo has marked two words to change them.
  await ben.presses('Control+End', 'Enter', 'Enter')
  await ben.types('The beans could climb along the south wall, where it is')
  await cleo.presses('Control+Home', 'End', 'ArrowDown', 'ArrowDown', 'End', 'ArrowLeft')
  await cleo.presses('Shift+Control+ArrowLeft', 'Shift+Control+ArrowLeft')
  await eventually(async () => (await ada.text()).endsWith('where it is'))
  await eventually(async () => (await ada.carets()).length === 2)

  await ada.page.mouse.move(0, 0)
  await mkdir(docs, { recursive: true })
  await ada.page.screenshot({ path: join(docs, 'screenshot.png') })

  // Cleo has changed them, Ben has come to an end, and Ada looks at what is new.
  await cleo.types('anything you like')
  await ben.types(' warm.')
  await eventually(async () => /anything you like.* warm\.$/s.test(await ada.text()))
  await ada.page.getByTestId('history').click()
  await keep('Sent to the council')
  await ada.page.getByTestId('versions').getByText('Sent to the council').click()
  await ada.page.getByTestId('preview').locator('ins').first().waitFor()
  await ada.page.mouse.move(0, 0)
  await ada.page.screenshot({ path: join(docs, 'history.png') })
  console.log(`The pictures are in ${docs}`)
} finally {
  await scene.clear()
}
