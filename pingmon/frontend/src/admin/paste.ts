// A pasted list of targets, taken apart. Knows no page.

export interface NewTarget {
  name: string;
  address: string;
}

/** One target per line: the last word is the address, what stands before it the name; commas, tabs and # comments are fine. */
export function parseList(text: string): NewTarget[] {
  return text.split("\n").flatMap((line) => {
    const words = line.replace(/(^|\s)#.*/, "").split(/[\s,;]+/).filter(Boolean);
    const address = words.pop();
    return address === undefined ? [] : [{ name: words.join(" ") || address, address }];
  });
}
