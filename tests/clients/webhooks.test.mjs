// An application that uses the published library of Standard Webhooks cannot trust what it is told, or believes what
// somebody else has made up.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { Webhook } from 'standardwebhooks'
import { eventually, story } from './harness.mjs'

const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

/** An application that keeps what it is told. */
async function application(scene) {
  const told = []
  const server = createServer(async (request, response) => {
    const body = (await request.setEncoding('utf8').toArray()).join('')
    told.push({ body, headers: request.headers })
    response.writeHead(204).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  scene.afterwards(() => server.closeAllConnections() ?? server.close())
  return { url: `http://127.0.0.1:${server.address().port}/hook`, told }
}

story('what is told is verified, and what was changed on its way is not', async (scene) => {
  const { url, told } = await application(scene)
  const server = await scene.serve({
    flags: ['--webhook', url, '--webhook-pause', '1'],
    variables: { QUIRE_WEBHOOK_SECRET: secret },
  })
  const alice = await scene.visit(server, 'letter', 'Alice')
  alice.types('hello')
  await eventually(() => assert.equal(told.length, 2))

  const webhook = new Webhook(secret)
  const events = told.map(({ body, headers }) => webhook.verify(body, headers))
  assert.deepEqual(
    events.map(({ type, data }) => ({ type, data })),
    [
      { type: 'session.began', data: { document: 'letter', user: null } },
      { type: 'document.changed', data: { document: 'letter', users: [] } },
    ],
  )
  for (const { timestamp } of events) assert.ok(Math.abs(Date.now() - Date.parse(timestamp)) < 30_000, timestamp)

  const [{ body, headers }] = told
  const other = new Webhook('whsec_' + Buffer.alloc(32, 7).toString('base64'))
  assert.throws(() => other.verify(body, headers), /signature/)
  assert.throws(() => webhook.verify(body.replace('letter', 'poem'), headers), /signature/)
  assert.throws(() => webhook.verify(body, { ...headers, 'webhook-id': 'msg_1' }), /signature/)
  const later = String(Number(headers['webhook-timestamp']) + 1)
  assert.throws(() => webhook.verify(body, { ...headers, 'webhook-timestamp': later }), /signature/)
})
