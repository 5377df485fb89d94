// What people write into the documents of the golden stores, whatever server keeps them: two clients each, who edit at
// the same time.

import { writeFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import * as Y from 'yjs'

/** How long a server may take to save, after everybody has everything. */
const SAVED = 2_500

/** How long one may take to load a document that is new. */
const LOADED = 500

/** Each has a name, what is written by the first client and the second one, and the root types to be read at the end. */
export const documents = [
  {
    name: 'text',
    roots: { content: 'text' },
    first(doc) {
      const text = doc.getText('content')
      text.insert(0, 'Grüße aus Köln, 世界, עברית and 👩‍👩‍👧 too.')
      text.delete(6, 9)
      text.format(0, 5, { bold: true })
      text.insertEmbed(5, { image: 'a.png' })
    },
    second(doc) {
      const text = doc.getText('content')
      text.insert(0, 'Second: ')
      text.applyDelta([{ retain: 8 }, { insert: 'ß', attributes: { italic: true } }])
    },
  },
  {
    name: 'nested',
    roots: { board: 'map', list: 'array' },
    first(doc) {
      const board = doc.getMap('board')
      const card = new Y.Map()
      board.set('card', card)
      card.set('title', new Y.Text('a title'))
      card.set('tags', Y.Array.from(['one', 2, 3.5, true, null, { deep: [1, { er: 'x' }] }]))
      card.get('title').insert(1, ' longer')
      card.get('tags').delete(1, 2)
      for (let i = 0; i < 20; i++) card.set('overwritten', i)
      board.set('gone', new Y.Map([['inside', 'lost']]))
      board.delete('gone')
      board.set('bytes', new Uint8Array([0, 1, 2, 253, 254, 255]))
    },
    second(doc) {
      const list = doc.getArray('list')
      list.insert(0, ['a', 'b', 'c'])
      list.insert(1, [new Y.Map([['in', new Y.Array()]])])
      list.delete(0)
      doc.getMap('board').set('at the same time', -12345678.25)
    },
  },
  {
    name: 'prose',
    roots: { default: 'xml' },
    first(doc) {
      const fragment = doc.getXmlFragment('default')
      const paragraph = new Y.XmlElement('paragraph')
      fragment.insert(0, [new Y.XmlElement('heading'), paragraph])
      fragment.get(0).setAttribute('level', '2')
      fragment.get(0).insert(0, [new Y.XmlText('Über <alles> & mehr')])
      paragraph.insert(0, [new Y.XmlText('plain')])
      paragraph.get(0).insert(5, ' and bold', { bold: {} })
    },
    second(doc) {
      const item = new Y.XmlElement('listItem')
      doc.getXmlFragment('default').push([item])
      item.push([new Y.XmlText('of the second')])
      doc.getXmlFragment('default').push([new Y.XmlElement('gone')])
      doc.getXmlFragment('default').delete(1)
    },
  },
  {
    name: 'typed',
    roots: { content: 'text' },
    // One update for each letter.
    first: (doc) => type(doc, 'The quick brown fox jumps over the lazy dog. '.repeat(5)),
    second: (doc) => type(doc, 'Zwei flinke Boxer jagen die quirlige Eva und ihren Mops durch Sylt. '.repeat(4)),
  },
  { name: 'empty', roots: {}, first() {}, second() {} },
  {
    name: 'team/a plan, Ünïcode & 📝',
    roots: { content: 'text' },
    first: (doc) => doc.getText('content').insert(0, 'a name like this one'),
    second: (doc) => doc.getText('content').insert(0, '!'),
  },
  {
    name: 'with-subdocument',
    roots: { pages: 'map' },
    first: (doc) => doc.getMap('pages').set('one', new Y.Doc()),
    second() {},
  },
  {
    name: 'partly-refused',
    // Servers that keep one update for all of it have it refused as a whole.
    roots: { content: 'text' },
    refused: 'XmlHook',
    first: (doc) => doc.getXmlFragment('default').insert(0, [new Y.XmlHook('map')]),
    second: (doc) => doc.getText('content').insert(0, 'what the second one wrote'),
  },
]

function type(doc, letters) {
  const text = doc.getText('content')
  for (const [index, letter] of [...letters].entries()) {
    text.insert(text.length, letter)
    if (index % 7 === 6) text.delete(text.length - 2, 1)
  }
}

/**
 * Two clients write a document. `connect` joins one to the server, and answers with a function that leaves, when it has
 * what the server has.
 */
export async function write({ name, first, second }, connect) {
  const clients = [new Y.Doc(), new Y.Doc()]
  // Always the same ids, so that the stores stay the same.
  clients.forEach((doc, index) => (doc.clientID = 1000 + index))
  // One after the other: Y-Sweet may open a document twice, and then two who join at once do not see each other.
  const leave = [await connect(name, clients[0]), await connect(name, clients[1])]
  // Until then y-websocket's server keeps no single updates.
  await pause(LOADED)
  // At the same time: neither has what the other one writes.
  first(clients[0])
  second(clients[1])
  while (!same(...clients)) await pause(20)
  await pause(SAVED)
  leave.forEach((leave) => leave())
  return clients[0]
}

function same(a, b) {
  return Buffer.compare(fingerprint(a), fingerprint(b)) === 0
}

function fingerprint(doc) {
  return Buffer.from(Y.encodeSnapshot(Y.snapshot(doc)))
}

/** Writes down what the documents hold, as Yjs reads them. */
export async function expect(file, docs) {
  const expected = {}
  for (const { name, roots, refused } of documents.filter(({ name }) => docs[name])) {
    const content = {}
    for (const [root, kind] of Object.entries(roots)) content[root] = read(docs[name], root, kind)
    const vector = Object.fromEntries(Y.decodeStateVector(Y.encodeStateVector(docs[name])))
    expected[name] = { content, vector, refused }
  }
  await writeFile(file, JSON.stringify(expected, asBase64, 2) + '\n')
}

function read(doc, root, kind) {
  switch (kind) {
    case 'text':
      return doc.getText(root).toString()
    case 'map':
      // Yjs itself writes a subdocument with all that it holds.
      return Object.fromEntries([...doc.getMap(root)].map(([key, value]) => [key, value instanceof Y.Doc ? { guid: value.guid } : (value?.toJSON?.() ?? value)]))
    case 'array':
      return doc.getArray(root).toJSON()
    case 'xml':
      return xml(doc.getXmlFragment(root))
  }
}

// Yjs itself writes names in small letters, and escapes nothing.
function xml(node) {
  if (node instanceof Y.XmlText) {
    const wrap = (text, [name]) => `<${name}>${text}</${name}>`
    const pieces = node.toDelta().map(({ insert, attributes = {} }) => Object.entries(attributes).reduce(wrap, escape(insert)))
    return pieces.join('')
  }
  const children = node.toArray().map(xml).join('')
  if (!(node instanceof Y.XmlElement)) return children
  const attributes = Object.entries(node.getAttributes()).map(([key, value]) => ` ${key}="${escape(value)}"`)
  return `<${node.nodeName}${attributes.join('')}>${children}</${node.nodeName}>`
}

function escape(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

function asBase64(key, value) {
  return value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value
}
