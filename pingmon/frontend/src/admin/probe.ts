// How a target is probed, as words (`count=3 dscp=46`) and as the API has it. Knows no page.

export type Probe = Record<string, string | number | boolean>;

/** Words of the form name=value; what is wrong with them the server says. */
export function parseProbe(words: string[]): Probe {
  return Object.fromEntries(
    words.map((word) => {
      const [name = "", ...rest] = word.split("=");
      return [name, value(name, rest.join("="))];
    }),
  );
}

function value(name: string, text: string): string | number | boolean {
  if (name === "source") return text;
  if (text === "true" || text === "false") return text === "true";
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

export function spellProbe(probe: Probe): string {
  return Object.entries(probe)
    .map(([name, setting]) => `${name}=${setting}`)
    .join(" ");
}
