/** A model and its branch, tag or commit. */
export interface HubName {
  repo: string
  revision: string
}

/** `org/name` or `org/name@revision`; null for anything else. */
export function parseHubName(text: string): HubName | null {
  const [, repo, revision = "main"] = /^([\w.-]{1,96}\/[\w.-]{1,96})(?:@([\w./-]{1,200}))?$/.exec(text) ?? []
  const odd = (part: string) => !part || /^[.-]|[.-]$|\.\.|--/.test(part)
  if (!repo || repo.split("/").some(odd) || revision.split("/").some((part) => !part || /^\.|\.\./.test(part)))
    return null
  return { repo, revision }
}

export const isCommit = (text: string) => /^[0-9a-f]{40}$/.test(text)
