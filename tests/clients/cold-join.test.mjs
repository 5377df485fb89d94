// People who open a document at the same moment, before it is in memory, end up in different ones.

import assert from 'node:assert/strict'
import { assertSameText, story } from './harness.mjs'

const DOCUMENTS = 50
const PEOPLE = 20

/** How often a document is left by all and opened again in the same moment. */
const RETURNS = 20

story(`${PEOPLE} people open a stored document at once, ${DOCUMENTS} times`, async ({ serve, visit, invite }) => {
  const server = await serve()
  for (let n = 0; n < DOCUMENTS; n += 1) {
    const author = await visit(server, `cold ${n}`)
    author.types(`stored in ${n}. `)
    author.disconnects()
  }
  // After a restart no document is in memory.
  assert.equal((await server.stop()).code, 0)
  await server.start()

  for (let n = 0; n < DOCUMENTS; n += 1) {
    const people = Array.from({ length: PEOPLE }, () => invite(server, `cold ${n}`))
    await Promise.all(people.map((person) => person.reads(`stored in ${n}. `)))
    people[n % PEOPLE].types('and one more.')
    await Promise.all(people.map((person) => person.reads(`stored in ${n}. and one more.`)))
    for (const person of people) person.leaves()
  }
})

story(`a document that leaves memory is opened again in that moment, ${RETURNS} times`, async ({ serve, invite }) => {
  const server = await serve({ flags: ['--idle', '0'] })
  let written = ''
  for (let n = 0; n < RETURNS; n += 1) {
    const people = Array.from({ length: PEOPLE }, () => invite(server, 'revolving door'))
    await Promise.all(people.map((person) => person.reads(written)))
    people[0].types(`${n} `)
    written += `${n} `
    await Promise.all(people.map((person) => person.reads(written)))
    for (const person of people) person.leaves()
  }
  assertSameText(await server.text('revolving door'), written)
})
