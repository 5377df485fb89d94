// Yjs itself beside the simulation (tests/simulation.rs): it makes the histories that the simulated clients live
// through, and says whether what they and the server end with is what Yjs makes of the same edits.
//
// One JSON value per line comes in on stdin, one per line goes out on stdout:
//
//   {"seed": 7, "make": "history"}
//       → {"seed": 7, "clients": [[{"update": base64, "needs": [[client id, clock], ...]}, ...], ...]}
//       Per client its edits in order. An edit may be made by whoever has what it needs.
//   {"seed": 7, "make": "judgement", "states": {"the server": base64, ...}, "json": "{...}"}
//       → {"seed": 7, "problems": ["the server: ...", ...]}
//       The states are updates of whole documents; `json` is the server's export, as it came.

import { createInterface } from 'node:readline'
import * as Y from 'yjs'
import { random } from './harness.mjs'

/** The histories that were not judged yet: per seed all updates, in an order in which none needs a later one. */
const histories = new Map()

// What is judged must not be edited by the judge: Yjs deletes superfluous formats when others' edits come in.
const observe = Y.Text.prototype._callObserver
const withoutCleanup = (run) => {
  Y.Text.prototype._callObserver = function (transaction, keys) {
    observe.call(this, transaction, keys)
    transaction._needFormattingCleanup = false
  }
  try {
    return run()
  } finally {
    Y.Text.prototype._callObserver = observe
  }
}

/** One editing replica of a history. */
class Device {
  constructor(history, numbers, chance) {
    this.chance = chance
    this.numbers = numbers
    this.edits = []
    this.doc = new Y.Doc()
    this.comesAnew()
    this.text = this.doc.getText('text')
    this.map = this.doc.getMap('map')
    this.array = this.doc.getArray('array')
    this.xml = this.doc.getXmlFragment('xml')
    const roots = [this.text, this.map, this.array, this.xml]
    this.undo = chance() < 0.3 ? new Y.UndoManager(roots, { captureTimeout: 0 }) : null
    // Formats that Yjs cleans away when others' edits come in are edits as well.
    this.doc.on('update', (update, origin, doc, transaction) => {
      if (!transaction.local) return
      history.push(update)
      this.edits.push({ update: base64(update), needs: [...transaction.beforeState] })
    })
  }

  /** A page that is loaded again edits under another number. */
  comesAnew() {
    const bits = [7, 31, 32][this.below(3)]
    const number = Math.floor(this.chance() * 2 ** bits)
    if (this.numbers.has(number)) return this.comesAnew()
    this.numbers.add(number)
    this.doc.clientID = number
  }

  hearsFrom(other) {
    Y.applyUpdate(this.doc, Y.encodeStateAsUpdate(other.doc, Y.encodeStateVector(this.doc)))
  }

  below = (count) => Math.floor(this.chance() * count)
  pick = (choices) => choices[this.below(choices.length)]

  edit() {
    if (this.chance() < 0.02) this.comesAnew()
    if (this.undo && this.chance() < 0.15) {
      return this.chance() < 0.7 ? this.undo.undo() : this.undo.redo()
    }
    const operations = this.chance() < 0.7 ? 1 : 1 + this.below(4)
    this.doc.transact(() => {
      for (let n = 0; n < operations; n += 1) this.change(this.place())
    })
  }

  /** A root, or something that is nested in one. */
  place() {
    let place = this.pick(this.favourites)
    while (this.chance() < 0.6) {
      const nested = children(place)
      if (nested.length === 0) break
      place = this.pick(nested)
    }
    return place
  }

  change(place) {
    // An XML element is a fragment, and an XML text is a text.
    if (place instanceof Y.Text) this.changeText(place)
    else if (place instanceof Y.Map) this.changeMap(place)
    else if (place instanceof Y.Array) this.changeArray(place)
    else this.changeXml(place)
  }

  changeText(text) {
    const xml = text instanceof Y.XmlText
    const units = unitsOf(text)
    const from = this.position(units)
    const to = this.position(units, Math.min(units.length, from + 1 + this.below(8)))
    const dice = this.chance()
    if (dice < 0.5 || units.length === 0) {
      text.insert(from, this.words(), this.chance() < 0.25 ? this.format(xml) : undefined)
    } else if (dice < 0.75) {
      if (to > from) text.delete(from, to - from)
    } else if (dice < 0.93 || xml) {
      if (to > from) text.format(from, to - from, this.format(xml))
    } else {
      text.insertEmbed(from, { image: this.word() }, this.chance() < 0.3 ? { width: this.below(9) } : {})
    }
  }

  /** A place in a text, never within a surrogate pair. */
  position(units, at = this.below(units.length + 1)) {
    return /[\udc00-\udfff]/.test(units[at] ?? '') ? at + 1 : at
  }

  format(xml) {
    const name = this.pick(['bold', 'italic', 'link'])
    if (this.chance() < 0.3) return { [name]: null }
    if (name === 'link') return { link: { href: this.word(), title: this.word() } }
    return { [name]: xml ? {} : true }
  }

  changeMap(map) {
    const key = this.pick(['a', 'b', 'c', 'ключ'])
    if (this.chance() < 0.25) map.delete(key)
    else map.set(key, this.value(map))
  }

  changeArray(array) {
    const from = this.below(array.length + 1)
    if (this.chance() < 0.35 && from < array.length) {
      array.delete(from, 1 + this.below(Math.min(4, array.length - from)))
    } else {
      array.insert(from, Array.from({ length: 1 + this.below(3) }, () => this.value(array)))
    }
  }

  changeXml(fragment) {
    const dice = this.chance()
    if (fragment instanceof Y.XmlElement && dice < 0.3) {
      const key = this.pick(['level', 'align'])
      if (this.chance() < 0.3) fragment.removeAttribute(key)
      else fragment.setAttribute(key, this.chance() < 0.5 ? this.word() : this.below(10))
      return
    }
    const from = this.below(fragment.length + 1)
    if (dice < 0.5 && from < fragment.length) {
      fragment.delete(from, 1 + this.below(Math.min(2, fragment.length - from)))
    } else {
      fragment.insert(from, [this.chance() < 0.5 ? this.element() : new Y.XmlText(this.words())])
    }
  }

  element() {
    const element = new Y.XmlElement(this.pick(['p', 'heading', 'table']))
    if (this.chance() < 0.5) element.insert(0, [new Y.XmlText(this.words())])
    return element
  }

  value(parent) {
    switch (this.below(12)) {
      case 0: return null
      case 1: return this.chance() < 0.5
      case 2: return this.below(2 ** 40)
      case 3: return -this.chance()
      case 4: return { list: [this.word(), { deep: this.below(100) }] }
      case 5: return new Uint8Array([this.below(256), 0, 255])
      case 6: return new Y.Map([[this.word(), this.below(10)]])
      case 7: return new Y.Text(this.words())
      case 8: return Y.Array.from([this.word(), this.below(10)])
      // An array of elements alone cannot be told from a fragment, where it is a root.
      case 9: return parent === this.array ? this.word() : this.element()
      default: return this.words()
    }
  }

  words() {
    if (this.chance() < this.pastes) return this.word().repeat(60_000)
    return Array.from({ length: 1 + this.below(4) }, () => this.word()).join(' ')
  }

  word = () => this.pick(['a', 'be', 'sea', 'größe', '日本', '😀', '👩‍👧', 'x\ny', 'word', 'another'])
}

/** The types that are nested directly in one. */
function children(place) {
  const isType = (value) => value instanceof Y.AbstractType
  if (place instanceof Y.Map) return [...place.values()].filter(isType)
  if (place instanceof Y.Text) return []
  return place.toArray().filter(isType)
}

/** A text's units as Yjs counts them; an embedded value is one. */
function unitsOf(text) {
  return text.toDelta().map(({ insert }) => typeof insert === 'string' ? insert : '\ufffc').join('')
}

/** Some devices edit, each hearing now and then what another has. */
function makeHistory(seed) {
  const chance = random(seed)
  const below = (count) => Math.floor(chance() * count)
  const history = []
  const numbers = new Set()
  const devices = Array.from({ length: 2 + below(3) }, () => new Device(history, numbers, chance))
  // Some documents are of one kind, so that their edits meet more often.
  const kinds = below(3) === 0 ? ['text', 'map', 'array', 'xml'] : [['text', 'map', 'array', 'xml'][below(4)]]
  const pastes = below(50) === 0 ? 0.2 : 0.001
  for (const device of devices) {
    device.favourites = kinds.map((kind) => device[kind])
    device.pastes = pastes
  }
  const hearing = 0.05 + 0.5 * chance()
  const steps = 20 + below(120)
  for (let step = 0; step < steps; step += 1) {
    const device = devices[below(devices.length)]
    if (chance() < hearing) device.hearsFrom(devices[below(devices.length)])
    else device.edit()
  }
  histories.set(seed, history)
  return { seed, clients: devices.map((device) => device.edits) }
}

function judge({ seed, states, json }) {
  const history = histories.get(seed) ?? (makeHistory(seed), histories.get(seed))
  histories.delete(seed)
  const edited = withoutCleanup(() => documentOf(history))
  // What an UndoManager makes again may stand elsewhere when Yjs has read its own document back: then either is right.
  const readBack = withoutCleanup(() => documentOf([Y.encodeStateAsUpdate(edited)]))
  const problems = []
  for (const [whose, state] of Object.entries(states)) {
    try {
      const found = withoutCleanup(() => documentOf([Buffer.from(state, 'base64')]))
      const differs = differences(found, readBack)
      if (differs.length > 0 && differences(found, edited).length > 0) {
        problems.push(...differs.map((problem) => `${whose}: ${problem}`))
      }
    } catch (error) {
      problems.push(`${whose}: Yjs cannot read it: ${error.stack}`)
    }
  }
  const differs = exportDiffers(JSON.parse(json), readBack)
  if (differs.length > 0 && exportDiffers(JSON.parse(json), edited).length > 0) problems.push(...differs)
  return { seed, problems }
}

function documentOf(updates) {
  const doc = new Y.Doc()
  for (const update of updates) Y.applyUpdate(doc, update)
  for (const [name, type] of Object.entries(ROOTS)) doc.get(name, type)
  return doc
}

const ROOTS = { text: Y.Text, map: Y.Map, array: Y.Array, xml: Y.XmlFragment }

function differences(found, expected) {
  const problems = []
  const compare = (what, of) => {
    const [have, want] = [of(found), of(expected)].map((value) => JSON.stringify(value))
    if (have !== want) problems.push(`${what} ${excerpt(have, want)}`)
  }
  if (found.store.pendingStructs || found.store.pendingDs) problems.push('it has gaps')
  compare('its state vector', (doc) => sorted(Y.decodeStateVector(Y.encodeStateVector(doc))))
  compare('what is deleted', (doc) => sorted(Y.createDeleteSetFromStructStore(doc.store).clients))
  for (const name of Object.keys(ROOTS)) compare(`its ${name}`, (doc) => contentOf(doc.get(name, ROOTS[name])))
  return problems
}

const sorted = (map) => [...map].sort(([a], [b]) => a - b)

/** Everything that a value holds: formats, attributes and embedded values too. */
function contentOf(value) {
  if (value instanceof Uint8Array) return { bytes: [...value] }
  // The keys of a plain object stand in no order; yrs shuffles them.
  if (!(value instanceof Y.AbstractType)) return plain(value)
  const kind = value.constructor.name
  if (value instanceof Y.Text) {
    return { kind, delta: value.toDelta().map((op) => ({ ...op, insert: contentOf(op.insert), attributes: byName(op.attributes) })) }
  }
  if (value instanceof Y.Map) return { kind, entries: byName(Object.fromEntries(value.entries())) }
  const attributes = value instanceof Y.XmlElement ? byName(value.getAttributes()) : undefined
  return { kind, name: value.nodeName, attributes, children: value.toArray().map(contentOf) }
}

const byName = (object) =>
  Object.entries(object ?? {}).sort(([a], [b]) => a < b ? -1 : 1).map(([name, value]) => [name, contentOf(value)])

/** The export says of each root what Yjs's own `toJSON` says; nobody can tell what an empty root is. */
function exportDiffers(json, expected) {
  return Object.entries(ROOTS).flatMap(([name, type]) => {
    const [have, want] = [json[name], plain(expected.get(name, type).toJSON())].map((value) => JSON.stringify(value))
    const empty = ['""', '{}', '[]'].includes(want)
    return have === want || (empty && (have ?? 'null') === 'null') ? [] : [`the export's ${name} ${excerpt(have, want)}`]
  })
}

/** What JSON can hold of a value, with sorted keys. */
function plain(value) {
  if (value instanceof Uint8Array) return base64(value)
  if (Array.isArray(value)) return value.map(plain)
  if (value === undefined || value === null || typeof value !== 'object') return value ?? null
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([key, inner]) => [key, plain(inner)]))
}

/** The two around the first place where they differ. */
function excerpt(have = 'nothing', want = 'nothing') {
  let at = 0
  while (have[at] === want[at]) at += 1
  const around = (text) => text.slice(Math.max(0, at - 60), at + 60).toWellFormed()
  return `is …${around(have)}… and not …${around(want)}…`
}

const base64 = (bytes) => Buffer.from(bytes).toString('base64')

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  const answer = request.make === 'history' ? makeHistory(request.seed) : judge(request)
  process.stdout.write(JSON.stringify(answer) + '\n')
}
