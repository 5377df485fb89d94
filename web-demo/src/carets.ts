// Draws the other people's carets and selections in the text.
import type { DecorationAttrs } from '@tiptap/pm/view'
import type { Awareness } from 'y-protocols/awareness'
import { textColorOn } from './person'
import { type PersonHere, peopleHere } from './presence'

/** A new caret for this person, as the editor's caret extension asks for it. */
export function drawCaret(person: Record<string, unknown>): HTMLElement {
  const caret = document.createElement('span')
  caret.className = 'collaboration-carets__caret'
  const label = document.createElement('span')
  label.className = 'collaboration-carets__label'
  caret.append(label)
  paint(caret, person as unknown as PersonHere)
  return caret
}

/** How the text that this person has selected looks. */
export function drawSelection(person: Record<string, unknown>): DecorationAttrs {
  return { class: 'collaboration-carets__selection', style: `background-color: ${person.color}40` }
}

/** Brings the carets up to date with their people, and their labels inside the text. */
export function tidyCarets(text: HTMLElement, awareness: Awareness): void {
  const people = new Map(peopleHere(awareness).map((person) => [String(person.clientId), person]))
  const rightEdge = text.getBoundingClientRect().right
  for (const caret of text.querySelectorAll<HTMLElement>('.collaboration-carets__caret')) {
    // The editor keeps a caret's element as long as its client, even when the person takes another colour.
    const person = people.get(caret.dataset.clientId ?? '')
    if (person) paint(caret, person)
    const labelWidth = caret.firstElementChild!.getBoundingClientRect().width
    caret.classList.toggle('is-near-edge', caret.getBoundingClientRect().left + labelWidth > rightEdge)
  }
}

/** Shows the names of these people again: a name hides some text, so it rests while its caret does. */
export function wakeLabels(text: HTMLElement, clientIds: number[]): void {
  for (const clientId of clientIds) {
    const label = text.querySelector(`[data-client-id="${clientId}"] > .collaboration-carets__label`)
    for (const rest of label?.getAnimations() ?? []) rest.currentTime = 0
  }
}

function paint(caret: HTMLElement, person: PersonHere): void {
  caret.dataset.clientId = String(person.clientId)
  caret.style.setProperty('--person', person.color)
  caret.style.setProperty('--on-person', textColorOn(person.color))
  const label = caret.firstElementChild!
  if (label.textContent !== person.name) label.textContent = person.name
}
