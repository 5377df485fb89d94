// The overview page: asks the API every few seconds how things are, and does what people want to be done.
// Everything that it shows is made of text nodes: neither a name nor an answer can be markup here.

'use strict'

/** Milliseconds between two looks at the node, and at a document, which costs the server more. */
const LOOK_EVERY = 2_000
const DOCUMENT_EVERY = 5_000
/** Milliseconds after which the list of all documents is asked for again. */
const LIST_EVERY = 10_000
/** Looks that a chart shows: five minutes. */
const SAMPLES = 150
/** Rows that are asked for at once. */
const OPEN = 50
const LISTED = 100
const VERSIONS = 20
const TOKEN = 'quire-admin-token'

/** What the charts show of a node: of the last look, or by how much it grew in a second since the one before. */
const CHARTS = [
  ['Sessions', ({ sessions }) => sessions, count],
  ['Open documents', ({ documents }) => documents, count],
  ['Edits a second', (now, before) => rate(now, before, 'edits'), count],
  ['Received a second', (now, before) => rate(now, before, 'received'), bytes],
  ['Sent a second', (now, before) => rate(now, before, 'sent'), bytes],
  ['Memory', ({ memory }) => memory, bytes],
]

const page = Object.fromEntries([...document.querySelectorAll('[id]')].map((element) => [element.id, element]))

const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties)
  element.append(...children)
  return element
}

// Figures and times, for people

function count(number) {
  return new Intl.NumberFormat('en', { maximumFractionDigits: number < 10 ? 1 : 0 }).format(number)
}

function bytes(number) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let unit = 0
  while (number >= 1_000 && unit < units.length - 1) {
    number /= 1_000
    unit += 1
  }
  return `${count(number)} ${units[unit]}`
}

function span(milliseconds) {
  const units = [['d', 86_400_000], ['h', 3_600_000], ['min', 60_000], ['s', 1_000]]
  const [name, length] = units.find(([, length]) => milliseconds >= length) ?? units.at(-1)
  return `${Math.floor(milliseconds / length)} ${name}`
}

/** How long ago a time is, as it is said, with the exact one for whoever points at it. */
function ago(time) {
  if (!time) return '–'
  const date = new Date(time)
  const passed = Date.now() - time
  const words = passed < 1_000 ? 'now' : `${span(passed)} ago`
  return make('time', { dateTime: date.toISOString(), title: date.toLocaleString() }, words)
}

const plural = (number, one) => `${number} ${one}${number === 1 ? '' : 's'}`

// Asking the server

class Refused extends Error {
  constructor(status, detail) {
    super(detail)
    this.status = status
  }
}

async function ask(path, { method = 'GET', json } = {}) {
  const token = sessionStorage.getItem(TOKEN)
  const headers = {
    ...(token && { authorization: `Bearer ${token}` }),
    ...(json && { 'content-type': 'application/json' }),
  }
  const response = await fetch(path, { method, headers, body: json && JSON.stringify(json), cache: 'no-store' })
  if (response.ok) return response
  const problem = await response.json().catch(() => ({}))
  throw new Refused(response.status, problem.detail ?? `the server answered ${response.status}`)
}

const read = async (path) => (await ask(path)).json()
const pathOf = (name, rest = '') => `/api/documents/${encodeURIComponent(name)}${rest}`
const addressOf = (name) => `#document=${encodeURIComponent(name)}`

// Which page is shown

/** The document that is looked at; none for the overview. */
let shown = null
/** Grows with each look: what an earlier one is answered is not shown any more. */
let turn = 0
let versionsShown = VERSIONS

function route() {
  const [, name] = /^#document=(.*)$/.exec(location.hash) ?? []
  shown = name === undefined ? null : decodeName(name)
  versionsShown = VERSIONS
  document.title = shown === null ? 'Quire: overview' : `${shown} – Quire`
  if (shown !== null) {
    page.name.textContent = shown
    for (const list of [page.stats, page.sessions, page.presence, page.versions]) list.replaceChildren()
  }
  look()
}

function decodeName(name) {
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}

/** Shows what may be seen: the question for a token, or the page. */
function show({ signIn = false } = {}) {
  const before = !page.document.hidden
  page['sign-in'].hidden = !signIn
  page.overview.hidden = signIn || shown !== null
  page.document.hidden = signIn || shown === null
  page['sign-out'].hidden = !sessionStorage.getItem(TOKEN)
  if (!page.document.hidden && !before) page.name.focus()
}

// Looking again and again

let timer = null

async function look() {
  clearTimeout(timer)
  turn += 1
  const mine = turn
  try {
    // Nobody looks at a page in the background.
    if (!document.hidden) await (shown === null ? lookAtEverything(mine) : lookAtDocument(mine))
    if (mine !== turn) return
    page.status.textContent = ''
  } catch (error) {
    if (mine !== turn) return
    // It goes on when somebody has signed in.
    if (error.status === 401 || error.status === 403) return askForToken(error)
    page.status.textContent = error.status ? error.message : 'The server cannot be reached; trying again.'
  }
  timer = setTimeout(look, shown === null ? LOOK_EVERY : DOCUMENT_EVERY)
}

function askForToken(error) {
  page.why.textContent = sessionStorage.getItem(TOKEN) ? `This token does not do: ${error.message}.` : 'This server asks for a token.'
  show({ signIn: true })
  page['sign-in'].elements.token.focus()
}

// The overview

/** What each node has answered, look by look: a balancer may have another one answer each time. */
const heard = new Map()

async function lookAtEverything(mine) {
  const [nodes, open, { errors }] = await Promise.all([
    read('/api/nodes'), read(`/api/open-documents?by=${page.by.value}&limit=${OPEN}`), read('/api/errors'),
  ])
  // Where somebody has asked for more of them, they stay as they are.
  if ((all.length <= LISTED || listedAt === 0) && Date.now() - listedAt >= LIST_EVERY) await list()
  if (mine !== turn) return
  show()
  hear(nodes)
  showNodes(nodes)
  fill(page.open, open.documents, ({ name }) => name, row(7), (cells, one) => {
    cell(cells[0], link(one.name))
    cell(cells[1], bytes(one.bytes))
    cell(cells[2], count(one.sessions))
    cell(cells[3], count(one.editsPerMinute))
    cell(cells[4], count(one.edits))
    cell(cells[5], ago(one.changed))
    cell(cells[6], one.lastError ? `${one.unsaved ? 'no' : 'yes'}, with trouble` : one.unsaved ? 'not yet' : 'yes')
  })
  const few = open.documents.length
  page['open-count'].textContent = open.open === 0 ? 'No document is open on this node.' : few < open.open ? `${few} of ${open.open}` : ''
  page['errors-section'].hidden = errors.length === 0
  fill(page.errors, errors, ({ name }) => name, ({ name }) => make('li', {}, link(name), make('span')), (item, { time, reason }) => {
    item.lastChild.replaceChildren(`: ${reason}, `, ago(time))
  })
}

function hear({ node, others }) {
  const key = node.id ?? ''
  let samples = heard.get(key)
  // It was started again.
  if (!samples || samples.at(-1).uptime > node.uptime) samples = []
  heard.set(key, [...samples, node].slice(-SAMPLES))
  // The others are gone, or have another number by now.
  const alive = new Set([key, ...others.map(({ id }) => id)])
  for (const key of heard.keys()) if (!alive.has(key)) heard.delete(key)
}

function rate(now, before, what) {
  if (!before || now.uptime <= before.uptime) return null
  return ((now[what] - before[what]) * 1_000) / (now.uptime - before.uptime)
}

function showNodes({ node, others }) {
  const silent = others.filter(({ id }) => !heard.has(id)).map(({ id, late }) => ({ id, late }))
  const known = [...heard].map(([id, samples]) => ({ id, samples, answers: id === (node.id ?? '') }))
  const all = [...known, ...silent].sort((one, other) => (one.id < other.id ? -1 : 1))
  fill(page.nodes, all, ({ id }) => id, makeNode, updateNode)
}

function makeNode() {
  const charts = CHARTS.map(([label]) => {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
    svg.setAttribute('viewBox', '0 0 150 30')
    svg.setAttribute('preserveAspectRatio', 'none')
    svg.setAttribute('role', 'img')
    svg.append(document.createElementNS('http://www.w3.org/2000/svg', 'polyline'))
    return make('figure', {}, make('figcaption', {}, label), make('strong'), svg)
  })
  return make('article', { className: 'node' }, make('h3'), make('p', { className: 'hint' }), make('div', { className: 'charts' }, ...charts))
}

function updateNode(article, { id, samples, late, answers }) {
  const [title, about, charts] = article.children
  title.textContent = id === '' ? 'This node' : `Node ${id}`
  charts.hidden = !samples
  if (!samples) {
    about.textContent = late ? 'Its lease has run out: it may be gone.' : 'It is there, and has not answered this page. A load balancer decides who answers.'
    return
  }
  const { version, uptime, draining, over, storeAway } = samples.at(-1)
  const troubles = [
    draining && 'It empties, because it will stop.',
    over.length > 0 && `It is full: ${over.map((flag) => `--${flag}`).join(', ')}.`,
    storeAway && `The store is away: ${storeAway}.`,
  ].filter(Boolean)
  about.className = troubles.length > 0 ? 'trouble' : 'hint'
  about.textContent = [...troubles, `Version ${version}, up for ${span(uptime)}${answers ? '' : ', another one answered last'}.`].join(' ')
  CHARTS.forEach(([label, value, say], at) => {
    const values = samples.map((sample, n) => value(sample, samples[n - 1])).filter((value) => value !== null)
    draw(charts.children[at], label, values, say)
  })
}

function draw(figure, label, values, say) {
  const [, now, svg] = figure.children
  const most = Math.max(...values, 0)
  const left = 150 - values.length
  const points = values.map((value, n) => `${left + n},${(29 - (most > 0 ? (28 * value) / most : 0)).toFixed(1)}`)
  svg.firstChild.setAttribute('points', points.join(' '))
  now.textContent = values.length > 0 ? say(values.at(-1)) : '…'
  svg.setAttribute('aria-label', `${label}: ${now.textContent} now, at most ${say(most)} since this page was opened`)
}

/** What is listed of all documents, after which name the next ones come, and when it was asked for. */
let all = []
let after = null
let listedAt = 0

/** Lists all documents whose names begin so: from the beginning, or the next ones too. Where the store is away, the rest of the page is worth a look all the same. */
async function list({ more = false } = {}) {
  const query = new URLSearchParams({ prefix: page.find.elements.prefix.value, limit: LISTED })
  if (more) query.set('after', after)
  const answer = await read(`/api/documents?${query}`).catch((error) => error)
  const failed = answer instanceof Error
  listedAt = failed ? 0 : Date.now()
  all = failed ? [] : [...(more ? all : []), ...answer.documents]
  after = failed ? null : answer.next
  page.more.hidden = after === null
  fill(page.all, all, ({ name }) => name, row(3), (cells, one) => {
    cell(cells[0], link(one.name))
    cell(cells[1], bytes(one.bytes))
    cell(cells[2], ago(one.changed))
  })
  const words = failed ? `They cannot be listed: ${answer.message}.` : 'None.'
  if (all.length === 0) page.all.replaceChildren(make('tr', {}, make('td', { colSpan: 3 }, words)))
}

// One document

async function lookAtDocument(mine) {
  const name = shown
  const settled = await Promise.allSettled([
    read(pathOf(name, '/stats')), read(pathOf(name, '/sessions')), read(pathOf(name, `/versions?limit=${versionsShown}`)), read('/api/errors'),
  ])
  if (mine !== turn) return
  const failed = settled.find(({ reason }) => reason)?.reason
  // What is wrong with a document itself is said beside its name.
  const isItsOwn = failed && (failed.status === 404 || failed.status === 500)
  if (failed && !isItsOwn) throw failed
  show()
  page.there.hidden = page.stats.hidden = Boolean(failed)
  page.gone.hidden = failed?.status !== 404
  document.querySelector('[data-does=remove]').hidden = failed?.status === 404
  const error = settled[3].value?.errors.find((one) => one.name === name)
  page.trouble.hidden = !failed && !error
  page.trouble.replaceChildren(...(failed ? [failed.message] : error ? ['Last error, ', ago(error.time), ': ', error.reason] : []))
  if (failed) return
  const [stats, { sessions, presence }, { versions, next }] = settled.map(({ value }) => value)
  showStats(stats)
  showSessions(sessions, presence)
  fill(page.versions, versions, ({ id }) => id, makeVersion, updateVersion)
  if (versions.length === 0) page.versions.replaceChildren(make('li', { className: 'hint' }, 'None yet.'))
  page.older.hidden = next === null
}

function showStats(stats) {
  const facts = [
    ['Size', bytes(stats.bytes)],
    ['Text inserted', `${count(stats.inserted)}, of which ${count(stats.deleted)} deleted`],
    ['Clients that ever wrote', count(stats.clients)],
    ['Log since the last snapshot', `${plural(stats.logRecords, 'record')}, ${bytes(stats.logBytes)}`],
    ['Here', `${plural(stats.sessions, 'session')} on this node, ${plural(stats.presences, 'client')} on all`],
    ['Changed', [ago(stats.changed), stats.changedBy ? ` by ${stats.changedBy}` : '']],
  ]
  page.stats.replaceChildren(...facts.map(([what, value]) => make('div', {}, make('dt', {}, what), make('dd', {}, ...[value].flat()))))
}

function showSessions(sessions, presence) {
  const users = Map.groupBy(sessions, ({ user }) => user ?? '')
  fill(page.sessions, [...users], ([user]) => user, () => make('li', {}, make('span'), ' '), (item, [user, own]) => {
    const reading = own.filter(({ readOnly }) => readOnly).length
    const reads = reading === own.length ? ', reading' : reading > 0 ? `, ${reading} reading` : ''
    item.firstChild.textContent = `${user || 'Somebody without a token'}: ${plural(own.length, 'session')}${reads}`
    if (user && item.childElementCount === 1) item.append(button('End', () => endSessions(user), `End the sessions of ${user}`))
  })
  if (sessions.length === 0) page.sessions.replaceChildren(make('li', { className: 'hint' }, 'Nobody on this node.'))
  fill(page.presence, presence, ({ client }) => client, () => make('li', { className: 'hint' }), (item, { client, state }) => {
    const name = state?.user?.name ?? state?.name
    item.textContent = `Client ${client} says: ${typeof name === 'string' ? name : JSON.stringify(state).slice(0, 200)}`
  })
}

function makeVersion({ id }) {
  const name = () => page.versions.querySelector(`[data-version="${id}"] b`)?.textContent
  return make('li', {},
    make('span'), ' ',
    button('Restore', () => restore(id), `Restore version ${id}`),
    button('Rename', () => rename(id, name()), `Rename version ${id}`),
    button('Delete', () => removeVersion(id), `Delete version ${id}`))
}

function updateVersion(item, { id, name, time, bytes: size, users }) {
  item.dataset.version = id
  item.firstChild.replaceChildren(...(name ? [make('b', {}, name), ', '] : []), ago(time), `, ${bytes(size)}${users.length > 0 ? `, by ${users.join(', ')}` : ''}`)
}

// What can be done

const actions = {
  endAll: () => endSessions(null),
  async keep() {
    const name = await question({ title: 'Keep a version', label: 'Its name, if it is to have one', yes: 'Keep' })
    if (name !== null) await done('The version is kept.', pathOf(shown, '/versions'), { method: 'POST', json: name ? { name } : {} })
  },
  async remove() {
    const sure = await question({ title: `Delete ${shown}?`, explanation: 'Its sessions end. It can be taken back for a while.', yes: 'Delete' })
    if (sure !== null) await done('The document is deleted.', pathOf(shown), { method: 'DELETE' })
  },
  async purge() {
    const sure = await question({
      title: `Purge ${shown}?`,
      explanation: 'Its sessions end, and nobody can take it back.',
      label: 'Type its name', needed: shown, yes: 'Purge',
    })
    if (sure !== null) await done('The document is purged.', pathOf(shown, '?purge=true'), { method: 'DELETE' })
  },
  takeBack: () => done('The document is there again.', pathOf(shown, '/restore'), { method: 'POST' }),
}

async function endSessions(user) {
  const explanation = 'On all nodes. Who still has a good token can come back.'
  const sure = await question({ title: user ? `End the sessions of ${user}?` : 'End all sessions?', explanation, yes: 'End' })
  const query = user ? `?${new URLSearchParams({ user })}` : ''
  if (sure !== null) await done('The sessions were told to end.', pathOf(shown, `/sessions${query}`), { method: 'DELETE' })
}

async function restore(id) {
  const explanation = 'Everybody sees it at once. A version of what is there now is kept.'
  const sure = await question({ title: 'Restore this version?', explanation, yes: 'Restore' })
  if (sure !== null) await done('The version is restored.', pathOf(shown, `/versions/${id}/restore`), { method: 'POST' })
}

async function rename(id, before = '') {
  const name = await question({ title: 'Rename this version', label: 'Name', value: before, yes: 'Save' })
  if (name !== null) await done('The version is renamed.', pathOf(shown, `/versions/${id}`), { method: 'PATCH', json: { name: name || null } })
}

async function removeVersion(id) {
  const sure = await question({ title: 'Delete this version?', explanation: 'The newest one only loses its name.', yes: 'Delete' })
  if (sure !== null) await done('The version is deleted.', pathOf(shown, `/versions/${id}`), { method: 'DELETE' })
}

/** Does something, says so, and looks what came of it. */
async function done(words, path, how) {
  try {
    await ask(path, how)
    tell(words)
  } catch (error) {
    tell(`That did not work: ${error.message}.`)
  }
  listedAt = 0
  look()
}

/** Gives somebody the document as a file. */
async function take(format, ending) {
  try {
    const content = await (await ask(pathOf(shown, `?format=${format}`))).blob()
    const href = URL.createObjectURL(content)
    make('a', { href, download: `${shown.replaceAll(/[/\\:*?"<>|]/g, '-')}.${ending}` }).click()
    setTimeout(() => URL.revokeObjectURL(href), LOOK_EVERY)
  } catch (error) {
    tell(`That did not work: ${error.message}.`)
  }
}

/** Asks before something is done: answers what was typed, or null where it is not to be done. */
function question({ title, explanation = '', label = '', value = '', needed, yes }) {
  page.question.textContent = title
  page.explanation.textContent = explanation
  page['answer-label'].hidden = !label
  page['answer-label'].firstElementChild.textContent = label
  page.answer.value = value
  page.yes.textContent = yes
  const check = () => (page.yes.disabled = needed !== undefined && page.answer.value !== needed)
  page.answer.oninput = check
  check()
  page.ask.returnValue = ''
  page.ask.showModal()
  return new Promise((answer) => {
    page.ask.onclose = () => answer(page.ask.returnValue === 'yes' ? page.answer.value : null)
  })
}

let toast = null

function tell(words) {
  clearTimeout(toast)
  page.toast.hidden = false
  page.toast.textContent = words
  toast = setTimeout(() => (page.toast.hidden = true), 3_000 + 60 * words.length)
}

// Pieces of the page

function button(words, does, label = words) {
  const made = make('button', { type: 'button', onclick: does }, words)
  made.setAttribute('aria-label', label)
  return made
}

const link = (name) => make('a', { href: addressOf(name) }, name)

const row = (cells) => () => make('tr', {}, ...Array.from({ length: cells }, () => make('td')))

/** Puts something into a cell, unless it says the same: a link keeps the focus. */
function cell(td, content) {
  const words = typeof content === 'string' ? content : content.textContent
  if (td.textContent !== words) td.replaceChildren(content)
}

/** Makes the children of an element be these items: those that stay keep their element, and with it the focus. */
function fill(parent, items, keyOf, create, update) {
  const before = new Map([...parent.children].map((child) => [child.key, child]))
  const children = items.map((item) => {
    const key = keyOf(item)
    const child = before.get(key) ?? Object.assign(create(item), { key })
    update(child.tagName === 'TR' ? child.cells : child, item)
    return child
  })
  for (const child of [...parent.children]) if (!children.includes(child)) child.remove()
  children.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null)
  })
}

// What people do

page['sign-in'].onsubmit = (event) => {
  event.preventDefault()
  sessionStorage.setItem(TOKEN, page['sign-in'].elements.token.value.trim())
  page['sign-in'].reset()
  route()
}
page['sign-out'].onclick = () => {
  sessionStorage.removeItem(TOKEN)
  location.reload()
}
page.find.onsubmit = (event) => {
  event.preventDefault()
  list()
}
page.more.onclick = () => list({ more: true })
page.go.onsubmit = (event) => {
  event.preventDefault()
  location.hash = addressOf(page.go.elements.document.value)
}
page.older.onclick = () => {
  versionsShown = Math.min(versionsShown + VERSIONS, 1_000)
  look()
}
page.no.onclick = () => page.ask.close()
page.by.onchange = look
for (const one of document.querySelectorAll('[data-does]')) one.onclick = () => actions[one.dataset.does]()
for (const one of document.querySelectorAll('[data-takes]')) one.onclick = () => take(one.dataset.takes, one.dataset.ending)
addEventListener('hashchange', route)
document.addEventListener('visibilitychange', () => document.hidden || page['sign-in'].hidden === false || look())
route()
