// Who is behind the ids in the history: those who are here say their name and colour.
import type { Awareness } from 'y-protocols/awareness'
import { type Person, personWithId } from './person'
import { peopleHere } from './presence'

/** The person with this id. The server vouches for the id, and nobody for the name: where two claim one id, it stays the name. */
export function authorWithId(awareness: Awareness, id: string | null): Person {
  const here = id === null ? [] : peopleHere(awareness).filter((person) => person.id === id)
  const [first] = here
  return first && here.every((person) => person.name === first.name) ? first : personWithId(id)
}
