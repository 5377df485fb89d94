// Marks in a text what was inserted, and shows where something was deleted, each with who did it.
import type { Node } from '@tiptap/pm/model'
import { Decoration, DecorationSet } from '@tiptap/pm/view'
import type { Part } from './versions'

/** A UTF-16 unit of the text and where it stands; a line break stands for the end of a paragraph. */
interface Unit {
  readonly text: string
  readonly at: number
}

/** The marks of these parts in the text that they are of. */
export function marksOf(doc: Node, parts: readonly Part[], nameOf: (user: string | null) => string): DecorationSet {
  const units: Unit[] = []
  read(doc, 0, units)
  const marks: Decoration[] = []
  let next = 0

  for (const { change, user, text } of parts) {
    if (change === 'deleted') {
      const title = `Deleted by ${nameOf(user)}`
      // Whole paragraphs stand between those that are left, the rest where it was in its paragraph.
      const at = units[next]?.at ?? doc.content.size
      const place = doc.resolve(at)
      const startsLine = !place.parent.isTextblock || place.parentOffset === 0
      const lines = startsLine ? text.slice(0, text.lastIndexOf('\n') + 1) : ''
      const rest = text.slice(lines.length)
      if (lines !== '') marks.push(deletion(lines, title, place.parent.isTextblock ? place.before() : at, 'deleted-lines'))
      if (rest !== '') marks.push(deletion(rest, title, at, 'deleted'))
      continue
    }
    const from = next
    for (const unit of text) next = skip(units, next, unit)
    if (change === 'inserted') {
      const title = `Inserted by ${nameOf(user)}`
      for (const [start, end] of stretches(units.slice(from, next))) {
        marks.push(Decoration.inline(start, end, { nodeName: 'ins', title }))
      }
    }
  }
  return DecorationSet.create(doc, marks)
}

function read(parent: Node, start: number, units: Unit[]): void {
  parent.forEach((child, offset) => {
    const at = start + offset
    if (child.isText) {
      for (let index = 0; index < child.text!.length; index += 1) units.push({ text: child.text![index]!, at: at + index })
    } else {
      read(child, at + 1, units)
      if (child.isTextblock) units.push({ text: '\n', at: at + child.nodeSize - 1 })
      if (child.isLeaf) units.push({ text: '\n', at })
    }
  })
}

/**
 * The place behind this character. Where the server and the editor do not agree on where lines break, or the editor
 * leaves out what it does not know, the characters are found again behind that.
 */
function skip(units: readonly Unit[], next: number, character: string): number {
  let at = next
  if (character !== '\n') while (units[at]?.text === '\n') at += 1
  return units[at]?.text === character[0] ? at + character.length : next
}

/** Where stretches of text begin and end that nothing stands between. */
function stretches(units: readonly Unit[]): [number, number][] {
  const found: [number, number][] = []
  for (const { text, at } of units) {
    const last = found.at(-1)
    if (text === '\n') continue
    if (last && last[1] === at) last[1] = at + 1
    else found.push([at, at + 1])
  }
  return found
}

function deletion(text: string, title: string, at: number, kind: string): Decoration {
  const element = document.createElement('del')
  element.className = kind
  element.title = title
  element.textContent = kind === 'deleted' ? text : text.replace(/\n$/, '')
  return Decoration.widget(at, element, { side: -1 })
}
