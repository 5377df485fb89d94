// Somebody does not see what somebody else wrote, or who is there.

import assert from 'node:assert/strict'
import { describe } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { assertSameText, eventually, freePort, story } from './harness.mjs'

/** A person whose line broke is gone for the others after at most this: milliseconds, with some for a busy machine. */
const GONE = 3_000 + 1_000

/** What needs nobody's timer happens at once. This is once, on a busy machine: milliseconds. */
const AT_ONCE = 1_500

/** y-websocket gives a line up that was silent for 30 seconds, and looks every 3 seconds. */
const SILENCE = 35_000

const QUIET = `a reader without awareness stays connected for ${SILENCE / 1000} seconds`

// One place is for the long quiet story, which waits beside the others.
describe('sync', { concurrency: 2 }, () => {
  story(QUIET, async ({ serve, visit }) => {
    const server = await serve()
    const reader = await visit(server, 'notes')
    reader.awareness.setLocalState(null)
    const lines = []
    reader.provider.on('status', ({ status }) => lines.push(status))

    await pause(SILENCE)

    assert.deepEqual(lines, [], 'the line was given up')
    assert.ok(reader.provider.synced)
  })

  story('what two people type at the same moment is in both texts', async ({ serve, visit }) => {
    const server = await serve()
    const alice = await visit(server, 'notes')
    const bob = await visit(server, 'notes')

    alice.types('hello')
    await bob.reads('hello')

    for (let n = 0; n < 200; n += 1) {
      alice.types(`a${n} `)
      bob.text.insert(0, `b${n} `)
      if (n % 10 === 9) alice.deletes(0, 3)
    }
    await alice.agreesWith(bob)
    assert.match(bob.text.toString(), /b199 b198 .* a198 a199 $/)
    assertSameText(await server.text('notes'), alice.text.toString())
  })

  story('text, map, array and XML all converge', async ({ serve, visit }) => {
    const server = await serve()
    const alice = await visit(server, 'everything')
    const bob = await visit(server, 'everything')

    alice.types('bold words')
    alice.text.format(0, 4, { bold: true })
    const nested = new Y.Map([['deep', new Y.Array()]])
    alice.doc.getMap('map').set('nested', nested)
    bob.doc.getMap('map').set('theirs', { plain: [1, 2.5, null, true, 'ü'] })
    bob.doc.getArray('array').push(['one', new Uint8Array([1, 2, 3]), new Y.Text('inner')])
    alice.doc.getArray('array').insert(0, ['zero'])
    const paragraph = new Y.XmlElement('paragraph')
    alice.doc.getXmlFragment('default').insert(0, [paragraph])
    paragraph.setAttribute('align', 'left')
    paragraph.insert(0, [new Y.XmlText('a paragraph')])
    await eventually(() => assert.ok(bob.doc.getMap('map').has('nested')))
    bob.doc.getMap('map').get('nested').get('deep').push(['from the other side'])
    bob.doc.getXmlFragment('default').push([new Y.XmlElement('image')])

    await eventually(() => assert.deepEqual(contents(alice), contents(bob)))
    const { text, map, array, xml } = contents(alice)
    assert.deepEqual(text[0], { insert: 'bold', attributes: { bold: true } })
    assert.deepEqual(map.nested, { deep: ['from the other side'] })
    assert.equal(array.length, 4)
    assert.equal(xml, '<paragraph align="left">a paragraph</paragraph><image></image>')
  })

  story('what was written offline arrives, in both directions', async ({ serve, visit }) => {
    const server = await serve()
    const alice = await visit(server, 'notes')
    const bob = await visit(server, 'notes')
    alice.types('before. ')
    await bob.reads('before. ')

    alice.disconnects()
    alice.types('on a train. ')
    alice.deletes(0, 3)
    bob.types('at the desk. ')
    alice.connects()

    await alice.agreesWith(bob)
    assert.match(bob.text.toString(), /^ore\. /)
    assert.match(bob.text.toString(), /on a train\. /)
    assert.match(alice.text.toString(), /at the desk\. /)
  })

  story('no two names lead to one document', async ({ serve, visit }) => {
    const server = await serve()
    const names = [
      'notes', 'Notes', 'team/notes', 'team//notes', 'team notes', 'team+notes', '100% #1?', 'Größe/日本語/🦊',
      '__proto__', 'constructor', 'a.b', 'a'.repeat(100),
    ]
    for (const name of names) {
      const author = await visit(server, name)
      assert.equal(author.text.toString(), '', `"${name}" is new`)
      author.types(`this is "${name}"`)
    }
    for (const name of names) {
      const reader = await visit(server, name)
      await reader.reads(`this is "${name}"`)
      assert.equal(await server.text(name), `this is "${name}"`)
    }
  })

  story('a subdocument is loaded by its guid, by who wants it', async ({ serve, visit, afterwards }) => {
    const server = await serve({ port: await freePort() })
    const address = `${server.url.replace('http', 'ws')}/ws`
    const connects = (subdocument) => {
      const provider = new WebsocketProvider(address, subdocument.guid, subdocument, { WebSocketPolyfill: WebSocket, disableBc: true })
      afterwards(() => provider.destroy())
    }
    const chapters = ({ doc }) => doc.getMap('map')
    const text = (person, title) => chapters(person).get(title).getText('text')
    const alice = await visit(server, 'book')
    const bob = await visit(server, 'book')
    for (const { doc } of [alice, bob]) doc.on('subdocs', ({ loaded }) => loaded.forEach(connects))

    chapters(alice).set('draft', new Y.Doc({ guid: 'book/draft' }))
    chapters(alice).set('one', new Y.Doc({ guid: 'book/one', meta: { title: 'One' } }))
    text(alice, 'one').insert(0, 'Once upon a time')
    chapters(alice).delete('draft')
    await eventually(() => assert.deepEqual(chapters(bob).get('one')?.meta, { title: 'One' }))
    await eventually(() => assert.deepEqual([...chapters(bob).keys()], ['one']))
    assert.equal(text(bob, 'one').toString(), '', 'nobody loads what was not asked for')
    chapters(bob).get('one').load()
    await eventually(() => assertSameText(text(bob, 'one').toString(), 'Once upon a time'))
    text(bob, 'one').insert(16, ' there was')
    await eventually(() => assertSameText(text(alice, 'one').toString(), 'Once upon a time there was'))

    const json = async () => (await server.export('book', 'json')).json()
    assert.deepEqual((await json()).map, { one: { guid: 'book/one' } })
    assert.equal(await server.text('book/one'), 'Once upon a time there was')

    // Overwritten, deleted, and in the snapshot of a server that was started again.
    chapters(alice).set('one', new Y.Doc({ guid: 'book/another' }))
    await eventually(() => assert.equal(chapters(bob).get('one').guid, 'book/another'))
    chapters(bob).set('two', new Y.Doc({ guid: 'book/two', autoLoad: true, gc: false }))
    await eventually(() => assert.ok(chapters(alice).get('two')))
    await server.stop()
    await server.start()
    const carol = await visit(server, 'book')
    const { guid, autoLoad, gc } = chapters(carol).get('two')
    assert.deepEqual({ guid, autoLoad, gc }, { guid: 'book/two', autoLoad: true, gc: false })
    assert.deepEqual(Y.encodeStateAsUpdate(carol.doc), Y.encodeStateAsUpdate(alice.doc))
  })

  story('a document nobody wrote is not found', async ({ serve }) => {
    const server = await serve()
    const response = await server.export('nobody/was/here', 'text')
    assert.equal(response.status, 404)
    assert.match((await response.json()).detail, /nobody/)
  })

  story('who comes late sees at once who is there', async ({ serve, visit }) => {
    const server = await serve()
    const alice = await visit(server, 'notes', 'Alice')
    const bob = await visit(server, 'notes', 'Bob')
    await eventually(() => assert.deepEqual(alice.sees(), ['Alice', 'Bob']))
    await eventually(() => assert.deepEqual(bob.sees(), ['Alice', 'Bob']))

    const carol = await visit(server, 'notes', 'Carol')
    await eventually(() => assert.deepEqual(carol.sees(), ['Alice', 'Bob', 'Carol']), { within: AT_ONCE })
  })

  story('who says goodbye is gone at once, who is cut off a little later', async ({ serve, visit }) => {
    const server = await serve()
    const alice = await visit(server, 'notes', 'Alice')
    const bob = await visit(server, 'notes', 'Bob')
    const carol = await visit(server, 'notes', 'Carol')
    await eventually(() => assert.deepEqual(alice.sees(), ['Alice', 'Bob', 'Carol']))

    bob.disconnects()
    await eventually(() => assert.deepEqual(alice.sees(), ['Alice', 'Carol']), { within: AT_ONCE })
    carol.vanishes()
    await eventually(() => assert.deepEqual(alice.sees(), ['Alice']), { within: GONE })
  })

  story('who is back in a moment was never away', async ({ serve, visit }) => {
    const server = await serve()
    const alice = await visit(server, 'notes', 'Alice')
    const bob = await visit(server, 'notes', 'Bob')
    await eventually(() => assert.deepEqual(bob.sees(), ['Alice', 'Bob']))
    const left = []
    bob.awareness.on('change', ({ removed }) => left.push(...removed))

    const { clock } = alice.awareness.meta.get(alice.id)
    alice.losesTheLine()
    await eventually(() => !alice.provider.synced)
    await alice.isSynced()
    assert.equal(alice.awareness.meta.get(alice.id).clock, clock, 'she came back with the clock she had')

    // Time enough for a removal that was only put off.
    await pause(GONE)
    assert.deepEqual(left, [], 'she was seen to leave')
    assert.deepEqual(bob.sees(), ['Alice', 'Bob'])
    alice.awareness.setLocalStateField('user', { name: 'Alice Liddell' })
    await eventually(() => assert.deepEqual(bob.sees(), ['Alice Liddell', 'Bob']))
  })

  story('twenty people at once all see each other and the same text', async ({ serve, invite }) => {
    const server = await serve()
    const people = Array.from({ length: 20 }, (_, n) => invite(server, 'meeting', `Person ${n}`))
    const names = people.map((_, n) => `Person ${n}`).sort()
    people.forEach((person, n) => person.types(`[${n}]`))

    for (const person of people) {
      await person.agreesWith(people[0])
      await eventually(() => assert.deepEqual(person.sees(), names))
    }
    const words = people[0].text.toString().match(/\[\d+\]/g)
    assert.equal(words.length, 20, 'everybody is in the text')
  })
})

function contents({ doc }) {
  return {
    text: doc.getText('text').toDelta(),
    map: doc.getMap('map').toJSON(),
    array: doc.getArray('array').toJSON(),
    xml: doc.getXmlFragment('default').toString(),
  }
}
