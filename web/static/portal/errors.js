/** What can go wrong, by a stable code. What people read for a code is a text of the page (`page.js`), never this. */
export class PortalError extends Error {
  /**
   * @param {string} code names the text that is shown, and tells programs what happened
   * @param {{detail?: string, field?: string, status?: number, cause?: unknown}} [more] `detail` is the service's own
   *   words, for where the page has no text for the code
   */
  constructor(code, more = {}) {
    super(more.detail ?? code, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = "PortalError";
    this.code = code;
    this.detail = more.detail ?? null;
    this.field = more.field ?? null;
    this.status = more.status ?? null;
  }
}
