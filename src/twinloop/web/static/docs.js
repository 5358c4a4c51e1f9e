// Shows openapi.json and lets each question be asked. Nothing from elsewhere, and no text of an answer is ever HTML.

const LONGEST_SHOWN = 100_000;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// A description's words, with what stands between backticks as code.
function prose(text) {
  return (text ?? "").split("`").map((part, k) => (k % 2 ? element("code", {}, part) : part));
}

function resolved(schema, schemas) {
  const name = schema?.$ref?.split("/").pop();
  return name ? { title: name, ...schemas[name] } : schema ?? {};
}

// A schema as a short line: `array of Sample`, `number or null`.
function worded(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(worded).join(" or ");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(", ");
  if (schema.type === "array") return `list of ${worded(schema.items ?? {})}`;
  return schema.type ?? "anything";
}

function table(head, rows) {
  const cells = (kind, texts) => texts.map((text) => element(kind, kind === "th" ? { scope: "col" } : {}, ...prose(text)));
  return element(
    "div", { class: "wide" },
    element("table", {},
      element("thead", {}, element("tr", {}, ...cells("th", head))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row))))),
  );
}

function fieldsOf(schema, schemas) {
  const target = resolved(schema.type === "array" ? schema.items : schema, schemas);
  return (target.anyOf ?? [target]).map((each) => resolved(each, schemas)).filter((each) => each.properties);
}

function answers(operation, schemas) {
  const parts = [];
  for (const [status, answer] of Object.entries(operation.responses)) {
    const kinds = Object.keys(answer.content ?? {}).join(", ");
    parts.push(element("h4", {}, `${status} `, ...prose(answer.description)), element("p", { class: "kinds" }, kinds));
    if (!status.startsWith("2")) continue;
    const json = answer.content?.["application/json"]?.schema;
    for (const shape of json ? fieldsOf(json, schemas) : []) {
      parts.push(element("p", {}, ...prose(shape.description)));
      const rows = Object.entries(shape.properties).map(([key, of]) => [key, worded(of), of.description ?? ""]);
      parts.push(table(["key", "value", ""], rows));
    }
  }
  return element("details", {}, element("summary", {}, "Answers"), ...parts);
}

function inputFor(parameter, identity) {
  const schema = parameter.schema ?? {};
  const choices = (schema.anyOf ?? [schema]).find((each) => each.enum)?.enum;
  const attributes = { id: identity, name: parameter.name, "data-in": parameter.in };
  if (choices) {
    return element("select", attributes, element("option", { value: "" }, ""),
      ...choices.map((each) => element("option", { value: each }, each)));
  }
  return element("input", { ...attributes, placeholder: schema.default ?? "", required: parameter.required,
    autocomplete: "off", spellcheck: "false" });
}

function form(path, method, operation, base) {
  const made = element("form", {});
  for (const parameter of operation.parameters ?? []) {
    const identity = `${operation.operationId}-${parameter.name}`;
    made.append(element("div", { class: "field" },
      element("label", { for: identity }, parameter.name + (parameter.required ? " (needed)" : "")),
      inputFor(parameter, identity),
      element("span", { class: "about" }, ...prose(parameter.description ?? parameter.schema?.description))));
  }
  let body = null;
  if (operation.requestBody) {
    const identity = `${operation.operationId}-body`;
    body = element("textarea", { id: identity, rows: "4", spellcheck: "false" });
    body.value = '[{"tag": "R101.temperature", "time": "-5m", "value": 85.2, "unit": "degC"}]';
    made.append(element("div", { class: "field" }, element("label", { for: identity }, "body"), body));
  }
  const shown = element("pre", { tabindex: "0", "aria-live": "polite", hidden: "" });
  made.append(element("button", { type: "submit" }, `${method.toUpperCase()} ${path}`), shown);
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(made, base + path, method, body, shown);
  });
  return made;
}

function address(made, path) {
  const url = new URL(path, location.href);
  for (const input of made.querySelectorAll("[name]")) {
    const value = input.value.trim();
    if (input.dataset.in === "path") {
      url.pathname = decodeURI(url.pathname).replace(`{${input.name}}`, encodeURIComponent(value));
    } else if (value) url.searchParams.append(input.name, value);
  }
  return url;
}

async function ask(made, path, method, body, shown) {
  const url = address(made, path);
  shown.hidden = false;
  shown.textContent = "...";
  try {
    const began = performance.now();
    const sent = body ? { method, body: body.value, headers: { "Content-Type": "application/json" } } : { method };
    const answer = await fetch(url, sent);
    const text = await answer.text();
    const took = `${(performance.now() - began).toFixed(0)} ms`;
    const next = answer.headers.get("Link");
    const head = [`${url.pathname}${url.search}`, `${answer.status} ${answer.headers.get("Content-Type")}, ${took}`,
      ...(next ? [`Link: ${next}`] : [])];
    const cut = text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}\n... (${text.length} characters)` : text;
    shown.textContent = `${head.join("\n")}\n\n${cut}`;
  } catch (error) {
    shown.textContent = `${url}\n${error}`;
  }
}

function show(described) {
  const schemas = described.components.schemas;
  const base = described.servers[0].url;
  document.getElementById("about").replaceChildren(...prose(described.info.description));
  const contents = document.getElementById("contents");
  const endpoints = document.getElementById("endpoints");
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const title = `${method.toUpperCase()} ${path}`;
      contents.append(element("li", {}, element("a", { href: `#${operation.operationId}` }, title)));
      endpoints.append(element("section", { id: operation.operationId, "aria-label": title },
        element("h2", {}, title),
        element("p", {}, ...prose(operation.description ?? operation.summary)),
        form(path, method, operation, base),
        answers(operation, schemas)));
    }
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  show(await answer.json());
} catch (error) {
  document.getElementById("about").textContent = `openapi.json cannot be read: ${error.message}`;
}
