// The files in deploy/: what they name is there, what they set is understood, and the tools that will read them have no
// complaint, as far as those tools are installed here.

import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { output, startRedis } from './cluster.mjs'
import { binary, repository, story } from './harness.mjs'

/** How much a service may be exposed, of 100, as systemd reckons. */
const EXPOSED = 20

test('alerts and dashboard ask for what /metrics counts', async () => {
  const counted = await metrics()
  assert.ok(counted.size > 20, 'docs/metrics.md was not understood')
  const dashboard = JSON.parse(await read('grafana/dashboard.json'))
  const files = {
    'alerts.yml': await read('prometheus/alerts.yml'),
    'alerts.test.yml': await read('prometheus/alerts.test.yml'),
    'dashboard.json': expressions(dashboard).join('\n'),
    'autoscaler.yaml': await read('kubernetes/autoscaler.yaml'),
    'prometheus-adapter.values.yaml': await read('kubernetes/prometheus-adapter.values.yaml'),
  }
  for (const [file, text] of Object.entries(files)) {
    const named = [...text.matchAll(/\b(?:quire|process)_[a-z_]+\b/g)].map(([name]) => name)
    assert.ok(named.length > 0, `${file} names no metric`)
    for (const name of named) {
      assert.ok(counted.has(name) || counted.has(name.replace(/_(bucket|sum|count)$/, '')), `${file} names ${name}`)
    }
    for (const [, name, labels] of text.matchAll(/\b((?:quire|process)_[a-z_]+)\{([^}]*)\}/g)) {
      for (const [, label, values] of labels.matchAll(/\b(\w+)(?:=~|!~|!=|=)"([^"]*)"/g)) {
        if (['job', 'instance', 'le', 'namespace', 'pod'].includes(label)) continue
        const known = counted.get(name)
        for (const value of values.split('|')) assert.ok(known.includes(value), `${file}: ${name} has no ${label} "${value}"`)
      }
    }
  }
  for (const name of counted.keys()) {
    if (name.startsWith('quire_')) assert.match(files['dashboard.json'], new RegExp(`\\b${name}`), 'what is counted is shown')
  }
})

test('the alerts call when they are to call, and the dashboard can ask its questions', async (t) => {
  const alerts = await read('prometheus/alerts.yml')
  const tried = await read('prometheus/alerts.test.yml')
  const names = [...alerts.matchAll(/^ +- alert: (\w+)$/gm)].map(([, name]) => name)
  assert.ok(names.length > 10)
  for (const name of names) assert.ok(tried.includes(name), `${name} is not tried`)

  if (!await passes(t, 'promtool', ['check', 'config', 'deploy/prometheus/prometheus.yml'])) return
  await passes(t, 'promtool', ['test', 'rules', 'deploy/prometheus/alerts.test.yml'])
  const rules = expressions(JSON.parse(await read('grafana/dashboard.json'))).map((expression, n) => ({
    record: `panel:${n}`,
    expr: expression.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*'),
  }))
  const folder = await temporary(t)
  const file = join(folder, 'dashboard.yml')
  await writeFile(file, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }))
  await passes(t, 'promtool', ['check', 'rules', file])
})

test('systemd understands the service, and it is shut in', async (t) => {
  const folder = await temporary(t)
  const file = join(folder, 'quire.service')
  const service = await read('systemd/quire.service')
  await writeFile(file, service.replace('/usr/local/bin/quire', binary))
  const verified = await passes(t, 'systemd-analyze', ['verify', '--man=no', file])
  if (!verified) return
  // A value that it does not understand is no error for it: it goes without.
  assert.doesNotMatch(verified.said, /quire\.service/)
  const security = ['security', '--offline=true', '--no-pager', `--threshold=${EXPOSED}`, file]
  await passes(t, 'systemd-analyze', security, /Unknown|unrecognized|Failed to/)
})

story('the settings of the service are understood, and ask for a token', async (scene) => {
  const server = await scene.serve({ flags: ['--config', join(repository, 'deploy/systemd/quire.toml')] })
  const response = await fetch(`${server.url}/api/documents/plan?format=text`)
  assert.equal(response.status, 401)
})

story('a node starts with what its pod is told, and answers its probes', async (scene) => {
  const deployment = await read('kubernetes/deployment.yaml')
  const { url } = await startRedis(scene)
  const given = { QUIRE_REDIS: url, QUIRE_SECRET: 'known to nobody but these tests, and long enough' }
  const told = [...deployment.matchAll(/- name: (QUIRE_\w+)\n +(?:value: (.+)|valueFrom:)$/gm)]
  const variables = told.map(([, name, value]) => [name, value?.replaceAll('"', '') ?? given[name]])
  assert.ok(variables.length > 5)
  assert.ok(variables.every(([, value]) => value), `nothing is given for one of ${variables}`)
  const server = await scene.serve({ variables: Object.fromEntries(variables) })
  const probes = [...deployment.matchAll(/path: (\/\w+)$/gm)].map(([, path]) => path)
  assert.deepEqual([...new Set(probes)].sort(), ['/healthz', '/readyz'])
  for (const path of probes) assert.equal((await fetch(`${server.url}${path}`)).status, 200, path)
  // Kubernetes' own variables for a Service of this name would stop the start.
  assert.match(deployment, /^ +enableServiceLinks: false$/m)
})

test("Kubernetes' schemas hold", async (t) => {
  const settings = ['kustomization.yaml', 'prometheus-adapter.values.yaml', 'prometheus.yml']
  const manifests = (await readdir(join(repository, 'deploy/kubernetes'))).filter((name) => !settings.includes(name))
  const kustomization = await read('kubernetes/kustomization.yaml')
  for (const [, name] of kustomization.matchAll(/^ {2}- (\S+\.yaml)$/gm)) assert.ok(manifests.includes(name), name)
  const files = manifests.map((name) => join('deploy/kubernetes', name))
  await passes(t, 'kubernetes-validate', ['--strict', ...files])
})

test('whoever stops a node gives it the time that it takes', async () => {
  const config = await readFile(join(repository, 'src/config.rs'), 'utf8')
  const server = await readFile(join(repository, 'src/lib.rs'), 'utf8')
  const compose = await readFile(join(repository, 'docker-compose.yml'), 'utf8')
  const seconds = (text, pattern) => Number(pattern.exec(text)?.[1] ?? assert.fail(`there is no ${pattern}`))
  const takes = seconds(config, /drain: Duration::from_secs\((\d+)\)/) + seconds(server, /STOP_WITHIN: Duration = Duration::from_secs\((\d+)\)/)
  const given = {
    'quire.service': seconds(await read('systemd/quire.service'), /TimeoutStopSec=(\d+)/),
    'deployment.yaml': seconds(await read('kubernetes/deployment.yaml'), /terminationGracePeriodSeconds: (\d+)/),
    'docker-compose.yml': seconds(compose, /stop_grace_period: (\d+)s/),
  }
  for (const [file, time] of Object.entries(given)) assert.ok(time > takes, `${file} gives ${time} of ${takes} seconds`)
})

function read(path) {
  return readFile(join(repository, 'deploy', path), 'utf8')
}

/** Each metric of docs/metrics.md, with the values of its label. */
async function metrics() {
  const page = await readFile(join(repository, 'docs/metrics.md'), 'utf8')
  return new Map([...page.matchAll(/^\| `(\w+)` \| \w+ \|([^|]*)\|/gm)].map(([, name, labels]) => {
    const [, ...values] = [...labels.matchAll(/`([^`]+)`/g)].map(([, word]) => word)
    return [name, values]
  }))
}

/** What the panels of a dashboard ask. */
function expressions({ panels }) {
  return panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
}

async function temporary(t) {
  const folder = await mkdtemp(join(tmpdir(), 'quire-deploy-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  return folder
}

/** Runs a tool, which must have no complaint; undefined where it is not here, or cannot do this. */
async function passes(t, command, args, cannot = /^$/) {
  const checked = await output(command, args)
  if (!checked || (checked.code !== 0 && cannot.test(checked.said))) {
    t.diagnostic(`not checked: ${command} cannot do it here`)
    return undefined
  }
  assert.equal(checked.code, 0, checked.said)
  return checked
}
