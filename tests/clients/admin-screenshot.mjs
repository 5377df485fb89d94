// Takes the picture of the overview page in the README: some documents, in which people come, write and go.

import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { startBrowser } from './browser.mjs'
import { Scene, eventually, random, repository } from './harness.mjs'

/** Seconds until the charts have something to show. */
const SECONDS = 120

const names = ['garden/spring plan', 'garden/seeds', 'minutes/2026-11', 'reading circle', 'roof/offers', 'welcome']

const scene = new Scene()
try {
  const server = await scene.serve()
  const browser = await startBrowser()
  scene.afterwards(() => browser.close())
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' })
  await page.goto(`${server.url}/admin`)
  const dice = random(7)
  const people = []
  for (let second = 0; second < SECONDS; second += 1) {
    if (second % 4 === 0 && people.length < 18) {
      // The first ones are the most popular.
      const name = names[Math.floor(dice() ** 2 * names.length)]
      people.push(await scene.visit(server, name, `Reader ${people.length}`))
    }
    const busy = 0.5 + Math.sin(second / 12) / 3
    for (const person of people) if (dice() < busy) person.types('word '.repeat(1 + Math.floor(dice() * 5)))
    await pause(1_000)
  }
  await eventually(async () => (await page.locator('#open tr').count()) > 3)
  await page.screenshot({ path: join(repository, 'docs/admin.png') })
  console.log('The picture is docs/admin.png')
} finally {
  await scene.clear()
}
