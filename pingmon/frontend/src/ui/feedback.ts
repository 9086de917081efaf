// Answers to the user: a short notice, a question before something is lost, and the copy button.
import { h, must } from "./dom";

export function notify(message: string, kind: "good" | "bad" = "good"): void {
  const note = h("div", { class: `note note-${kind}`, role: kind === "bad" ? "alert" : "status" }, message);
  const close = h("button", { class: "note-close", type: "button", "aria-label": "Dismiss", on: { click: () => note.remove() } }, "×");
  note.append(close);
  must("#notes").append(note);
  setTimeout(() => note.remove(), kind === "bad" ? 15000 : 6000);
}

export function report(error: unknown): void {
  notify(error instanceof Error ? error.message : String(error), "bad");
}

export interface Question {
  title: string;
  text: string;
  /** lines to look at, as they are */
  detail?: string;
  action: string;
  danger?: boolean;
}

export function confirm(question: Question): Promise<boolean> {
  return new Promise((resolve) => {
    const yes = h("button", { class: question.danger ? "button danger" : "button primary", value: "yes" }, question.action);
    const no = h("button", { class: "button", value: "no" }, "Cancel");
    const dialog = h(
      "dialog",
      { class: question.detail ? "dialog wide" : "dialog", "aria-label": question.title },
      h("form", { method: "dialog" }, h("h2", {}, question.title), h("p", {}, question.text), question.detail && h("pre", { class: "detail" }, question.detail), h("div", { class: "dialog-actions" }, no, yes)),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
    no.focus();
  });
}

export function copyButton(text: () => string, label = "Copy"): HTMLButtonElement {
  const button = h("button", { class: "button small", type: "button" }, label);
  button.addEventListener("click", () => {
    navigator.clipboard.writeText(text()).then(
      () => {
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = label), 1500);
      },
      () => notify("The browser did not allow copying. Select the text and copy it by hand.", "bad"),
    );
  });
  return button;
}
