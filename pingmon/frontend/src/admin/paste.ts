// A pasted list of targets, taken apart. Knows no page.
import { parseProbe, type Probe } from "./probe";

export interface NewTarget {
  name: string;
  address: string;
  probe: Probe;
}

/**
 * One target per line: name, address, then settings such as count=3. The last word that is no setting is the address,
 * what stands before it the name; commas, tabs and # comments are fine.
 */
export function parseList(text: string): NewTarget[] {
  return text.split("\n").flatMap((line) => {
    const all = line.replace(/(^|\s)#.*/, "").split(/[\s,;]+/).filter(Boolean);
    const words = all.filter((word) => !word.includes("="));
    const probe = parseProbe(all.filter((word) => word.includes("=")));
    const address = words.pop();
    return address === undefined ? [] : [{ name: words.join(" ") || address, address, probe }];
  });
}
