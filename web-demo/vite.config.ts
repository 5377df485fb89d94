// How the page is built into dist, and how `npm run dev` reaches a Quire server on this machine.
import { defineConfig } from 'vite'

const server = 'http://127.0.0.1:8080'

export default defineConfig({
  // Two copies of Yjs do not recognize each other's types.
  resolve: { dedupe: ['yjs'] },
  build: {
    target: 'es2022',
    // The page's security policy allows no data: scripts or fonts, and files with hashed names are
    // cached for ever, so everything stays a file of its own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The whole editor is one script: parts of it would always be loaded together.
    chunkSizeWarningLimit: 700,
  },
  server: {
    proxy: {
      '/api': server,
      '/hocuspocus': { target: server, ws: true },
    },
  },
})
