// Loaded in <head> without `defer`, so that a remembered theme is there before the first paint. Knows no page.
const saved = localStorage.getItem("pingmon.theme");
if (saved === "light" || saved === "dark") document.documentElement.dataset["theme"] = saved;
