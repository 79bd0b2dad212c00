import { InputError } from "../errors"

/** Names of query parameters that hold secrets, and values that look like one. */
const secretName = /key|token|secret|sig|pass|pwd|auth|cred|code|jwt|bearer|session/i
const secretValue = /(?:^|[^a-z])(?:sk|pk|hf|gsk|xai|key|api)[-_][\w-]{8,}|AIza[\w-]{10,}|[\w+/=-]{24,}/i
/** Tokens as services make them, with a digit; a path has words of its own, such as hf-inference. */
export const secretText =
  /(?<![a-z])(?:sk|pk|hf|gsk|xai|ghp|glpat|nvapi|pplx)[-_](?=[\w-]*\d)[\w-]{8,}|AIza[\w-]{10,}|AKIA[A-Z\d]{12}|eyJ[\w-]{8,}\.eyJ/i

/**
 * The address of a server. Addresses are written into settings, keys and reports, so one that holds a secret is
 * refused. A query such as `?api-version=2024-10-21` is kept and sent with every request.
 * @throws InputError for no http(s) address, and one with user, password, or what looks like a key
 */
export function serverAddress(text: string, field?: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || !/^https?:$/.test(url.protocol) || !url.hostname) {
    const got = text
      .replace(/^.*@/s, "[…]@")
      .replace(/[?#].*$/s, "?[…]")
      .replace(secretText, "[…]")
      .slice(0, 100)
    throw new InputError(`must be an address such as http://127.0.0.1:8000/v1, got ${got || "nothing"}; correct it`, {
      field,
    })
  }
  const place = secretIn(url)
  if (!place) {
    url.hash = ""
    return url
  }
  const shown = url.origin + (place === "its path" ? "/…" : url.pathname)
  const rule = `${shown} must hold no secret, since addresses are kept with the results, got one in ${place}`
  const way =
    "take it out, put the key into an environment variable, and name that by --key-variable (library: keyVariable)"
  const basic =
    url.username || url.password ? '; for a user and password the variable holds "Basic " and their base64' : ""
  throw new InputError(`${rule}; ${way}${basic}`, { field })
}

function secretIn(url: URL): string | undefined {
  if (url.username || url.password) return "user and password"
  for (const [name, value] of url.searchParams) {
    if (secretName.test(name) || secretValue.test(value)) return `its query (${name})`
  }
  if (secretValue.test(decoded(url.hash))) return "its fragment"
  return secretText.test(decoded(url.pathname)) ? "its path" : undefined
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/**
 * The addresses of one list, separated by commas. @throws InputError as `serverAddress`, for an empty list, for a
 * repeat
 */
export function serverAddresses(list: string, field?: string): URL[] {
  const urls = list.split(",").map((text) => serverAddress(text.trim(), field))
  const plain = urls.map(({ href }) => href.replace(/\/+(?=$|\?)/, ""))
  const twice = urls.find((_, i) => plain.indexOf(plain[i]!) < i)
  if (twice) throw new InputError(`must name each server once, got ${twice.href} twice; leave one out`, { field })
  return urls
}

/** An address with a path behind its own, before its query. */
export function below({ href }: URL, path: string): URL {
  const url = new URL(href)
  url.pathname = `${url.pathname.replace(/\/+$/, "")}/${path}`
  return url
}

/** An address for messages: without query. */
export const shownAddress = ({ origin, pathname }: URL) => origin + pathname
