// What the page believes of other clients' presence: only what has the right shape.
import type { Awareness } from 'y-protocols/awareness'
import { type Person, personFromStranger } from './person'

export interface PersonHere extends Person {
  readonly clientId: number
}

/** Everybody who says who they are, this visitor included. */
export function peopleHere(awareness: Awareness): PersonHere[] {
  const people: PersonHere[] = []
  for (const [clientId, state] of awareness.getStates()) {
    const person = personFromStranger(state?.user)
    if (person) people.push({ clientId, ...person })
  }
  return people
}

/**
 * The awareness as the carets may see it. The caret plugin trusts every state, and a malformed one
 * from any client would throw inside each editor of the document; here such a state has no caret.
 */
export function presenceForCarets(awareness: Awareness): Awareness {
  return Object.create(awareness, { getStates: { value: () => statesWithCarets(awareness) } })
}

function statesWithCarets(awareness: Awareness): Map<number, object> {
  const states = new Map<number, object>()
  for (const [clientId, state] of awareness.getStates()) {
    const person = personFromStranger(state?.user ?? {})
    if (isCursor(state?.cursor)) states.set(clientId, { cursor: state.cursor, user: { clientId, ...person } })
  }
  return states
}

function isCursor(value: unknown): boolean {
  return isRecord(value) && isPosition(value.anchor) && isPosition(value.head)
}

/** Whether this is a Yjs relative position as JSON. */
function isPosition(value: unknown): boolean {
  if (!isRecord(value)) return false
  const { type, tname, item, assoc } = value
  return isIdOrNothing(type) && isIdOrNothing(item) && (type ?? item ?? tname) != null
    && (tname == null || tname === 'default') && (assoc == null || Number.isInteger(assoc))
}

function isIdOrNothing(value: unknown): boolean {
  return value == null || (isRecord(value) && isCount(value.client) && isCount(value.clock))
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
