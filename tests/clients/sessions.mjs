// Random sessions of people who edit one document with Yjs, each from a seed: what they sent, in an order in which a
// server may have got it, and the document in which it ends. tests/sessions.rs holds Quire to it.
//
//   node sessions.mjs <first seed> <count>    prints the sessions, one JSON object in a line
//   node sessions.mjs seeds <folder>          writes inputs for the fuzz targets (fuzz/)
//   node sessions.mjs frames <file>           writes the frames that benches/mutated.rs changes

import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as encoding from 'lib0/encoding'
import * as Y from 'yjs'
import { Awareness, encodeAwarenessUpdate } from 'y-protocols/awareness'

/** Every so many sessions one is a crowd, in which many people make an edit or two. */
const CROWD_EVERY = 100

/** The root types. Quire is told their kinds, because no update says them. */
const roots = {
  text: (doc) => doc.getText('text'),
  map: (doc) => doc.getMap('map'),
  array: (doc) => doc.getArray('array'),
  xml: (doc) => doc.getXmlFragment('xml'),
}

class Chance {
  #state

  constructor(seed) {
    this.#state = seed
  }

  /** Mulberry32. */
  number() {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  below = (end) => Math.floor(this.number() * end)
  of = (values) => values[this.below(values.length)]
  happens = (probability) => this.number() < probability
}

/** The server in the middle, as far as Yjs is concerned. Its log is the order in which updates came to it. */
class Middle {
  log = []
  doc = new Y.Doc()
  clients = []
  /** State vectors that it had before. */
  vectors = [new Uint8Array([0])]

  constructor(id) {
    this.doc.clientID = id
    // Yjs tidies formats up where it finds them doubled.
    this.doc.on('update', (update, origin) => origin === 'net' || this.#note(update, null))
  }

  takes(update, from) {
    this.#note(update, from)
    Y.applyUpdate(this.doc, update, 'net')
    this.vectors.push(Y.encodeStateVector(this.doc))
  }

  #note(update, from) {
    this.log.push(update)
    for (const client of this.clients) if (client !== from && client.online) client.inbox.push(update)
  }
}

class Client {
  online = true
  inbox = []
  /** Updates that are sent together; none where each is sent at once. */
  held = null

  constructor(middle, id, chance) {
    this.middle = middle
    this.chance = chance
    this.doc = new Y.Doc()
    this.doc.clientID = id
    this.doc.on('update', (update, origin) => origin === 'net' || this.#sends(update))
    middle.clients.push(this)
  }

  /** Can undo what it did from now on. */
  canUndo() {
    const scope = Object.values(roots).map((root) => root(this.doc))
    this.undoing = new Y.UndoManager(scope, { captureTimeout: 0 })
  }

  #sends(update) {
    if (!this.online) return
    if (this.held) this.held.push(update)
    else this.middle.takes(update, this)
  }

  flush() {
    const held = this.held ?? []
    this.held = null
    if (held.length > 0) this.middle.takes(Y.mergeUpdates(held), this)
  }

  hears(count) {
    for (const update of this.inbox.splice(0, count)) Y.applyUpdate(this.doc, update, 'net')
  }

  leaves() {
    this.flush()
    this.online = false
    this.inbox = []
  }

  /** Sends what the server lacks, as far as the client knows what it has: at times that is long ago. */
  returns() {
    const known = this.chance.happens(0.7) ? this.middle.vectors.at(-1) : this.chance.of(this.middle.vectors)
    this.middle.takes(Y.encodeStateAsUpdate(this.doc, known), this)
    this.online = true
    Y.applyUpdate(this.doc, Y.encodeStateAsUpdate(this.middle.doc, Y.encodeStateVector(this.doc)), 'net')
  }
}

function ordinary(chance, id) {
  const middle = new Middle(id())
  const clients = Array.from({ length: 2 + chance.below(3) }, () => new Client(middle, id(), chance))
  for (const client of clients) if (chance.happens(0.5)) client.canUndo()
  for (let steps = 15 + chance.below(60); steps > 0; steps -= 1) {
    const client = chance.of(clients)
    const dice = chance.below(40)
    if (dice < 24) edit(client.doc, chance)
    else if (dice < 26) client.doc.transact(() => { for (let n = 0; n < 4; n += 1) edit(client.doc, chance) })
    else if (dice < 33) client.hears(1 + chance.below(6))
    else if (dice < 35) client.undoing?.[chance.of(['undo', 'undo', 'redo'])]()
    else if (dice < 37) client.online ? client.leaves() : client.returns()
    else if (client.online) client.held ? client.flush() : (client.held = [])
  }
  for (const client of clients) client.online ? client.flush() : client.returns()
  // Hearing makes some of them tidy up, which the others hear.
  while (clients.some((client) => client.inbox.length > 0)) for (const client of clients) client.hears(Infinity)
  return middle
}

/** So many that an update of all of them is no everyday update; most never hear of the others. */
function crowd(chance, id) {
  const middle = new Middle(id())
  const clients = Array.from({ length: 70 + chance.below(60) }, () => new Client(middle, id(), chance))
  for (const client of clients) {
    if (chance.happens(0.3)) client.hears(Infinity)
    for (let n = chance.below(3); n >= 0; n -= 1) edit(client.doc, chance)
  }
  middle.clients = clients.slice(0, 3)
  while (middle.clients.some(({ inbox }) => inbox.length > 0)) for (const client of middle.clients) client.hears(Infinity)
  return middle
}

const words = ['a', 'bc', 'hello ', 'ü', '📝', '👩‍🚀 x', '\n', '<&">', 'ﬁ\u0001', 'long '.repeat(9)]

function value(chance, depth = 0) {
  const deeper = () => value(chance, depth + 1)
  const dice = chance.below(depth < 3 ? 22 : 18)
  const plain = [null, undefined, true, false, 0, -5, 1.5, -0.1, 2 ** 31, 2 ** 40, -(2 ** 45 + 1), NaN,
    -Infinity, 1n << 62n, -7n, 'word', '📝', new Uint8Array([0, 255, chance.below(256)])]
  if (dice < plain.length) return plain[dice]
  if (dice < 20) return Array.from({ length: chance.below(4) }, deeper)
  return Object.fromEntries(Array.from({ length: chance.below(4) }, () => [chance.of(['k', '', 'ü"']), deeper()]))
}

/** A value for an array: Yjs takes some only under a key, or within other values. */
function member(chance) {
  const drawn = value(chance)
  return drawn === undefined || typeof drawn === 'bigint' ? [drawn] : drawn
}

/** What JSON has, for formats and what is embedded in a text. */
const json = (chance) => chance.of([true, 1, 'x', '📝', { href: 'https://a.b/?c&d', n: 1 }, [1, { a: null }], 2.5])

function nested(chance) {
  switch (chance.below(6)) {
    case 0: return new Y.Text(chance.of(words))
    case 1: return new Y.Map([['in', value(chance)], ['type', new Y.Array()], ['a', subdocument(chance)]])
    case 2: return Y.Array.from([member(chance), subdocument(chance), member(chance)])
    default: return node(chance)
  }
}

/** A document of its own, of which a document says the guid and the options. */
function subdocument(chance) {
  const options = { guid: chance.of(['one', 'two', 'team/plan', 'ü 📝']), gc: chance.happens(0.8), autoLoad: chance.happens(0.2) }
  return new Y.Doc(chance.happens(0.5) ? options : { ...options, meta: value(chance) })
}

function node(chance, depth = 0) {
  switch (chance.below(depth < 3 ? 4 : 2)) {
    case 0: return new Y.XmlText(chance.of(words))
    case 1: return new Y.XmlElement('br')
    default: {
      const element = new Y.XmlElement(chance.of(['p', 'list-item', 'blockquote']))
      element.insert(0, Array.from({ length: chance.below(3) }, () => node(chance, depth + 1)))
      if (chance.happens(0.5)) element.setAttribute('level', chance.of(['1', 2, 'a<b']))
      return element
    }
  }
}

/** Every shared type in a document that still is there. */
function types(doc) {
  const found = []
  const visit = (type) => {
    found.push(type)
    if (type instanceof Y.Map) type.forEach(inside)
    else if (type instanceof Y.Text) type.toDelta().forEach(({ insert }) => inside(insert))
    else type.toArray().forEach(inside)
  }
  const inside = (value) => value instanceof Y.AbstractType && visit(value)
  for (const root of Object.values(roots)) visit(root(doc))
  return found
}

function edit(doc, chance) {
  const type = chance.happens(0.5) ? chance.of(Object.values(roots))(doc) : chance.of(types(doc))
  if (type instanceof Y.Text) editText(type, chance)
  else if (type instanceof Y.Map) editMap(type, chance)
  else if (type instanceof Y.Array) editArray(type, chance)
  else editXml(type, chance)
}

/** Some place and some length from there on. */
function stretch(length, chance) {
  const at = chance.below(length + 1)
  return [at, Math.min(length - at, 1 + chance.below(6))]
}

/**
 * The same for a text, but never from or to the middle of a character: Yjs replaces the halves only where it comes to
 * cut them, and then differs from itself.
 */
function characters(text, chance) {
  const units = text.toDelta().map(({ insert }) => (typeof insert === 'string' ? insert : '-')).join('')
  const whole = (at) => (/[\udc00-\udfff]/.test(units[at] ?? '') ? at - 1 : at)
  const [at, length] = stretch(text.length, chance)
  return [whole(at), whole(at + length) - whole(at)]
}

function editText(text, chance) {
  const [at, length] = characters(text, chance)
  const formats = () => ({ [chance.of(['bold', 'em', 'link'])]: chance.happens(0.3) ? null : json(chance) })
  switch (chance.below(9)) {
    case 0: return text.insert(at, chance.of(words), formats())
    case 1: return text.delete(at, length)
    case 2: return text.delete(at, length)
    case 3: return text.format(at, length, formats())
    case 4: return text.insertEmbed(at, chance.happens(0.8) ? json(chance) : embedded(text, chance), formats())
    case 5: return text.applyDelta([{ retain: at }, { insert: chance.of(words), attributes: formats() }, { delete: length }])
    default: return text.insert(at, chance.of(words))
  }
}

/** A type that stands in a text. A root that holds nothing else does not look like a text: there it is a value. */
function embedded(text, chance) {
  if (text.parent === null) return json(chance)
  return text instanceof Y.XmlText ? new Y.XmlElement('img') : nested(chance)
}

function editMap(map, chance) {
  const key = chance.of(['a', 'b', 'ü', ''])
  switch (chance.below(6)) {
    case 0: return map.delete(key)
    case 1: return map.set(key, nested(chance))
    case 2: return map.set(key, subdocument(chance))
    default: return map.set(key, value(chance))
  }
}

function editArray(array, chance) {
  const [at, length] = stretch(array.length, chance)
  switch (chance.below(5)) {
    case 0: return array.delete(at, length)
    case 1: return array.insert(at, [nested(chance), member(chance)])
    case 2: return array.insert(at, Array.from({ length: 1 + chance.below(3) }, () => subdocument(chance)))
    default: return array.insert(at, Array.from({ length: 1 + chance.below(3) }, () => member(chance)))
  }
}

function editXml(xml, chance) {
  const [at, length] = stretch(xml.length, chance)
  const dice = chance.below(6)
  if (dice === 0) return xml.delete(at, length)
  if (dice < 3 && xml instanceof Y.XmlElement) {
    const key = chance.of(['class', 'level'])
    return dice === 1 ? xml.setAttribute(key, chance.of(['x', 3, true, '"<', subdocument(chance)])) : xml.removeAttribute(key)
  }
  return xml.insert(at, [node(chance)])
}

// What is expected of Quire's exports (src/document/export.rs), from Yjs's own types.

function exported(value) {
  if (value === undefined || (typeof value === 'number' && !Number.isFinite(value))) return null
  // JSON.stringify knows no BigInt: a marked string, which the test turns back.
  if (typeof value === 'bigint') return `bigint:${value}`
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  if (value instanceof Y.Doc) return { guid: value.guid }
  if (value instanceof Y.XmlText) return xmlText(value)
  if (value instanceof Y.XmlElement) return xmlElement(value)
  if (value instanceof Y.XmlFragment) return xmlChildren(value)
  if (value instanceof Y.Text) return value.toString()
  if (value instanceof Y.Array) return value.toArray().map(exported)
  if (value instanceof Y.Map) return exported(Object.fromEntries(value.entries()))
  if (Array.isArray(value)) return value.map(exported)
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, value]) => [key, exported(value)]))
  }
  return value
}

const entities = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
const escaped = (text) =>
  // eslint-disable-next-line no-control-regex
  text.replace(/[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, '').replace(/[&<>"]/g, (character) => entities[character])
const sorted = (object) => Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1))
const attributes = (object) => sorted(object)
  .map(([key, value]) => ` ${key}="${escaped(typeof value === 'string' ? value : JSON.stringify(exported(value)))}"`).join('')
const xmlChildren = (parent) => parent.toArray().map(exported).join('')
const xmlElement = (element) =>
  `<${element.nodeName}${attributes(element.getAttributes())}>${xmlChildren(element)}</${element.nodeName}>`

function xmlText(text) {
  return text.toDelta().map(({ insert, attributes: formats = {} }) => {
    const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value)
    const open = sorted(formats).map(([key, value]) => `<${key}${isObject(value) ? attributes(value) : ''}>`).join('')
    const close = sorted(formats).reverse().map(([key]) => `</${key}>`).join('')
    const content = typeof insert === 'string' ? escaped(insert) : insert instanceof Y.XmlElement ? xmlElement(insert) : ''
    return open + content + close
  }).join('')
}

const plain = (text) => text.toDelta().map(({ insert }) => (typeof insert === 'string' ? insert : '')).join('')
const line = (child) => child instanceof Y.XmlText ? plain(child) : child.nodeName === 'br' ? '\n' : lineOf(child)
const lineOf = (parent) => parent.toArray().map(line).join('')
const lines = (parent) => parent.toArray().flatMap((child) => {
  if (child instanceof Y.XmlText) return [plain(child)]
  const children = child.toArray()
  const isLine = children.length === 0 || children.some((child) => child instanceof Y.XmlText)
  return isLine ? [lineOf(child)] : lines(child)
})

/** Which roots a document has. Yjs makes one where it is asked for one: this is to be asked first. */
const rootsOf = (doc) => Object.fromEntries(Object.keys(roots).map((name) => [name, doc.share.has(name)]))

/** What Quire must make of a document that has these roots. */
function expected(doc, there) {
  const { text, xml } = Object.fromEntries(Object.entries(roots).map(([name, root]) => [name, root(doc)]))
  const texts = [there.text && text.toString(), there.xml && lines(xml).join('\n')]
  return {
    state: base64(Y.encodeStateAsUpdate(doc)),
    json: Object.fromEntries(Object.entries(roots).map(([name, root]) => [name, there[name] ? exported(root(doc)) : null])),
    text: texts.filter((text) => text !== false).join('\n\n'),
    xml: `<document>${there.xml ? `<fragment name="xml">${xmlChildren(xml)}</fragment>` : ''}</document>`,
    delta: text.toDelta().map(({ insert, attributes = {} }) => ({ insert: typeof insert === 'string' ? insert : null, attributes })),
  }
}

const base64 = (bytes) => Buffer.from(bytes).toString('base64')

/** The ids of people: as Yjs draws them, or small ones, so that a changed byte is likely to be another person. */
function ids(chance, small) {
  let last = 0
  return () => (small ? (last += 1) : chance.below(2 ** 32))
}

function session(seed, small = false) {
  const chance = new Chance(seed)
  const play = seed % CROWD_EVERY === CROWD_EVERY - 1 ? crowd : ordinary
  const middle = play(chance, ids(chance, small))
  const there = rootsOf(middle.doc)
  const ending = expected(middle.doc, there)
  for (const { doc } of middle.clients) {
    assert.deepEqual({ ...expected(doc, there), state: ending.state }, ending, `Yjs agrees with itself, seed ${seed}`)
  }
  return { seed, updates: middle.log, ...ending }
}

const framed = (updates) => encoding.encode((encoder) => {
  for (const update of updates) encoding.writeVarUint8Array(encoder, update)
})

const message = (kinds, bytes) => encoding.encode((encoder) => {
  for (const kind of kinds) encoding.writeVarUint(encoder, kind)
  encoding.writeVarUint8Array(encoder, bytes)
})

/** What a client says of itself whose document has this id. */
function presenceOf(clientID, cursor) {
  const doc = new Y.Doc()
  doc.clientID = clientID
  const awareness = new Awareness(doc)
  awareness.setLocalState({ user: { name: 'Ada', color: '#30bced' }, cursor })
  const states = encodeAwarenessUpdate(awareness, [clientID])
  awareness.destroy()
  return states
}

function writeSeeds(folder) {
  const write = (target, name, bytes) => {
    mkdirSync(join(folder, target), { recursive: true })
    writeFileSync(join(folder, target, name), bytes)
  }
  for (let seed = 0; seed < 40; seed += 1) {
    const { updates, state } = session(seed, true)
    const whole = Buffer.from(state, 'base64')
    write('mutated', `session-${seed}`, framed(updates))
    write('mutated', `whole-${seed}`, framed([whole]))
    write('update', `whole-${seed}`, whole)
    for (const [n, update] of updates.slice(0, 10).entries()) {
      write('update', `${seed}-${n}`, update)
      write('message', `update-${seed}-${n}`, message([0, 2], update))
    }
    const vector = Y.encodeStateVectorFromUpdate(whole)
    write('state_vector', `${seed}`, vector)
    write('message', `step-1-${seed}`, message([0, 0], vector))
    write('message', `step-2-${seed}`, message([0, 1], whole))
    const states = presenceOf(1_000 + seed, seed)
    write('awareness', `${seed}`, states)
    write('message', `awareness-${seed}`, message([1], states))
    write('relayed', `awareness-${seed}`, Buffer.concat([Buffer.from([1]), states]))
    // Format 1, a time, the lengths of the updates, and the updates.
    const short = updates.filter((update) => update.length < 251).slice(0, 20)
    write('record', `${seed}`, Buffer.concat([Buffer.from([1, 7, short.length, ...short.map((update) => update.length)]), ...short]))
  }
}

/** Twelve sessions as their frames went over the wire: greeting, presence, edits, and in the end all of it at once. */
function writeFrames(file) {
  const frames = []
  for (let seed = 0; seed < 12; seed += 1) {
    const { updates, state } = session(seed, true)
    const whole = Buffer.from(state, 'base64')
    frames.push(message([0, 0], new Uint8Array([0])), message([1], presenceOf(1_000 + seed, seed)))
    frames.push(...updates.map((update) => message([0, 2], update)), encoding.encode((encoder) => encoding.writeVarUint(encoder, 3)))
    frames.push(message([0, 0], Y.encodeStateVectorFromUpdate(whole)), message([0, 1], whole))
  }
  writeFileSync(file, framed(frames))
}

const [first, second] = process.argv.slice(2)
if (first === 'seeds') {
  writeSeeds(second)
} else if (first === 'frames') {
  writeFrames(second)
} else {
  for (let seed = Number(first); seed < Number(first) + Number(second); seed += 1) {
    const { updates, ...ending } = session(seed)
    process.stdout.write(`${JSON.stringify({ updates: updates.map(base64), ...ending })}\n`)
  }
}
