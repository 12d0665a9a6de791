// Requests to the server that served this page.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function answered(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text;
  try {
    message = JSON.parse(text).detail ?? text;
  } catch {
    // a refusal of the guard is plain text
  }
  throw new Refused(answer.status, String(message).trim());
}

export async function getJson(path) {
  return (await answered(path)).json();
}

export async function getBuffer(path) {
  const answer = await answered(path);
  return { headers: answer.headers, buffer: await answer.arrayBuffer() };
}

export async function postJson(path, body) {
  const headers = { "content-type": "application/json" };
  return (await answered(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}
