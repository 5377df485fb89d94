// Lets the page itself open without the server.

export function keepPageOffline(): void {
  // Service workers exist only where nobody can tamper with the page: on https and on this device.
  if (!import.meta.env.PROD || !('serviceWorker' in navigator)) return
  navigator.serviceWorker.register('/sw.js', { updateViaCache: 'none' }).catch((error: unknown) => {
    console.info('The page will not open without the server:', error)
  })
}
