// Takes the picture in the README: three people in one document, two of them seen by the third.

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { startBrowser, visitDemo } from './browser.mjs'
import { Scene, eventually, repository } from './harness.mjs'

const picture = join(repository, 'docs/screenshot.png')
const page = 'garden/spring plan'

const scene = new Scene()
try {
  const browser = await startBrowser()
  scene.afterwards(() => browser.close())
  const server = await scene.serve()
  const ada = await visitDemo(browser, server, page, {
    name: 'Ada', color: '#b95303', viewport: { width: 1280, height: 800 }, deviceScaleFactor: 1,
  })
  const ben = await visitDemo(browser, server, page, { name: 'Ben', color: '#037b9b' })
  const cleo = await visitDemo(browser, server, page, { name: 'Cleo', color: '#7b5dcf' })

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

  // Ben is in the middle of a sentence, and Cleo has marked two words to change them.
  await ben.presses('Control+End', 'Enter', 'Enter')
  await ben.types('The beans could climb along the south wall, where it is')
  await cleo.presses('Control+Home', 'End', 'ArrowDown', 'ArrowDown', 'End', 'ArrowLeft')
  await cleo.presses('Shift+Control+ArrowLeft', 'Shift+Control+ArrowLeft')
  await eventually(async () => (await ada.text()).endsWith('where it is'))
  await eventually(async () => (await ada.carets()).length === 2)

  await mkdir(join(repository, 'docs'), { recursive: true })
  await ada.page.screenshot({ path: picture })
  console.log(`The picture is in ${picture}`)
} finally {
  await scene.clear()
}
