// What every page has: the theme switch and the account menu. Both work without knowing which page this is.

type Theme = "light" | "dark";

/** theme.ts has decided it before anything else ran. */
function current(): Theme {
  return document.documentElement.dataset["theme"] === "dark" ? "dark" : "light";
}

export function onThemeChange(callback: () => void): void {
  document.addEventListener("pingmon:theme", callback);
}

function setUpTheme(): void {
  const button = document.querySelector<HTMLButtonElement>("#theme");
  if (!button) return;
  const label = (): void => {
    const next = current() === "dark" ? "light" : "dark";
    button.textContent = next === "dark" ? "☾" : "☀";
    button.setAttribute("aria-label", `Use the ${next} theme`);
    button.title = `Use the ${next} theme`;
  };
  button.addEventListener("click", () => {
    const next: Theme = current() === "dark" ? "light" : "dark";
    document.documentElement.dataset["theme"] = next;
    localStorage.setItem("pingmon.theme", next);
    document.dispatchEvent(new Event("pingmon:theme"));
  });
  onThemeChange(label);
  label();
}

function setUpAccountMenu(): void {
  const menu = document.querySelector<HTMLDetailsElement>("#account");
  if (!menu) return;
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target as Node)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary")?.focus();
  });
}

export function setUpChrome(): void {
  setUpTheme();
  setUpAccountMenu();
}
