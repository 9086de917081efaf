// The door of the browser part: starts the code of the page named by <body data-page>.
import { startAgents } from "./admin/agents";
import { startPassphrases } from "./admin/passphrases";
import { startTargets } from "./admin/targets";
import { startGrid } from "./grid/page";
import { setUpChrome } from "./ui/chrome";

const pages: Record<string, () => void> = {
  grid: startGrid,
  agents: startAgents,
  targets: startTargets,
  passphrases: startPassphrases,
};

setUpChrome();
pages[document.body.dataset["page"] ?? ""]?.();
