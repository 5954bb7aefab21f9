"use strict";
// Everything is put into the page as text, never as markup.
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "for") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

let api;
const follow = (value) => {
  if (!value || !value.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((found, step) => found[step], api);
};

const kindOf = (schema) => {
  const name = schema.$ref && schema.$ref.split("/").pop();
  schema = follow(schema);
  const any = schema.anyOf || schema.oneOf;
  if (name && !schema.enum && !any) return name;
  if (any) return any.map(kindOf).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.type === "array") return `[${kindOf(schema.items || {})}]`;
  return schema.format ? `${schema.type} (${schema.format})` : schema.type || "any";
};

const limitsOf = (schema) => {
  const words = { minimum: "≥", maximum: "≤", minLength: "length ≥", maxLength: "length ≤", minItems: "items ≥", maxItems: "items ≤" };
  const found = Object.entries(words).filter(([name]) => schema[name] !== undefined).map(([name, word]) => `${word} ${schema[name]}`);
  if (schema.default !== undefined && schema.default !== null) found.push(`default ${JSON.stringify(schema.default)}`);
  return found.join(", ");
};

const tableOf = (schema) => {
  const required = new Set(schema.required || []);
  const rows = Object.entries(schema.properties || {}).map(([name, field]) => make("tr", {},
    make("td", {}, make("code", { textContent: name + (required.has(name) ? " *" : "") })),
    make("td", {}, make("code", { textContent: kindOf(field) })),
    make("td", { textContent: [field.description, limitsOf(field)].filter(Boolean).join(" ") })));
  return make("table", {}, make("tbody", {}, ...rows));
};

const models = (schema, seen = new Set()) => {
  // The schema and all that it refers to, each once.
  const found = [];
  const look = (part) => {
    if (!part || typeof part !== "object") return;
    if (part.$ref && part.$ref.startsWith("#/components/schemas/")) {
      const name = part.$ref.split("/").pop();
      if (seen.has(name)) return;
      seen.add(name);
      const model = follow(part);
      if (model.properties) found.push([name, model]);
      look(model);
      return;
    }
    Object.values(part).forEach(look);
  };
  look(schema);
  return found.map(([name, model]) => make("details", {}, make("summary", {}, make("code", { textContent: name }), ` ${model.description || ""}`), tableOf(model)));
};

const headersOf = () => {
  const key = document.getElementById("key").value.trim();
  return key ? { Authorization: `Bearer ${key}` } : {};
};

const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const curlOf = (method, url, headers, body) => {
  const shown = { ...headers, ...(headers.Authorization ? { Authorization: "Bearer $KEY" } : {}) };
  const lines = [`curl -X ${method.toUpperCase()} ${shellQuoted(new URL(url, location.href).href)}`];
  for (const [name, value] of Object.entries(shown)) {
    lines.push(name === "Authorization" ? `-H "Authorization: Bearer $KEY"` : `-H ${shellQuoted(`${name}: ${value}`)}`);
  }
  if (typeof body === "string") lines.push(`-d ${shellQuoted(body)}`);
  if (body instanceof FormData) lines.push("-F file=@picture.png");
  return lines.join(" \\\n  ");
};

const send = async (form, method, path, output) => {
  let url = path.slice(1);
  const headers = headersOf();
  const query = new URLSearchParams();
  for (const input of form.querySelectorAll("input[data-in]")) {
    if (!input.value) continue;
    if (input.dataset.in === "path") url = url.replace(`{${input.name}}`, encodeURIComponent(input.value));
    if (input.dataset.in === "query") query.set(input.name, input.value);
    if (input.dataset.in === "header") headers[input.name] = input.value;
  }
  if ([...query].length) url += `?${query}`;
  let body;
  const text = form.querySelector("textarea"), file = form.querySelector("input[type=file]");
  if (text && text.value.trim()) {
    headers["Content-Type"] = "application/json";
    body = text.value;
  } else if (file && file.files.length) {
    body = new FormData();
    body.append("file", file.files[0]);
  }
  output.textContent = `${curlOf(method, url, headers, body)}\n\n…`;
  const head = output.textContent.slice(0, -1);
  try {
    const answer = await fetch(url, { method: method.toUpperCase(), headers, body, cache: "no-store" });
    const told = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    output.textContent = `${head}${answer.status} ${answer.statusText}\n${told}\n\n`;
    await show(answer, output);
  } catch (error) {
    output.textContent = `${head}${error}`;
  }
};

const show = async (answer, output) => {
  if ((answer.headers.get("content-type") || "").includes("json")) {
    output.textContent += JSON.stringify(await answer.json(), null, 2);
    return;
  }
  if (!answer.body) return;
  for (const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
    const { value, done } = await reader.read();
    if (done) return;
    output.textContent += value;
  }
};

const bodyOf = (operation) => {
  const body = operation.requestBody;
  if (!body) return [];
  if (body.content["multipart/form-data"]) return [make("label", {}, make("span", { textContent: "file" }), make("input", { type: "file", accept: "image/*" }))];
  const { schema, examples } = body.content["application/json"];
  const names = Object.keys(examples || {});
  const text = make("textarea", { spellcheck: false, value: names.length ? JSON.stringify(examples[names[0]].value, null, 2) : "{}" });
  const choice = make("select", { onchange: () => { text.value = JSON.stringify(examples[choice.value].value, null, 2); } }, ...names.map((name) => make("option", { value: name, textContent: name })));
  return [make("h3", { textContent: "Body" }), ...models(schema), names.length > 1 ? choice : null, text];
};

const routeOf = (method, path, operation) => {
  const output = make("pre", { hidden: true });
  const inputs = (operation.parameters || []).map(follow).map((one) => make("label", {},
    make("span", {}, make("code", { textContent: one.name + (one.required ? " *" : "") })),
    make("input", { name: one.name, "data-in": one.in, placeholder: kindOf(one.schema), title: one.description || "" }),
    ` ${one.description || ""}`));
  const answers = Object.entries(operation.responses).map(([status, answer]) => [status, follow(answer)]).map(([status, answer]) => make("tr", {},
    make("td", {}, make("code", { textContent: status })), make("td", { textContent: answer.description })));
  const form = make("form", { onsubmit: (event) => {
    event.preventDefault();
    output.hidden = false;
    send(form, method, path, output);
  } }, ...inputs, ...bodyOf(operation), make("button", { type: "submit", textContent: "Send" }));
  const success = Object.entries(operation.responses).filter(([status]) => status < "300").map(([, answer]) => follow(answer).content);
  return make("details", { className: "route", id: operation.operationId },
    make("summary", {}, make("span", { className: "method", textContent: method.toUpperCase() }), make("code", { textContent: path }), ` ${operation.summary}`),
    make("div", {}, make("p", { textContent: operation.description || "" }), form, output,
      make("h3", { textContent: "Answers" }), make("table", {}, make("tbody", {}, ...answers)), ...models(success)));
};

fetch("openapi.json").then((answer) => answer.json()).then((document_) => {
  api = document_;
  document.getElementById("about").textContent = `${api.info.description} Version ${api.info.version}.`;
  const routes = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => routeOf(method, path, operation)));
  document.getElementById("routes").append(...routes);
  if (location.hash) document.getElementById(location.hash.slice(1))?.setAttribute("open", "");
}).catch((error) => { document.getElementById("about").textContent = String(error); });
