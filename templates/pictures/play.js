// The playground: what is typed goes to the server, and its diagnostics and its page come back.
"use strict";
(() => {
  const field = id => document.getElementById(id);
  const said = field("diagnostics"), picture = field("picture"), choice = field("pattern");
  let waiting = null, sent = null, wanted = null;

  const number = id => (field(id).value === "" ? null : Math.trunc(Number(field(id).value)));

  async function draw() {
    if (sent) sent.abort();
    sent = new AbortController();
    const {signal} = sent;
    const asked = {
      text: field("text").value, pattern: wanted, heads: number("heads"), kv_heads: number("kv_heads"),
      seq_len: number("seq_len"),
    };
    let answer;
    try {
      const response = await fetch("/draw", {
        method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(asked), signal,
      });
      answer = await response.json();
    } catch (error) {
      if (!signal.aborted) tell(`no answer: ${error.message}`, true);
      return;
    }
    if (signal.aborted) return;
    if (answer.error) {
      tell(answer.error, true);
      return;
    }
    tell(answer.diagnostics || "no problems", answer.errors);
    if (answer.patterns.length) {
      choice.replaceChildren(...answer.patterns.map(name => Object.assign(document.createElement("option"), {
        value: name, textContent: name,
      })));
      choice.value = answer.drawn;
    }
    if (answer.page !== null) picture.srcdoc = answer.page; // a text with errors leaves the last picture
    document.body.dataset.drawn = answer.page === null ? "" : answer.drawn;
  }

  // Lines of a source stay whole, so that carets stand below what they point at; others are wrapped.
  function tell(text, errors) {
    said.replaceChildren(...text.split("\n").map((line, n) => {
      const made = document.createElement("span");
      made.textContent = (n ? "\n" : "") + line;
      if (/^ *\d* *\|/.test(line)) made.className = "source";
      return made;
    }));
    said.classList.toggle("errors", errors);
  }

  function soon() {
    clearTimeout(waiting);
    waiting = setTimeout(draw, 150);
  }

  window.addEventListener("message", event => {
    if (event.source === picture.contentWindow && event.data && typeof event.data.drawn === "string") {
      document.body.dataset.pictured = event.data.drawn;
    }
  });
  ["text", "heads", "kv_heads", "seq_len"].forEach(id => field(id).addEventListener("input", soon));
  choice.addEventListener("change", () => {
    wanted = choice.value;
    draw();
  });
  draw();
})();
