// Decides between light and dark: by hand, else as the system has it, also when that changes. Loaded in <head> without
// `defer`, so that the theme is there before the first paint. Knows no page; says `pingmon:theme` after a change.
const dark = matchMedia("(prefers-color-scheme: dark)");

function decide(): void {
  const saved = localStorage.getItem("pingmon.theme");
  const system = dark.matches ? "dark" : "light";
  document.documentElement.dataset["theme"] = saved === "light" || saved === "dark" ? saved : system;
}

dark.addEventListener("change", () => {
  decide();
  document.dispatchEvent(new Event("pingmon:theme"));
});
decide();
