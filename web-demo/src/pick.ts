// Chance, for names and colours.

/** One of the choices, each as likely as the others. */
export function pick<Choice>(choices: readonly Choice[]): Choice {
  return choices[Math.floor(Math.random() * choices.length)]!
}
