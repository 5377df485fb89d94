// Opens the page when the server cannot be reached. The server's page always comes first; this
// keeps the last one seen, with the files it names. Everything else (/api, /ws, …) passes by.

const CACHE = 'quire-page'
const PAGE = '/'

/** What a proxy answers in place of a server that is away. */
const AWAY = [502, 503, 504]

self.addEventListener('install', (event) => {
  event.waitUntil(fetch(PAGE, { cache: 'no-cache' }).then(keep).then(() => self.skipWaiting()))
})

self.addEventListener('activate', (event) => {
  event.waitUntil(self.clients.claim())
})

self.addEventListener('fetch', (event) => {
  const { request } = event
  const { origin, pathname } = new URL(request.url)
  if (request.method !== 'GET' || origin !== self.location.origin) return
  if (request.mode === 'navigate' && pathname === PAGE) event.respondWith(page(event))
  if (pathname.startsWith('/assets/')) event.respondWith(asset(request))
})

async function page(event) {
  try {
    const response = await fetch(event.request)
    if (AWAY.includes(response.status)) return (await caches.match(PAGE)) ?? response
    // Keeping is a courtesy: it must not delay the page, nor fail it.
    event.waitUntil(keep(response.clone()).catch(() => {}))
    return response
  } catch (error) {
    const kept = await caches.match(PAGE)
    if (kept) return kept
    throw error
  }
}

/** A file with a hash in its name never changes, so a kept one is as good as the server's. */
async function asset(request) {
  return (await caches.match(request)) ?? fetch(request)
}

/** Keeps the page and exactly the files that it names. */
async function keep(response) {
  const type = response.headers.get('content-type') ?? ''
  if (!response.ok || response.redirected || !type.startsWith('text/html')) return
  const cache = await caches.open(CACHE)
  const html = await response.clone().text()
  const named = [...html.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map((match) => match[1])

  // The files first: a page kept without them would open empty.
  const kept = (await cache.keys()).map((request) => new URL(request.url).pathname)
  await cache.addAll(named.filter((path) => !kept.includes(path)))
  await cache.put(PAGE, response)
  await Promise.all(kept.filter((path) => path !== PAGE && !named.includes(path)).map((path) => cache.delete(path)))
}
