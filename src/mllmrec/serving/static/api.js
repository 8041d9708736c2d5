// The server's JSON. Every failure is a `Problem` with a title, an explanation and what can be done about it.

const KEY = "mllmrec-key";

export class Problem extends Error {
  constructor(kind, title, text, seconds = null) {
    super(text);
    Object.assign(this, { kind, title, seconds });
  }
}

/** The key is kept for this tab alone, until it is closed. */
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

export const get = (path, query = {}, signal = undefined) => {
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null));
  return ask(words.size ? `${path}?${words}` : path, { signal });
};

export const post = (path, body, signal = undefined) =>
  ask(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
    signal,
  });

const pictures = new Map();

/** What an image element can show of a path: the path, or where a key is asked for, what was fetched with it. */
export function picture(path) {
  if (!hasKey()) return path;
  if (!pictures.has(path)) pictures.set(path, fetched(path));
  return pictures.get(path);
}

/** The address of what was fetched of a path with the key; links and images bear none. */
export async function fetched(path) {
  const answer = await fetch(path, { headers: bearing() });
  if (!answer.ok) throw refused(answer, null);
  return URL.createObjectURL(await answer.blob());
}

const bearing = () => (hasKey() ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});

async function ask(path, options) {
  const headers = { Accept: "application/json", ...options.headers, ...bearing() };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("gone", "The server doesn’t answer", "It may have been stopped, or the network is down.");
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body;
  throw refused(answer, body);
}

function refused(answer, body) {
  const seconds = Number(answer.headers.get("Retry-After")) || null;
  const words = typeof body?.message === "string" ? body.message : typeof body?.detail === "string" ? body.detail : "";
  switch (answer.status) {
    case 401:
      sessionStorage.removeItem(KEY);
      return new Problem("key", "This server asks for a key", words || "It was started with an API key.");
    case 404:
      return new Problem("absent", "Not found", words || "The server doesn’t know what was asked for.");
    case 429:
      return new Problem("busy", "Others are in line", words || "The server’s queue is full at the moment.", seconds);
    case 503:
      return new Problem("loading", "The server is getting ready", words || "Models are being loaded.", seconds ?? 3);
    case 504:
      return new Problem("late", "That took too long", words || "No answer came before the server’s deadline.");
    default:
      return new Problem("refused", "The server couldn’t answer", words || `It said ${answer.status}.`);
  }
}
