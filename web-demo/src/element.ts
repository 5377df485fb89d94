// Finds the elements that index.html promises.

/** The element with this id; the page is broken without it. */
export function element<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  const found = document.getElementById(id)
  if (!found) throw new Error(`The page has no element with the id "${id}".`)
  return found as Kind
}
