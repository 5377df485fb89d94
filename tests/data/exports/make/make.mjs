// Writes the golden exports into the folder that is named: for each document its update, and what the JavaScript
// libraries make of it.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { getSchema } from '@tiptap/core'
import Highlight from '@tiptap/extension-highlight'
import Image from '@tiptap/extension-image'
import { TaskItem, TaskList } from '@tiptap/extension-list'
import Mention from '@tiptap/extension-mention'
import Subscript from '@tiptap/extension-subscript'
import Superscript from '@tiptap/extension-superscript'
import { TableKit } from '@tiptap/extension-table'
import { generateHTML } from '@tiptap/html'
import StarterKit from '@tiptap/starter-kit'
import * as tiptap from '@tiptap/y-tiptap'
import * as prosemirror from 'y-prosemirror'
import * as Y from 'yjs'

const folder = process.argv[2]
const task = TaskItem.configure({ nested: true })
const extensions = [StarterKit, Image, TaskList, task, TableKit, Highlight, Subscript, Superscript, Mention]
const schema = getSchema(extensions)

const node = (type, attrs, ...content) => ({ type, ...(attrs && { attrs }), ...(content.length && { content }) })
const text = (text, ...marks) => ({
  type: 'text',
  text,
  ...(marks.length && { marks: marks.map((mark) => (typeof mark === 'string' ? { type: mark } : mark)) }),
})
const p = (...content) => node('paragraph', null, ...content)
const item = (...content) => node('listItem', null, ...content)
const link = (href, attrs) => ({ type: 'link', attrs: { href, ...attrs } })
const cell = (attrs, ...content) => node('tableCell', attrs, p(...content))
const head = (attrs, ...content) => node('tableHeader', attrs, p(...content))

/** ProseMirror documents, and what is done to them afterwards by others. */
const fragments = {
  empty: [[p()]],
  marks: [
    [
      p(text('plain '), text('bold', 'bold'), text('both', 'bold', 'italic'), text('italic', 'italic'), text(' end')),
      p(text('s', 'strike'), text('u', 'underline'), text('c<&>', 'code'), text('h', 'highlight')),
      p(text('H'), text('2', 'subscript'), text('O'), text('2', 'superscript'), text(' spaced ', 'bold'), text('x')),
      p(text('all', 'bold', 'italic', 'strike', 'underline', 'code', link('https://example.com/'))),
      p(text('un'), text('believ', 'bold'), text('able"', 'italic'), text('quoted', 'bold')),
    ],
  ],
  unicode: [
    [
      node('heading', { level: 1 }, text('Grüße 世界 👩‍👩‍👧 עברית')),
      p(text('a\u00a0b "quoted" \'single\' <script>alert(1)</script> &amp; \u2028 tab\tend  ')),
      p(text('  * not a list')),
      p(text('# not a heading')),
      p(text('1. not a list, 2) neither')),
      p(text('back\\slash `tick` _under_ **stars** ~~waves~~ [a](b) ![c](d) <b> | pipe |')),
      p(text('https://example.com and www.example.com')),
      p(text('- a'), node('hardBreak'), text('+ b'), node('hardBreak'), text('---'), node('hardBreak'), text('===')),
    ],
  ],
  lists: [
    [
      node(
        'bulletList',
        null,
        item(p(text('one')), node('bulletList', null, item(p(text('one one'))), item(p(), p(text('second'))))),
        item(p(text('two')), node('orderedList', { start: 7 }, item(p(text('seven'))), item(p(text('eight'))))),
        item(p()),
      ),
      node('bulletList', null, item(p(text('another list')))),
      node('orderedList', { start: 1 }, item(p(text('first')), node('codeBlock', { language: 'sh' }, text('ls\n\nls')))),
      node('orderedList', { start: 0 }, item(node('blockquote', null, p(text('quote'))))),
      node(
        'taskList',
        null,
        node('taskItem', { checked: true }, p(text('done'))),
        node(
          'taskItem',
          { checked: false },
          p(text('open')),
          node('taskList', null, node('taskItem', { checked: true }, p(text('deeper')))),
        ),
      ),
    ],
  ],
  blocks: [
    [
      ...[1, 2, 3, 4, 5, 6].map((level) => node('heading', { level }, text(`Level ${level}`))),
      node('heading', { level: 2 }),
      node('heading', { level: 3 }, text('With '), text('bold', 'bold'), text(' #')),
      node('blockquote', null, p(text('a')), p(), node('blockquote', null, p(text('b')))),
      node('codeBlock', { language: 'rust' }, text('fn main() {\n    println!("<&>");\n}\n')),
      node('codeBlock', null, text('```\nfence\n~~~~')),
      node('codeBlock', { language: 'x"y' }),
      node('horizontalRule'),
      node('image', { src: 'a b.png?x=1&y="2"', alt: 'an [image]', title: 'a "title"' }),
      node('image', { src: 'https://example.com/i.png', width: 20 }),
      p(text('line'), node('hardBreak'), text('next', 'bold'), node('hardBreak'), text('bold again', 'bold')),
      p(),
      p(text('hello '), node('mention', { id: 'ada', label: 'Ada <3' }), text('!')),
    ],
  ],
  links: [
    [
      p(text('a '), text('link', link('https://example.com/?a=1&b="2"')), text(' and '), text('x', link('javascript:alert(1)'))),
      p(text('one', link('https://one.example')), text('two', link('https://two.example', { target: null, title: 'T"' }))),
      p(text('bold ', 'bold', link('/a b(c)')), text('rest', link('/a b(c)')), text('mail', link('mailto:a@b.c'))),
      p(text('https://example.com', link('https://example.com')), text('d', link('data:text/html,x'))),
    ],
  ],
  table: [
    [
      node(
        'table',
        null,
        node('tableRow', null, head(null, text('A')), head({ align: 'right' }, text('B | C', 'bold'))),
        node('tableRow', null, cell(null, text('1')), cell({ align: 'right' })),
      ),
      node(
        'table',
        null,
        node('tableRow', null, head({ colspan: 2, colwidth: [100, 200] }, text('wide'))),
        node('tableRow', null, cell({ colwidth: [100] }, text('x')), cell({ colwidth: [200] }, text('y'))),
      ),
      node('table', null, node('tableRow', null, cell({ colwidth: [10] }, text('no head')))),
    ],
  ],
  several: [
    [p(text('The quick brown fox')), p(text('will be deleted')), node('bulletList', null, item(p(text('x'))))],
    (fragment, doc) => {
      const first = fragment.get(0).get(0)
      first.format(4, 5, { bold: {} })
      first.insert(0, '👋 ')
      first.delete(8, 3)
      fragment.delete(1, 1)
    },
    (fragment) => {
      fragment.get(0).get(0).format(2, 10, { italic: {} })
      fragment.get(0).get(0).insert(10, 'INSERTED')
      fragment.get(1).get(0).insert(0, 'kept out of sight ')
      const heading = new Y.XmlElement('heading')
      heading.setAttribute('level', 2)
      heading.insert(0, [new Y.XmlText('late')])
      fragment.insert(3, [heading])
    },
  ],
}

/** Quill's documents. */
const texts = {
  delta: [
    [
      { insert: 'Title' },
      { insert: '\n', attributes: { header: 1 } },
      { insert: 'bold', attributes: { bold: true } },
      { insert: 'both', attributes: { bold: true, italic: true } },
      { insert: ' <plain> ' },
      { insert: 'link', attributes: { link: 'https://example.com' } },
      { insert: '\n\none' },
      { insert: '\n', attributes: { list: 'bullet' } },
      { insert: 'deeper' },
      { insert: '\n', attributes: { list: 'ordered', indent: 1 } },
      { insert: 'two' },
      { insert: '\n', attributes: { list: 'bullet' } },
      { insert: 'done' },
      { insert: '\n', attributes: { list: 'checked' } },
      { insert: 'quote' },
      { insert: '\n', attributes: { blockquote: true } },
      { insert: 'let a = 1\n\n', attributes: { 'code-block': 'js' } },
      { insert: { image: 'https://example.com/a.png' }, attributes: { alt: 'x' } },
      { insert: { formula: 'e=mc^2' } },
      { insert: 'Grüße 👩‍👩‍👧\n' },
    ],
    (text) => {
      text.insert(2, 'XX')
      text.delete(0, 1)
      text.format(3, 6, { underline: true, color: '#f00' })
      text.insertEmbed(4, { large: 2 ** 40, list: [1, null, 2.5, { a: true }] })
      text.insertEmbed(0, new Y.Map([['a', 1]]))
    },
    (text) => {
      text.format(0, 12, { bold: null, italic: true })
      text.delete(6, 4)
      text.applyDelta([{ retain: 3 }, { insert: 'ß', attributes: { strike: true } }])
    },
  ],
}

/** happy-dom leaves angle brackets in attributes as they are; browsers do no more, and Quire does not. */
function html(json) {
  const escaped = (value) => value.replaceAll('<', '&lt;').replaceAll('>', '&gt;')
  return generateHTML(json, extensions).replace(/="[^"]*"/g, escaped)
}

let clients = 0
function edited(first, others) {
  const doc = new Y.Doc()
  doc.clientID = ++clients
  first(doc)
  const start = Y.encodeStateAsUpdate(doc)
  const copies = others.map((edit) => {
    const copy = new Y.Doc()
    copy.clientID = ++clients
    Y.applyUpdate(copy, start)
    copy.transact(() => edit(copy))
    return copy
  })
  for (const copy of copies) Y.applyUpdate(doc, Y.encodeStateAsUpdate(copy))
  return doc
}

function write(name, doc, expected) {
  writeFileSync(join(folder, `${name}.update`), Y.encodeStateAsUpdate(doc))
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(expected, null, 1)}\n`)
}

for (const [name, [content, ...others]] of Object.entries(fragments)) {
  const written = tiptap.prosemirrorJSONToYDoc(schema, node('doc', null, ...content), 'default')
  const doc = edited(
    (doc) => Y.applyUpdate(doc, Y.encodeStateAsUpdate(written)),
    others.map((edit) => (copy) => edit(copy.getXmlFragment('default'), copy)),
  )
  const json = tiptap.yXmlFragmentToProsemirrorJSON(doc.getXmlFragment('default'))
  assert.deepEqual(prosemirror.yXmlFragmentToProsemirrorJSON(doc.getXmlFragment('default')), json)
  write(name, doc, { prosemirror: json, html: html(json) })
}

for (const [name, [delta, ...others]] of Object.entries(texts)) {
  const doc = edited(
    (doc) => doc.getText('quill').applyDelta(delta),
    others.map((edit) => (copy) => edit(copy.getText('quill'))),
  )
  write(name, doc, { delta: doc.getText('quill').toDelta() })
}
